"""Draw gymnax's environments with Matplotlib, or with the user's own `render` method."""

import inspect
import sys
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from sacjax.envs.gymnax import base_env
from sacjax.types import Episode, InputError


def pictures(env: Any, parsed: Any, episode: Episode) -> Iterator[np.ndarray]:
    """Draw a picture of each state of an episode.

    Your own environment may define `render(state)` or `render(state, params)`. The method
    `render` must return pixels [H, W, 3] of uint8, or a Matplotlib figure. If your environment has
    no `render` method, sacjax draws the numbers in each observation as bars.

    Args:
      env: the name of a gymnax environment, or an `Environment` object.
      parsed: the parts of the environment's name. This function ignores it.
      episode: the episode to draw, which has T steps.

    Yields:
      T pictures, each an array of pixels [H, W, 3].

    Raises:
      InputError: `render` raises an error, or returns neither pixels nor a figure.
    """
    base = base_env(env)
    render: Any = getattr(base, "render", None)
    if callable(render) and not render.__module__.startswith("gymnax."):
        arguments = len(inspect.signature(render).parameters)
        for state in episode.states:
            yield _pixels(base.name, render(*(state, base.default_params)[:arguments]))
        return
    draw, shown, params = _DRAWINGS.get(base.name), episode.states, base.default_params
    if draw is None:
        draw, shown, params = _draw_observation, episode.obs, _limits(episode.obs)
    figure = Figure(figsize=(4, 4), dpi=80, layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(base.name, fontsize=9, loc="right")
    for state in jax.device_get(shown):
        for artist in (*axes.lines, *axes.patches, *axes.texts):  # faster than axes.clear()
            artist.remove()
        draw(axes, getattr(state, "env_state", state), params)  # LogWrapper wraps the state
        yield _pixels(base.name, figure)
        figure.set_layout_engine("none")  # all pictures share the first picture's layout


def _pixels(name: str, shown: Any) -> np.ndarray:
    """Convert the result of `render` to pixels [H, W, 3], or raise InputError."""
    shown = shown[0] if isinstance(shown, tuple) else shown  # a tuple (figure, axes)
    if isinstance(shown, Figure):
        canvas = FigureCanvasAgg(shown)
        canvas.draw()
        if "matplotlib.pyplot" in sys.modules:  # pyplot keeps figures until they are closed
            sys.modules["matplotlib.pyplot"].close(shown)
        return np.asarray(canvas.buffer_rgba())[..., :3].copy()
    pixels = np.asarray(shown)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise InputError(
            f"render(state) of {name} returned {type(shown).__name__} of {pixels.dtype} "
            f"{list(pixels.shape)}: return pixels [H, W, 3] of uint8, or a Matplotlib figure",
            "render",
        )
    return pixels


def _set_square_limits(axes: Any, limit: float) -> None:
    """Set the range of both axes to [-limit, limit], and draw a frame around the picture."""
    axes.spines[:].set_visible(True)
    axes.set(xlim=(-limit, limit), ylim=(-limit, limit), xticks=[], yticks=[], aspect="equal")


def _draw_pendulum(axes: Any, state: Any, params: Any) -> None:
    _set_square_limits(axes, 1.3)  # theta is 0 for an upright pole, and grows counter-clockwise
    tip = -np.sin(state.theta), np.cos(state.theta)
    axes.plot([0, tip[0]], [0, tip[1]], color="C3", linewidth=10, solid_capstyle="round")
    axes.plot(0, 0, "o", color="black", markersize=6)


def _draw_mountain_car(axes: Any, state: Any, params: Any) -> None:
    x = np.linspace(params.min_position, params.max_position, 100)
    axes.plot(x, np.sin(3 * x), color="0.4")
    axes.plot(state.position, np.sin(3 * state.position) + 0.05, "o", color="C0", markersize=14)
    goal = params.goal_position
    axes.annotate("goal", (goal, np.sin(3 * goal)), (goal - 0.1, 0.65), color="C2")
    axes.plot(goal, np.sin(3 * goal), "^", color="C2", markersize=12)
    axes.set(xticks=[], yticks=[], ylim=(-1.2, 1.3))


def _draw_reacher(axes: Any, state: Any, params: Any) -> None:
    # gymnax measures both angles from the x axis, so the tip is the sum of two unit vectors
    _set_square_limits(axes, 2.3)
    arms = np.array([np.cos(state.angles), np.sin(state.angles)])
    axes.plot(*np.cumsum(np.pad(arms, ((0, 0), (1, 0))), axis=1), "-o", color="C0", linewidth=4)
    axes.plot(*state.goal_xy, "*", color="C2", markersize=16)


def _draw_swimmer(axes: Any, state: Any, params: Any) -> None:
    _set_square_limits(axes, 1.6)
    axes.plot(*state.urchin_xys.T, "o", color="C3", markersize=14, alpha=0.6)
    axes.plot(*state.goal_xy, "*", color="C2", markersize=16)
    axes.plot(*state.xy, "o", color="C0", markersize=8)


def _draw_point_robot(axes: Any, state: Any, params: Any) -> None:
    _set_square_limits(axes, 1.5)
    angle = np.linspace(0, np.pi, 60)
    axes.plot(np.cos(angle), np.sin(angle), color="0.6")
    ring = np.linspace(0, 2 * np.pi, 40)
    edge = state.goal[:, None] + params.goal_radius * np.array([np.cos(ring), np.sin(ring)])
    axes.fill(*edge, color="C2", alpha=0.3)
    axes.plot(*state.pos, "o", color="C3", markersize=8)


def _draw_observation(axes: Any, obs: np.ndarray, limits: Any) -> None:
    """Draw the numbers in an observation as bars."""
    numbers = np.arange(len(obs))
    axes.bar(numbers, obs, color="C0")
    axes.axhline(0, color="0.4", linewidth=0.8)
    axes.set(xlabel="number in the observation", xticks=numbers[:: len(obs) // 12 + 1])
    axes.set(xlim=(-0.6, len(obs) - 0.4), ylim=limits)


def _limits(obs: np.ndarray) -> tuple[float, float]:
    """Return a vertical range that contains 0 and all finite observations of an episode."""
    finite = np.append(obs[np.isfinite(obs)], 0.0)
    margin = 0.05 * np.ptp(finite) or 1.0
    return finite.min() - margin, finite.max() + margin


_DRAWINGS: dict[str, Callable[[Any, Any, Any], None]] = {
    "Pendulum-v1": _draw_pendulum,
    "MountainCarContinuous-v0": _draw_mountain_car,
    "Reacher-misc": _draw_reacher,
    "Swimmer-misc": _draw_swimmer,
    "PointRobot-misc": _draw_point_robot,
}
