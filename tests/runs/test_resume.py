"""Test that a killed and resumed run gives the same bits as an uninterrupted run."""

import dataclasses
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checks import CONFIG, GRID, refused
from probes import Chain, Noise

from sacjax import evaluate_run, load, resume, run
from sacjax.cli.main import main
from sacjax.config import Config, Hyperparams
from sacjax.networks import Networks
from sacjax.runs import arrays, checkpoints
from sacjax.runs.directory import locked, resume_command
from sacjax.runs.files import PART
from sacjax.runs.provenance import algorithm_name
from sacjax.runs.run import _choose_layout
from sacjax.sac import CLIPPED_DOUBLE_Q, make_sac
from sacjax.types import PLAIN, InputError, RunError, is_key

POPULATIONS = {"one seed": (Hyperparams(), 1), "a population": (GRID, 2)}
population = pytest.mark.parametrize("whole", ["a population"], indirect=True)  # not "one seed"
COMMAND = [sys.executable, "-m", "sacjax"]
FLAGS = [
    *("--total-steps", "500", "--warmup-steps", "100", "--eval-every", "50", "--hidden", "8"),
    *("--batch-size", "8", "--eval-episodes", "2"),
]


@pytest.fixture(
    scope="module", params=[pytest.param("one seed", marks=pytest.mark.exact), "a population"]
)
def whole(request, tmp_path_factory):
    """Return the folder of an uninterrupted run that kept a checkpoint after each epoch."""
    folder = tmp_path_factory.mktemp(request.param.replace(" ", "-")) / "run"
    hp, seeds = POPULATIONS[request.param]
    run(CONFIG, hp, seeds=seeds, directory=folder, checkpoint_every=1, keep=100)
    return folder


def remove(folder, epoch):
    shutil.rmtree(folder / "checkpoints" / str(epoch))


@pytest.fixture
def killed(whole, tmp_path):
    """Return the folder of an equal run that was killed soon after its third checkpoint."""
    folder = Path(shutil.copytree(whole, tmp_path / "killed"))
    for epoch in checkpoints.epochs(folder):
        if epoch > 3:
            remove(folder, epoch)
    shutil.rmtree(folder / "agents")
    (folder / "learning_curve.png").unlink()
    csv = folder / "metrics.csv"
    csv.write_bytes(csv.read_bytes()[:-300])  # also cuts the last row in half
    return folder


def assert_same(one, other):
    """Assert that metrics.csv, agents and replay buffers are equal in two folders, bit for bit."""
    assert (one / "metrics.csv").read_bytes() == (other / "metrics.csv").read_bytes()
    first, second = load(one), load(other)
    jax.tree.map(np.testing.assert_array_equal, first.agents, second.agents)
    last, again = checkpoints.restore(one), checkpoints.restore(other)
    assert last is not None
    assert again is not None
    assert last.epoch == again.epoch
    assert last.arrays.keys() == again.arrays.keys()
    assert any("replay" in name for name in last.arrays)
    for name, x in last.arrays.items():
        assert x.tobytes() == again.arrays[name].tobytes(), name


@pytest.mark.exact
def test_a_resumed_run_is_bit_identical_to_an_uninterrupted_run(whole, killed):
    done = resume(killed)
    assert done.completed
    assert done.metrics["eval_return"].shape == (len(done.members), 8, 2)
    assert_same(whole, killed)


@pytest.mark.exact
def test_a_resumed_vmapped_run_is_bit_identical_to_an_uninterrupted_run(tmp_path):
    how = {"seeds": 3, "strategy": "vmap", "devices": 1, "checkpoint_every": 1}
    stopped, vmapped = tmp_path / "stopped", tmp_path / "vmapped"
    stops = iter([False, False, True])
    run(CONFIG, GRID, directory=stopped, should_stop=lambda: next(stops), **how)
    assert resume(stopped).completed
    run(CONFIG, GRID, directory=vmapped, **how)
    assert_same(vmapped, stopped)


@pytest.mark.exact
def test_resume_without_a_checkpoint_starts_over_and_warns(whole, killed, caplog):
    shutil.rmtree(killed / "checkpoints")
    resume(killed)
    assert "starting from the beginning" in caplog.text
    assert_same(whole, killed)


def test_resume_restores_the_lost_files_of_a_finished_run(whole, tmp_path, caplog):
    folder = Path(shutil.copytree(whole, tmp_path / "run"))
    shutil.rmtree(folder / "agents")
    (folder / "metrics.csv").unlink()
    assert resume(folder, strategy="vmap", devices=1).completed
    assert "layout changed" not in caplog.text  # because nothing was computed
    assert_same(whole, folder)


@pytest.mark.exact
def test_extending_a_run_equals_a_longer_run(whole, tmp_path):
    """The replay buffer grows, because total_steps limits its size."""
    folder, longer = Path(shutil.copytree(whole, tmp_path / "run")), tmp_path / "longer"
    first = load(folder)
    seeds = len({m["seed"] for m in first.members})
    hp = GRID if len(first.members) > seeds else Hyperparams()
    config = Config(**(vars(CONFIG) | {"total_steps": 700}))
    run(config, hp, seeds=seeds, directory=longer)
    done = resume(folder, extend_to=700)
    assert done.completed
    assert done.config == config
    assert load(folder).config == config
    assert_same(longer, folder)


@pytest.mark.exact
@pytest.mark.parametrize("devices", [1, 2])
def test_resume_with_fewer_or_more_devices_changes_only_the_rounding(tmp_path, devices):
    hp, folder = Hyperparams(), tmp_path / "run"
    how = {"strategy": "map", "devices": 3 - devices}
    stops = iter([False, True])
    run(CONFIG, hp, seeds=3, directory=folder, should_stop=lambda: next(stops), **how)
    done = resume(folder, strategy="map", devices=devices)
    alone = run(CONFIG, hp, seeds=3, strategy="map", devices=devices)
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-4),
        done.agents,
        alone.agents,
    )
    assert done.metrics["eval_return"].shape == (3, 8, 2)


# Damage


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def data_files(folder, epoch):
    files = (folder / "checkpoints" / str(epoch)).iterdir()
    return sorted(files, key=lambda path: path.stat().st_size)


def shorten(path):
    path.write_bytes(path.read_bytes()[:-20])


@population
@pytest.mark.parametrize("harm", [flip, shorten, Path.unlink])
def test_resume_skips_a_damaged_checkpoint_and_warns(whole, killed, caplog, harm):
    harm(data_files(killed, 3)[-1])  # the largest one
    resume(killed)
    assert "checkpoints/3 is damaged" in caplog.text
    assert "using the previous checkpoint" in caplog.text
    assert_same(whole, killed)


@population
def test_a_flipped_bit_in_a_checkpoint_never_changes_the_restored_state(whole, tmp_path):
    """`restore` either fails or returns exactly the written data."""
    folder = Path(shutil.copytree(whole, tmp_path / "run"))
    for epoch in checkpoints.epochs(folder)[:-1]:
        remove(folder, epoch)
    good = checkpoints.restore(folder)
    assert good is not None
    failures, rng = 0, random.Random(0)
    for path in data_files(folder, good.epoch):
        content = path.read_bytes()
        for _ in range(2):
            bad = bytearray(content)
            bad[rng.randrange(len(bad))] ^= 1 << rng.randrange(8)
            path.write_bytes(bad)
            try:
                read = checkpoints.restore(folder)
            except InputError:
                failures += 1
            else:
                assert read is not None
                assert read.note == good.note
                for name, x in good.arrays.items():
                    assert x.tobytes() == read.arrays[name].tobytes()
        path.write_bytes(content)
    assert failures


@population
def test_resume_fails_if_all_checkpoints_are_damaged(killed):
    for epoch in checkpoints.epochs(killed):
        flip(data_files(killed, epoch)[-1])
    with refused("checkpoints"):
        resume(killed)


@population
def test_resume_removes_an_unfinished_checkpoint(whole, killed):
    unfinished, without_note = (killed / "checkpoints" / name for name in (f"{PART}4", "6"))
    for path in (unfinished, without_note):
        shutil.copytree(killed / "checkpoints" / "3", path)
        (path / "note.json").unlink()
    resume(killed, checkpoint_every=3)
    assert not unfinished.exists()
    assert_same(whole, killed)


def edit(folder, **changes):
    path = folder / "config.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | changes))


@population
def test_resume_rejects_an_edited_config(killed):
    content = json.loads((killed / "config.json").read_text())
    for change in {"batch_size": 16}, {"total_steps": 450}:
        edit(killed, config=content["config"] | change)
        with refused("config.json"):
            resume(killed)


@population
def test_resume_rejects_a_folder_of_an_unknown_format(killed):
    edit(killed, format=99)
    with refused("config.json"):
        resume(killed)


@population
def test_resume_warns_if_package_versions_changed(killed, caplog):
    content = json.loads((killed / "config.json").read_text())
    read = checkpoints.restore(killed)
    assert read is not None
    note = read.note | {"versions": content["versions"] | {"jax": "0.9"}}
    writer = checkpoints.Writer(killed, keep=5)
    writer.save(3, note, read.arrays)
    writer.finish()
    resume(killed)
    assert f"run: jax changed from 0.9 to {jax.__version__}\n" in caplog.text


@population
def test_resume_rejects_a_different_algorithm(killed):
    def other(config, env):
        sac = make_sac(config, env)
        return sac._replace(init=lambda key, hp: {"more": jnp.zeros(3), "sac": sac.init(key, hp)})

    for use in resume, load:
        if use is load:
            resume(killed)
        with refused("algorithm") as caught:
            use(killed, algorithm=other)
        assert "<locals>.other: pass the run's algorithm to" in str(caught.value)
    edit(killed, algorithm=None)  # as an older sacjax wrote it
    with refused("algorithm"):
        resume(killed, algorithm=other)


@jax.tree_util.register_pytree_with_keys_class
class Own:
    """A state that does not define `__eq__`."""

    def __init__(self, sac, key, nothing, unknown):
        self.fields = {"sac": sac, "key": key, "nothing": nothing, "unknown": unknown}

    def tree_flatten_with_keys(self):
        named = [(jax.tree_util.GetAttrKey(name), x) for name, x in self.fields.items()]
        return named, None

    @classmethod
    def tree_unflatten(cls, _, fields):
        return cls(*fields)


def keyed(config, env):
    """Return SAC with a state that also contains a random key, an empty array and a NaN."""
    sac = make_sac(config, env)

    def update(state, batch, key, hp):
        agent, metrics = sac.update(state.fields["sac"], batch, key, hp)
        rest = state.fields["nothing"], state.fields["unknown"]
        return Own(agent, jax.random.split(state.fields["key"])[0], *rest), metrics

    def init(key, hp):
        return Own(sac.init(key, hp), jax.random.fold_in(key, 1), jnp.zeros((0, 3)), jnp.nan)

    return sac._replace(
        init=init,
        act=lambda state, obs, key: sac.act(state.fields["sac"], obs, key),
        mode=lambda state, obs: sac.mode(state.fields["sac"], obs),
        update=update,
    )


@pytest.mark.parametrize("per_batch", [None, 1])
def test_load_restores_the_agents_of_a_custom_algorithm(tmp_path, per_batch):
    how = {"seeds": 2, "algorithm": keyed, "members_per_batch": per_batch}
    config = dataclasses.replace(CONFIG, total_steps=150)
    done = run(config, directory=tmp_path / "run", **how)
    again = load(tmp_path / "run", algorithm=keyed)
    assert not done.diverged
    numbers = [jax.random.key_data(x.agents.fields["key"]) for x in (done, again)]
    np.testing.assert_array_equal(*numbers)
    assert len(np.unique(numbers[0], axis=0)) == 2
    for run_ in done, again:
        assert run_.agents.fields["nothing"].shape == (2, 0, 3)
        assert np.isnan(run_.agents.fields["unknown"]).all()
    np.testing.assert_array_equal(evaluate_run(done)[0], evaluate_run(again)[0])
    assert is_key(again.agent(1).fields["key"])
    with jax.default_prng_impl("rbg"):
        for use in load, resume:
            with refused("jax_default_prng_impl"):
                use(tmp_path / "run", algorithm=keyed)


def test_run_accepts_numpy_numbers_and_a_jax_array_of_seeds(tmp_path):
    one, three = np.int64(1), np.int64(3)
    how = {"devices": one, "checkpoint_every": one, "keep": three, "members_per_batch": one}
    run(CONFIG, seeds=jnp.arange(2), directory=tmp_path / "run", **how)
    content = json.loads((tmp_path / "run" / "config.json").read_text())
    assert content["seeds"] == [0, 1]
    assert content["layout"]["devices"] == content["per_batch"] == 1
    assert content["options"] == {
        "every": 1,
        "keep": 3,
        "on_nan": "freeze",
        "keep_best": False,
        "loggers": [],
    }


LAYOUT = {"strategy": None, "devices": None}  # no argument is given
HERE = {"device": {"platform": jax.default_backend()}}


@pytest.mark.two_cpus
@pytest.mark.parametrize(
    ("given", "layout"),
    [
        ({}, ("map", 1)),
        ({"devices": 1}, ("map", 1)),
        ({"devices": 2}, ("map", 2)),
        ({"strategy": "vmap"}, ("vmap", 1)),
    ],
)
def test_resume_keeps_the_strategy_and_the_number_of_devices(given, layout):
    then = HERE | {"layout": {"strategy": "map", "devices": 1}}
    assert _choose_layout(then, **LAYOUT | given) == layout


def test_resume_uses_fewer_devices_on_a_smaller_machine():
    then = HERE | {"layout": {"strategy": "map", "devices": 64}}
    assert _choose_layout(then, **LAYOUT) == ("map", None)


def test_resume_may_change_the_strategy_on_a_different_platform():
    then = {"layout": {"strategy": "map", "devices": 1}, "device": {"platform": "another"}}
    assert _choose_layout(then, **LAYOUT) == ("auto", None)


def mean(q, key):
    return q.mean(0)


def test_resume_rejects_a_different_critic_rule(tmp_path, caplog, capsys):
    """The shapes of the states are equal, so only the name of the rule shows the difference."""
    rule = CLIPPED_DOUBLE_Q._replace(target=mean)
    own, folder = partial(make_sac, rule=rule), tmp_path / "run"
    run(CONFIG, seeds=1, directory=folder, algorithm=own, should_stop=lambda: True)
    names = "sac(rule=CriticRule(target=mean, loss=squared_error, value=minimum)), not sac"
    with refused("algorithm") as caught:
        resume(folder)
    assert names in str(caught.value)
    assert main(["resume", str(folder)]) == 2
    assert names in capsys.readouterr().err
    assert resume_command(folder) == f"`sacjax.resume('{folder}', algorithm=...)`"
    assert resume(folder, algorithm=own).completed
    assert "algorithm" not in caplog.text
    load(folder, algorithm=own)
    assert "algorithm" not in caplog.text
    load(folder)
    assert f"{names}: its policy may behave differently" in caplog.text


def test_the_name_of_an_algorithm_is_equal_in_every_process():
    assert algorithm_name(make_sac) == PLAIN
    networks = Networks(nn.Dense(3), partial(nn.relu, negative=jnp.float32(2)))
    name = algorithm_name(partial(make_sac, nets=networks))
    assert name.startswith("sac(nets=Networks(actor=Dense( # attributes features = 3 ")
    assert name.endswith("), critic=relu(negative=Array(2., dtype=float32))))")
    assert "0x" not in name
    assert algorithm_name(lambda: 0).endswith("<lambda>")


def test_resume_rejects_a_different_numerical_precision_of_jax(tmp_path):
    folder = tmp_path / "run"
    run(CONFIG, seeds=1, directory=folder, should_stop=lambda: True)
    with jax.enable_x64(), refused("jax_enable_x64"):
        resume(folder)


def test_resume_rejects_an_environment_object_of_a_different_class(tmp_path):
    config = dataclasses.replace(CONFIG, env=Noise())
    folder = tmp_path / "run"
    run(config, seeds=1, directory=folder, should_stop=lambda: True)
    with refused("env"):
        resume(folder, env=Chain())
    assert resume(folder, env=Noise()).completed


@population
def test_resume_rejects_a_folder_that_another_process_uses(whole, killed):
    with locked(killed), refused("directory"):
        resume(killed)
    resume(killed)  # the lock is released
    assert_same(whole, killed)


@population
def test_invalid_settings_are_refused_before_files_are_written(tmp_path, killed):
    out = tmp_path / "new"
    for name, value in ("checkpoint_every", -1), ("checkpoint_every", 1.5), ("keep", 0):
        with refused(name):
            run(CONFIG, directory=out, **{name: value})
        assert not out.exists()
    for seeds in (0, [], [0, 0], [-1], [2**32], [1.5]):
        with refused("seeds"):
            run(CONFIG, seeds=seeds, directory=out)  # pyright: ignore[reportArgumentType]
        assert not out.exists()
    with refused("checkpoint_every"):
        run(CONFIG, checkpoint_every=3)
    for step in 400, 510:  # before the end, and within an epoch
        with refused("extend_to"):
            resume(killed, extend_to=step)
    with refused("directory"):
        resume(tmp_path / "nothing")


@population
def test_resume_removes_damaged_checkpoints_first(whole, tmp_path, caplog):
    folder = Path(shutil.copytree(whole, tmp_path / "run"))
    flip(data_files(folder, 8)[-1])
    stops = iter([True])
    for epoch in (6, 7):
        remove(folder, epoch)
    resume(folder, should_stop=lambda: next(stops), keep=1)  # trains epoch 6 only
    assert checkpoints.epochs(folder) == [6]
    resume(folder, keep=1)
    assert_same(whole, folder)


def test_damaged_checkpoints_do_not_count_as_kept_checkpoints(tmp_path):
    """The next checkpoint may have a later epoch than the damaged checkpoint."""
    (tmp_path / "checkpoints").mkdir()
    arrays = {"x": np.arange(3.0)}

    def write(resumed_from, *epochs):
        writer = checkpoints.Writer(tmp_path, keep=2, resumed_from=resumed_from)
        for epoch in epochs:
            writer.save(epoch, {}, arrays)
        writer.finish()
        writer.close()
        return checkpoints.epochs(tmp_path)

    assert write(0, 1, 2) == [1, 2]
    flip(data_files(tmp_path, 2)[-1])
    assert checkpoints.restore(tmp_path).epoch == 1
    assert write(1, 3) == [1, 3]
    assert write(3, 4) == [3, 4]


@population
def test_resume_fails_if_a_checkpoint_does_not_fit_in_memory(killed, monkeypatch):
    before = checkpoints.epochs(killed)

    def fails(*_):
        raise MemoryError("no room")

    monkeypatch.setattr(arrays.Stored, "__getitem__", fails)
    with refused("checkpoints", RunError):
        resume(killed)
    assert checkpoints.epochs(killed) == before


@population
def test_extending_a_run_without_checkpoints_fails_and_changes_no_file(whole, tmp_path):
    folder = Path(shutil.copytree(whole, tmp_path / "run"))
    shutil.rmtree(folder / "checkpoints")
    before = (folder / "metrics.csv").read_bytes()
    with refused("checkpoints"):
        resume(folder, extend_to=900)
    assert (folder / "metrics.csv").read_bytes() == before
    assert load(folder).config == CONFIG


@population
def test_resume_adds_its_options_and_versions_to_config_json(whole, killed, tmp_path):
    finished = Path(shutil.copytree(whole, tmp_path / "finished"))
    for folder in finished, killed:
        edit(folder, command=["sacjax", "train"], versions={"jax": "0.9"})
    before = (finished / "config.json").read_bytes()
    resume(finished, strategy="vmap", devices=1)  # nothing to do
    assert (finished / "config.json").read_bytes() == before
    resume(killed, keep=5)
    content = json.loads((killed / "config.json").read_text())
    assert content["command"] == ["sacjax", "train"]
    assert content["versions"] == {"jax": "0.9"}
    assert content["options"]["keep"] == 5
    (session,) = content["resumed"]
    assert session["versions"]["jax"] == jax.__version__
    assert load(killed).completed


@population
def test_resume_keeps_the_users_files_in_the_checkpoint_folder(whole, killed):
    notes = killed / "checkpoints" / "notes"
    notes.mkdir()
    notes.with_suffix(".json").write_text("mine")
    resume(killed, checkpoint_every=3)
    assert notes.is_dir()
    assert notes.with_suffix(".json").read_text() == "mine"
    assert_same(whole, killed)


@population
def test_resume_warns_if_strategy_or_devices_changed(whole, killed, caplog):
    resume(killed, strategy="vmap", devices=1)
    assert "not bit-identical to an uninterrupted run: layout changed\n" in caplog.text


def test_a_run_keeps_only_the_last_checkpoints(tmp_path):
    folder = tmp_path / "run"
    run(CONFIG, seeds=1, directory=folder, checkpoint_every=3, keep=2)
    assert checkpoints.epochs(folder) == [6, 8]  # 8 is the last epoch
    none = tmp_path / "none"
    run(CONFIG, seeds=1, directory=none, checkpoint_every=0)
    assert checkpoints.epochs(none) == []


# Signals, full disks


def environment(**more):
    return os.environ | {"JAX_PLATFORMS": "cpu"} | more


def start(*arguments, **options):
    return subprocess.Popen(
        [*COMMAND, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
        **options,
    )


def wait_for(condition, process, seconds=120):
    end = time.monotonic() + seconds
    while not condition() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.002)
    assert condition() or process.poll() is not None


@pytest.mark.parametrize("program", ["bin/sacjax", "lib/sacjax/__main__.py"])
def test_config_json_contains_the_command(tmp_path, monkeypatch, program):
    flags = ["train", "Pendulum-v1", "--out", str(tmp_path / "run"), "--seeds", "1", *FLAGS]
    monkeypatch.setattr(sys, "argv", [str(Path(program)), *flags])
    assert main() == 0
    assert json.loads((tmp_path / "run" / "config.json").read_text())["command"][1] == "train"


@pytest.mark.processes
def test_sigterm_saves_a_checkpoint_and_exits_with_143(tmp_path):
    folder, whole = tmp_path / "run", tmp_path / "whole"
    flags = [*FLAGS, "--seeds", "1", "--checkpoint-every", "1"]
    flags[1] = "1500"  # long enough to be stopped
    process = start("train", "Pendulum-v1", "--out", folder, *flags)
    wait_for(lambda: checkpoints.epochs(folder), process)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 143, errors
    assert f"`sacjax resume {folder}` resumes it" in errors
    epochs = load(folder).epochs[0]
    assert epochs < 28
    assert checkpoints.epochs(folder)[-1] == epochs
    assert main(["resume", str(folder)]) == 0
    assert main(["train", "Pendulum-v1", "--out", str(whole), *flags]) == 0
    assert_same(whole, folder)


LIMITED = """
import resource, sys
from sacjax.cli.main import main
from sacjax.runs.recorder import Recorder
before = Recorder._save
def save(self, state):
    if len(state.history) == 4:  # no file can become longer than 2 kB
        self._checkpoints.finish()
        resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, 2_000))
    before(self, state)
Recorder._save = save
sys.exit(main())
"""


@pytest.mark.processes
def test_a_full_disk_stops_the_run_and_keeps_the_previous_checkpoint(tmp_path):
    folder, whole = tmp_path / "run", tmp_path / "whole"
    flags = [*FLAGS, "--seeds", "2", "--checkpoint-every", "1", "--log-format", "none"]
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, "train", "Pendulum-v1", "--out", str(folder), *flags],
        capture_output=True,
        text=True,
        env=environment(),
    )
    assert done.returncode == 3, done.stderr
    assert "sacjax: the checkpoint of epoch 4 could not be written" in done.stderr
    assert "the checkpoint of epoch 3 is complete: make room, then `sacjax resume" in done.stderr
    assert done.stderr.count("\n") == 1  # no other message
    assert checkpoints.epochs(folder) == [2, 3]
    assert main(["resume", str(folder), "--checkpoint-every", "1"]) == 0
    assert main(["train", "Pendulum-v1", "--out", str(whole), *flags]) == 0
    assert_same(whole, folder)


def test_training_continues_while_a_checkpoint_is_written(tmp_path, monkeypatch):
    continued, complete = threading.Event(), arrays.complete

    def slow(folder, *rest):
        assert folder.name != "2" or continued.wait(120), "training waited"
        complete(folder, *rest)

    monkeypatch.setattr(arrays, "complete", slow)
    seen = []

    def tell(step, metrics):
        seen.append(step)
        if len(seen) == 3:
            assert not checkpoints.epochs(tmp_path / "run")
            continued.set()

    done = run(CONFIG, seeds=1, directory=tmp_path / "run", on_epoch=[tell], checkpoint_every=2)
    assert done.completed
    assert checkpoints.epochs(tmp_path / "run") == [6, 8]


def test_a_failed_checkpoint_stops_the_run(tmp_path, monkeypatch):
    complete = arrays.complete

    def full(folder, *rest):
        if folder.name == "4":
            raise OSError(28, "No space left on device")
        complete(folder, *rest)

    monkeypatch.setattr(arrays, "complete", full)
    with refused("checkpoints", RunError):
        run(CONFIG, seeds=1, directory=tmp_path / "run", checkpoint_every=2)
    assert checkpoints.epochs(tmp_path / "run") == [2]
    assert not (tmp_path / "run" / "checkpoints" / "4").exists()


def test_a_failed_write_of_metrics_stops_the_run(tmp_path, monkeypatch):
    from sacjax.runs.metrics_csv import MetricsFile

    def full(self, rows):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(MetricsFile, "append", full)
    with refused("directory", RunError):
        run(CONFIG, seeds=1, directory=tmp_path / "run")


def is_writing(folder):
    return any((folder / "checkpoints").glob(f"{PART}*"))


def kill_and_resume(tmp_path, seeds, kills, seed, *layout):
    """Kill and resume a run at random moments. Kill every third process during a write."""
    rng = random.Random(seed)
    folder, whole = tmp_path / "run", tmp_path / "whole"
    flags = [*FLAGS, "--seeds", str(seeds), "--checkpoint-every", "1", "--replay-size", "400"]
    flags[1] = "1500"
    flags += layout
    assert main(["train", "Pendulum-v1", "--out", str(whole), *flags]) == 0
    arguments, killed, writing = ["train", "Pendulum-v1", "--out", str(folder), *flags], 0, 0
    while killed < kills:
        process = start(*arguments)
        known = checkpoints.epochs(folder)
        if killed % 3 == 2:
            wait_for(lambda: is_writing(folder), process)
        elif killed % 3 == 1:
            wait_for(lambda known=known: checkpoints.epochs(folder) != known, process)
            time.sleep(rng.uniform(0, 0.1))
        else:
            time.sleep(rng.uniform(0.2, 4))
        process.kill()
        process.communicate()
        if process.returncode == 0:  # the run finished before the kill
            break
        killed += 1
        writing += is_writing(folder)
        if (folder / "config.json").exists():
            arguments = ["resume", str(folder), "--checkpoint-every", "1"]
        elif folder.exists():
            shutil.rmtree(folder)  # killed before it wrote anything
    assert main(["resume", str(folder), "--checkpoint-every", "1"]) == 0
    assert_same(whole, folder)
    return killed, writing


@pytest.mark.processes
def test_a_run_killed_three_times_equals_an_uninterrupted_run(tmp_path):
    killed, _ = kill_and_resume(tmp_path, seeds=2, kills=3, seed=0)
    assert killed == 3


@pytest.mark.nightly  # each kill costs a new process that compiles
@pytest.mark.parametrize(
    ("seeds", "layout"),
    [(1, ()), (4, ("--strategy", "map")), (4, ("--strategy", "vmap", "--devices", "1"))],
    ids=["one seed", "mapped over two devices", "vmapped"],
)
def test_a_run_killed_twenty_times_equals_an_uninterrupted_run(tmp_path, seeds, layout):
    killed, writing = kill_and_resume(tmp_path, seeds, 20, seeds, *layout)
    assert killed == 20
    assert writing >= 3  # kills in the middle of a checkpoint


def test_the_suggested_resume_command_works_for_any_folder(tmp_path):
    place = tmp_path / "my runs" / "a"
    place.mkdir(parents=True)
    (place / "config.json").write_text('{"config": {"env": "Pendulum-v1"}}')
    assert resume_command(place) == f"`sacjax resume '{place}'`"
    assert resume_command(place / "batches" / "2") == f"`sacjax resume '{place}'`"
    (place / "config.json").write_text('{"config": {"env": null}}')
    assert resume_command(place) == f"`sacjax.resume('{place}', env=...)`"
    elsewhere = tmp_path / "batches" / "b"  # not a batch, in spite of its name
    assert resume_command(elsewhere) == f"`sacjax resume {elsewhere}`"


@pytest.mark.parametrize("name", ["lr[0.1]", "[2024] x/run", "a\\b", "caf\udce9"])
def test_the_name_of_a_run_folder_may_contain_any_characters(tmp_path, name):
    stops = iter([True])
    run(CONFIG, seeds=1, directory=tmp_path / name, should_stop=lambda: next(stops))
    assert resume(tmp_path / name).completed
    assert load(tmp_path / name).completed


def test_a_figure_shows_the_dollar_signs_of_a_path(tmp_path):
    run(CONFIG, seeds=1, directory=tmp_path / "a$_$b")
    assert (tmp_path / "a$_$b" / "learning_curve.png").exists()


@pytest.mark.exact  # the only suite whose runs do not share programs
def test_run_compiles_in_a_background_thread(tmp_path, monkeypatch):
    compile_, threads = jax.stages.Lowered.compile, []

    def seen(self, *args, **kwargs):
        threads.append(threading.current_thread())
        return compile_(self, *args, **kwargs)

    monkeypatch.setattr(jax.stages.Lowered, "compile", seen)
    run(CONFIG, seeds=1, directory=tmp_path / "run")
    assert len(threads) == 2  # init, epoch
    assert threading.main_thread() not in threads


@pytest.mark.processes
def test_a_second_ctrl_c_stops_at_once_and_leaves_complete_files(tmp_path):
    folder = tmp_path / "run"
    flags = [*FLAGS, "--seeds", "1", "--checkpoint-every", "1"]
    flags[1], flags[5] = "2000100", "500000"  # an epoch takes minutes
    process = start("train", "Pendulum-v1", "--out", folder, *flags)
    wait_for(lambda: (folder / "metrics.csv").exists(), process)
    time.sleep(5)  # the run compiles, or is in its first epoch
    process.send_signal(signal.SIGINT)
    time.sleep(1)
    assert process.poll() is None  # the run waits for the end of the epoch
    process.send_signal(signal.SIGINT)
    begin = time.monotonic()
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert time.monotonic() - begin < 30
    assert json.loads((folder / "config.json").read_text())
    assert checkpoints.epochs(folder) == []
    assert not list(folder.glob(f"{PART}*"))


class Signal:
    """A callback for `on_epoch` that raises a signal after every second epoch."""

    def __init__(self, number):
        self.number, self.epochs = number, 0

    def __call__(self, step, metrics):
        self.epochs += 1
        if self.epochs % 2 == 0:
            signal.raise_signal(self.number)


@pytest.fixture
def python_handles_ctrl_c():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    assert signal.signal(signal.SIGINT, before) is signal.default_int_handler


@pytest.mark.processes
@population
@pytest.mark.usefixtures("python_handles_ctrl_c")
def test_ctrl_c_in_a_script_saves_a_checkpoint_after_the_epoch(whole, tmp_path, capsys):
    place, (hp, seeds) = tmp_path / "run", POPULATIONS["a population"]
    ctrl_c = Signal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        run(CONFIG, hp, seeds=seeds, directory=place, checkpoint_every=100, on_epoch=[ctrl_c])
    assert checkpoints.epochs(place) == [2]
    assert "Stopping after this epoch" in capsys.readouterr().err
    with pytest.raises(KeyboardInterrupt):
        resume(place, on_epoch=[ctrl_c])
    assert checkpoints.epochs(place) == [2, 4]
    resume(place)
    assert_same(whole, place)


@pytest.mark.processes
def test_run_does_not_replace_a_custom_signal_handler(tmp_path):
    heard = []
    before = signal.signal(signal.SIGINT, lambda *_: heard.append(True))
    try:
        done = run(CONFIG, seeds=1, directory=tmp_path / "run", on_epoch=[Signal(signal.SIGINT)])
    finally:
        signal.signal(signal.SIGINT, before)
    assert done.completed
    assert heard


def test_run_can_be_called_outside_of_the_main_thread(tmp_path):
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(run, CONFIG, seeds=1, directory=tmp_path / "run").result().completed


TERMINATED = """
import os, signal, sys
from checks import CONFIG
from sacjax import run

def terminate(step, metrics):
    if step == CONFIG.warmup_steps + 2 * CONFIG.eval_every:
        os.kill(os.getpid(), signal.SIGTERM)

run(CONFIG, seeds=1, directory=sys.argv[1], checkpoint_every=100, on_epoch=[terminate])
"""


@pytest.mark.processes
def test_sigterm_in_a_script_saves_a_checkpoint_after_the_epoch(tmp_path):
    place, tests = tmp_path / "run", str(Path(__file__).parents[1] / "helpers")
    done = subprocess.run(
        [sys.executable, "-c", TERMINATED, place], env=environment(PYTHONPATH=tests)
    )
    assert done.returncode == -signal.SIGTERM
    assert checkpoints.epochs(place) == [2]
    assert resume(place).completed
