"""A GIF of a policy, in the pictures of its environment's suite."""

import contextlib
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from PIL import Image, ImageDraw

from sacjax.bits import as_arrays
from sacjax.config import Hyperparams
from sacjax.envs.host import for_a_while
from sacjax.envs.names import adapter, make_env, parse
from sacjax.runs.arrays import unkeyed
from sacjax.runs.files import replacing
from sacjax.runs.result import Run
from sacjax.train import epoch_keys
from sacjax.types import Env, Episode, InputError, RunError, one_line
from sacjax.validation import must_be


def render(run: Run, member: int, target: str | os.PathLike, frames: int = 200) -> float:
    """Write a GIF of `member`'s greedy policy; the return of what it shows.

    Shown is the episode of the last evaluation that had the median return, at most `frames` steps.
    MuJoCo's pictures need EGL or OSMesa where there is no screen. Raises InputError if there is no
    such member, or nothing can be drawn, RunError if the file cannot be written.
    """
    must_be(Run, run, "run", "load('runs/Pendulum-v1')")
    target = Path(target)
    agent = run.agent(member)
    if frames < 1:
        raise InputError(f"frames ({frames}) must be 1 or more")
    if target.suffix != ".gif" or not target.parent.is_dir():
        raise InputError(f"{target} must be a .gif in a folder that exists")
    without_a_screen()
    parsed = parse(run.config.env) if isinstance(run.config.env, str) else None
    pictures = None  # gymnax's environments are drawn here
    if parsed is not None and parsed.suite != "gymnax":
        pictures = getattr(adapter(parsed.suite), "pictures", None)
        if pictures is None:
            raise InputError(f"{run.config.env} has no pictures: try gymnasium/{parsed.id}")
    env = make_env(run.config.env)(run.config.eval_episodes)
    with for_a_while(env.host, run.config.env_name):
        episode = _episode(run, env, member, agent, frames)
    returns = np.cumsum(episode.rewards)
    if pictures is None:
        from sacjax.envs import drawings
        from sacjax.envs.gymnax import base_env

        with _written(target) as part:
            drawings.write_gif(base_env(run.config.env), episode.states, returns, part)
        return float(returns[-1])
    try:
        first, *others = _labelled(pictures(run.config.env, parsed, episode), returns)
    except InputError:
        raise
    except Exception as error:  # OpenGL and its bindings raise many kinds
        opengl = (
            "MuJoCo needs OpenGL; without a screen, set MUJOCO_GL=egl (libegl1) or osmesa "
            "(libosmesa6)"
        )
        remedy = "pip install 'sacjax[render]'" if "pygame" in str(error) else opengl
        raise InputError(f"cannot draw {run.config.env} ({one_line(error)}): {remedy}") from error
    with _written(target) as part:
        first.save(part, save_all=True, append_images=others, duration=50, loop=0)
    return float(returns[-1])


def without_a_screen() -> None:
    """MuJoCo is told to draw without one, if there is none; before it is imported."""
    if sys.platform == "linux" and not os.environ.get("DISPLAY"):
        os.environ.setdefault("MUJOCO_GL", "egl")


@contextlib.contextmanager
def _written(target: Path) -> Iterator[Path]:
    """A file to write to, which then becomes `target`. RunError where it cannot be written."""
    try:
        with replacing(target) as part:
            yield part
    except OSError as error:
        raise RunError(
            f"cannot write {target} ({error.strerror or error}): give another file with --out"
        ) from error


def _labelled(pictures: Iterable[np.ndarray], returns: np.ndarray) -> Iterator[Image.Image]:
    """With the step and the return so far."""
    for i, (pixels, total) in enumerate(zip(pictures, returns, strict=True)):
        image = Image.fromarray(np.asarray(pixels, np.uint8))
        ImageDraw.Draw(image).text((6, 4), f"step {i + 1}  return {total:.1f}", fill="white")
        yield image


def _episode(run: Run, env: Env, member: int, agent: Any, frames: int) -> Episode:
    """That of the last evaluation that had the median return."""
    key_reset, key = jax.random.split(epoch_keys(run.keys[member], run.epochs[member] - 1)[1])
    _, params = as_arrays(Hyperparams(), env.default_params)

    @jax.jit
    def step(env_state, obs, key):  # as in `sacjax.evaluate`
        key, key_step = jax.random.split(key)
        action = run.program.mode(agent, obs)
        env_state, timestep = env.step(env_state, action, key_step, params)
        return env_state, timestep, key, action

    env_state, obs = jax.jit(env.reset)(key_reset, params)
    states, actions, rewards, running = [], [], [], [np.ones(run.config.eval_episodes, bool)]
    while len(states) < frames and running[-1].any():
        states.append(jax.tree.map(np.asarray, unkeyed(env_state)))
        env_state, timestep, key, action = step(env_state, obs, key)
        obs = timestep.obs
        actions.append(np.asarray(action))
        rewards.append(np.asarray(timestep.reward))
        running.append(running[-1] & ~np.asarray(timestep.terminated | timestep.truncated))
    returns = (np.array(rewards) * np.array(running[:-1])).sum(axis=0)
    whole = run.metrics["eval_return"][member, run.epochs[member] - 1]  # not only of these frames
    shown = int(np.argsort(whole if np.isfinite(whole).all() else returns)[len(returns) // 2])
    length = int(np.array(running[:-1])[:, shown].sum())
    return Episode(
        states=[_of_copy(s, shown, run.config.eval_episodes) for s in states[:length]],
        actions=np.stack(actions)[:length, shown],
        rewards=np.array(rewards)[:length, shown],
        copy=shown,
    )


def _of_copy(state: Any, copy: int, copies: int) -> Any:
    """One copy's part of an environment's state; what is of all copies stays."""

    def leaf(x: np.ndarray) -> np.ndarray:
        return x[copy] if x.ndim and len(x) == copies else x

    return jax.tree.map(leaf, state)
