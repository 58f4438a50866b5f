"""Write a GIF of a policy. The adapter of the environment's suite draws the pictures."""

import os
import sys
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import numpy as np
from PIL import Image, ImageDraw

from sacjax.bits import as_arrays
from sacjax.config import Hyperparams
from sacjax.envs import drawings
from sacjax.envs.host import for_a_while
from sacjax.envs.names import adapter, make_env, parse
from sacjax.runs.files import expanded, replacing
from sacjax.runs.result import Run
from sacjax.train import epoch_keys
from sacjax.types import Env, Episode, InputError, RunError, one_line
from sacjax.validation import must_be


def render(run: Run, member: int, target: str | os.PathLike, frames: int = 200) -> float:
    """Write a GIF of the greedy policy of a member of a run.

    The GIF shows the episode that had the median return in the member's last evaluation. If the
    member diverged, the GIF shows an arbitrary episode. On machines without a screen, MuJoCo needs
    EGL or OSMesa to draw.

    >>> render(load("runs/Pendulum-v1"), member=0, target="policy.gif")

    Args:
      run: a run, as returned by `sacjax.load` or `sacjax.run`.
      member: the index of a member of the run, counted from 0.
      target: the path of the GIF to write, which must end with ".gif".
      frames: the largest number of environment steps in the GIF.

    Returns:
      The sum of the rewards of the steps in the GIF, without discounting.

    Raises:
      InputError: the member does not exist, or sacjax cannot draw the environment.
      RunError: the GIF cannot be written, or the environment raised an error.
    """
    must_be(Run, run, "run", "load('runs/Pendulum-v1')")
    target = expanded(target)
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
        pictures = suite.pictures(run.config.env, parsed, episode)
        colors = Image.Quantize.FASTOCTREE if suite is drawings else None  # ten times as fast
        first, *others = _label(_show_progress(pictures, len(returns)), returns, colors)
    except InputError:
        raise
    except Exception as error:  # OpenGL raises many kinds of errors
        remedy = "MuJoCo needs OpenGL; without a screen, set MUJOCO_GL=egl or osmesa"
        if "pygame" in str(error):
            remedy = "pip install 'sacjax[render]'"
        elif suite is drawings:
            remedy = "correct its render(state)"
        message = f"cannot draw {run.config.env_name} ({one_line(error)}): {remedy}"
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
    """Let MuJoCo draw with EGL if there is no screen. Call this before importing MuJoCo."""
    if sys.platform == "linux" and not os.environ.get("DISPLAY"):
        os.environ.setdefault("MUJOCO_GL", "egl")


def _show_progress(pictures: Iterable[np.ndarray], total: int) -> Iterable[np.ndarray]:
    """If stderr is a terminal, show a progress bar while the pictures are drawn."""
    from rich.console import Console
    from rich.progress import track

    if sys.stderr is None or not sys.stderr.isatty():
        return pictures
    return track(pictures, "drawing", total, console=Console(stderr=True), transient=True)


def _label(
    pictures: Iterable[np.ndarray], returns: np.ndarray, colors: Image.Quantize | None
) -> Iterator[Image.Image]:
    """Write the step and the return so far on each picture. Choose 256 colors per picture."""
    for i, (pixels, total) in enumerate(zip(pictures, returns, strict=True)):
        image = Image.fromarray(np.asarray(pixels, np.uint8))
        ink = "black" if np.mean(pixels[:20, :120]) > 127 else "white"
        ImageDraw.Draw(image).text((6, 4), f"step {i + 1}  return {total:.1f}", fill=ink)
        yield image.quantize(method=colors)


def _episode(run: Run, env: Env, member: int, agent: Any, frames: int) -> Episode:
    """Repeat the episode that had the median return in the member's last evaluation."""
    epoch, copies = run.epochs[member] - 1, run.config.eval_episodes
    copy = int(np.argsort(run.metrics["eval_return"][member, epoch])[copies // 2])
    key_reset, key = jax.random.split(epoch_keys(run.keys[member], epoch)[1])
    _, params = as_arrays(Hyperparams(), env.default_params)

    @jax.jit
    def step(env_state, obs, key):  # the same step as in `sacjax.evaluate`
        key, key_step = jax.random.split(key)
        action = run.program.mode(agent, obs)
        after, timestep = env.step(env_state, action, key_step, params)
        seen = jax.tree.map(part, (env_state, action, timestep, obs))
        return (after, timestep.obs, key), seen

    def part(x):  # some arrays have no axis for the copies
        return x[copy] if x.ndim and len(x) == copies else x

    carry, seen, ended = (*jax.jit(env.reset)(key_reset, params), key), [], False
    while len(seen) < frames and not ended:
        carry, now = step(*carry)
        seen.append(now)
        ended = bool(now[2].terminated | now[2].truncated)
    states, actions, timesteps, obs = zip(*seen, strict=True)
    rewards = np.array([timestep.reward for timestep in timesteps])
    return Episode(list(states), np.stack(actions), rewards, copy, np.stack(obs))
