"""Test the command line: its files, its output, its errors and its exit codes."""

import csv
import errno
import io
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

import jax
import numpy as np
import pytest
from checks import refused
from PIL import Image

from sacjax import load
from sacjax.cli import commands
from sacjax.cli.flags import parse_train
from sacjax.cli.main import COMMANDS, main
from sacjax.envs.names import SUITES, make_env
from sacjax.report import tables
from sacjax.report.render import render
from sacjax.runs import curve
from sacjax.runs.directory import claimed
from sacjax.runs.files import PART
from sacjax.sac import make_sac
from sacjax.types import InputError

TINY = [
    *("--total-steps", "300", "--warmup-steps", "100", "--eval-every", "100"),
    *("--hidden", "8", "--batch-size", "8", "--eval-episodes", "2", "--seeds", "2"),
]
SWEEP = ["--sweep", "tau=0.005,0.02", "--sweep", "actor-lr=1e-4,3e-4"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Train a tiny sweep and return its folder. It has 4 settings, 2 seeds and 2 evaluations."""
    out = tmp_path_factory.mktemp("runs") / "pendulum"
    assert main(["train", "Pendulum-v1", "--out", str(out), *TINY, *SWEEP]) == 0
    return out


@pytest.fixture
def copy(folder, tmp_path):
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def rows(folder):
    with (folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def test_train_writes_the_documented_files_and_folders(folder):
    assert {path.name for path in folder.iterdir()} == {
        "agents",
        "checkpoints",
        "config.json",
        "learning_curve.png",
        "metrics.csv",
    }
    with Image.open(folder / "learning_curve.png") as image:
        assert image.size[0] > 600


def test_metrics_csv_has_one_row_per_member_and_evaluation(folder):
    found = [(float(r["tau"]), float(r["actor_lr"]), int(r["seed"])) for r in rows(folder)]
    grid = [(t, a, s) for t in (0.005, 0.02) for a in (1e-4, 3e-4) for s in (0, 1)]
    assert found == grid * 2
    assert [r["env_steps"] for r in rows(folder)] == ["200"] * 8 + ["300"] * 8
    assert {r["gradient_steps"] for r in rows(folder)[8:]} == {"200"}
    assert all(np.isfinite(float(r["critic_loss"])) for r in rows(folder))


def test_config_json_describes_a_repeatable_run(folder, tmp_path):
    content = json.loads((folder / "config.json").read_text())
    assert content["config"]["hidden"] == [8]
    assert content["config"]["total_steps"] == 300
    assert content["seeds"] == [0, 1]
    assert [hp["tau"] for hp in content["hyperparams"]] == [0.005, 0.005, 0.02, 0.02]
    assert content["versions"]["jax"] == jax.__version__
    assert content["jax"]["matmul_precision"] == jax.config.values["jax_default_matmul_precision"]
    assert content["device"]["platform"] == "cpu"
    again = tmp_path / "again"
    assert main(["train", "Pendulum-v1", "--out", str(again), *TINY, *SWEEP]) == 0
    assert (again / "metrics.csv").read_bytes() == (folder / "metrics.csv").read_bytes()


def test_a_single_run_equals_a_member_of_a_sweep_up_to_rounding(folder, tmp_path):
    out = tmp_path / "alone"
    flags = [*TINY[:-2], "--tau", "0.02", "--actor-lr", "1e-4", "--seed", "1", "--seeds", "1"]
    assert main(["train", "Pendulum-v1", "--out", str(out), *flags]) == 0
    alone, member = rows(out)[0], rows(folder)[5]
    assert (member["tau"], member["actor_lr"], member["seed"]) == ("0.02", "0.0001", "1")
    for name in ("critic_loss", "q", "alpha", "entropy", "train_return"):
        # measured: 3e-5 after 100 gradient steps in float32
        np.testing.assert_allclose(float(alone[name] or 0), float(member[name] or 0), rtol=1e-3)


def test_a_sweep_over_one_value_equals_a_run_with_the_value(folder, tmp_path):
    flags = [*TINY, "--actor-lr", "1e-4"]
    for out, tau in (("swept", ["--sweep", "tau=0.02"]), ("plain", ["--tau", "0.02"])):
        assert main(["train", "Pendulum-v1", "--out", str(tmp_path / out), *flags, *tau]) == 0
    assert rows(tmp_path / "swept") == rows(tmp_path / "plain")


def test_evaluate_reproduces_the_last_evaluation(folder, capsys):
    assert main(["evaluate", str(folder)]) == 0
    printed = capsys.readouterr().out
    last = [float(r["eval_return"]) for r in rows(folder)[8:]]
    lines = [line.replace(",", "") for line in printed.splitlines() if line.startswith("seed")]
    table = [float(line.split()[3]) for line in lines]
    np.testing.assert_allclose(table, last, atol=0.051)  # printed with one decimal


def test_report_compares_the_settings_of_a_sweep(folder, tmp_path, capsys):
    assert main(["report", str(folder), "--out", str(tmp_path / "out")]) == 0
    text = (tmp_path / "out" / "report.html").read_text()
    for tau, actor_lr in ((0.005, 0.0001), (0.005, 0.0003), (0.02, 0.0001), (0.02, 0.0003)):
        assert f"pendulum, tau={tau}, actor_lr={actor_lr}</td>" in text
    assert "P(beats first)" in capsys.readouterr().out


@pytest.mark.parametrize("columns", [80, 200])
@pytest.mark.parametrize("command", ["evaluate", "report", "envs"])
def test_tables_are_not_wider_than_the_terminal(
    command, columns, folder, tmp_path, monkeypatch, capsys
):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    folders = {"envs": []}.get(command, [str(folder)])
    out = ["--out", str(tmp_path / "out")] if command == "report" else []
    monkeypatch.setattr(sys, "stdout", Terminal())
    monkeypatch.setenv("COLUMNS", str(columns))
    assert main([command, *folders, *out]) == 0
    lines = re.sub(r"\x1b\[\d+m", "", sys.stdout.getvalue()).splitlines()
    widest = max(len(line) for line in lines if str(tmp_path) not in line)
    assert 60 < widest <= min(columns, 120)
    assert command != "envs" or any("MountainCarContinuous-v0" in line for line in lines)


def test_evaluate_accepts_a_number_of_episodes(folder, capsys):
    assert main(["evaluate", str(folder), "--episodes", "3"]) == 0
    assert "3 episodes" in capsys.readouterr().out


def test_render_writes_an_animated_gif(folder, tmp_path, capsys):
    out = tmp_path / "policy.gif"
    assert main(["render", str(folder), "--frames", "5", "--out", str(out)]) == 0
    with Image.open(out) as gif:
        assert gif.n_frames == 5
        assert gif.size[0] >= 200
        frames = []
        for i in (0, 4):
            gif.seek(i)
            frames.append(np.asarray(gif.convert("RGB")))
    assert (frames[0] != frames[1]).any()
    assert str(out) in capsys.readouterr().out


def test_render_rejects_invalid_arguments(folder, tmp_path):
    run = load(folder)
    for field, target, frames in (("frames", "a.gif", 0), ("target", "a.png", 5)):
        with refused(field):
            render(run, 0, tmp_path / target, frames)
    with refused("target"):
        render(run, 0, tmp_path / "none" / "a.gif")


def test_envs_lists_the_environments_of_a_suite(capsys):
    assert main(["envs", "gymnasium"]) == 0
    assert "gymnasium/HalfCheetah-v5" in capsys.readouterr().out.splitlines()
    assert main(["envs", "--help"]) == 0
    assert "usage: sacjax envs" in capsys.readouterr().out
    assert main(["envs", "atari"]) == 2
    error = capsys.readouterr().err
    assert all(suite in error for suite in SUITES)


def test_envs_lists_five_environments_with_shapes_and_bounds(capsys):
    assert main(["envs"]) == 0
    printed = capsys.readouterr().out
    for name in ("Pendulum-v1", "MountainCarContinuous-v0", "Reacher", "Swimmer", "PointRobot"):
        assert name in printed
    assert "-0.1 to 0.1" in printed
    assert "CartPole" not in printed


def settings(*flags, env="Pendulum-v1"):
    return commands.settings(parse_train([env, *flags]))


def test_presets_can_be_combined_with_flags_and_sweeps():
    config, hp = settings("--tau", "0.05", "--sweep", "gamma=0.9,0.99")
    assert config.hidden == (64, 64)  # the preset's
    np.testing.assert_allclose(hp.tau, [0.05, 0.05])
    np.testing.assert_allclose(hp.gamma, [0.9, 0.99])
    np.testing.assert_allclose(hp.critic_lr, [3e-3, 3e-3])
    config, hp = settings("--paper")
    assert (config.hidden, hp.critic_lr) == ((256, 256), 3e-4)
    assert parse_train(["Pendulum-v1", "--seeds", "3"]).seeds == range(3)


def test_flags_override_the_config_file_which_overrides_the_preset(folder, tmp_path):
    toml = tmp_path / "mine.toml"
    toml.write_text("hidden = [32]\ntau = 0.02\nbatch_size = 64\n")
    config, hp = settings("--config", str(toml), "--batch-size", "16")
    assert (config.hidden, config.batch_size, hp.tau) == ((32,), 16, 0.02)
    assert hp.critic_lr == 3e-3  # the preset's
    content = json.loads((folder / "config.json").read_text())
    one = tmp_path / "config.json"
    one.write_text(json.dumps(content | {"hyperparams": content["hyperparams"][:1]}))
    config, hp = settings("--config", str(one))
    assert config == load(folder).config
    assert (hp.tau, hp.max_alpha) == (0.005, np.inf)


def test_a_config_file_without_settings_raises_an_input_error(folder, tmp_path):
    for name, text in (("list", "[1]"), ("empty", '{"hyperparams": []}')):
        (tmp_path / f"{name}.json").write_text(text)
    missing, sweep = tmp_path / "none.toml", folder / "config.json"
    for path in (missing, tmp_path / "list.json", tmp_path / "empty.json", sweep):
        with refused("config"):
            parse_train(["Pendulum-v1", "--config", str(path)])


def test_a_warning_lists_the_default_settings_that_were_rounded(caplog):
    config, _ = settings("--num-envs", "3", env="brax/ant")  # the preset: 128, warm-up 8192
    assert config.warmup_steps % 3 == 0
    assert "warmup_steps from 8192 to 8193" in caplog.text
    config, _ = settings("--total-steps", "300")
    assert (config.total_steps, config.warmup_steps) == (300, 30)
    assert 270 % config.eval_every == 0
    with pytest.raises(InputError, match="warmup_steps"):
        settings("--total-steps", "300", "--warmup-steps", "400")


@pytest.mark.parametrize(
    ("flag", "name"), [("--learning-rate", "actor_lr"), ("--buffer-size=9", "replay_size")]
)
def test_the_error_for_a_flag_of_another_library_suggests_a_valid_flag(flag, name):
    field = flag[2:].partition("=")[0].replace("-", "_")
    with refused(field) as caught:
        parse_train(["Pendulum-v1", flag, "1"])
    assert f"use {name}" in str(caught.value)


TRAIN = ["train", "Pendulum-v1", *TINY]
# Arguments, and a part of the remedy. `test_messages` holds the whole wording.
BAD = {
    "unknown environment": (["train", "Pendulum-v2", *TINY], "Pendulum-v1"),
    "discrete actions": (["train", "CartPole-v1", *TINY], "Box"),
    "negative rate": ([*TRAIN, "--actor-lr", "-1"], "actor_lr"),
    "not a number": ([*TRAIN, "--gamma", "nan"], "gamma"),
    "out of range": ([*TRAIN, "--tau", "1.5"], "tau"),
    "too many devices": ([*TRAIN, "--devices", "9"], "from 1 to 2"),
    "does not divide": ([*TRAIN, "--eval-every", "70"], "use warmup"),
    "small replay": ([*TRAIN, "--replay-size", "4"], "use replay_size=8"),
    "long warm-up": ([*TRAIN, "--warmup-steps", "900"], "warmup_steps"),
    "huge replay": (
        ["train", "Pendulum-v1", "--total-steps", "100000000000", "--replay-size", "100000000000"],
        "from 1 to 2147483647",
    ),
    "too little memory": (
        ["train", "Pendulum-v1", "--total-steps", "2000001000", "--replay-size", "2000000000"],
        "use replay_size=",
    ),
    "too many agents": (["train", "Pendulum-v1", "--seeds", "2000000"], "--members-per-batch"),
    "sweep out of range": ([*TRAIN, "--sweep", "tau=0.1,2"], "tau"),
    "sweep of equal values": ([*TRAIN, "--sweep", "tau=0.1,0.1"], "once"),
    "evaluate nothing": (["evaluate", "no/such/folder"], "config.json"),
    "render nothing": (["render", "no/such/folder"], "config.json"),
}
# Arguments that the command line itself refuses, and the field of the error.
REFUSED = {
    "no environment": (["train", "--seeds", "2"], "env"),
    "environment last": (["train", "--seeds", "2", "Pendulum-v1"], "env"),
    "a run": (["train", "run", *TINY], "env"),
    "a plan with a coordinator": (["plan", *TRAIN[1:], "--coordinator", "h:1"], "coordinator"),
    "a plan under Slurm": (["plan", *TRAIN[1:], "--distributed"], "distributed"),
    "no seeds": ([*TRAIN, "--seeds", "0"], "seeds"),
    "negative seed": ([*TRAIN, "--seed", "-1"], "seed"),
    "huge seed": ([*TRAIN, "--seed", "4294967296"], "seed"),
    "huge last seed": ([*TRAIN, "--seed", "4294967295", "--seeds", "2"], "seed"),
    "sweep of a size": ([*TRAIN, "--sweep", "hidden=8,16"], "sweep"),
    "sweep of nothing": ([*TRAIN, "--sweep", "tua=1,2"], "sweep"),
    "sweep of words": ([*TRAIN, "--sweep", "tau=a,b"], "sweep"),
    "sweep twice": ([*TRAIN, "--sweep", "tau=0.1", "--sweep", "tau=0.2"], "sweep"),
    "sweep and flag": ([*TRAIN, "--tau", "0.1", "--sweep", "tau=0.1,0.2"], "sweep"),
}


@pytest.mark.parametrize("case", [*BAD, *REFUSED])
def test_invalid_input_prints_one_line_with_a_hint_and_exits_with_2(
    case, tmp_path, monkeypatch, capsys
):
    argv, remedy = BAD.get(case) or (REFUSED[case][0], ": ")
    errors = []
    monkeypatch.setattr("sacjax.cli.main.print_json_error", lambda _, error: errors.append(error))
    monkeypatch.chdir(tmp_path)
    if case == "a run":
        Path("run").mkdir()
        Path("run", "config.json").write_text("{}")
    before = sorted(tmp_path.rglob("*"))
    assert main(argv) == 2
    captured = capsys.readouterr()
    line = captured.err.strip().splitlines()[-1].split("\r")[-1]
    assert line == f"sacjax: error: {errors[0]}"
    assert remedy in line
    assert case in BAD or errors[0].field == REFUSED[case][1]
    assert "Traceback" not in captured.err
    assert sorted(tmp_path.rglob("*")) == before  # nothing was written


def test_the_largest_valid_seed_can_be_trained():
    args = parse_train(["Pendulum-v1", "--seed", "4294967294", "--seeds", "2"])
    assert args.seeds[-1] == 2**32 - 1


def test_whole_numbers_can_be_written_with_an_exponent(capsys):
    flags = ["--paper", "--total-steps", "2e6", "--hidden", "4e1"]
    config, _ = settings(*flags)
    assert (config.total_steps, config.hidden) == (2_000_000, (40,))
    for text in ("2.5", "two", "1/0"):
        with pytest.raises(SystemExit):
            parse_train(["Pendulum-v1", "--total-steps", text])
        assert f"{text} is not a whole number" in capsys.readouterr().err


@pytest.mark.parametrize("argv", [["train", "Pendulum-v1", "--taau", "0.1"], ["trian", "x"]])
def test_an_unknown_flag_or_command_exits_with_2(argv, capsys):
    assert main(argv) == 2
    assert re.search(r"--tau\b|train\b", capsys.readouterr().err)  # a suggestion


def test_help_lists_all_commands(capsys):
    for argv in [], ["--help"]:
        assert main(argv) == 0
        text = capsys.readouterr().out
        assert all(name in text for name in COMMANDS)


def test_resuming_a_finished_run_prints_how_to_continue_training(copy, capsys):
    assert main(["resume", str(copy)]) == 0
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == (
        "sacjax: nothing to do: this run has finished (300 steps). Train further: "
        f"`sacjax resume {copy}` with --extend-to STEPS"
    )


ERRORS = {
    "before the run": ["--seeds", "0"],
    "with an underscore": ["--seeds", "0", "--log_format=json"],
    "in the run": ["--out", "."],
    "unknown flag": ["--taau", "0.1"],
}


@pytest.mark.parametrize("case", ERRORS)
def test_log_format_json_prints_each_error_as_one_event(case, tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("not a run's")
    monkeypatch.chdir(tmp_path)
    assert main(["train", "Pendulum-v1", *TINY, "--log-format", "json", *ERRORS[case]]) == 2
    captured = capsys.readouterr()
    (event,) = (json.loads(line) for line in captured.out.splitlines())
    assert event["event"] == "error"
    assert event["message"] in captured.err or case == "unknown flag"
    assert event["field"] == {"in the run": event["field"], "unknown flag": None}.get(case, "seeds")


def closed_pipe():
    """Return the write end of a pipe that has no reader."""
    ends = os.pipe()
    os.close(ends[0])
    return open(ends[1], "w")


def full_disk():
    return open("/dev/full", "w")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize(("stdout", "code"), [(closed_pipe, 0), (full_disk, 3)])
@pytest.mark.parametrize("command", ["evaluate", "report", "envs", "train --help"])
def test_a_command_shows_no_traceback_if_stdout_is_closed_or_full(
    command, stdout, code, folder, tmp_path, monkeypatch, capsys
):
    argv = command.split()
    argv += [str(folder)] if command in ("evaluate", "report") else []
    argv += ["--out", str(tmp_path / "out")] if command == "report" else []
    with suppress(OSError), stdout() as file:
        monkeypatch.setattr(sys, "stdout", file)
        assert main(argv) == code
    error = capsys.readouterr().err
    assert error == "" if code == 0 else error.startswith("sacjax: cannot write")
    assert len(error.splitlines()) == (code == 3)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("stdout", [closed_pipe, full_disk])
def test_a_run_completes_if_its_table_cannot_be_printed(stdout, copy, monkeypatch, capsys):
    with suppress(OSError), stdout() as file:
        monkeypatch.setattr(sys, "stdout", file)
        assert main(["resume", str(copy), "--extend-to", "400"]) == 0
    error = capsys.readouterr().err
    assert error.startswith("sacjax: cannot print the returns")
    assert str(copy) in error
    assert len(error.splitlines()) == 1
    assert load(copy).completed


@pytest.mark.processes
def test_a_run_continues_if_the_reader_closes_the_json_stream(tmp_path):
    out = tmp_path / "run"
    command = [sys.executable, "-m", "sacjax", "train", "Pendulum-v1", "--out", str(out), *TINY]
    with closed_pipe() as stdout:
        done = subprocess.run(
            [*command, "--log-format", "json"],
            stdout=stdout, stderr=subprocess.PIPE, text=True,
            env=os.environ | {"PYTHONUNBUFFERED": ""},
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (
        done.stderr
        == "JsonLines failed, the run continues: BrokenPipeError: [Errno 32] Broken pipe\n"
    )
    assert load(out).completed
    assert (out / "checkpoints").is_dir()
    assert len(rows(out)) == 4


@pytest.mark.processes
@pytest.mark.parametrize("arguments", [["--version"], ["train", "--help"], ["envs"]])
def test_a_command_succeeds_if_stdout_is_closed(arguments):
    with closed_pipe() as stdout:
        done = subprocess.run(
            [sys.executable, "-m", "sacjax", *arguments],
            stdout=stdout, stderr=subprocess.PIPE, text=True,
            env=os.environ | {"PYTHONUNBUFFERED": ""},
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


def test_train_does_not_change_the_folder_of_another_run(copy, capsys):
    before = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    assert main(["train", "Pendulum-v1", "--out", str(copy), *TINY]) == 2
    assert str(copy) in capsys.readouterr().err
    assert {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()} == before


def test_render_reports_a_failed_write_in_one_line(folder, tmp_path, monkeypatch, capsys):
    def read_only(*_):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("sacjax.report.render.os.replace", read_only)
    command = ["render", str(folder), "--frames", "2", "--out", str(tmp_path / "policy.gif")]
    assert main(command) == 3
    error = capsys.readouterr().err
    assert "cannot write" in error
    assert len(error.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_an_unwritable_folder_raises_an_input_error(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(["train", "Pendulum-v1", "--out", str(tmp_path / "file" / "x"), *TINY]) == 2
    assert "cannot write" in capsys.readouterr().err


def test_an_unreadable_file_causes_an_error_of_one_line(copy, tmp_path, monkeypatch, capsys):
    """The test simulates the error, because root can read every file."""

    def read_text(path, *_, **__):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_text", read_text)
    for command in ("evaluate", "resume", "report"):
        assert main([command, str(copy)]) == 2
        error = capsys.readouterr().err
        assert f"{copy / 'config.json'}': change its permissions" in error
        assert len(error.splitlines()) == 1


def test_concurrent_runs_get_different_folders(tmp_path):
    with ThreadPoolExecutor(8) as pool, ExitStack() as stack:
        start = threading.Barrier(8)

        def claim(_):
            start.wait()
            place = claimed(tmp_path / "runs" / "Pendulum-v1")
            return place, place.__enter__()

        for place, path in (found := list(pool.map(claim, range(8)))):
            stack.push(place)
            (path / "config.json").touch()
    names = {"Pendulum-v1", *(f"Pendulum-v1-{i}" for i in range(2, 9))}
    assert {path.name for _, path in found} == names
    assert {path.name for path in (tmp_path / "runs").iterdir()} == names


def test_train_raises_an_input_error_if_runs_is_a_file(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("runs").touch()
    assert main(["train", "Pendulum-v1", *TINY]) == 2
    assert "runs (Not a directory)" in capsys.readouterr().err


def test_load_warns_if_the_numerical_precision_of_jax_changed(copy, caplog):
    content = json.loads((copy / "config.json").read_text())
    edit(copy, jax=content["jax"] | {"x64": True})
    load(copy)
    assert str(copy) in caplog.text
    assert "jax_enable_x64" in caplog.text


@pytest.mark.processes
def test_characters_that_stdout_cannot_encode_are_escaped(folder):
    environment = os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    command = [sys.executable, "-m", "sacjax", "report", str(folder), "--labels", "α²"]
    done = subprocess.run(
        [*command, "--out", str(folder.with_name("letters"))], env=environment, capture_output=True
    )
    assert done.returncode == 0, done.stderr
    assert rb"\u03b1\xb2, tau=0.005" in done.stdout


def edit(folder, **fields):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


DAMAGE = {
    "no agents": lambda d: shutil.rmtree(d / "agents"),
    "truncated config": lambda d: (d / "config.json").write_text('{"format": 4, "conf'),
    "foreign config": lambda d: (d / "config.json").write_text('{"name": "other"}'),
    "another format": lambda d: (d / "config.json").write_text(
        (d / "config.json").read_text().replace('"format": 4', '"format": 99')
    ),
    "another network": lambda d: (d / "config.json").write_text(
        (d / "config.json").read_text().replace('"hidden": [\n      8', '"hidden": [\n      9')
    ),
    "no seeds": lambda d: edit(d, seeds=[]),
    "a seed twice": lambda d: edit(d, seeds=[0, 0]),
    "no settings": lambda d: edit(d, hyperparams=[]),
    "an unknown setting is swept": lambda d: edit(d, swept=["nosuch"]),
    "binary csv": lambda d: (d / "metrics.csv").write_bytes(b"\xff\xfe\x00"),
    "no csv": lambda d: (d / "metrics.csv").unlink(),
    "truncated agents": lambda d: [p.write_bytes(p.read_bytes()[: p.stat().st_size // 2])
                                   for p in (d / "agents").rglob("*") if p.is_file()],
}  # fmt: skip


@pytest.mark.parametrize("case", DAMAGE)
def test_a_damaged_folder_causes_an_error_of_one_line(case, copy, capsys):
    DAMAGE[case](copy)
    reader = "report" if "csv" in case else "evaluate"  # only the report reads metrics.csv
    assert main([reader, str(copy)]) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("sacjax: error:")
    assert len(error.splitlines()) == 1


def test_loaded_agents_equal_the_trained_agents(folder):
    run = load(folder)
    assert [m["seed"] for m in run.members] == [0, 1] * 4
    assert run.completed
    assert run.agents.log_alpha.shape == (8,)
    assert set(np.asarray(run.agents.step)) == {200}
    assert run.metrics["eval_return"].shape == (8, 2, 2)  # one value per episode
    np.testing.assert_allclose(
        run.metrics["eval_return"][:, -1].mean(-1),
        [float(r["eval_return"]) for r in rows(folder)[8:]],
        rtol=1e-6,
    )


def test_a_loaded_policy_repeats_the_actions_of_the_evaluation(folder):
    run = load(folder)
    policy, agent = run.policy(5, units="unit"), run.agent(5)
    env = make_env("Pendulum-v1")(3)
    _, obs = env.reset(jax.random.key(1), env.default_params)
    action = make_sac(run.config, env).mode(agent, obs)  # [3, 1]
    np.testing.assert_array_equal(policy(obs), action)
    np.testing.assert_allclose(policy(np.asarray(obs[1], np.float64)), action[1], rtol=1e-5)
    assert policy(np.asarray(obs)[None]).shape == (1, 3, 1)
    np.testing.assert_allclose(jax.jit(jax.vmap(policy))(obs), action, rtol=1e-5)
    assert not np.allclose(run.policy(4, units="unit")(obs), action)
    with pytest.raises(InputError, match=r"\[..., 3\]"):
        policy(obs[:, :2])
    with pytest.raises(InputError, match="from 0 to 7"):
        run.policy(8)


@pytest.mark.processes
def test_ctrl_c_leaves_complete_files_and_exits_with_130(tmp_path):
    out = tmp_path / "run"
    flags = [*TINY, "--total-steps", "1000100"]
    command = [sys.executable, "-m", "sacjax", "train", "Pendulum-v1", "--out", str(out)]
    process = subprocess.Popen([*command, *flags], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and len((out / "metrics.csv").read_text().splitlines() if (
        out / "metrics.csv").exists() else []) < 5:  # fmt: skip
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130, error
    assert "stopped after" in error
    assert len(rows(out)) % 2 == 0
    assert not [*out.rglob("*.part"), *out.rglob(f"{PART}*")]
    run = load(out)
    assert not run.completed
    assert run.epochs.tolist() == [len(rows(out)) // 2] * 2
    assert (out / "learning_curve.png").exists()


@pytest.mark.processes
def test_help_imports_no_environments():
    code = (
        "import sys; from sacjax.cli.main import main\n"
        "try: main(['train', '--help'])\n"
        "except SystemExit as stop: assert stop.code == 0\n"
        "assert not {'gymnax', 'flax', 'distrax', 'matplotlib'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for word in ("--seeds", "--sweep", "--out", "--num-envs", "--target-entropy-per-dim"):
        assert word in done.stdout


def test_help_and_version_work_without_a_command(capsys):
    assert main([]) == 0
    assert main(["--version"]) == 0
    printed = capsys.readouterr().out
    assert "usage: sacjax" in printed
    assert "sacjax 0." in printed


@pytest.mark.processes
def test_python_m_sacjax_runs_the_command_line():
    env = os.environ | {"PYTHONWARNINGS": "error::SyntaxWarning"}
    done = subprocess.run(
        [sys.executable, "-m", "sacjax", "evaluate", "nowhere"],
        capture_output=True, text=True, env=env,
    )  # fmt: skip
    assert done.returncode == 2
    assert "config.json" in done.stderr


def test_the_commands_suggested_by_train_work(tmp_path, capsys):
    out = tmp_path / "my run"
    assert main(["train", "Pendulum-v1", "--out", str(out), *TINY]) == 0
    lines = [x.strip() for x in capsys.readouterr().out.splitlines() if x.startswith("  sacjax ")]
    assert [line.split()[1] for line in lines] == ["evaluate", "render", "report", "resume"]
    command = shlex.split(lines[-1].partition("  ")[0])
    assert command[1:] == ["resume", str(out), "--extend-to", "500"]
    assert main(command[1:]) == 0
    assert load(out).env_steps.tolist() == [500, 500]


def test_a_large_sweep_shows_only_its_best_settings():
    """The table lists the 20 best of 27 settings, and the curve colors the 5 best."""
    members = [{"tau": i / 100, "seed": s} for i in range(1, 28) for s in (0, 1)]
    returns = np.repeat(np.arange(27.0), 2)
    returns[:2] = np.nan
    text = tables.of_run(members, returns, returns, "title")
    lines = text.splitlines()
    assert "best first" in lines[1]
    assert lines[3].replace("│", "").split()[:3] == ["tau=0.27", "2", "26.0"]
    assert len([line for line in lines if line.startswith("tau=")]) == 20
    assert lines[-1] == "and 7 more settings: metrics.csv has all of them"
    groups = {f"tau={i}": [i] for i in range(9)}
    best = curve.ranked(groups, np.array([np.nan, *range(1, 9)]))
    assert best == [f"tau={i}" for i in (8, 7, 6, 5, 4, 3, 2, 1, 0)]
    metrics = {"env_steps": np.full((54, 1), 10.0), "eval_return": returns[:, None]}
    assert curve.learning_curve(members, metrics, "run").startswith(b"\x89PNG")


def test_a_run_of_one_seed_has_a_table_and_a_learning_curve():
    text = tables.of_run([{"seed": 0}], np.array([2.0]), np.array([1.0]), "title")
    assert "2.0" in text
    assert "none below 5 seeds" in text
    metrics = {"env_steps": np.array([[10, 20]]), "eval_return": np.array([[1.0, 2.0]])}
    image = curve.learning_curve([{"seed": 0}], metrics, "run")
    assert image.startswith(b"\x89PNG")
    assert len(image) > 5_000
