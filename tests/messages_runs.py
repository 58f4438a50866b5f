"""Messages of sacjax.runs."""

import fcntl
import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from unittest.mock import patch

import jax
import numpy as np
import pytest
from checks import CONFIG, TINY
from probes import Chain

from sacjax import Hyperparams, InputError, RunError, evaluate_run, load, make_sac, resume, run
from sacjax.runs import arrays, checkpoints, memory, processes, result
from sacjax.runs.directory import explain_write_errors, locked
from sacjax.runs.metrics_csv import read_metrics
from sacjax.runs.population import extended
from sacjax.runs.provenance import check_jax_settings

CASES = []


def says(field, message, kind=InputError):
    """Register a case: `do(path)` raises `kind` about `field`, and says `message`."""

    def register(do):
        CASES.append(pytest.param(do, kind, field, message, id=do.__name__))
        return do

    return register


# --- arguments of run and resume -----------------------------------------------------------------

RUN_020 = Path(__file__).parent / "data" / "run-0.2.0"


def old_run(path, **changes):
    """Copy the run of sacjax 0.2.0 to `path`/run and change its config.json."""
    folder = Path(shutil.copytree(RUN_020, path / "run"))
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(content | changes))
    return folder


@says(
    "on_epoch",
    "on_epoch (3) must be a list of callables f(step, metrics): use [f]",
)
def no_list_of_callables(path):
    run(TINY, on_epoch=3)


@says(
    "should_stop",
    "should_stop (False) must be a function f() that returns True or False: use lambda: False",
)
def no_function(path):
    run(TINY, should_stop=False)


@says("members_per_batch", "members_per_batch (0) must be a whole number from 1: use 64")
def no_members(path):
    run(TINY, members_per_batch=0)


@says("on_nan", "on_nan ('go') must be one of freeze, stop")
def unknown_choice_for_divergence(path):
    run(TINY, on_nan="go")


@says(
    "checkpoint_every",
    "checkpoint_every (-1) must be None or a whole number of epochs: use 10 or 0",
)
def negative_checkpoint_interval(path):
    run(TINY, checkpoint_every=-1)


@says("checkpoint_every", "checkpoint_every needs a folder: give directory=")
def checkpoints_without_a_folder(path):
    run(TINY, checkpoint_every=3)


@says("keep_best", "keep_best needs a folder: give directory=")
def best_agents_without_a_folder(path):
    run(TINY, keep_best=True)


@says(
    "agents",
    "{path}/run has no trained agents (no folder agents/best/): its run has not finished, or was "
    "trained without keep_best; `sacjax resume {path}/run` resumes it",
)
def best_agents_that_were_not_kept(path):
    load(old_run(path), best=True)


@says("keep", "keep (0) must be a whole number from 1: use 2")
def no_checkpoints_to_keep(path):
    run(TINY, keep=0)


@says("hp", "a point of the grid occurs twice: give each swept value once")
def repeated_point(path):
    run(TINY, Hyperparams(tau=np.array([0.005, 0.005])))


class WithBeta(Hyperparams):
    """Hyperparameters with a field of their own."""

    def __init__(self):
        super().__init__()
        vars(self)["beta"] = 1.0


@says(
    "hp",
    "hp has beta beside the fields of Hyperparams, which a run does not keep: give that to "
    "algorithm=partial(f, ...), or sweep it by make_train",
)
def own_hyperparameter(path):
    run(TINY, WithBeta())


@says("extend_to", "extend_to ('600') must be a whole number of steps: use 1000000")
def text_as_the_end(path):
    extended(CONFIG, "600")


@says(
    "extend_to",
    "extend_to (400) must not be below total_steps (500): use more",
)
def earlier_end(path):
    extended(CONFIG, 400)


@says("extend_to", "extend_to (510) must be the end of an epoch: use extend_to=550")
def end_within_an_epoch(path):
    extended(CONFIG, 510)


@says(
    "extend_to",
    "extend_to needs constant learning rates, because a schedule depends on total_steps: train a "
    "new run",
)
def end_of_a_schedule(path):
    extended(replace(CONFIG, lr_schedule="linear"), 600)


@says(
    "hidden",
    "training 8 at once needs 0.03 MiB (replays 0.01 MiB), but 0.00 MiB are available: use smaller "
    "networks",
)
def no_memory(path):
    with patch.object(memory, "available", lambda: 1_000):
        run(TINY)


# --- folders -------------------------------------------------------------------------------------


@says(
    "directory",
    "{path} is not empty, it may hold another run: give a new folder with --out, remove it "
    "yourself, or resume it by `sacjax resume {path}`",
)
def folder_in_use(path):
    (path / "notes.txt").write_text("mine")
    run(TINY, directory=path)


@says("directory", "{path}/file is a file: give a new folder with --out")
def file_as_a_folder(path):
    (path / "file").write_text("mine")
    run(TINY, directory=path / "file")


@says(
    "directory",
    "cannot write to {path}/file/run (Not a directory): give a folder you may write to with --out",
)
def folder_in_a_file(path):
    (path / "file").write_text("mine")
    run(TINY, directory=path / "file" / "run")


@says("directory", "{path} is being written by another process: wait for it, or stop it first")
def locked_folder(path):
    with locked(path), locked(path):
        pass


@says("directory", "{path} cannot be locked (No locks): use a file system with flock")
def file_system_without_locks(path):
    with patch.object(fcntl, "flock", side_effect=OSError(37, "No locks")), locked(path):
        pass


@says(
    "directory",
    "cannot write to {path} (No space left on device): make room, then `sacjax resume {path}`",
    RunError,
)
def full_disk(path):
    with explain_write_errors(path):
        raise OSError(28, "No space left on device")


@says(
    "directory",
    "{path}/run is not a run's folder (no config.json): give the folder that --out named",
)
def no_folder(path):
    resume(path / "run")


@says("directory", "{path}/run/batches/1 is a batch of {path}/run: give that folder")
def folder_of_a_batch(path):
    folder = old_run(path)
    load(shutil.copytree(RUN_020, folder / "batches" / "1"))


@says(
    "config.json",
    "{path}/run/config.json has format 3, this sacjax reads 4: use the version that wrote it, git "
    "tag v0.1.0",
)
def older_format(path):
    load(old_run(path, format=3, versions={"sacjax": "0.1.0"}))


@says(
    "config.json",
    "{path}/run/config.json is damaged (KeyError: 'format'): restore it, or train again",
)
def damaged_config(path):
    (old_run(path) / "config.json").write_text("{}")
    load(path / "run")


@says(
    "config.json",
    "config.json is not the one that the checkpoints were made with: restore it, or train again in "
    "a new folder",
)
def edited_seeds(path):
    resume(old_run(path, seeds=[0, 2]))


@says(
    "config.json",
    "{path}/run/config.json is of a run in one batch, but {path}/run/batches exists: restore it, "
    "or train again in a new folder",
)
def edited_batches(path):
    folder = old_run(path)
    (folder / "batches").mkdir()
    resume(folder)


def with_env(env):
    return json.loads((RUN_020 / "config.json").read_text())["config"] | {"env": env}


@says(
    "env",
    "{path}/run was trained on an environment object: in Python, give it to sacjax.load or "
    "sacjax.resume(directory, env=...)",
)
def missing_environment_object(path):
    load(old_run(path, config=with_env(None), env_object="Noise"))


@says("env", "{path}/run was trained on Noise, not Chain: give env")
def another_environment_object(path):
    load(old_run(path, config=with_env(None), env_object="Noise"), env=Chain())


@says(
    "jax_enable_x64",
    "the run was trained with jax_enable_x64=False: set JAX_ENABLE_X64=0",
)
def another_precision(path):
    with jax.enable_x64():
        check_jax_settings("the run", {"x64": False})


@says(
    "jax_default_prng_impl",
    "{path}/run uses threefry2x32 keys: set JAX_DEFAULT_PRNG_IMPL=threefry2x32",
)
def another_kind_of_keys(path):
    with jax.default_prng_impl("rbg"):
        load(old_run(path))


# --- metrics.csv, checkpoints and agents ---------------------------------------------------------


@says(
    "metrics.csv",
    "{path}/metrics.csv is missing: restore it, or `sacjax resume` its run, which rewrites it from "
    "the last checkpoint",
)
def missing_metrics(path):
    read_metrics(path / "metrics.csv")


@says(
    "metrics.csv",
    "{path}/metrics.csv has no evaluation yet: wait for the first, or `sacjax resume` its run",
)
def empty_metrics(path):
    (path / "metrics.csv").write_text("")
    read_metrics(path / "metrics.csv")


@says(
    "metrics.csv",
    "{path}/metrics.csv is damaged (its first column is not member): restore it, or `sacjax "
    "resume` its run, which rewrites it from the last checkpoint",
)
def damaged_metrics(path):
    (path / "metrics.csv").write_text("seed,env_steps\n0,1\n")
    read_metrics(path / "metrics.csv")


def damage(folder):
    (folder / "0.npz").write_bytes(b"")


@says(
    "checkpoints",
    "no intact checkpoint: {path}/run/checkpoints/2 is damaged (ValueError: 0.npz has "
    "changed): restore it, or train again",
)
def damaged_checkpoints(path):
    damage(old_run(path) / "checkpoints" / "2")
    resume(path / "run")


@says(
    "checkpoints",
    "{path}/run has trained agents but no checkpoint to resume from (checkpoint_every was 0, or "
    "the checkpoints were removed): train again in a new folder",
)
def no_checkpoints(path):
    shutil.rmtree(old_run(path) / "checkpoints")
    resume(path / "run")


@says(
    "checkpoints",
    "{path}/run/checkpoints/2 is intact, but cannot be read here (MemoryError: no room): free "
    "memory, or fix the cause, then `sacjax resume {path}/run`",
    RunError,
)
def unreadable_checkpoint(path):
    with patch.object(arrays.Stored, "__getitem__", side_effect=MemoryError("no room")):
        resume(old_run(path))


@says(
    "checkpoints",
    "the checkpoint of epoch 3 could not be written to {path}/run/checkpoints (OSError: [Errno 28] "
    "No space left on device); the one of epoch 2 is complete: make room, then `sacjax resume "
    "{path}/run`",
    RunError,
)
def checkpoint_on_a_full_disk(path):
    full = OSError(28, "No space left on device")
    with patch.object(arrays, "write_part", side_effect=full):
        checkpoints.Writer(old_run(path), keep=2, resumed_from=2).save(3, {}, {})


def larger(config, env):
    sac = make_sac(config, env)
    return sac._replace(init=lambda key, hp: {"sac": sac.init(key, hp)})


@says(
    "algorithm",
    "the checkpoint of epoch 2 does not fit this program (it has no .agent['sac'].actor_params['"
    "params']['MLP_0']['Dense_0']['bias']): resume with sacjax 0.2.0 and the algorithm that "
    "trained it",
)
def checkpoint_of_another_algorithm(path):
    resume(old_run(path, algorithm=None), algorithm=larger)


@says(
    "algorithm",
    "{path}/run was trained with the algorithm sac, not sac(rule=None): give that to resume(..., "
    "algorithm=...) in Python",
)
def resumed_with_another_algorithm(path):
    resume(old_run(path), algorithm=partial(make_sac, rule=None))


@says(
    "algorithm",
    "{path}/run was trained with the algorithm sac, not larger: give that to load(..., "
    "algorithm=...)",
)
def loaded_with_another_algorithm(path):
    load(old_run(path), algorithm=larger)


@says(
    "agents",
    "{path}/run has no trained agents (no folder agents/): its run has not finished; `sacjax "
    "resume {path}/run` resumes it",
)
def no_agents(path):
    shutil.rmtree(old_run(path) / "agents")
    load(path / "run")


@says(
    "agents",
    "{path}/run/agents is damaged, or does not fit this environment and algorithm (ValueError: "
    "0.npz has changed): give those of the run, restore the folder, or `sacjax resume {path}/run`, "
    "which rewrites it from the last checkpoint",
)
def damaged_agents(path):
    damage(old_run(path) / "agents")
    load(path / "run")


@says(
    "agents",
    "the agents could not be written to {path}/run/agents (OSError: [Errno 28] No space left on "
    "device): make room, then `sacjax resume {path}/run`",
    RunError,
)
def agents_on_a_full_disk(path):
    done, full = load(old_run(path)), OSError(28, "No space left on device")
    with patch.object(arrays, "write_part", side_effect=full):
        result.save(done, path / "run")


@says("member", "member (4) must be from 0 to 3")
def unknown_member(path):
    load(old_run(path)).agent(4)


# --- several processes ---------------------------------------------------------------------------


@says(
    "coordinator",
    "--coordinator, --num-processes and --process-id must come together: give all three, or only "
    "--distributed on Slurm, MPI, Kubernetes or a TPU pod",
)
def coordinator_alone(path):
    processes.join("here:1234", None, None)


@says(
    "coordinator",
    "coordinator ('here') must be HOST:PORT, as in here:1234, and process-id (0) from 0 to "
    "num-processes (2) - 1",
)
def coordinator_without_a_port(path):
    processes.join("here", 2, 0)


@says(None, "several processes cannot evaluate a run together: load it in one")
def evaluation_by_several_processes(path):
    done = load(old_run(path))
    with patch.object(jax, "process_count", lambda: 2):
        evaluate_run(done)


@pytest.mark.parametrize(("do", "kind", "field", "message"), CASES)
def test_message(do, kind, field, message, tmp_path):
    with pytest.raises(kind) as caught:
        do(tmp_path)
    assert str(caught.value).replace(str(tmp_path), "{path}") == message
    assert caught.value.field == field
