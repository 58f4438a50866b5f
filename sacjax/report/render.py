"""Write a GIF of a policy. The environment's suite draws the pictures."""

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
from sacjax.envs import drawings
from sacjax.envs.host import for_a_while
from sacjax.envs.names import adapter, make_env, parse
from sacjax.runs.files import replacing
from sacjax.runs.result import Run
from sacjax.train import epoch_keys
from sacjax.types import Env, Episode, InputError, RunError, one_line
from sacjax.validation import must_be


def render(run: Run, member: int, target: str | os.PathLike, frames: int = 200) -> float:
    """Write a GIF of one member's greedy policy.

    The GIF shows the episode with the median return in the member's last evaluation. If the member
    diverged, the GIF shows an arbitrary episode. Without a screen, MuJoCo needs EGL or OSMesa.

    >>> render(load("runs/Pendulum-v1"), member=0, target="policy.gif")

    Args:
      run: the result of `sacjax.load` or `sacjax.run`.
      member: index of the member, from 0.
      target: the path of the GIF, which ends with ".gif".
      frames: largest number of environment steps to show.

    Returns:
      The undiscounted return of the steps in the GIF.

    Raises:
      InputError: the member does not exist, or the environment cannot be drawn.
      RunError: the file cannot be written, or the environment failed.
    """
    must_be(Run, run, "run", "load('runs/Pendulum-v1')")
    target = Path(target)
    agent = run.agent(member)
    if frames < 1:
        raise InputError(f"frames ({frames}) must be 1 or more", "frames")
    if target.suffix != ".gif" or not target.parent.is_dir():
        message = f"{target} must be a .gif in a folder that exists: give another file with --out"
        raise InputError(message, "target")
    without_a_screen()
    parsed = parse(run.config.env) if isinstance(run.config.env, str) else None
    suite = adapter(parsed.suite) if parsed and parsed.suite != "gymnax" else drawings
    if not hasattr(suite, "pictures"):
        _, _, name = run.config.env_name.partition("/")
        raise InputError(f"{run.config.env} has no pictures: try gymnasium/{name}", "env")
    env = make_env(run.config.env)(run.config.eval_episodes)
    with for_a_while(env.host, run.config.env_name):
        episode = _episode(run, env, member, agent, frames)
    returns = np.cumsum(episode.rewards)
    try:
        first, *others = _label(suite.pictures(run.config.env, parsed, episode), returns)
    except InputError:
        raise
    except Exception as error:  # OpenGL raises many kinds of errors
        opengl = "MuJoCo needs OpenGL; without a screen, set MUJOCO_GL=egl or osmesa"
        remedy = "pip install 'sacjax[render]'" if "pygame" in str(error) else opengl
        message = f"cannot draw {run.config.env} ({one_line(error)}): {remedy}"
        raise InputError(message, "env") from error
    try:
        with replacing(target) as part:
            first.save(part, save_all=True, append_images=others, duration=50, loop=0)
    except OSError as error:
        raise RunError(
            f"cannot write {target} ({error.strerror or error}): give another file with --out",
            "target",
        ) from error
    return float(returns[-1])


def without_a_screen() -> None:
    """Let MuJoCo draw with EGL if there is no screen. Call this before you import MuJoCo."""
    if sys.platform == "linux" and not os.environ.get("DISPLAY"):
        os.environ.setdefault("MUJOCO_GL", "egl")


def _label(pictures: Iterable[np.ndarray], returns: np.ndarray) -> Iterator[Image.Image]:
    """Write the step and the return so far on each picture."""
    for i, (pixels, total) in enumerate(zip(pictures, returns, strict=True)):
        image = Image.fromarray(np.asarray(pixels, np.uint8))
        ink = "black" if np.mean(pixels[:20, :120]) > 127 else "white"
        ImageDraw.Draw(image).text((6, 4), f"step {i + 1}  return {total:.1f}", fill=ink)
        yield image


def _episode(run: Run, env: Env, member: int, agent: Any, frames: int) -> Episode:
    """Repeat the episode with the median return in the member's last evaluation."""
    epoch, copies = run.epochs[member] - 1, run.config.eval_episodes
    copy = int(np.argsort(run.metrics["eval_return"][member, epoch])[copies // 2])
    key_reset, key = jax.random.split(epoch_keys(run.keys[member], epoch)[1])
    _, params = as_arrays(Hyperparams(), env.default_params)

    @jax.jit
    def step(env_state, obs, key):  # the same step as in `sacjax.evaluate`
        key, key_step = jax.random.split(key)
        action = run.program.mode(agent, obs)
        after, timestep = env.step(env_state, action, key_step, params)
        seen = jax.tree.map(part, (env_state, action, timestep))
        return (after, timestep.obs, key), seen

    def part(x):  # some arrays have no axis for the copies
        return x[copy] if x.ndim and len(x) == copies else x

    carry, seen, ended = (*jax.jit(env.reset)(key_reset, params), key), [], False
    while len(seen) < frames and not ended:
        carry, now = step(*carry)
        seen.append(now)
        ended = bool(now[2].terminated | now[2].truncated)
    states, actions, timesteps = zip(*seen, strict=True)
    rewards = np.array([timestep.reward for timestep in timesteps])
    return Episode(list(states), np.stack(actions), rewards, copy)
