"""What each command of the command line takes, and its parsing."""

import contextlib
import dataclasses
import difflib
import itertools
import shlex
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import tyro

from sacjax.config import Config, Hyperparams
from sacjax.devices import Strategy
from sacjax.presets import preset
from sacjax.types import InputError, OnNan


# The flags of Config and Hyperparams, checked when those are built from them and not by the parser.
@dataclass(frozen=True)
class ConfigFlags(Config):
    env: tyro.conf.Suppress[Any] = None

    def __post_init__(self) -> None:
        pass


@dataclass(frozen=True)
class HyperparamFlags(Hyperparams):
    def __post_init__(self) -> None:
        pass


@dataclass(frozen=True)
class RunFlags:
    strategy: Strategy = "auto"
    """How a device trains its agents: all at once (vmap) or one after the other (map)."""
    devices: int | None = None
    """Devices to spread the agents over (default: all; on a CPU each core is one)."""
    members_per_batch: int | None = None
    """Agents to train at once, where all do not fit into the memory (default: all)."""
    checkpoint_every: int | None = None
    """Epochs between checkpoints; 0: none (default: those that are five minutes apart)."""
    keep: int = 2
    """Checkpoints to keep."""
    on_nan: OnNan = "freeze"
    """When an agent's numbers are no longer finite: freeze it and go on, or stop the run."""


@dataclass(frozen=True)
class ResumeFlags:
    strategy: Strategy | None = None
    """How a device trains its agents: all at once (vmap) or one after the other (map)."""
    devices: int | None = None
    """Devices to spread the agents over."""
    checkpoint_every: int | None = None
    """Epochs between checkpoints; 0: none."""
    keep: int | None = None
    """Checkpoints to keep."""
    on_nan: OnNan | None = None
    """When an agent's numbers are no longer finite: freeze it and go on, or stop the run."""


@dataclass(frozen=True)
class ProcessFlags:
    """Several processes, on one machine or many, that train one population: docs/scaling.md."""

    distributed: bool = False
    """This is one of several; JAX finds them from Slurm, MPI, Kubernetes or a TPU pod."""
    coordinator: str | None = None
    """HOST:PORT of process 0, where nothing of the kind is to be found."""
    num_processes: int | None = None
    """Processes in all."""
    process_id: int | None = None
    """This process's number, from 0."""


@dataclass(frozen=True)
class LogFlags:
    log_format: Literal["auto", "bar", "json", "none"] = "auto"
    """Progress: a live line on stderr, if that is a terminal (auto) or anyway (bar); JSON lines on
    stdout, and nothing else there (json); or nothing (none)."""
    tensorboard: bool = False
    """Event files for TensorBoard too, in DIR/tensorboard."""
    wandb: bool = False
    """To Weights & Biases too; WANDB_MODE=offline keeps it in DIR/wandb."""
    wandb_project: str = "sacjax"
    """The W&B project."""


@dataclass(frozen=True)
class Train:
    """Train independent agents on ENV, from the preset for that environment.

    Writes config.json, metrics.csv, checkpoints, learning_curve.png and the trained agents.
    `sacjax train --extend-to STEPS DIR` goes on with a run past its end, as `sacjax resume` does.
    """

    config: ConfigFlags
    hp: HyperparamFlags
    flags: RunFlags = RunFlags()
    processes: ProcessFlags = ProcessFlags()
    logs: LogFlags = LogFlags()
    seeds: int = 8
    """Independent agents, trained together."""
    seed: int = 0
    """The first agent's seed; the others follow. --seed 17 --seeds 1 repeats agent 17 alone."""
    sweep: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Sweep a hyperparameter, name=value,value,...: repeat it for a grid, all in one program."""
    out: Path | None = None
    """Folder for the results, new or empty (default: runs/ENV, or runs/ENV-2 ... if it exists)."""
    paper: bool = False
    """Start from the SAC paper's settings instead of the environment's preset."""


@dataclass(frozen=True)
class Resume:
    """Go on with the run in DIR from its last whole checkpoint, to the bit as if never stopped.

    What is not given is as it was in the run, but for the logs, which are asked for each time.
    """

    dir: tyro.conf.Positional[Path]
    """Folder that `sacjax train` wrote."""
    flags: ResumeFlags = ResumeFlags()
    processes: ProcessFlags = ProcessFlags()
    logs: LogFlags = LogFlags()
    extend_to: int | None = None
    """Environment steps to train to, past the configured end."""


@dataclass(frozen=True)
class Evaluate:
    """Greedy returns of the agents in DIR, from the start states of the run's last evaluation."""

    dir: tyro.conf.Positional[Path]
    """Folder that `sacjax train` wrote."""
    episodes: int | None = None
    """Episodes per agent (default: as in training, which repeats the last evaluation)."""


@dataclass(frozen=True)
class Render:
    """A GIF of an agent in DIR: the episode of its last evaluation with the median return."""

    dir: tyro.conf.Positional[Path]
    """Folder that `sacjax train` wrote."""
    member: int | None = None
    """Which agent, counted from 0 as in metrics.csv (default: the best of the last evaluation)."""
    frames: int = 200
    """Environment steps to show at most."""
    out: Path | None = None
    """GIF to write (default: policy.gif in DIR)."""


@dataclass(frozen=True)
class Report:
    """Runs side by side: learning curves, IQMs, performance profiles, probability of improvement.

    Reads config.json and metrics.csv of each DIR, of a run that is still going too, and writes
    report.html, which needs no other file, and its figures as PNGs. Each point of a sweep is
    compared for itself; the first DIR is what the others are measured against, where it has seeds
    that did not diverge. Seeds that diverged are left out, and that is said.
    """

    dirs: tyro.conf.Positional[tuple[Path, ...]]
    """Folders that `sacjax train` wrote."""
    labels: tuple[str, ...] = ()
    """A name for each DIR (default: the folders'). Runs of several environments under one name are
    one algorithm, aggregated over them: report a/pendulum a/reacher --labels a a"""
    last: int = 1
    """Evaluations at the end whose mean is a seed's score."""
    until: int | None = None
    """Environment steps to compare at: later evaluations are left out (default: each run's end)."""
    out: Path = Path("report")
    """Folder for the page: new, empty, or of an earlier report, which is replaced."""


def parse(kind: type, argv: list[str], command: str, **more: Any) -> Any:
    """Arguments of a command, as the record of its kind."""
    flat = (tyro.conf.OmitArgPrefixes,)
    return tyro.cli(kind, args=argv, prog=f"sacjax {command}", config=flat, registry=_RULES, **more)


_RULES = tyro.constructors.ConstructorRegistry()


@_RULES.primitive_rule
def _whole_numbers(info: tyro.constructors.PrimitiveTypeInfo) -> Any:
    """1e6 is one too."""
    if info.type is not int:
        return None

    def whole(text: list[str]) -> int:
        with contextlib.suppress(ValueError, ZeroDivisionError):
            if (number := Fraction(text[0])).denominator == 1:
                return int(number)
        raise ValueError(f"{text[0]} is not a whole number")

    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="INT",
        instance_from_str=whole,
        is_instance=lambda x: isinstance(x, int),
        str_from_instance=lambda x: [str(x)],
    )


def parse_train(
    argv: list[str], command: str = "train", description: str | None = None
) -> tuple[Config, Hyperparams, Train]:
    """Arguments after `train`, or of a command that takes the same, over the environment's preset.
    InputError where they cannot work."""
    env = argv[0] if argv and not argv[0].startswith("-") else None
    if env is not None and (Path(env) / "config.json").exists():
        raise InputError(f"{env} is a run: `sacjax resume {shlex.quote(env)}` goes on with it")
    if env is None and not {"-h", "--help"} & {*argv}:
        raise InputError(f"name the environment first, as in `sacjax {command} Pendulum-v1`")
    base = (Config(env), Hyperparams()) if "--paper" in argv or env is None else preset(env)
    args = parse(
        Train,
        argv if env is None else argv[1:],
        f"{command} ENV",
        default=Train(ConfigFlags(**vars(base[0])), HyperparamFlags(**vars(base[1]))),
        description=description,
    )
    if args.seeds < 1:
        raise InputError(f"seeds ({args.seeds}) must be 1 or more")
    if not 0 <= args.seed < 2**32:
        raise InputError(f"seed ({args.seed}) must be from 0 to {2**32 - 1}")
    if args.seed + args.seeds > 2**32:
        raise InputError(
            f"seed + seeds - 1 ({args.seed + args.seeds - 1}), the last agent's seed, must be "
            f"{2**32 - 1} or less: use a smaller seed or fewer seeds"
        )
    hp = Hyperparams(**vars(args.hp))
    return Config(**vars(args.config)), _grid(hp, base[1], args.sweep), args


def _grid(hp: Hyperparams, default: Hyperparams, sweeps: tuple[str, ...]) -> Hyperparams:
    """The product of all `--sweep name=value,value,...`, first sweep outermost."""
    import numpy as np

    values: dict[str, list[float]] = {}
    names = [field.name for field in dataclasses.fields(Hyperparams)]
    for sweep in sweeps:
        name, _, text = sweep.partition("=")
        name = name.strip().replace("-", "_")
        if name in (f.name for f in dataclasses.fields(Config)):
            raise InputError(
                f"--sweep {sweep}: {name} is part of the compiled program, not a hyperparameter: "
                f"run `sacjax train` once for each value"
            )
        if name not in names:
            close = difflib.get_close_matches(name, names, n=2) or names
            raise InputError(f"--sweep {sweep}: no hyperparameter {name!r}: use {', '.join(close)}")
        if name in values:
            raise InputError(f"--sweep {sweep}: {name} is swept twice: give all its values at once")
        if getattr(hp, name) != getattr(default, name):
            raise InputError(
                f"--sweep {sweep}: {name} is also given as a flag: drop one of the two"
            )
        try:
            values[name] = [float(value) for value in text.split(",")]
        except ValueError as error:
            raise InputError(
                f"--sweep {sweep}: write numbers with commas, as in --sweep tau=0.005,0.02"
            ) from error
    if not values:
        return hp
    points = np.array(list(itertools.product(*values.values())))
    return dataclasses.replace(hp, **dict(zip(values, points.T, strict=True)))
