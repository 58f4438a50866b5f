"""Test the command line under other environment variables, and with ~ in paths."""

import json
import os
import subprocess
import sys

import jax
import pytest
from checks import TINY, refused

import sacjax
from sacjax import load, resume, run
from sacjax.cli import commands
from sacjax.cli.main import main
from sacjax.errors import InputError
from sacjax.loggers import TensorBoard, WandB
from sacjax.report import compare
from sacjax.report.render import render

FLAGS = [
    *("--total-steps", "300", "--warmup-steps", "100", "--eval-every", "100", "--hidden", "8"),
    *("--batch-size", "8", "--eval-episodes", "2", "--seeds", "1"),
]
NOWHERE = "/dev/null/nowhere"  # nobody can write there, not even root
HARMLESS = {
    "COLUMNS": "0",
    "HOME": NOWHERE,
    "JAX_COMPILATION_CACHE_DIR": NOWHERE,
    "JAX_DEBUG_KEY_REUSE": "1",
    "JAX_ENABLE_X64": "1",
    "JAX_LOG_COMPILES": "1",
    "JAX_NUMPY_RANK_PROMOTION": "raise",
    "LC_ALL": "C",
    "MPLBACKEND": "garbage",
    "MPLCONFIGDIR": NOWHERE,
    "MUJOCO_GL": "garbage",
    "PYTHONIOENCODING": "ascii",
    "PYTHONUTF8": "0",
    "PYTHONWARNINGS": "error",
    "SDL_VIDEODRIVER": "garbage",
    "TERM": "dumb",
    "TF_CPP_MIN_LOG_LEVEL": "garbage",
    "WANDB_MODE": "garbage",
    "XDG_CACHE_HOME": NOWHERE,
    "XDG_CONFIG_HOME": NOWHERE,
    "XLA_PYTHON_CLIENT_ALLOCATOR": "garbage",
    "XLA_PYTHON_CLIENT_MEM_FRACTION": "2",
}


def shell(code, *arguments, **variables):
    """Run Python with these variables and without those of JAX. Return the process."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_", "XLA_"))}
    kept["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "")  # the suite compiles quickly
    command = [sys.executable, *code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=kept | variables)


@pytest.mark.processes
def test_commands_ignore_invalid_values_of_unrelated_variables(tmp_path):
    """One process runs the commands one after the other, as the shell calls them."""
    out = str(tmp_path / "run")
    lines = [
        ["train", "Pendulum-v1", "--out", out, *FLAGS],
        ["evaluate", out],
        ["render", out, "--frames", "3"],
        ["report", out, "--out", str(tmp_path / "report")],
        ["envs"],
    ]
    code = (
        "import json, sys; from sacjax.cli.main import main\n"
        "for line in json.loads(sys.argv[1]): sys.argv = ['sacjax', *line]; assert main() == 0"
    )
    done = shell(["-c", code], json.dumps(lines), **HARMLESS)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "run" / "policy.gif").exists()


@pytest.mark.processes
@pytest.mark.parametrize(
    ("variable", "value", "cause"),
    [
        ("JAX_PLATFORMS", "cuda", "AssertionError"),
        ("JAX_PLATFORMS", "nonsense", "nonsense"),
        ("JAX_ENABLE_X64", "garbage", "invalid truth value"),
        ("JAX_NUM_CPU_DEVICES", "0", "Unable to initialize backend"),
        ("JAX_TRANSFER_GUARD", "disallow", "Disallowed host-to-device transfer"),
    ],
)
def test_an_invalid_jax_variable_prints_one_line_and_exits_with_2(variable, value, cause, tmp_path):
    out = str(tmp_path / "run")
    line = ["train", "Pendulum-v1", "--out", out, "--log-format", "json"]
    done = shell(["-m", "sacjax"], *line, **{variable: value})
    assert done.returncode == 2
    (text,) = done.stderr.strip().splitlines()
    assert text.startswith("sacjax: error: JAX cannot start (")
    assert cause in text
    assert text.endswith(f"check {variable}, XLA_FLAGS")
    event = json.loads(done.stdout)
    assert event["field"] == (variable if variable == "JAX_PLATFORMS" else None)
    assert not (tmp_path / "run").exists()
    assert shell(["-m", "sacjax"], "--version", **{variable: value}).returncode == 0


@pytest.mark.processes
def test_every_command_reports_that_jax_cannot_start(tmp_path):
    for command in ("evaluate", "render", "resume", "envs"):
        where = [] if command == "envs" else [str(tmp_path)]
        done = shell(["-m", "sacjax"], command, *where, JAX_PLATFORMS="nonsense")
        assert done.returncode == 2, done.stderr
        assert done.stderr.strip().endswith("check JAX_PLATFORMS, XLA_FLAGS")


@pytest.mark.parametrize(("value", "kept"), [("garbage", "disabled"), ("glfw", "glfw")])
def test_an_invalid_mujoco_gl_disables_opengl(value, kept, monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", value)
    commands.start_jax()
    assert os.environ["MUJOCO_GL"] == kept


@pytest.mark.processes
def test_the_home_directory_is_expanded_in_paths(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert main(["train", "Pendulum-v1", "--out=~/a", *FLAGS]) == 0
    assert main(["render", "~/a", "--frames=1", "--out=~/a.gif"]) == 0
    run(TINY, seeds=1, directory="~/b")
    assert resume("~/b").completed
    render(load("~/b"), 0, "~/b.gif", frames=1)
    compare("~/a", "~/b", out="~/report")
    found = {path.name for path in tmp_path.iterdir()}
    assert found == {"a", "b", "a.gif", "b.gif", "report"}
    assert TensorBoard("~/b")._directory == tmp_path / "b" / "tensorboard"
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert WandB("~/b")._directory == tmp_path / "b"
    with pytest.raises(InputError, match="~nobody-here/a"):  # no such user: the path stays
        load("~nobody-here/a")


@pytest.mark.processes
def test_only_processes_forked_after_the_start_of_jax_are_recognised():
    code = """
import os, sys, sacjax
def marked():
    child = os.fork()
    if not child:
        os._exit(sacjax._forked_after_start)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
before = marked()
import jax; jax.devices()
print(before, marked(), int(sacjax._forked_after_start))
"""
    done = shell(["-W", "ignore", "-c", code], JAX_PLATFORMS="cpu")
    assert done.stdout.split() == ["0", "1", "0"], done.stderr


def test_run_warns_in_a_forked_process(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(sacjax, "_forked_after_start", True)
    run(TINY, seeds=1, directory=tmp_path / "run")
    resume(tmp_path / "run")
    warning = "this process was forked after JAX had started, so training may hang"
    assert [warning in record.getMessage() for record in caplog.records] == [True, True]
    assert "get_context('spawn')" in caplog.text


@pytest.mark.parametrize(
    "setting", [lambda: jax.disable_jit(), lambda: jax.numpy_dtype_promotion("strict")]
)
def test_run_works_without_jit_and_with_strict_dtype_promotion(setting):
    config = TINY.__class__(**vars(TINY) | {"eval_max_steps": 5, "eval_episodes": 1})
    with setting():
        done = run(config, seeds=1)
    assert done.completed
    assert done.metrics["eval_length"].max() == 5


@pytest.mark.parametrize("name", ["jax_debug_nans", "jax_debug_infs"])
def test_an_enabled_nan_check_of_jax_causes_an_error_of_one_line(name, tmp_path, capsys):
    with getattr(jax, name.removeprefix("jax_"))(True), refused(name) as caught:
        run(TINY, seeds=1, directory=tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert f"({name.upper()})" in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_train_creates_no_files_if_jax_cannot_start(tmp_path, monkeypatch):
    def fail(seed):
        raise RuntimeError("no device")

    monkeypatch.setattr(jax.random, "key", fail)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="JAX cannot start"):
        commands.train(["Pendulum-v1", *FLAGS])
    assert not list(tmp_path.iterdir())
