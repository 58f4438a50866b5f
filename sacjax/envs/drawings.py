"""gymnax's environments as GIFs: its own drawings where they work, else matplotlib's."""

import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

_VISUALIZED = ("Pendulum-v1", "MountainCarContinuous-v0")  # those that gymnax draws with pygame


def write_gif(env: Any, states: list[Any], returns: np.ndarray, path: Path) -> None:
    """`env`: gymnax's own. Its states along an episode, and the return so far at each."""
    params = env.default_params
    if env.name in _VISUALIZED and importlib.util.find_spec("pygame"):
        _gymnax_gif(env, params, states, returns, path)
    else:
        _matplotlib_gif(env, params, states, returns, path)


def _gymnax_gif(env: Any, params: Any, states: list, returns: np.ndarray, path: Path) -> None:
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # pygame: no window, no sound card
    os.environ.setdefault("SDL_AUDIODRIVER", "dummy")
    import matplotlib.pyplot as plt

    backend = plt.get_backend()
    plt.switch_backend("Agg")
    try:
        from gymnax.visualize.visualizer import Visualizer

        Visualizer(env, params, states, returns).animate(str(path))
    finally:
        plt.switch_backend(backend)


def _matplotlib_gif(env: Any, params: Any, states: list, returns: np.ndarray, path: Path) -> None:
    draw = _DRAWINGS.get(env.name, _draw_state)
    figure = Figure(figsize=(4, 4), dpi=80, layout="constrained")
    canvas, images = FigureCanvasAgg(figure), []
    for i, (state, total) in enumerate(zip(states, returns, strict=True)):
        figure.clear()
        axes = figure.add_subplot()
        draw(axes, state, params)
        axes.set_title(f"{env.name}  step {i + 1}  return {total:.1f}", fontsize=9, loc="left")
        canvas.draw()
        images.append(Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy()))
    images[0].save(path, save_all=True, append_images=images[1:], duration=50, loop=0)


def _square(axes: Any, limit: float) -> None:
    axes.spines[:].set_visible(True)
    axes.set(xlim=(-limit, limit), ylim=(-limit, limit), xticks=[], yticks=[], aspect="equal")


def _draw_pendulum(axes: Any, state: Any, params: Any) -> None:
    _square(axes, 1.3)  # theta = 0 is upright, and grows counter-clockwise
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
    # gymnax's two joints turn independently of each other: the tip is the sum of two unit vectors
    _square(axes, 2.3)
    x = np.concatenate([[0], np.cumsum(np.cos(state.angles))])
    y = np.concatenate([[0], np.cumsum(np.sin(state.angles))])
    axes.plot(x, y, "-o", color="C0", linewidth=4)
    axes.plot(*state.goal_xy, "*", color="C2", markersize=16)


def _draw_swimmer(axes: Any, state: Any, params: Any) -> None:
    _square(axes, 1.6)
    axes.plot(*state.urchin_xys.T, "o", color="C3", markersize=14, alpha=0.6)
    axes.plot(*state.goal_xy, "*", color="C2", markersize=16)
    axes.plot(*state.xy, "o", color="C0", markersize=8)


def _draw_point_robot(axes: Any, state: Any, params: Any) -> None:
    _square(axes, 1.5)
    angle = np.linspace(0, np.pi, 60)
    axes.plot(np.cos(angle), np.sin(angle), color="0.6")
    ring = np.linspace(0, 2 * np.pi, 40)
    goal, radius = state.goal, params.goal_radius
    axes.fill(
        goal[0] + radius * np.cos(ring), goal[1] + radius * np.sin(ring), color="C2", alpha=0.3
    )
    axes.plot(*state.pos, "o", color="C3", markersize=8)


def _draw_state(axes: Any, state: Any, params: Any) -> None:
    """Any other environment: the numbers of its state as bars."""
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
