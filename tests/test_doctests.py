"""Run the examples in docstrings. They share one tiny `config`, so that each stays short.

Every module of sacjax with a `>>>` takes part, except those that need an extra. An example may
write files, because each module runs in an empty folder.
"""

import doctest
import importlib
from pathlib import Path

import pytest

import sacjax
from sacjax import Config

PACKAGE = Path(sacjax.__file__).parent
EXTRAS = {"brax", "playground", "envpool", "gymnasium", "wandb", "tensorboard"}  # by module name
MODULES = sorted(
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
    for path in PACKAGE.rglob("*.py")
    if path.stem not in EXTRAS and ">>> " in path.read_text()
)
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def tiny_config():
    """Return the settings that the examples call `config`: a run of two epochs."""
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
def test_the_examples_of_a_module_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    module, report = importlib.import_module(name), []
    runner = doctest.DocTestRunner(optionflags=FLAGS)
    found = doctest.DocTestFinder(exclude_empty=True).find(module, globs={"config": tiny_config()})
    for test in found:
        runner.run(test, out=report.append)
    assert not runner.failures, "".join(report)
    assert runner.tries > 0
