"""The command line and the folder it writes: what it makes, repeats, refuses and leaves behind."""

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
from PIL import Image

from sacjax import load
from sacjax.cli import commands
from sacjax.cli.flags import parse_train
from sacjax.cli.main import COMMANDS, main
from sacjax.envs.names import SUITES, make_env
from sacjax.report import tables
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
    """A tiny sweep, trained once: 2 x 2 settings x 2 seeds, 2 evaluations."""
    out = tmp_path_factory.mktemp("runs") / "pendulum"
    assert main(["train", "Pendulum-v1", "--out", str(out), *TINY, *SWEEP]) == 0
    return out


@pytest.fixture
def copy(folder, tmp_path):
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def rows(folder):
    with (folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def test_train_writes_the_five_results(folder):
    assert {path.name for path in folder.iterdir()} == {
        "agents",
        "checkpoints",
        "config.json",
        "learning_curve.png",
        "metrics.csv",
    }
    with Image.open(folder / "learning_curve.png") as image:
        assert image.size[0] > 600


def test_csv_has_one_row_per_member_and_evaluation_keyed_by_the_grid(folder):
    found = [(float(r["tau"]), float(r["actor_lr"]), int(r["seed"])) for r in rows(folder)]
    grid = [(t, a, s) for t in (0.005, 0.02) for a in (1e-4, 3e-4) for s in (0, 1)]
    assert found == grid * 2
    assert [r["env_steps"] for r in rows(folder)] == ["200"] * 8 + ["300"] * 8
    assert {r["gradient_steps"] for r in rows(folder)[8:]} == {"200"}
    assert all(np.isfinite(float(r["critic_loss"])) for r in rows(folder))


def test_config_json_repeats_the_run(folder, tmp_path):
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


def test_one_seed_alone_is_the_member_it_was_to_rounding(folder, tmp_path):
    out = tmp_path / "alone"
    flags = [*TINY[:-2], "--tau", "0.02", "--actor-lr", "1e-4", "--seed", "1", "--seeds", "1"]
    assert main(["train", "Pendulum-v1", "--out", str(out), *flags]) == 0
    alone, member = rows(out)[0], rows(folder)[5]
    assert (member["tau"], member["actor_lr"], member["seed"]) == ("0.02", "0.0001", "1")
    for name in ("critic_loss", "q", "alpha", "entropy", "train_return"):
        # 100 gradient steps of float32 apart: measured below 3e-5
        np.testing.assert_allclose(float(alone[name] or 0), float(member[name] or 0), rtol=1e-3)


def test_a_sweep_of_one_value_is_that_value(folder, tmp_path):
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


def test_report_compares_the_points_of_a_sweep(folder, tmp_path, capsys):
    assert main(["report", str(folder), "--out", str(tmp_path / "out")]) == 0
    text = (tmp_path / "out" / "report.html").read_text()
    for tau, actor_lr in ((0.005, 0.0001), (0.005, 0.0003), (0.02, 0.0001), (0.02, 0.0003)):
        assert f"pendulum, tau={tau}, actor_lr={actor_lr}</td>" in text
    assert "P(beats first)" in capsys.readouterr().out


@pytest.mark.parametrize("columns", [80, 200])
@pytest.mark.parametrize("command", ["evaluate", "report", "envs"])
def test_tables_are_as_wide_as_the_terminal_or_less(
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


def test_evaluate_with_other_episodes(folder, capsys):
    assert main(["evaluate", str(folder), "--episodes", "3"]) == 0
    assert "3 episodes" in capsys.readouterr().out


def test_render_writes_a_moving_gif(folder, tmp_path, capsys):
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


def test_envs_lists_those_of_a_suite(capsys):
    assert main(["envs", "gymnasium"]) == 0
    assert "gymnasium/HalfCheetah-v5" in capsys.readouterr().out.splitlines()
    assert main(["envs", "--help"]) == 0
    assert "usage: sacjax envs" in capsys.readouterr().out
    assert main(["envs", "atari"]) == 2
    error = capsys.readouterr().err
    assert all(suite in error for suite in SUITES)


def test_envs_lists_the_five_with_shapes_and_bounds(capsys):
    assert main(["envs"]) == 0
    printed = capsys.readouterr().out
    for name in ("Pendulum-v1", "MountainCarContinuous-v0", "Reacher", "Swimmer", "PointRobot"):
        assert name in printed
    assert "-0.1 to 0.1" in printed
    assert "CartPole" not in printed


def settings(*flags, env="Pendulum-v1"):
    return commands.settings(parse_train([env, *flags]))


def test_presets_flags_and_sweeps_combine():
    config, hp = settings("--tau", "0.05", "--sweep", "gamma=0.9,0.99")
    assert config.hidden == (64, 64)  # the preset's
    np.testing.assert_allclose(hp.tau, [0.05, 0.05])
    np.testing.assert_allclose(hp.gamma, [0.9, 0.99])
    np.testing.assert_allclose(hp.critic_lr, [3e-3, 3e-3])
    config, hp = settings("--paper")
    assert (config.hidden, hp.critic_lr) == ((256, 256), 3e-4)
    assert parse_train(["Pendulum-v1", "--seeds", "3"]).seeds == range(3)


def test_flags_replace_a_file_and_a_file_replaces_the_preset(folder, tmp_path):
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


def test_a_file_that_holds_no_settings_is_refused(folder, tmp_path):
    broken = tmp_path / "broken.json"
    broken.write_text("[1]")
    for path, message in (
        (tmp_path / "none.toml", "cannot read --config"),
        (broken, "is no file of settings"),
        (folder / "config.json", "holds a sweep of 4 points"),
    ):
        with pytest.raises(InputError, match=message):
            parse_train(["Pendulum-v1", "--config", str(path)])


def test_what_was_not_typed_is_rounded_to_fit_and_a_line_says_so(caplog):
    config, _ = settings("--num-envs", "3", env="brax/ant")  # the preset: 128, warm-up 8192
    assert config.warmup_steps % 3 == 0
    assert "warmup_steps: 8193, not 8192" in caplog.text
    config, _ = settings("--total-steps", "300")
    assert (config.total_steps, config.warmup_steps) == (300, 30)
    assert 270 % config.eval_every == 0
    with pytest.raises(InputError, match="use warmup_steps="):
        settings("--total-steps", "300", "--warmup-steps", "400")


@pytest.mark.parametrize(
    ("flag", "field"), [("--learning-rate", "actor_lr"), ("--buffer-size=9", "replay_size")]
)
def test_a_flag_of_another_library_names_the_right_one(flag, field):
    with pytest.raises(InputError, match=f"no option --.*: use {field}"):
        parse_train(["Pendulum-v1", flag, "1"])


BAD = {
    "unknown environment": (["train", "Pendulum-v2", *TINY], "did you mean Pendulum-v1"),
    "discrete actions": (["train", "CartPole-v1", *TINY], "Box"),
    "no environment": (["train", "--seeds", "2"], "sacjax train Pendulum-v1"),
    "environment last": (["train", "--seeds", "2", "Pendulum-v1"], "name the environment first"),
    "negative rate": (["train", "Pendulum-v1", *TINY, "--actor-lr", "-1"], "actor_lr"),
    "not a number": (["train", "Pendulum-v1", *TINY, "--gamma", "nan"], "gamma"),
    "out of range": (["train", "Pendulum-v1", *TINY, "--tau", "1.5"], "tau"),
    "a plan for several": (
        ["plan", "Pendulum-v1", *TINY, "--coordinator", "h:1", "--num-processes", "4"],
        "plan for its share of the seeds",
    ),
    "no seeds": (["train", "Pendulum-v1", *TINY, "--seeds", "0"], "seeds (0) must be 1 or more"),
    "negative seed": (
        ["train", "Pendulum-v1", *TINY, "--seed", "-1"],
        "from seed (-1) to the last",
    ),
    "huge seed": (
        ["train", "Pendulum-v1", *TINY, "--seed", "4294967296"],
        "must be from 0 to 4294967295",
    ),
    "huge last seed": (
        ["train", "Pendulum-v1", *TINY, "--seed", "4294967295", "--seeds", "2"],
        "use --seed 0 or fewer seeds",
    ),
    "too many devices": (
        ["train", "Pendulum-v1", *TINY, "--devices", "9"],
        "must be from 1 to 2, the number that JAX has here: leave devices (--devices) out",
    ),
    "a run": (["train", "run", *TINY], "`sacjax resume run` resumes it"),
    "does not divide": (["train", "Pendulum-v1", *TINY, "--eval-every", "70"], "use warmup"),
    "small replay": (["train", "Pendulum-v1", *TINY, "--replay-size", "4"], "use replay_size=8"),
    "long warm-up": (["train", "Pendulum-v1", *TINY, "--warmup-steps", "900"], "warmup_steps"),
    "huge replay": (
        ["train", "Pendulum-v1", "--total-steps", "100000000000", "--replay-size", "100000000000"],
        "must be a whole number from 1 to 2147483647",
    ),
    "too little memory": (
        ["train", "Pendulum-v1", "--total-steps", "2000001000", "--replay-size", "2000000000"],
        "use replay_size=",
    ),
    "too many agents": (["train", "Pendulum-v1", "--seeds", "2000000"], "--members-per-batch"),
    "sweep of a size": (["train", "Pendulum-v1", "--sweep", "hidden=8,16"], "once for each"),
    "sweep of nothing": (["train", "Pendulum-v1", "--sweep", "tua=1,2"], "use tau"),
    "sweep of words": (["train", "Pendulum-v1", "--sweep", "tau=a,b"], "numbers"),
    "sweep out of range": (["train", "Pendulum-v1", *TINY, "--sweep", "tau=0.1,2"], "tau"),
    "sweep twice": (["train", "Pendulum-v1", *TINY, "--sweep", "tau=0.1,0.1"], "once"),
    "sweep and flag": (["train", "Pendulum-v1", "--tau", "0.1", "--sweep", "tau=0.1,0.2"], "drop"),
    "evaluate nothing": (["evaluate", "no/such/folder"], "not a run's folder"),
    "render nothing": (["render", "no/such/folder"], "not a run's folder"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_with_the_remedy_and_exit_code_2(case, tmp_path, monkeypatch, capsys):
    argv, remedy = BAD[case]
    monkeypatch.chdir(tmp_path)
    if case == "a run":
        Path("run").mkdir()
        Path("run", "config.json").write_text("{}")
    there = sorted(tmp_path.rglob("*"))
    assert main(argv) == 2
    captured = capsys.readouterr()
    error = captured.err.strip().splitlines()[-1].split("\r")[-1]
    assert error.startswith("sacjax: error:")
    assert remedy in error
    assert "Traceback" not in captured.err
    assert sorted(tmp_path.rglob("*")) == there  # nothing was written


def test_the_last_seed_of_all_can_be_trained():
    args = parse_train(["Pendulum-v1", "--seed", "4294967294", "--seeds", "2"])
    assert args.seeds[-1] == 2**32 - 1


def test_whole_numbers_may_be_written_as_powers_of_ten(capsys):
    flags = ["--paper", "--total-steps", "2e6", "--hidden", "4e1"]
    config, _ = settings(*flags)
    assert (config.total_steps, config.hidden) == (2_000_000, (40,))
    for text in ("2.5", "two", "1/0"):
        with pytest.raises(SystemExit):
            parse_train(["Pendulum-v1", "--total-steps", text])
        assert f"{text} is not a whole number" in capsys.readouterr().err


@pytest.mark.parametrize("argv", [["train", "Pendulum-v1", "--taau", "0.1"], ["trian", "x"]])
def test_an_unknown_flag_or_command_ends_with_2(argv, capsys):
    assert main(argv) == 2
    assert re.search(r"--tau\b|train\b", capsys.readouterr().err)  # what may be meant


def test_help_lists_the_commands(capsys):
    for argv in [], ["--help"]:
        assert main(argv) == 0
        text = capsys.readouterr().out
        assert all(name in text for name in COMMANDS)


def test_of_a_finished_run_it_is_said_how_to_train_on(copy, capsys):
    assert main(["resume", str(copy)]) == 0
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == (
        "sacjax: nothing to do: this run has finished (300 steps). Train further: "
        f"`sacjax resume {copy}` with --extend-to STEPS"
    )


ERRORS = {
    "before the run": ["--seeds", "0"],
    "written otherwise": ["--seeds", "0", "--log_format=json"],
    "in the run": ["--out", "."],
    "of the parser": ["--taau", "0.1"],
}


@pytest.mark.parametrize("case", ERRORS)
def test_every_error_is_one_event_for_those_who_read_json(case, tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("not a run's")
    monkeypatch.chdir(tmp_path)
    assert main(["train", "Pendulum-v1", *TINY, "--log-format", "json", *ERRORS[case]]) == 2
    captured = capsys.readouterr()
    (event,) = (json.loads(line) for line in captured.out.splitlines())
    assert event["event"] == "error"
    assert event["message"] in captured.err or case == "of the parser"


def closed_pipe():
    """A pipe to write to, that nobody reads."""
    ends = os.pipe()
    os.close(ends[0])
    return open(ends[1], "w")


def full_disk():
    return open("/dev/full", "w")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux's")
@pytest.mark.parametrize(("stdout", "code"), [(closed_pipe, 0), (full_disk, 3)])
@pytest.mark.parametrize("command", ["evaluate", "report", "envs", "train --help"])
def test_what_cannot_be_printed_is_no_traceback(
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


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux's")
@pytest.mark.parametrize("stdout", [closed_pipe, full_disk])
def test_a_run_whose_table_cannot_be_printed_is_done(stdout, copy, monkeypatch, capsys):
    with suppress(OSError), stdout() as file:
        monkeypatch.setattr(sys, "stdout", file)
        assert main(["resume", str(copy), "--extend-to", "400"]) == 0
    error = capsys.readouterr().err
    assert error.startswith("sacjax: cannot print the returns")
    assert str(copy) in error
    assert len(error.splitlines()) == 1
    assert load(copy).completed


@pytest.mark.processes
def test_a_run_whose_json_lines_nobody_reads_goes_on(tmp_path):
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
        == "JsonLines failed, the run goes on: BrokenPipeError: [Errno 32] Broken pipe\n"
    )
    assert load(out).completed
    assert (out / "checkpoints").is_dir()
    assert len(rows(out)) == 4


@pytest.mark.processes
@pytest.mark.parametrize("arguments", [["--version"], ["train", "--help"], ["envs"]])
def test_nothing_is_said_where_nobody_reads(arguments):
    with closed_pipe() as stdout:
        done = subprocess.run(
            [sys.executable, "-m", "sacjax", *arguments],
            stdout=stdout, stderr=subprocess.PIPE, text=True,
            env=os.environ | {"PYTHONUNBUFFERED": ""},
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


def test_another_runs_folder_is_refused_and_left_alone(copy, capsys):
    before = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    assert main(["train", "Pendulum-v1", "--out", str(copy), *TINY]) == 2
    assert "another run" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()} == before


def test_a_picture_that_cannot_be_written_is_one_line(folder, tmp_path, monkeypatch, capsys):
    def read_only(*_):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("sacjax.report.render.os.replace", read_only)
    command = ["render", str(folder), "--frames", "2", "--out", str(tmp_path / "policy.gif")]
    assert main(command) == 3
    error = capsys.readouterr().err
    assert "cannot write" in error
    assert len(error.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_an_unwritable_folder_is_refused(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(["train", "Pendulum-v1", "--out", str(tmp_path / "file" / "x"), *TINY]) == 2
    assert "cannot write" in capsys.readouterr().err


def test_what_may_not_be_read_is_one_line(copy, tmp_path, monkeypatch, capsys):
    """As other users are refused; root, who may run these tests, reads everything."""

    def read_text(path, *_, **__):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_text", read_text)
    for command in ("evaluate", "resume", "report"):
        assert main([command, str(copy)]) == 2
        error = capsys.readouterr().err
        assert f"{copy / 'config.json'}': change its permissions" in error
        assert len(error.splitlines()) == 1


def test_of_those_that_ask_for_a_name_at_once_each_gets_its_own(tmp_path):
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


def test_where_the_place_for_runs_is_a_file_it_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("runs").touch()
    assert main(["train", "Pendulum-v1", *TINY]) == 2
    assert "cannot write to runs (Not a directory): give a folder" in capsys.readouterr().err


def test_agents_of_another_precision_are_loaded_aloud(copy, caplog):
    content = json.loads((copy / "config.json").read_text())
    edit(copy, jax=content["jax"] | {"x64": True})
    load(copy)
    assert f"{copy} was trained with jax_enable_x64=True and is loaded with False" in caplog.text


@pytest.mark.processes
def test_a_terminal_without_the_letters_gets_escapes(folder):
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
def test_a_damaged_folder_is_refused_in_one_line(case, copy, capsys):
    DAMAGE[case](copy)
    reader = "report" if "csv" in case else "evaluate"  # nothing else reads metrics.csv
    assert main([reader, str(copy)]) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("sacjax: error:")
    assert len(error.splitlines()) == 1


def test_loaded_agents_are_the_trained_ones(folder):
    run = load(folder)
    assert [m["seed"] for m in run.members] == [0, 1] * 4
    assert run.completed
    assert run.agents.log_alpha.shape == (8,)
    assert set(np.asarray(run.agents.step)) == {200}
    assert run.metrics["eval_return"].shape == (8, 2, 2)  # as `run` gave it: every episode
    np.testing.assert_allclose(
        run.metrics["eval_return"][:, -1].mean(-1),
        [float(r["eval_return"]) for r in rows(folder)[8:]],
        rtol=1e-6,
    )


def test_a_policy_acts_as_in_the_evaluation(folder):
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
    with pytest.raises(InputError, match=r"shape \(3, 2\) must be \[..., 3\], as Pendulum-v1"):
        policy(obs[:, :2])
    with pytest.raises(InputError, match=r"member \(8\) must be from 0 to 7"):
        run.policy(8)


@pytest.mark.processes
def test_ctrl_c_leaves_complete_files_and_exit_code_130(tmp_path):
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
def test_help_does_not_import_the_environments():
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


def test_main_help_and_version(capsys):
    assert main([]) == 0
    assert main(["--version"]) == 0
    printed = capsys.readouterr().out
    assert "usage: sacjax" in printed
    assert "sacjax 0." in printed


@pytest.mark.processes
def test_the_package_runs_as_a_program():
    env = os.environ | {"PYTHONWARNINGS": "error::SyntaxWarning"}
    done = subprocess.run(
        [sys.executable, "-m", "sacjax", "evaluate", "nowhere"],
        capture_output=True, text=True, env=env,
    )  # fmt: skip
    assert done.returncode == 2
    assert "not a run's folder" in done.stderr


def test_what_to_type_next_is_printed_and_can_be_typed(tmp_path, capsys):
    out = tmp_path / "my run"
    assert main(["train", "Pendulum-v1", "--out", str(out), *TINY]) == 0
    lines = [x.strip() for x in capsys.readouterr().out.splitlines() if x.startswith("  sacjax ")]
    assert [line.split()[1] for line in lines] == ["evaluate", "render", "report", "resume"]
    command = shlex.split(lines[-1].partition("  ")[0])
    assert command[1:] == ["resume", str(out), "--extend-to", "500"]
    assert main(command[1:]) == 0
    assert load(out).env_steps.tolist() == [500, 500]


def test_many_points_are_a_table_of_the_best_and_a_curve_of_five():
    """Of 27 points the legend ran out of the picture."""
    members = [{"tau": i / 100, "seed": s} for i in range(1, 28) for s in (0, 1)]
    returns = np.repeat(np.arange(27.0), 2)
    returns[:2] = np.nan
    text = tables.of_run(members, returns, returns, "title")
    lines = text.splitlines()
    assert "best first" in lines[1]
    assert lines[3].replace("│", "").split()[:3] == ["tau=0.27", "2", "26.0"]
    assert len([line for line in lines if line.startswith("tau=")]) == 20
    assert lines[-1] == "and 7 more points: metrics.csv has all of them"
    groups = {f"tau={i}": [i] for i in range(9)}
    best = curve.ranked(groups, np.array([np.nan, *range(1, 9)]))
    assert best == [f"tau={i}" for i in (8, 7, 6, 5, 4, 3, 2, 1, 0)]
    metrics = {"env_steps": np.full((54, 1), 10.0), "eval_return": returns[:, None]}
    assert curve.learning_curve(members, metrics, "run").startswith(b"\x89PNG")


def test_table_and_curve_of_a_single_seed():
    text = tables.of_run([{"seed": 0}], np.array([2.0]), np.array([1.0]), "title")
    assert "2.0" in text
    assert "one seed has none" in text
    metrics = {"env_steps": np.array([[10, 20]]), "eval_return": np.array([[1.0, 2.0]])}
    image = curve.learning_curve([{"seed": 0}], metrics, "run")
    assert image.startswith(b"\x89PNG")
    assert len(image) > 5_000
