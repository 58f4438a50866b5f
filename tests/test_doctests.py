"""Run the examples in docstrings.

The test runs every module of sacjax that contains `>>>`, except modules that need an extra package
or much time. The examples may use sacjax's public names without an import, and a tiny `config`. The
test compares the output of a statement only if the docstring shows an output. Each module runs in
its own folder, so an example may write files. The folder is empty, except for sacjax.report, whose
examples find finished runs in runs/a and runs/b.
"""

import doctest
import importlib
from pathlib import Path

import pytest

import sacjax
from sacjax import Config

PACKAGE = Path(sacjax.__file__).parent
LEFT_OUT = {"brax", "playground", "envpool", "wandb", "render"}  # the last draws for 15 s
MODULES = sorted(
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
    for path in PACKAGE.rglob("*.py")
    if path.stem not in LEFT_OUT and ">>> " in path.read_text()
)
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


class Checker(doctest.OutputChecker):
    """Accept any output of a statement if the docstring shows no output."""

    def check_output(self, want, got, optionflags):
        return not want or super().check_output(want, got, optionflags)


def tiny_config():
    """Return the `config` of the examples. A run with this config has two epochs."""
    return Config(
        "Pendulum-v1",
        total_steps=300,
        warmup_steps=100,
        eval_every=100,
        hidden=(8,),
        batch_size=8,
        eval_episodes=2,
    )


@pytest.mark.parametrize("name", MODULES)
def test_the_docstring_examples_of_a_module_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("runs/a", "runs/b") if name == "sacjax.report" else ():
        sacjax.run(tiny_config(), seeds=2, directory=folder)
    module, report = importlib.import_module(name), []
    names = {name: getattr(sacjax, name) for name in sacjax.__all__} | {"config": tiny_config()}
    runner = doctest.DocTestRunner(Checker(), optionflags=FLAGS)
    for test in doctest.DocTestFinder().find(module, extraglobs=names):
        runner.run(test, out=report.append)
    assert not runner.failures, "".join(report)
    assert runner.tries > 0
