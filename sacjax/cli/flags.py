"""What each command of the command line takes, and its parsing."""

import contextlib
import dataclasses
import itertools
import json
import shlex
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypedDict, get_type_hints

import tyro
from docstring_parser import parse_from_object

from sacjax.config import Config, Hyperparams
from sacjax.devices import Strategy
from sacjax.field_names import OTHER_NAMES, right_name
from sacjax.presets import preset_of
from sacjax.runs.signals import GRACE
from sacjax.types import InputError, OnNan


def typed_only(record: type, defaults: dict[str, Any]) -> Any:
    """A TypedDict with the fields of `record`: parsed, it holds just the flags that were typed."""
    docs = {field.arg_name: field.description for field in parse_from_object(record).params}
    hints, fields = get_type_hints(record), {}
    for name in (field.name for field in dataclasses.fields(record) if field.name != "env"):
        default = defaults.get(name, getattr(record, name))
        shown = " ".join(map(str, default)) if isinstance(default, tuple | list) else default
        about = tyro.conf.arg(help=docs[name], help_behavior_hint=f"(default: {shown})")
        fields[name] = Annotated[hints[name], about]
    return TypedDict(record.__name__, fields, total=False)  # pyright: ignore[reportArgumentType]


@dataclass(frozen=True)
class RunFlags:
    """What `run` and `resume` take; a resumed run keeps what is not typed."""

    strategy: Strategy = "auto"
    """How a device trains its agents: all at once (vmap) or one after the other (map)."""
    devices: int | None = None
    """Devices to spread the agents over (None: all; on a CPU each core is one)."""
    checkpoint_every: int | None = None
    """Epochs between checkpoints (None: five minutes apart; 0: none)."""
    keep: int = 2
    """Checkpoints to keep."""
    on_nan: OnNan = "freeze"
    """When an agent's numbers are no longer finite: freeze it and go on, or stop the run."""
    grace: float = GRACE
    """Seconds after Ctrl-C or SIGTERM until the run stops in the middle of an epoch."""


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
class TrainFlags:
    """Train independent agents on ENV, from the preset for that environment.

    Writes config.json, metrics.csv, checkpoints, learning_curve.png and the trained agents.
    """

    seeds: int = 8
    """Independent agents, trained together."""
    seed: int = 0
    """The first agent's seed; the others follow. --seed 17 --seeds 1 repeats agent 17 alone."""
    members_per_batch: int | None = None
    """Agents to train at once, if all do not fit into the memory (default: all)."""
    sweep: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Sweep a hyperparameter, name=value,value,...: repeat it for a grid, all in one program."""
    config_file: Annotated[Path | None, tyro.conf.arg(name="config")] = None
    """JSON or TOML file with settings, which flags replace: a run's config.json, say."""
    out: Path | None = None
    """Folder for the results, new or empty (default: runs/ENV, or runs/ENV-2 ... if it exists)."""
    paper: bool = False
    """The paper's settings instead of the environment's preset."""
    processes: ProcessFlags = ProcessFlags()
    logs: LogFlags = LogFlags()


@dataclass(frozen=True)
class ResumeFlags:
    """Resume the run in DIR from its last whole checkpoint, to the bit as if never stopped.

    A setting that is not typed stays as it was in the run. Logs have to be asked for each time.
    """

    dir: tyro.conf.Positional[Path]
    """Folder that `sacjax train` wrote."""
    extend_to: int | None = None
    """Environment steps to train to, past the configured end."""
    processes: ProcessFlags = ProcessFlags()
    logs: LogFlags = LogFlags()


def _with_typed(flags: type, **records: Any) -> type:
    """`flags` and, in a field for each record, the flags of that record that were typed."""
    names = {"__doc__": flags.__doc__}
    return dataclasses.make_dataclass(
        flags.__name__, records.items(), bases=(flags,), namespace=names, frozen=True, kw_only=True
    )


def parse_resume(argv: list[str]) -> Any:
    """Arguments after `resume`: `ResumeFlags`, and in `run` the options that were typed."""
    as_before = {field.name: "as in the run" for field in dataclasses.fields(RunFlags)}
    return parse(_with_typed(ResumeFlags, run=typed_only(RunFlags, as_before)), argv, "resume")


def parse(kind: Any, argv: list[str], command: str) -> Any:
    """Arguments of a command, as the record of its kind, or given to a function."""
    flat = (tyro.conf.OmitArgPrefixes,)
    return tyro.cli(kind, args=argv, prog=f"sacjax {command}", config=flat, registry=_RULES)


def parsed(command: Callable[..., int]) -> Callable[[list[str]], int]:
    """A command that takes a shell's arguments, from a function of their values."""
    return lambda argv: parse(command, argv, command.__name__)


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


class Train(NamedTuple):
    """What the flags of `sacjax train` say."""

    env: Any
    preset: dict[str, Any]
    given: dict[str, Any]  # fields of Config and Hyperparams, of a file and typed
    sweep: dict[str, list[float]]
    seeds: range
    out: Path | None
    options: dict[str, Any]  # of `run`
    processes: ProcessFlags
    logs: LogFlags


def parse_train(argv: list[str], command: str = "train") -> Train:
    """Arguments after `train`, or of a command that takes the same. InputError if they cannot work.

    What was typed replaces what a --config file says, and that replaces the environment's preset.
    """
    env = argv[0] if argv and not argv[0].startswith("-") else None
    if env is not None and (Path(env) / "config.json").exists():
        raise InputError(f"{env} is a run: `sacjax resume {shlex.quote(env)}` resumes it")
    if env is None and not {"-h", "--help"} & {*argv}:
        raise InputError(f"name the environment first, as in `sacjax {command} Pendulum-v1`")
    for word in argv:
        name = word.partition("=")[0].removeprefix("--").replace("-", "_")
        if word.startswith("--") and name in OTHER_NAMES:
            raise InputError(f"no option {word.partition('=')[0]}: use {OTHER_NAMES[name]}")
    base = {} if "--paper" in argv or env is None else preset_of(env)
    flags = _with_typed(
        TrainFlags,
        config=typed_only(Config, base),
        hyperparameters=typed_only(Hyperparams, base),
        run=typed_only(RunFlags, {}),
    )
    args = parse(flags, argv[env is not None :], f"{command} ENV")
    last = args.seed + args.seeds - 1
    if args.seeds < 1 or args.seed < 0 or last >= 2**32:
        raise InputError(
            f"seeds ({args.seeds}) must be 1 or more, and all from seed ({args.seed}) to the last "
            f"one ({last}) must be from 0 to {2**32 - 1}: use --seed 0 or fewer seeds"
        )
    typed = args.config | args.hyperparameters
    return Train(
        env=env,
        preset=base,
        given=(read_settings(args.config_file) if args.config_file else {}) | typed,
        sweep=_sweeps(args.sweep, typed),
        seeds=range(args.seed, last + 1),
        out=args.out,
        options=args.run | {"members_per_batch": args.members_per_batch},
        processes=args.processes,
        logs=args.logs,
    )


def read_settings(path: Path) -> dict[str, Any]:
    """Fields of Config and Hyperparams in a JSON or TOML file, or in a run's config.json.

    Raises InputError where it is neither, or holds a sweep.
    """
    try:
        text = path.read_text()
        content = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
        config, points = content.get("config", {}), content.get("hyperparams", [{}])
        points = points if isinstance(points, list) else [points]
        if len(points) > 1:
            raise InputError(f"{path} holds a sweep of {len(points)} points: use a file with one")
        if not {"config", "hyperparams"} & content.keys():
            config = content
        hp = {name: float(x) for name, x in points[0].items()}  # "inf" is a text there
        return {name: x for name, x in (config | hp).items() if name != "env"}
    except OSError as error:
        raise InputError(f"cannot read --config {path} ({error.strerror})") from error
    except (ValueError, AttributeError, TypeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"--config {path} is no file of settings ({error})") from error


def _sweeps(sweeps: tuple[str, ...], typed: dict[str, Any]) -> dict[str, list[float]]:
    """The values of each `--sweep name=value,value,...`. InputError."""
    values: dict[str, list[float]] = {}
    static, names = (
        [field.name for field in dataclasses.fields(record)] for record in (Config, Hyperparams)
    )
    for sweep in sweeps:
        name, _, text = sweep.partition("=")
        name, why = name.strip().replace("-", "_"), ""
        if name in static:
            why = f"{name} is fixed in the compiled program: run `sacjax train` once for each value"
        elif name not in names:
            why = f"no hyperparameter {name!r}: {right_name(name, names)}"
        elif name in values or name in typed:
            why = f"{name} is given twice: drop one of the two, and give all its values at once"
        try:
            values[name] = [float(value) for value in text.split(",")]
        except ValueError:
            why = why or "write numbers with commas, as in --sweep tau=0.005,0.02"
        if why:
            raise InputError(f"--sweep {sweep}: {why}")
    return values


def swept(hp: Hyperparams, values: dict[str, list[float]]) -> Hyperparams:
    """`hp` with the product of all swept values, the first sweep outermost."""
    import numpy as np

    if not values:
        return hp
    points = np.array(list(itertools.product(*values.values())))
    return dataclasses.replace(hp, **dict(zip(values, points.T, strict=True)))
