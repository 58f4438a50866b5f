"""Test environments and algorithms of the user's own that are given by name, "module:Name"."""

import json
import shlex
import shutil
import subprocess
import sys

import pytest
from checks import TINY, refused
from gymnax.wrappers import LogWrapper

from sacjax import Config, load, make_program, own, resume, run
from sacjax.cli.main import main
from sacjax.envs.gymnax import base_env
from sacjax.envs.names import make_env
from sacjax.types import PLAIN

MODULE = """
from functools import partial
from gymnax.environments.classic_control.pendulum import Pendulum
from gymnax.wrappers import LogWrapper
from sacjax import make_sac
import gymnasium

class Swing(Pendulum):
    def __init__(self, speed=1.0):
        super().__init__()
        self.speed = speed

made = LogWrapper(Swing(3.0))
nothing = 7

class Inner:
    make = staticmethod(lambda config, env: make_sac(config, env))

def slow(config, env):
    return make_sac(config, env)

pendulum = "gymnasium.envs.classic_control:PendulumEnv"
if "Swung-v0" not in gymnasium.registry:
    gymnasium.register("Swung-v0", pendulum, max_episode_steps=9)
"""
FLAGS = shlex.split(
    "--total-steps 44 --warmup-steps 20 --eval-every 12 --num-envs 2 --batch-size 8 --hidden 8 "
    "--eval-episodes 2 --seeds 1 --log-format none"
)


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """Train an environment and an algorithm by name, from a module in a folder of its own."""
    code = tmp_path_factory.mktemp("code")
    (code / "my_envs.py").write_text(MODULE)
    out = code.with_name("original")
    argv = ["train", "my_envs:Swing", "--algorithm", "my_envs:slow", *FLAGS, "--out", str(out)]
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(code)
        assert main(argv) == 0
    forget()
    return code, out


@pytest.fixture(autouse=True)
def module(original, monkeypatch):
    """Let Python find the module my_envs, and forget it before and after each test."""
    forget()
    monkeypatch.syspath_prepend(original[0])
    yield original[0]
    forget()


@pytest.fixture
def trained(original, tmp_path):
    """Return a copy of the run."""
    return shutil.copytree(original[1], tmp_path / "run")


def forget():
    own.used.clear()
    sys.modules.pop("my_envs", None)


# Environments


@pytest.mark.parametrize(
    ("name", "speed"),
    [
        ("my_envs:Swing", 1.0),
        ("gymnax/my_envs:Swing", 1.0),
        ("my_envs:Swing?speed=2.5", 2.5),
        ("my_envs:made", 3.0),
    ],
)
def test_env_can_name_a_class_or_an_object_or_a_factory(name, speed):
    assert make_env(name)(2).action_size == 1
    assert base_env(name).speed == speed
    assert base_env(name) is base_env(name)  # so that it compiles once


def test_an_environment_is_made_again_if_its_module_was_reloaded():
    before = base_env("my_envs:Swing")
    forget()
    assert type(base_env("my_envs:Swing")) is not type(before)


def test_a_gymnasium_id_can_be_registered_by_a_named_module():
    assert make_env("gymnasium/my_envs:Swung-v0")(1).action_size == 1
    with refused("env"):
        make_env("gymnasium/my_envs:Swang-v0")


@pytest.mark.parametrize(
    "name",
    [
        "no_such_module:Swing",
        "gymnasium/no_such_module:Swung-v0",
        "my_envs:Swong",
        "my_envs:",
        ":Swing",
        "my_envs:nothing",
        "my_envs:Swing?mass=2",
        "my_envs:slow",
        "broken_envs:Swing",
    ],
)
def test_an_environment_that_cannot_be_imported_is_refused(name, module):
    (module / "broken_envs.py").write_text("1 / 0")
    with refused("env"):
        make_env(name)


def test_the_error_for_an_unknown_option_lists_the_parameters_of_a_class():
    with refused("env") as caught:
        make_env("my_envs:Swing?mass=2")
    assert "use the options speed" in str(caught.value)
    with refused("speed"):
        make_env("my_envs:made?speed=2")


@pytest.mark.processes
def test_the_command_line_imports_from_the_current_folder(module, tmp_path):
    script = tmp_path / "sacjax.py"
    script.write_text(
        "import sys; sys.path.pop(0); from sacjax.cli.main import main; sys.exit(main())"
    )
    command = [sys.executable, str(script), "train", "my_envs:Swong"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=module)
    assert done.returncode == 2
    assert "module 'my_envs' has no attribute 'Swong'" in done.stderr


# Algorithms


@pytest.mark.parametrize("name", ["my_envs:slow", "my_envs:Inner.make", PLAIN])
def test_an_algorithm_can_be_given_by_name(name):
    make_program(TINY, name)


@pytest.mark.parametrize(
    "name", ["my_envs:quick", "my_envs:nothing", "no_such_module:make", "sacc"]
)
def test_an_algorithm_that_cannot_be_imported_is_refused(name):
    with refused("algorithm"):
        run(TINY, seeds=1, algorithm=name)


@pytest.mark.processes
def test_passing_an_algorithm_or_its_name_returns_equal_runs(tmp_path):
    done = run(TINY, seeds=1, algorithm="my_envs:slow", directory=tmp_path / "name")
    slow = sys.modules["my_envs"].slow
    assert load(tmp_path / "name", algorithm=slow).config == done.config
    run(TINY, seeds=1, algorithm=slow, directory=tmp_path / "object")
    assert resume(tmp_path / "object", algorithm="my_envs:slow").completed
    with refused("algorithm"):
        resume(tmp_path / "object", algorithm="my_envs:Inner.make")


# Runs


@pytest.mark.processes
def test_commands_import_the_environment_and_algorithm_by_name(trained, tmp_path, capsys):
    content = json.loads((trained / "config.json").read_text())
    assert content["config"]["env"] == "my_envs:Swing"
    assert content["algorithm"] == "my_envs:slow"
    by_name = ["--env", "my_envs:Swing", "--algorithm", "my_envs:slow"]
    for how in (["--trust"], by_name):
        forget()
        assert main(["evaluate", str(trained), *how]) == 0
    forget()
    gif = str(tmp_path / "policy.gif")
    assert main(["render", str(trained), "--trust", "--frames", "2", "--out", gif]) == 0
    forget()
    assert (
        main(["resume", str(trained), "--trust", "--extend-to", "56", "--log-format", "bar"]) == 0
    )
    assert f"sacjax evaluate {trained} --trust" in capsys.readouterr().out
    forget()
    assert resume(trained, trust=True).completed


@pytest.mark.parametrize("command", ["evaluate", "render", "resume"])
def test_a_module_is_imported_only_with_trust(command, trained, capsys):
    assert main([command, str(trained)]) == 2
    assert "--trust" in capsys.readouterr().err
    assert "my_envs" not in sys.modules


def test_each_process_needs_trust_only_once(trained):
    for first in (load, resume):
        with refused("env"):
            first(trained)
        with refused("algorithm"):
            first(trained, env="my_envs:Swing")
    assert "my_envs" not in sys.modules
    load(trained, trust=True)
    assert load(trained).completed


@pytest.mark.parametrize("name", ["os:getcwd", "gymnasium/my_envs:Swung-v0", "gymnax/os:getcwd"])
def test_trust_does_not_extend_to_other_modules(name, trained):
    load(trained, trust=True)
    path = trained / "config.json"
    content = json.loads(path.read_text())
    content["config"]["env"] = name
    path.write_text(json.dumps(content))
    with refused("env"):
        load(trained)


@pytest.mark.parametrize("name", ["evil", "run.evil", "run.agents.evil"])
def test_code_inside_the_folder_of_a_run_is_never_executed(name, trained, monkeypatch):
    *_, file = name.split(".")
    place = trained / "agents" if "agents" in name else trained
    (place / f"{file}.py").write_text("raise SystemExit('executed')")
    monkeypatch.syspath_prepend(trained.parent)
    monkeypatch.syspath_prepend(trained)
    path = trained / "config.json"
    content = json.loads(path.read_text())
    content["config"]["env"] = f"{name}:Swing"
    path.write_text(json.dumps(content))
    with refused("env"):
        load(trained, trust=True)
    with refused("env"):
        load(trained, env=f"{name}:Swing")
    content["config"]["env"], content["algorithm"] = "Pendulum-v1", f"{name}:slow"
    path.write_text(json.dumps(content))
    with refused("algorithm"):
        resume(trained, trust=True)


def test_report_does_not_import_the_module_of_an_environment(trained, tmp_path):
    assert main(["report", str(trained), "--out", str(tmp_path / "report")]) == 0
    assert "my_envs" not in sys.modules


def test_evaluate_accepts_a_name_instead_of_an_environment_object(tmp_path):
    env = LogWrapper(base_env("my_envs:Swing"))
    fields = {name: x for name, x in vars(TINY).items() if name != "env"}
    run(Config(env, **fields), seeds=1, directory=tmp_path / "run")
    assert main(["evaluate", str(tmp_path / "run"), "--env", "my_envs:made"]) == 0
