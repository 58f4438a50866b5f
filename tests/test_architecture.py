"""Test rules for imports between modules, and the public names of sacjax."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import sacjax

PACKAGE = Path(sacjax.__file__).parent
# The lowest floor comes first. A module may import modules of its own floor and of lower floors.
FLOORS = (
    {"errors", "types", "own", "info", "validation", "field_names", "config", "networks"}
    | {"extensions", "sac"},
    {"statistics", "prng", "bits", "replay", "evaluate", "envs", "presets", "devices", "train"},
    {"policies", "runs"},
    {"report"},
    {"loggers"},
    {"cli"},
)


def sources() -> dict[str, Path]:
    """Return {module: file}. The name of the module does not contain "sacjax."."""
    paths = (path for path in PACKAGE.rglob("*.py") if path.name != "__main__.py")
    names = {".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in paths}
    del names["__init__"]
    return {name.removesuffix(".__init__"): path for name, path in names.items()}


def imported(path: Path) -> set[str]:
    """Return the full names of all imports in a file."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, path
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def ours(path: Path) -> set[str]:
    """Return the sacjax modules that a file imports."""
    found = set()
    for name in imported(path):
        module = name.removeprefix("sacjax.")
        while name.startswith("sacjax.") and module and module not in sources():
            module = module.rpartition(".")[0]
        found |= {module} if name.startswith("sacjax.") and module else set()
    return found


def reachable(module: str) -> set[str]:
    """Return all modules that a module imports, directly or indirectly."""
    below: set[str] = set()
    waiting = ours(sources()[module])
    while waiting:
        below |= waiting
        waiting = set().union(*(ours(sources()[name]) for name in waiting)) - below
    return below - {module}


def floor(module: str) -> int:
    (found,) = (i for i, names in enumerate(FLOORS) if module.split(".")[0] in names)
    return found


def test_modules_import_nothing_from_higher_layers():
    for module, path in sources().items():
        for other in ours(path):
            assert floor(other) <= floor(module), f"{module} imports {other}"


def test_sac_imports_no_module_of_a_higher_layer():
    assert {floor(module) for module in reachable("sac")} == {0}


def test_training_loop_imports_make_sac_but_no_networks():
    path = sources()["train"]
    assert {x for x in imported(path) if x.startswith("sacjax.sac")} == {"sacjax.sac.make_sac"}
    assert "networks" not in ours(path)


def test_distrax_and_each_suite_are_imported_by_only_one_module():
    suites = {"distrax": "networks"}
    suites |= {x: f"envs.{x}" for x in ("brax", "mujoco_playground", "envpool")}
    for module, path in sources().items():
        for package in {name.split(".")[0] for name in imported(path)} & {*suites}:
            assert module == suites[package], package


def test_only_the_report_and_loggers_packages_export_names():
    for module, path in sources().items():
        if path.name == "__init__.py" and module not in ("report", "loggers"):
            assert len(ast.parse(path.read_text()).body) == 1, module  # only a docstring


@pytest.mark.processes
def test_importing_sacjax_or_printing_help_loads_no_large_package():
    heavy = "{'jax', 'jaxlib', 'flax', 'optax', 'distrax', 'gymnax', 'numpy'}"
    loaded = f"print(*sorted({{name.split('.')[0] for name in sys.modules}} & {heavy}))"
    for what in ("import sacjax", "from sacjax.cli.main import main; main(['--help'])"):
        code = f"import sys; {what}; {loaded}"
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        assert done.stdout.splitlines()[-1] == ""


TRAIN = """
import sys, threading
from sacjax.cli.main import main
from sacjax.config import Config
holders = set()

def watch(frame, event, arg):
    name = frame.f_globals.get("__name__", "")
    if name.startswith("sacjax.") and event in ("call", "return"):
        holders.update(name for x in frame.f_locals.values() if isinstance(x, Config))

threading.setprofile(watch)
sys.setprofile(watch)
assert main(sys.argv[1:]) == 0
sys.setprofile(None)
print(*sorted(holders), file=sys.stderr)
"""


@pytest.mark.processes
def test_only_ten_modules_use_the_config_during_training(tmp_path):
    """Train on the command line, and list the modules whose functions have a local Config."""
    flags = [
        "--total-steps",
        "200",
        "--warmup-steps",
        "100",
        "--eval-every",
        "50",
        "--hidden",
        "8",
        "--batch-size",
        "8",
    ]
    command = ["train", "Pendulum-v1", "--out", str(tmp_path / "run"), *flags]
    done = subprocess.run(
        [sys.executable, "-c", TRAIN, *command], capture_output=True, text=True, check=True
    )
    assert done.stderr.splitlines()[-1].split() == [
        "sacjax.cli.commands",
        "sacjax.config",
        "sacjax.networks",
        "sacjax.presets",
        "sacjax.replay",
        "sacjax.runs.population",
        "sacjax.runs.run",
        "sacjax.sac",
        "sacjax.train",
        "sacjax.validation",
    ]


PUBLIC = [name for name in sacjax.__all__ if name not in ("__version__", "envs", "loggers")]


@pytest.mark.parametrize("name", PUBLIC)
def test_public_names_exist_and_have_docstrings(name):
    value = getattr(sacjax, name)
    doc = value.__doc__ or ""
    assert len(doc.split()) >= 3
    assert not doc.startswith(f"{name}(")  # dataclasses and named tuples generate such docstrings


def test_public_names_are_listed_once():
    assert len(sacjax.__all__) == len(set(sacjax.__all__)) > 20
    assert set(sacjax.__all__) - {"__version__"} == set(dir(sacjax)) - {"__version__"}


def test_no_module_has_the_name_of_a_public_function():
    import sacjax.runs.run

    assert callable(sacjax.run)
    assert callable(sacjax.policy)
    assert not {path.stem for path in PACKAGE.glob("*.py")} & {"run", "policy", "load", "resume"}


@pytest.mark.processes
def test_public_submodules_are_available_after_import_sacjax():
    code = "import sacjax; print(sacjax.load.__name__, sacjax.statistics.iqm.__name__)"
    code += "; print(sacjax.report.compare.__name__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["load", "iqm", "compare"]


def test_unknown_names_raise_attribute_errors():
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = sacjax.no_such_name
