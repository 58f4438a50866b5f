"""Who may import whom, read from the source; and what `import sacjax` costs and offers."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import sacjax

PACKAGE = Path(sacjax.__file__).parent
ROOT = "sacjax"

# Module -> the modules of ours that it may import, each from a line above its own:
# types < config < networks < sac; replay, envs, episodes, evaluate < train; train < the host side.
ALLOWED = {
    "types": set(),
    "validation": {"types"},
    "config": {"types", "validation"},
    "networks": {"config", "types"},
    "extensions": {"types"},
    "sac": {"config", "extensions", "networks", "types"},
    "replay": {"config", "types"},
    "bits": {"config", "types"},
    "prng": {"types"},
    "members": {"types"},
    "startup": set(),
    "envs": {"prng", "types"},
    "presets": {"config", "envs", "types"},
    "evaluate": {"types"},
    "train": {
        "bits",
        "config",
        "envs",
        "evaluate",
        "prng",
        "replay",
        "sac",
        "types",
        "validation",
    },
    "processes": {"types"},
    "leaves": {"types"},
    "files": set(),
    "store": {"processes"},
    "checkpoints": {"files", "leaves", "processes", "store", "types"},
    "divergence": {"config", "types"},
    "provenance": {"config", "envs"},
    "folder": {
        "checkpoints",
        "config",
        "divergence",
        "files",
        "processes",
        "provenance",
        "store",
        "types",
    },
    "metrics": {"files", "types"},
    "statistics": set(),
    "report": {"metrics", "statistics"},
    "comparison": {"folder", "metrics", "report", "statistics", "types"},
    "tables": {"comparison", "report", "statistics"},
    "plots": {"comparison", "report", "statistics"},
    "page": {"comparison", "files", "plots", "tables", "types"},
    "progress": {"config", "report", "statistics"},
    "logs": {"config", "files", "folder", "metrics", "statistics", "types"},
    "memory": {"config", "types"},
    "plan": {"bits", "config", "members", "memory", "provenance", "train", "types"},
    "journal": {
        "checkpoints",
        "config",
        "divergence",
        "files",
        "folder",
        "leaves",
        "metrics",
        "plan",
        "processes",
        "replay",
        "report",
        "train",
        "types",
    },
    "driver": {
        "bits",
        "divergence",
        "envs",
        "journal",
        "members",
        "plan",
        "processes",
        "replay",
        "train",
        "types",
    },
    "result": {
        "bits",
        "checkpoints",
        "config",
        "divergence",
        "folder",
        "journal",
        "leaves",
        "metrics",
        "plan",
        "processes",
        "train",
        "types",
    },
    "batches": {
        "divergence",
        "driver",
        "files",
        "folder",
        "journal",
        "leaves",
        "plan",
        "processes",
        "result",
        "types",
    },
    "signals": set(),
    "run": {
        "batches",
        "bits",
        "checkpoints",
        "config",
        "envs",
        "folder",
        "journal",
        "members",
        "plan",
        "processes",
        "provenance",
        "result",
        "sac",
        "signals",
        "train",
        "types",
    },
    "drawings": set(),
    "render": {"bits", "config", "drawings", "envs", "files", "leaves", "result", "train", "types"},
    "flags": {"config", "members", "presets", "types"},
    "terminal": {"processes", "progress"},
    "follow": {
        "checkpoints",
        "config",
        "flags",
        "folder",
        "logs",
        "metrics",
        "processes",
        "progress",
        "report",
        "signals",
        "terminal",
        "types",
    },
    "cli": {
        "comparison",
        "driver",
        "envs",
        "flags",
        "folder",
        "follow",
        "page",
        "plan",
        "presets",
        "processes",
        "sac",
        "render",
        "report",
        "run",
        "startup",
        "tables",
        "terminal",
        "types",
        ROOT,
    },  # its version
}


def module_of(path: Path) -> str:
    """A file's name in the table: a subpackage counts as one module."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def sources() -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.name != "__main__.py" and path != PACKAGE / "__init__.py":
            found.setdefault(module_of(path), []).append(path)
    return found


def imported(path: Path) -> set[str]:
    """What a file imports, anywhere in it, by its full name."""
    package = [ROOT, *path.relative_to(PACKAGE).parts[:-1]]
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parents = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*parents, *filter(None, [node.module])])
            names |= {f"{base}.{alias.name}" for alias in node.names}
    return names


def imports(path: Path) -> set[str]:
    """The modules of ours that a file imports; "sacjax" is the package itself."""
    ours = [name.split(".") for name in imported(path) if name.split(".")[0] == ROOT]
    return {parts[1] if parts[1:] and parts[1] in sources() else ROOT for parts in ours}


def reachable(module: str) -> set[str]:
    below = set().union(*(imports(path) for path in sources()[module])) - {module, ROOT}
    return below.union(*(reachable(name) for name in below))


def test_the_table_lists_every_module_and_has_no_cycle():
    assert set(sources()) == set(ALLOWED)
    order = list(ALLOWED)
    for module, allowed in ALLOWED.items():
        assert all(order.index(name) < order.index(module) for name in allowed - {ROOT})


@pytest.mark.parametrize("module", ALLOWED)
def test_a_module_imports_only_what_lies_below_it(module):
    found = set().union(*(imports(path) for path in sources()[module])) - {module}
    assert found <= ALLOWED[module]


def test_the_loop_knows_of_the_algorithm_how_it_is_made():
    names = imported(PACKAGE / "train.py")
    assert {x for x in names if x.startswith(f"{ROOT}.sac")} == {f"{ROOT}.sac.make_sac"}


def test_the_algorithm_never_sees_replay_environments_or_the_loop():
    assert reachable("sac") == {"config", "extensions", "networks", "types", "validation"}


def test_the_loop_sees_the_networks_only_through_the_algorithm():
    assert "networks" not in imports(PACKAGE / "train.py")
    assert "networks" in reachable("train")


def test_only_networks_knows_distrax():
    users = {
        module
        for module, paths in sources().items()
        for path in paths
        for node in ast.walk(ast.parse(path.read_text()))
        if (isinstance(node, ast.Import) and any("distrax" in a.name for a in node.names))
        or (isinstance(node, ast.ImportFrom) and "distrax" in (node.module or ""))
    }
    assert users == {"networks"}


@pytest.mark.processes
def test_import_sacjax_loads_neither_jax_nor_gymnax():
    code = (
        "import sys, sacjax; "
        "print(*sorted({name.split('.')[0] for name in sys.modules} "
        "& {'jax', 'jaxlib', 'flax', 'optax', 'distrax', 'gymnax', 'numpy'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


@pytest.mark.parametrize("name", [name for name in sacjax.__all__ if name != "__version__"])
def test_a_public_name_resolves_and_has_a_docstring_of_its_own(name):
    value = getattr(sacjax, name)
    assert value.__module__.startswith("sacjax.")
    doc = value.__doc__ or ""
    assert len(doc.split()) >= 3
    assert not doc.startswith(f"{name}(")  # what dataclasses and named tuples generate


def test_type_checkers_and_dir_see_the_public_names():
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    typed = {
        alias.asname
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sacjax.")
        for alias in node.names
    }
    assert typed | {"__version__"} == set(sacjax.__all__) == set(dir(sacjax))
    assert typed == set(sacjax._HOMES)
    assert len(sacjax.__all__) == len(set(sacjax.__all__))


@pytest.mark.processes
def test_a_module_is_there_without_an_import_of_its_own():
    code = "import sacjax; print(sacjax.run.load.__name__, sacjax.statistics.iqm.__name__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["load", "iqm"]


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = sacjax.no_such_name


def test_no_public_name_shadows_a_module():
    assert not set(sacjax.__all__) & set(sources())
    subpackages = [path.parent for path in PACKAGE.rglob("__init__.py") if path.parent != PACKAGE]
    for folder in subpackages:
        modules = {path.stem for path in folder.glob("*.py")}
        tree = ast.parse((folder / "__init__.py").read_text())
        names = {
            alias.asname or alias.name
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
        }
        assert not names & modules
