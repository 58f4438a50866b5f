"""Define the flags of each command, and parse the arguments."""

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
from sacjax.types import PLAIN, InputError, OnNan

Dir = Annotated[Path, tyro.conf.arg(metavar="DIR")]
Dirs = Annotated[tuple[Path, ...], tyro.conf.arg(metavar="DIR [DIR ...]")]


def typed_only(record: type, defaults: dict[str, Any]) -> Any:
    """Return a TypedDict type with the fields of a dataclass.

    After parsing, the dictionary has only the flags that the user typed.

    Args:
      record: the dataclass. The docstrings of `record` are the help texts of the flags.
      defaults: defaults by field. The help shows these defaults instead of the defaults of
        `record`.
    """
    params = parse_from_object(record).params
    docs = {param.arg_name: " ".join(str(param.description).split()) for param in params}
    hints, fields = get_type_hints(record), {}
    for name in (field.name for field in dataclasses.fields(record) if field.name != "env"):
        default = defaults.get(name, getattr(record, name))
        shown = " ".join(map(str, default)) if isinstance(default, tuple | list) else default
        about = tyro.conf.arg(help=docs[name], help_behavior_hint=f"(default: {shown})")
        fields[name] = Annotated[hints[name], about]
    return TypedDict(record.__name__, fields, total=False)  # pyright: ignore[reportArgumentType]


@dataclass(frozen=True)
class RunFlags:
    """Choose how to train the agents, and how many checkpoints to keep."""

    strategy: Strategy = "auto"
    """Train the agents of a device all at once (vmap) or one by one (map). auto picks map if
    several CPU cores are devices, else vmap."""
    devices: int | None = None
    """Number of devices for the agents (None: all; each CPU core is a device)."""
    checkpoint_every: int | None = None
    """Epochs between checkpoints (None: a checkpoint every five minutes; 0: no checkpoints)."""
    keep: int = 2
    """Number of checkpoints to keep."""
    on_nan: OnNan = "freeze"
    """If an agent diverges (NaN or inf), freeze only this agent, or stop the whole run."""
    grace: float = GRACE
    """The run stops at most this many seconds after Ctrl-C or SIGTERM, even within an epoch."""


@dataclass(frozen=True)
class ProcessFlags:
    """Train one population with several processes, on one or more machines (docs/scaling.md)."""

    distributed: bool = False
    """Connect to the other processes through Slurm, MPI, Kubernetes or a TPU pod."""
    coordinator: str | None = None
    """Address HOST:PORT of process 0, if you start the processes yourself."""
    num_processes: int | None = None
    """Total number of processes."""
    process_id: int | None = None
    """Number of this process, from 0."""


@dataclass(frozen=True)
class OwnFlags:
    """Use an environment or an algorithm from a Python module, such as a file in this folder."""

    env: str | None = None
    """Environment of the run (None: as in config.json)."""
    algorithm: str | None = None
    """Algorithm of the run, my_module:make_algorithm (None: as in config.json)."""
    trust: bool = False
    """Import the modules that the run's config.json names."""


@dataclass(frozen=True)
class LogFlags:
    """Show progress, and log to other programs."""

    log_format: Literal["auto", "bar", "json", "none"] = "auto"
    """auto shows a live line in a terminal. bar also prints plain lines if there is no terminal.
    json prints JSON. none prints nothing."""
    tensorboard: bool = False
    """Also write event files for TensorBoard to DIR/tensorboard."""
    wandb: bool = False
    """Also log to Weights & Biases; WANDB_MODE=offline keeps the data in DIR/wandb."""
    wandb_project: str = "sacjax"
    """W&B project to log to."""


@dataclass(frozen=True)
class TrainFlags:
    """Train independent agents on ENV, with the preset of ENV.

    Writes config.json, metrics.csv, checkpoints, learning_curve.png and the trained agents.
    """

    seeds: int = 8
    """Number of independent agents, trained together."""
    seed: int = 0
    """Seed of the first agent. Later agents have the next seeds, such as 18 and 19 after 17."""
    members_per_batch: int | None = None
    """Largest number of agents to train at once, to save memory (None: all)."""
    sweep: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Sweep a hyperparameter: name=value,value,... Repeat the flag to train a grid."""
    keep_best: bool = False
    """Also save a copy of each agent from its best evaluation, in DIR/agents/best."""
    config_file: Annotated[Path | None, tyro.conf.arg(name="config")] = None
    """JSON or TOML file with settings, such as a run's config.json. Flags override the file."""
    out: Path | None = None
    """Folder for the results, new or empty (None: runs/ENV, or runs/ENV-2 ... if it exists)."""
    paper: bool = False
    """Use the paper's settings instead of the environment's preset."""
    algorithm: str = PLAIN
    """Algorithm: sac, or your own function my_module:make_algorithm (docs/extending.md)."""
    processes: ProcessFlags = ProcessFlags()
    logs: LogFlags = LogFlags()


@dataclass(frozen=True)
class ResumeFlags:
    """Resume the run in DIR from its last complete checkpoint.

    The results equal the results of an uninterrupted run bit for bit. Settings that you do not pass
    keep the run's values. The run's loggers continue, unless you pass --no-tensorboard or
    --no-wandb.
    """

    dir: tyro.conf.Positional[Dir]
    """Folder that `sacjax train` wrote."""
    extend_to: int | None = None
    """New total number of environment steps, to train longer."""
    own: OwnFlags = OwnFlags()
    processes: ProcessFlags = ProcessFlags()


def _with_typed(flags: type, **records: Any) -> type:
    """Add fields to the dataclass `flags`. `typed_only` makes the types of the fields."""
    names = {"__doc__": flags.__doc__}
    return dataclasses.make_dataclass(
        flags.__name__, records.items(), bases=(flags,), namespace=names, frozen=True, kw_only=True
    )


def parse_resume(argv: list[str]) -> Any:
    """Parse the arguments after `resume`.

    The fields `run` and `logs` of the result contain only the flags that the user typed.
    """
    names = [field.name for record in (RunFlags, LogFlags) for field in dataclasses.fields(record)]
    as_before = dict.fromkeys(names, "as in the run") | {"log_format": "auto", "grace": str(GRACE)}
    typed = {name: typed_only(x, as_before) for name, x in (("run", RunFlags), ("logs", LogFlags))}
    return parse(_with_typed(ResumeFlags, **typed), argv, "resume")


def parse(kind: Any, argv: list[str], command: str) -> Any:
    """Parse the arguments of a command, and pass them to the record or function `kind`."""
    flat = (tyro.conf.OmitArgPrefixes,)
    return tyro.cli(kind, args=argv, prog=f"sacjax {command}", config=flat, registry=_RULES)


def command(function: Callable[..., int]) -> Callable[[list[str]], int]:
    """Convert a function of parsed values to a function that takes the shell's arguments."""
    return lambda argv: parse(function, argv, function.__name__)


_RULES = tyro.constructors.ConstructorRegistry()


@_RULES.primitive_rule
def _parse_whole_numbers(info: tyro.constructors.PrimitiveTypeInfo) -> Any:
    """Parse whole numbers, such as 1000000, 1e6 or 2.0."""
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
    """The parsed arguments of `sacjax train`."""

    env: Any
    preset: dict[str, Any]
    given: dict[str, Any]  # fields of Config and Hyperparams, set in the --config file or by flags
    sweep: dict[str, list[float]]
    seeds: range
    out: Path | None
    options: dict[str, Any]  # keyword arguments of `sacjax.run`
    processes: ProcessFlags
    logs: LogFlags


def parse_train(argv: list[str], command: str = "train") -> Train:
    """Parse the arguments after `train`, or after a command with the same arguments.

    Flags override the --config file, and the file overrides the environment's preset. Raises
    InputError if the arguments are invalid.
    """
    env = argv[0] if argv and not argv[0].startswith("-") else None
    if env is not None and (Path(env) / "config.json").exists():
        raise InputError(f"{env} is a run: use `sacjax resume {shlex.quote(env)}`", "env")
    if env is None and not {"-h", "--help"} & {*argv}:
        raise InputError(f"name the environment first, as in `sacjax {command} Pendulum-v1`", "env")
    for word in argv:
        name = word.partition("=")[0].removeprefix("--").replace("-", "_")
        if word.startswith("--") and name in OTHER_NAMES:
            raise InputError(f"no option {word.partition('=')[0]}: use {OTHER_NAMES[name]}", name)
    base = {} if "--paper" in argv or env is None else preset_of(env)
    flags = _with_typed(
        TrainFlags,
        config=typed_only(Config, {"log_info": "none"} | base),
        hyperparameters=typed_only(Hyperparams, base),
        run=typed_only(RunFlags, {}),
    )
    args = parse(flags, argv[env is not None :], f"{command} ENV")
    last = args.seed + args.seeds - 1
    if args.seeds < 1 or args.seed < 0 or last >= 2**32:
        raise InputError(
            f"the number of seeds ({args.seeds}) must be at least 1, and each seed ({args.seed} to "
            f"{last}) must be from 0 to {2**32 - 1}: use --seed 0, or fewer seeds",
            "seeds" if args.seeds < 1 else "seed",
        )
    typed = args.config | args.hyperparameters
    return Train(
        env=env,
        preset=base,
        given=(read_settings(args.config_file) if args.config_file else {}) | typed,
        sweep=_parse_sweeps(args.sweep, typed),
        seeds=range(args.seed, last + 1),
        out=args.out,
        options=args.run
        | {x: vars(args)[x] for x in ("members_per_batch", "algorithm", "keep_best")},
        processes=args.processes,
        logs=args.logs,
    )


def read_settings(path: Path) -> dict[str, Any]:
    """Read fields of Config and Hyperparams from a JSON or TOML file, or from a run's config.json.

    Raises InputError if the file is invalid or belongs to a sweep.
    """
    try:
        text = path.read_text()
        content = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
        config, points = content.get("config", {}), content.get("hyperparams", [{}])
        points = points if isinstance(points, list) else [points]
        if not {"config", "hyperparams"} & content.keys():
            config = content
        settings = config | {
            name: float(x) for name, x in points[0].items()
        }  # JSON stores inf as a string
    except OSError as error:
        why = f"({error.strerror}): give a readable file"
        raise InputError(f"cannot read --config {path} {why}", "config") from error
    except (ValueError, AttributeError, TypeError, IndexError) as error:
        message = f"--config {path} is not a file of settings ({error}): use JSON or TOML"
        raise InputError(message, "config") from error
    if len(points) > 1:
        raise InputError(f"--config {path} has {len(points)} settings: keep one of them", "config")
    return {name: x for name, x in settings.items() if name != "env"}


def _parse_sweeps(sweeps: tuple[str, ...], typed: dict[str, Any]) -> dict[str, list[float]]:
    """Parse each `--sweep name=value,value,...`. Raises InputError if a sweep is invalid."""
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
            why = f"{name} is given twice: give it once, with all its values"
        try:
            values[name] = [float(value) for value in text.split(",")]
        except ValueError:
            why = why or "write numbers with commas, as in --sweep tau=0.005,0.02"
        if why:
            raise InputError(f"--sweep {sweep}: {why}", "sweep")
    return values


def apply_sweeps(hp: Hyperparams, values: dict[str, list[float]]) -> Hyperparams:
    """Replace each swept field of `hp` by an array. The arrays contain all combinations of values.

    The values of the last field vary fastest.
    """
    import numpy as np

    if not values:
        return hp
    points = np.array(list(itertools.product(*values.values())))
    return dataclasses.replace(hp, **dict(zip(values, points.T, strict=True)))
