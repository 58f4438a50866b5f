"""Test that the code in the documents runs and that the numbers match the results files."""

import re
import shlex
from pathlib import Path

import pytest

from sacjax.cli.commands import settings
from sacjax.cli.flags import parse_train

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
TINY_SIZES = (
    "total_steps=300, warmup_steps=100, eval_every=100, hidden=(8,), batch_size=8, eval_episodes=2"
)
TINY = f'Config(env="Pendulum-v1", {TINY_SIZES})'
SMALLER = {
    'Config(env="Pendulum-v1", total_steps=20_000)': TINY,
    'preset("Reacher-misc"), seeds=16': f'preset("Reacher-misc", {TINY_SIZES}), seeds=2',
    'config, hp = preset("Pendulum-v1")': f"config, hp = {TINY}, Hyperparams()",
    "extend_to=60_000": "extend_to=500",
    "episodes=128": "episodes=3",
    "policy(3)": "policy(1)",
}


def code_of(text):
    """Return all Python blocks of a document as one text."""
    return "\n".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL))


@pytest.mark.processes  # this suite compiles quickly
def test_code_in_the_readme_runs(tmp_path, monkeypatch):
    code = code_of(README)
    for full, tiny in SMALLER.items():
        assert full in code
        code = code.replace(full, tiny)
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(code, names)
    assert names["result"].metrics["eval_return"].shape == (2, 8, 2, 2)
    assert names["returns"].shape == (2, 3)
    assert names["action"].shape == (2,)
    assert (tmp_path / "runs" / "reacher" / "learning_curve.png").exists()
    assert len(list((tmp_path / "runs" / "logged" / "tensorboard").glob("events*"))) == 1


@pytest.mark.processes  # this suite compiles quickly
def test_code_in_the_environments_guide_runs(tmp_path, monkeypatch):
    code = code_of((ROOT / "docs" / "environments.md").read_text())
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(code.replace("total_steps=5_000, hidden=(64, 64)", TINY_SIZES), names)
    returns = names["again"].metrics["eval_return"]
    assert returns.shape == (4, 2, 2)
    assert (returns < 0).all()
    assert (names["again"].metrics["eval_length"] <= 50).all()


@pytest.mark.processes  # this suite compiles quickly
def test_code_in_the_extending_guide_runs(tmp_path, monkeypatch):
    code = code_of((ROOT / "docs" / "extending.md").read_text())
    assert code.count("total_steps=20_000") == 2
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(code.replace("total_steps=20_000", TINY_SIZES), names)
    assert (names["again"].metrics["bonus"] > 0).all()
    assert "bonus" in Path("runs/curious/metrics.csv").read_text().splitlines()[0]
    assert names["metrics"]["critic_loss"].shape == (50,)
    assert names["state"].step == 50


def test_learning_table_in_the_readme_matches_the_result_file(benchmark_module):
    results = benchmark_module("record").load("learning")
    assert benchmark_module("learning").table(results) in README


def test_locomotion_tables_in_the_docs_match_the_result_files(benchmark_module):
    locomotion = benchmark_module("locomotion")
    assert locomotion.table(False) in README
    results = (ROOT / "docs" / "results.md").read_text()
    assert locomotion.table(True) in results
    assert locomotion.ants() in results


def test_speed_tables_in_the_readme_match_the_result_files(benchmark_module):
    speed_table = benchmark_module("speed_table")
    assert speed_table.text() in README
    assert speed_table.accelerator() in README


def test_physics_table_in_the_docs_matches_the_result_files(benchmark_module):
    physics = benchmark_module("physics")
    assert physics.table(physics.measured()) in (ROOT / "docs" / "results.md").read_text()


def test_files_named_in_the_readme_exist():
    names = re.findall(r"\]\(([\w/.]+)\)", README) + re.findall(r"`([\w]+/[\w/]*\.\w+)`", README)
    assert len(names) > 5
    for name in names:
        if not name.startswith("runs/"):
            assert (ROOT / name).exists(), name


def test_commands_in_the_docs_are_valid():
    texts = "\n".join([README, *(path.read_text() for path in (ROOT / "docs").glob("*.md"))])
    commands = re.findall(r"sacjax train ([^\n`#|]+)", texts)
    others = re.findall(r'locomotion.py train "([^"]+)"', texts)  # locomotion.py sets the steps
    assert len(others) > 3
    commands += [f"gymnasium/{x} --total-steps 300000" for x in others if "--pytorch" not in x]
    commands = [x for x in commands if not re.search(r"ENV|DIR|FILE|\.\.\.", x)]
    assert len(commands) > 5
    for command in commands:
        settings(parse_train(shlex.split(command)))


@pytest.mark.nightly
def test_first_command_in_the_readme_reaches_a_return_of_minus_200(tmp_path):
    from sacjax import load
    from sacjax.cli.main import main

    assert main(["train", "Pendulum-v1", "--out", str(tmp_path / "run")]) == 0
    run = load(tmp_path / "run")
    assert len(run.members) == 8
    assert (run.metrics["eval_return"][:, -1].mean(axis=-1) > -200).all()


def test_readme_states_how_long_its_first_command_takes(benchmark_module):
    measured = benchmark_module("record").load("first_command")
    assert f"{measured['seconds']:.0f} s" in README
    assert min(measured["returns"].values()) > -200


def test_documented_test_durations_match_the_measured_durations(benchmark_module):
    measured = benchmark_module("record").load("suite")
    seconds = measured["seconds"]
    first, again = (round(seconds[name] / 60) for name in ("default", "default again"))
    cpu = measured["device"]["cpu"].replace("(R)", "").removesuffix(" Processor")
    assert measured["device"]["cores"] == 2
    assert f"The tests take {first} minutes on two cores of an {cpu}, {again} once" in README
    assert benchmark_module("suite").table(seconds) in (ROOT / "CONTRIBUTING.md").read_text()
