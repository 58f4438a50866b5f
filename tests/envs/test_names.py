"""Test the names of environments: suggestions, remedies and options."""

import importlib
import math
import subprocess
import sys

import pytest
from checks import refused

from sacjax.envs import names
from sacjax.envs.names import make_env, parse


@pytest.fixture
def message():
    """Return a function that makes an environment, and returns the error about its name."""

    def get(name):
        with refused("env") as caught:
            make_env(name)
        return str(caught.value)

    return get


@pytest.mark.parametrize(
    ("name", "suggestions"),
    [
        ("gym/Hopper-v5", ["gymnasium/Hopper-v5"]),
        ("Gymnasium/Hopper-v5", ["gymnasium/Hopper-v5"]),
        ("mujoco/Hopper-v4", ["gymnasium/Hopper-v4"]),
        ("dm_control/CheetahRun", ["playground/CheetahRun"]),
        ("ant", ["brax/ant", "gymnasium/Ant-v5"]),
        ("gymnax/ant", ["brax/ant", "gymnasium/Ant-v5"]),
        ("playground/ant", ["brax/ant", "gymnasium/Ant-v5"]),
        ("gymnasium/ant", ["gymnasium/Ant-v5"]),
        ("half_cheetah", ["brax/halfcheetah", "gymnasium/HalfCheetah-v5"]),
        ("CheetahRun", ["playground/CheetahRun"]),
        ("cheetah_run", ["playground/CheetahRun"]),
        ("brax/CheetahRun", ["playground/CheetahRun"]),
        ("BipedalWalker-v3", ["gymnasium/BipedalWalker-v3"]),
        ("brax/Hopper-v5", ["gymnasium/Hopper-v5"]),
        ("gymnasium/HalfCheetah-v2", ["gymnasium/HalfCheetah-v5"]),
        ("playground/Pendulum-v1", ["gymnax/Pendulum-v1"]),
    ],
)
def test_an_unknown_name_is_compared_with_the_names_of_all_suites(name, suggestions, message):
    _, _, hint = message(name).partition("did you mean ")
    assert [x for x in suggestions if x in hint] == suggestions


def test_a_similar_name_in_the_same_suite_prevents_other_imports(message, monkeypatch):
    def adapter(suite):
        assert suite == "gymnax"
        return importlib.import_module("sacjax.envs.gymnax")

    monkeypatch.setattr(names, "adapter", adapter)
    assert "did you mean Pendulum-v1?" in message("pendulum")


def test_suggestions_skip_suites_that_cannot_be_imported(message, monkeypatch):
    for module in ("brax", "brax.envs", "mujoco_playground", "envpool"):
        monkeypatch.setitem(sys.modules, module, None)
    assert "did you mean gymnasium/Ant-v5?" in message("ant")
    assert "see `sacjax envs`" in message("CheetahRun")
    monkeypatch.setitem(sys.modules, "gymnasium", None)
    assert "see `sacjax envs`" in message("ant")


@pytest.mark.parametrize("id", ["DI-v0", "MyHopper-v0"])
def test_the_error_for_an_unregistered_id_says_how_to_register_it(id, message):
    text = message(f"gymnasium/{id}")
    assert f"gymnasium/my_module:{id}" in text
    assert "Taxi" not in text


@pytest.mark.processes
def test_a_known_name_imports_only_its_suite():
    code = """
import sys
from sacjax.envs.names import make_env
make_env("gymnasium/Pendulum-v1?g=9.0")
print(*{"brax", "mujoco_playground", "envpool"} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


# Remedies


def test_the_error_for_an_unknown_option_lists_the_valid_options(message):
    assert "use the options render_mode, g, max_episode_steps" in message(
        "gymnasium/Pendulum-v1?weight=2"
    )


def test_the_error_for_an_unknown_option_of_envpool_lists_valid_options(message):
    pytest.importorskip("envpool")
    assert "healthy_reward" in message("envpool/Hopper-v5?weight=2").partition("use the options")[2]


def fail(error):
    with names.creation_errors("suite/x?a=1", "brax", lambda: ["a", "b"]):
        raise error


class DependencyNotInstalled(Exception):
    """An error with the name of Gymnasium's."""


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (TypeError("f() got an unexpected keyword argument 'c'"), "use the options a, b"),
        (ImportError("no such module"), "pip install 'sacjax[brax]'"),
        (DependencyNotInstalled("MuJoCo is not installed"), "pip install 'sacjax[brax]'"),
        (DependencyNotInstalled("run `pip install box2d`"), "install what it names"),
        (TypeError("can't multiply"), "check its options"),
        (OSError("no such file"), "check its options"),
    ],
)
def test_the_hint_in_an_error_depends_on_the_cause(error, remedy):
    with refused("env") as caught:
        fail(error)
    assert str(caught.value).endswith(f": {remedy}")


def test_an_error_in_an_environment_is_not_called_a_missing_package():
    with refused("env") as caught, names.creation_errors("suite/x", "brax"):
        raise ZeroDivisionError("division by zero")
    assert str(caught.value).endswith(
        "(ZeroDivisionError: division by zero): it has a fault itself"
    )


# Options


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("inf", math.inf),
        ("-inf", -math.inf),
        ("(0.8,inf)", (0.8, math.inf)),
        ("(-inf, 1)", (-math.inf, 1)),
        ("[[1,-INF],[2,3]]", [[1, -math.inf], [2, 3]]),
        ("{'a':inf}", {"a": math.inf}),
        ("(true, None)", (True, None)),
        ("False", False),
        ("1e3", 1000.0),
        ("spring", "spring"),
        ("info", "info"),
        ("007", "007"),
        ("/path/to=x.xml", "/path/to=x.xml"),
        ("'(0.8'", "(0.8"),
        ("", ""),
    ],
)
def test_options_can_be_numbers_words_or_tuples(text, value):
    assert parse(f"brax/ant?x={text}").options == {"x": value}


def test_nan_is_read_as_a_number():
    options = parse("brax/ant?x=nan&y=(1,NaN)").options
    assert math.isnan(options["x"])
    assert math.isnan(options["y"][1])


@pytest.mark.parametrize(
    "text", ["(0.8,inf", "(0.8,infinite)", "[1,2", "{1:", "(1;2)", "{[]:1}", " (a)", "(1)+x"]
)
def test_malformed_tuples_are_refused(text):
    with refused("healthy_z_range"):
        parse(f"gymnasium/Hopper-v5?healthy_z_range={text}")


@pytest.mark.parametrize(
    "query", ["limit=3&limit=3", "backend=spring?limit=3", "?limit=3", "limit", "=3", "a-b=3"]
)
def test_malformed_options_are_refused(query):
    with refused("env"):
        parse(f"brax/ant?{query}")


def test_an_infinite_bound_is_a_valid_option():
    env = make_env("gymnasium/Hopper-v5?healthy_z_range=(0.8,inf)")(1)
    assert env.action_size == 3
