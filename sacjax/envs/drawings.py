"""Draw gymnax's environments with Matplotlib."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from sacjax.envs.gymnax import base_env
from sacjax.types import Episode


def pictures(env: Any, parsed: Any, episode: Episode) -> Iterator[np.ndarray]:
    """Draw each state of an episode.

    Args:
      env: the name of an environment of gymnax, or an `Environment` object.
      parsed: not used. Other suites need the parts of the name here.
      episode: the episode to draw, of T steps.

    Yields:
      T images, each an array of pixels [H, W, 3].
    """
    base = base_env(env)
    draw, params = _DRAWINGS.get(base.name, _draw_state), base.default_params
    figure = Figure(figsize=(4, 4), dpi=80, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    for state in episode.states:
        figure.clear()
        axes = figure.add_subplot()
        axes.set_title(base.name, fontsize=9, loc="right")
        draw(axes, state, params)
        canvas.draw()
        yield np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _set_square_limits(axes: Any, limit: float) -> None:
    """Set the range of both axes to [-limit, limit], and draw a frame."""
    axes.spines[:].set_visible(True)
    axes.set(xlim=(-limit, limit), ylim=(-limit, limit), xticks=[], yticks=[], aspect="equal")


def _draw_pendulum(axes: Any, state: Any, params: Any) -> None:
    _set_square_limits(axes, 1.3)  # theta is 0 if the pole is upright, and grows counter-clockwise
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


def _draw_state(axes: Any, state: Any, params: Any) -> None:
    """Draw the numbers of a state as bars, if the environment has no drawing of its own."""
    values = np.concatenate([np.ravel(x).astype(float) for x in jax.tree.leaves(state)])
    axes.bar(np.arange(len(values)), values, color="C0")
    axes.axhline(0, color="0.4", linewidth=0.8)
    axes.set(xlabel="number in the environment's state", xticks=np.arange(len(values)))


_DRAWINGS: dict[str, Callable[[Any, Any, Any], None]] = {
    "Pendulum-v1": _draw_pendulum,
    "MountainCarContinuous-v0": _draw_mountain_car,
    "Reacher-misc": _draw_reacher,
    "Swimmer-misc": _draw_swimmer,
    "PointRobot-misc": _draw_point_robot,
}
