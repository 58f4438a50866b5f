"""The commands of `sacjax`. Each command takes a list of arguments and returns an exit code.

A command checks its arguments before it imports JAX or an environment, so that errors appear fast.
"""

import contextlib
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any, Literal

from sacjax.cli import flags
from sacjax.cli.console import explain_jax_errors, print_error, train_with_loggers
from sacjax.config import Config, Hyperparams
from sacjax.presets import settle
from sacjax.runs.signals import GRACE
from sacjax.types import InputError, named


def train(argv: list[str]) -> int:
    """Train one agent per seed, or the agents of a sweep, in one program."""
    args = flags.parse_train(argv, "train")
    config, hp = settings(args)
    start_jax(config.env, args.logs.log_format, args.processes)
    from sacjax.envs.names import path_of
    from sacjax.runs import directory, processes
    from sacjax.runs.run import run

    if args.out is None and processes.several():
        raise InputError(
            "several processes share one folder: give every process the same --out", "out"
        )
    place = directory.claimed(Path("runs") / path_of(config.env))
    with place if args.out is None else contextlib.nullcontext(args.out) as out:
        start = partial(run, config, hp, seeds=args.seeds, directory=out, **args.options)
        loggers, grace = _make_loggers(args.logs, out), args.options.get("grace", GRACE)
        return train_with_loggers(start, out, loggers, grace)


def plan(argv: list[str]) -> int:
    """Print the memory that a run needs, and the memory that is available."""
    args = flags.parse_train(argv, "plan")
    if args.processes != flags.ProcessFlags():
        raise InputError(
            "`sacjax plan` plans for one process: pass only the seeds of one process, without "
            "--distributed or --coordinator",
            "distributed" if args.processes.distributed else "coordinator",
        )
    config, hp = settings(args)
    start_jax(config.env, args.logs.log_format, args.processes)
    from sacjax.runs import epochs, memory
    from sacjax.runs.population import make_grid, make_population

    layout = {name: args.options.get(name) for name in ("devices", "members_per_batch")}
    strategy = args.options.get("strategy", "auto")
    grid = make_grid(hp, list(args.seeds))
    algorithm = args.options["algorithm"]
    planned, compiled = make_population(config, grid, algorithm, strategy, *layout.values()), 0
    if memory.estimate(planned).enough:
        batch = max(planned.batches(), key=lambda batch: batch.size)
        compiled = epochs.compile_programs(batch, fresh=False).memory
    print(memory.table(planned, compiled))
    memory.check(planned, compiled)
    return 0


def resume(argv: list[str]) -> int:
    """Resume a run that was stopped or killed, or extend a finished run."""
    args = flags.parse_resume(argv)
    start_jax(args.dir, args.logs.get("log_format", "auto"), args.processes)
    from sacjax.runs.directory import check_is_run, read_description
    from sacjax.runs.processes import is_first
    from sacjax.runs.recorder import SERVICES
    from sacjax.runs.run import resume

    check_is_run(args.dir)
    start = partial(resume, args.dir, extend_to=args.extend_to, **vars(args.own), **args.run)
    options = read_description(args.dir)["options"]
    before = [name for name in SERVICES if name in options.get("loggers", ())]
    unset = dict.fromkeys((*SERVICES, "wandb_project"))
    logs = flags.LogFlags(**unset | dict.fromkeys(before, True) | args.logs)
    if is_first() and (drop := [f"--no-{name}" for name in before if name not in args.logs]):
        print_error(f"sacjax: continuing the run's loggers; {', '.join(drop)} drops them")
    loggers, grace = _make_loggers(logs, args.dir), args.run.get("grace", GRACE)
    return train_with_loggers(start, args.dir, loggers, grace)


@flags.command
def evaluate(
    dir: flags.Dir,
    /,
    *,
    episodes: int | None = None,
    best: bool = False,
    own: flags.OwnFlags = flags.OwnFlags(),
) -> int:
    """Print the greedy returns of the agents in DIR.

    The episodes use the random keys of the run's last evaluation.

    Args:
      dir: folder that `sacjax train` wrote.
      episodes: number of episodes per agent (None: as in the run's last evaluation).
      best: evaluate the agents that --keep-best saved.
      own: an environment or an algorithm of your own.
    """
    start_jax()
    from sacjax.report import tables
    from sacjax.runs.load import evaluate_run, load

    done = load(dir, best=best, **vars(own))
    returns = evaluate_run(done, episodes)[0].copy()
    returns[[d.member for d in done.diverged if not best]] = float("nan")  # "diverged" in the table
    title = f"{done.config.env}: greedy return, {returns.shape[1]} episodes"
    print(tables.of_run(done.members, returns.mean(1), returns.std(1), title))
    return 0


@flags.command
def render(
    dir: flags.Dir,
    /,
    *,
    member: int | None = None,
    frames: int = 200,
    out: Path | None = None,
    best: bool = False,
    own: flags.OwnFlags = flags.OwnFlags(),
) -> int:
    """Write a GIF of one agent in DIR.

    The GIF shows the episode with the median return in the agent's last evaluation.

    Args:
      dir: folder that `sacjax train` wrote.
      member: number of the agent in metrics.csv, from 0 (None: the best agent).
      frames: largest number of environment steps to show.
      out: path of the GIF (None: policy.gif in DIR).
      best: show the agent that --keep-best saved.
      own: an environment or an algorithm of your own.
    """
    start_jax()
    import numpy as np

    from sacjax.report.render import render, without_a_screen
    from sacjax.runs import curve

    without_a_screen()
    _drop_unusable_opengl()
    from sacjax.runs.load import load

    done, target = load(dir, best=best, **vars(own)), out or dir / "policy.gif"
    if member is None:
        last, _ = curve.last_returns(done.metrics, done.epochs)
        member = int(np.nan_to_num(last, nan=-np.inf).argmax())
    total = render(done, member, target, frames)
    ends = {d.member: d.epoch for d in done.diverged}
    frozen = f", diverged, frozen after {ends[member]} epochs" if member in ends else ""
    print(f"{target}: {named(done.members[member])}, return {total:.1f}{frozen}")
    return 0


@flags.command
def report(
    dirs: flags.Dirs,
    /,
    *,
    labels: tuple[str, ...] = (),
    last: int = 1,
    until: int | None = None,
    out: Path = Path("report"),
) -> int:
    """Compare runs by learning curves, IQMs, performance profiles and probability of improvement.

    The command reads config.json and metrics.csv in each DIR. Unfinished runs can be compared too.
    The command writes the page report.html, and writes the figures as PNG files. The page needs no
    other file. Each setting of a sweep is compared separately. The first DIR is the baseline. Seeds
    that diverged are excluded, and a note lists the excluded seeds.

    Args:
      dirs: folders that `sacjax train` wrote.
      labels: a name for each DIR (default: the folder's name). Runs with equal names are
        aggregated over environments, as in report a/pendulum a/reacher --labels a a.
      last: number of last evaluations. The score of a seed is the mean over these evaluations.
      until: ignore evaluations after this many environment steps (None: use all evaluations).
      out: folder for the page. The folder must be new or empty, or contain an earlier report.
    """
    from sacjax.report import compare

    typed = {"labels": labels, "last": last, "until": until, "out": out}
    text, files = compare(*dirs, **typed, command=["sacjax", *sys.argv[1:]])
    print(text, *files, sep="\n")
    return 0


@flags.command
def envs(
    suite: Literal["gymnax", "brax", "playground", "gymnasium", "envpool"] | None = None, /
) -> int:
    """List the environments by name.

    `sacjax train` cannot use all environments of gymnasium and envpool, because the actions must be
    a bounded Box.

    Args:
      suite: suite to list (None: gymnax, as a table with sizes).
    """
    start_jax()
    import numpy as np

    from sacjax.envs.gymnax import continuous_envs
    from sacjax.envs.names import SUITES, adapter
    from sacjax.presets import PRESETS
    from sacjax.report.tables import Table, as_rich, render_text

    if suite is not None:
        print("\n".join(f"{suite}/{id}" for id in adapter(suite).known()))
        return 0
    rows = []
    for name, (env, params, space) in continuous_envs().items():
        obs = env.observation_space(params).shape
        limit = str(params.max_steps_in_episode)
        has = "yes" if name in PRESETS["gymnax"] else "paper"
        bounds = f"{np.min(space.low):g} to {np.max(space.high):g}"
        rows.append([name, str(obs), str(space.shape), bounds, limit, has])
    names = ["environment", "obs", "action", "bounds", "time limit", "preset"]
    print(render_text(as_rich(Table(names, rows, left=len(names))), width=110))
    print("Other suites are extras, as in pip install 'sacjax[brax]'. To list one:")
    print("\n".join(f"  sacjax envs {suite}" for suite in SUITES[1:]))
    return 0


def settings(args: flags.Train) -> tuple[Config, Hyperparams]:
    """Return the settings of a run.

    A swept hyperparameter is an array with one value for each combination of the sweep.
    """
    config, hp = settle(args.env, args.preset, args.given)
    return config, flags.apply_sweeps(hp, args.sweep)


def start_jax(subject: Any = None, log_format: str = "none", several: Any = None) -> None:
    """Configure JAX, and connect to the other processes, if there are any.

    Call this function before you import a module that creates arrays, such as gymnax.
    """
    if log_format in ("auto", "bar") and sys.stderr.isatty():  # the progress bar replaces this line
        print(f"loading JAX and {subject} ...", end="\r", file=sys.stderr, flush=True)
    _drop_unusable_opengl()
    from sacjax.devices import keep_compiled_programs, use_all_cores

    with contextlib.suppress(RuntimeError):  # JAX may have started before `main`
        use_all_cores()
    keep_compiled_programs()
    if several not in (None, flags.ProcessFlags()):
        from sacjax.runs import processes

        if several.coordinator:
            print_error(f"sacjax: waiting for all processes at {several.coordinator}")
        processes.join(several.coordinator, several.num_processes, several.process_id)
    import jax

    jax.config.update("jax_debug_key_reuse", False)  # JAX would count a fold_in as a reuse
    with explain_jax_errors():
        jax.random.key(0)


def _drop_unusable_opengl() -> None:
    """Disable OpenGL if MuJoCo cannot be imported with the current value of MUJOCO_GL.

    Only `render` needs OpenGL. A new process tries the import, because a failed import of MuJoCo
    cannot be repeated.
    """
    probe = [sys.executable, "-c", "import mujoco"]
    if "MUJOCO_GL" in os.environ and subprocess.run(probe, stderr=subprocess.DEVNULL).returncode:
        os.environ["MUJOCO_GL"] = "disabled"


def _make_loggers(asked: flags.LogFlags, out: Path) -> list[Any]:
    """Create the loggers that the flags request. Only the first process has loggers.

    Raises InputError if a logger's package is missing.
    """
    from sacjax.loggers import JsonLines, ProgressBar, TensorBoard, WandB
    from sacjax.runs import processes

    if not processes.is_first():
        return []
    services: list[Any] = [TensorBoard(out)] if asked.tensorboard else []
    services += [WandB(out, project=asked.wandb_project)] if asked.wandb else []
    for wanted, name, left in (
        (asked.tensorboard, "--tensorboard", out / "tensorboard"),
        (asked.wandb, "--wandb", out / "wandb.json"),
    ):
        if wanted is None and left.exists():
            print_error(
                f"sacjax: warning: {left} is from an earlier session and will not be updated; "
                f"pass {name} to continue it"
            )
    if asked.log_format == "json":
        return [JsonLines(), *services]
    show = {"auto": None, "bar": True, "none": False}[asked.log_format]
    return [ProgressBar(show=show), *services]
