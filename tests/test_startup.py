"""Test the settings that sacjax makes before JAX starts, and deferred imports.

Each test starts a new process."""

import os
import subprocess
import sys

import pytest

from sacjax.devices import _quota

pytestmark = pytest.mark.processes


def python(code, **environment):
    cleared = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_", "XLA_"))}
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=cleared | {"JAX_PLATFORMS": "cpu"} | environment,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_use_all_cores_turns_each_cpu_core_into_a_device():
    code = "import sacjax; sacjax.use_all_cores(); import jax; print(jax.local_device_count())"
    cores = len(os.sched_getaffinity(0))
    cores = min(cores, _quota() or cores)
    assert python(code) == [str(cores)]
    flags = "--xla_force_host_platform_device_count=3"
    assert python(code, XLA_FLAGS=flags) == ["3"]  # the user's setting wins
    assert python(code, JAX_NUM_CPU_DEVICES="1") == ["1"]


@pytest.mark.parametrize(
    ("text", "cores"),
    [("200000 100000\n", 2), ("150000 100000\n", 2), ("10000 100000\n", 1), ("max 100000\n", None)],
)
def test_use_all_cores_respects_the_cpu_limit_of_the_control_group(tmp_path, text, cores):
    (tmp_path / "cpu.max").write_text(text)
    assert _quota(tmp_path / "cpu.max") == cores
    assert _quota(tmp_path / "none") is None


def test_compilation_cache_respects_environment_variables(tmp_path):
    code = """
import sacjax; sacjax.keep_compiled_programs()
import jax; print(jax.config.jax_compilation_cache_dir)
"""
    (folder,) = python(code, XDG_CACHE_HOME=str(tmp_path))
    assert folder.startswith(str(tmp_path / "sacjax"))
    assert python(code, JAX_COMPILATION_CACHE_DIR="/elsewhere") == ["/elsewhere"]
    assert python(code, JAX_COMPILATION_CACHE_DIR="") in ([], ["None"])


def test_training_does_not_import_plotting_packages_or_unused_suites():
    code = """
import sacjax.runs.run, sys
from sacjax.envs.names import make_env
make_env("Pendulum-v1")
unwanted = {"matplotlib.pyplot", "seaborn", "pandas", "scipy.stats"}
unwanted |= {"brax", "mujoco", "mujoco.mjx", "mujoco_playground", "envpool"}
print(*unwanted & set(sys.modules))
"""
    assert python(code) == []


def test_deferred_modules_load_on_first_use():
    code = """
import sacjax.envs.gymnax, sys
from gymnax.environments.misc import pong
assert "matplotlib.pyplot" not in sys.modules
print(pong.plt.figure.__module__, pong.sns.color_palette.__name__)
import matplotlib.pyplot
assert pong.plt.figure is matplotlib.pyplot.figure
"""
    assert python(code, MPLBACKEND="Agg") == ["matplotlib.pyplot", "color_palette"]


def test_deferred_imports_keep_modules_that_are_already_loaded():
    code = """
import matplotlib.pyplot, sys
import sacjax.envs.gymnax
from gymnax.environments.misc import pong
print(pong.plt is matplotlib.pyplot is sys.modules["matplotlib.pyplot"])
"""
    assert python(code, MPLBACKEND="Agg") == ["True"]
