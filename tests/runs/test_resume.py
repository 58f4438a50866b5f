"""A run that is killed and resumed ends, to the bit, like one that never stopped."""

import dataclasses
import json
import os
import random
import re
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
from checks import CONFIG, GRID
from probes import Chain, Noise

from sacjax import evaluate_run, load, resume, run
from sacjax.cli.main import main
from sacjax.config import Config, Hyperparams
from sacjax.networks import Networks
from sacjax.runs import arrays, checkpoints
from sacjax.runs.directory import locked, resume_command
from sacjax.runs.files import PART
from sacjax.runs.provenance import algorithm_name
from sacjax.runs.run import _layout
from sacjax.sac import CLIPPED_DOUBLE_Q, make_sac
from sacjax.types import PLAIN, InputError, RunError, is_key

POPULATIONS = {"one seed": (Hyperparams(), 1), "a population": (GRID, 2)}
population = pytest.mark.parametrize("whole", ["a population"], indirect=True)  # is enough
COMMAND = [sys.executable, "-m", "sacjax"]
FLAGS = [
    *("--total-steps", "500", "--warmup-steps", "100", "--eval-every", "50", "--hidden", "8"),
    *("--batch-size", "8", "--eval-episodes", "2"),
]


@pytest.fixture(
    scope="module", params=[pytest.param("one seed", marks=pytest.mark.exact), "a population"]
)
def whole(request, tmp_path_factory):
    """A run that nobody stopped, with a checkpoint after each epoch, all of them kept."""
    folder = tmp_path_factory.mktemp(request.param.replace(" ", "-")) / "run"
    hp, seeds = POPULATIONS[request.param]
    run(CONFIG, hp, seeds=seeds, directory=folder, checkpoint_every=1, keep=100)
    return folder


def remove(folder, epoch):
    shutil.rmtree(folder / "checkpoints" / str(epoch))


@pytest.fixture
def torso(whole, tmp_path):
    """What a kill soon after the third epoch's checkpoint leaves."""
    folder = Path(shutil.copytree(whole, tmp_path / "torso"))
    for epoch in checkpoints.epochs(folder):
        if epoch > 3:
            remove(folder, epoch)
    shutil.rmtree(folder / "agents")
    (folder / "learning_curve.png").unlink()
    csv = folder / "metrics.csv"
    csv.write_bytes(csv.read_bytes()[:-300])  # rows after the checkpoint, the last one torn
    return folder


def assert_same(one, other):
    """The same metrics.csv, agents and replays, to the bit."""
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
def test_resumed_is_never_stopped(whole, torso):
    done = resume(torso)
    assert done.completed
    assert done.metrics["eval_return"].shape == (len(done.members), 8, 2)
    assert_same(whole, torso)


@pytest.mark.exact
def test_a_vmapped_population_resumed_is_never_stopped(tmp_path):
    how = {"seeds": 3, "strategy": "vmap", "devices": 1, "checkpoint_every": 1}
    stopped, vmapped = tmp_path / "stopped", tmp_path / "vmapped"
    stops = iter([False, False, True])
    run(CONFIG, GRID, directory=stopped, should_stop=lambda: next(stops), **how)
    assert resume(stopped).completed
    run(CONFIG, GRID, directory=vmapped, **how)
    assert_same(vmapped, stopped)


@pytest.mark.exact
def test_without_a_checkpoint_it_starts_again_and_says_so(whole, torso, caplog):
    shutil.rmtree(torso / "checkpoints")
    resume(torso)
    assert "starting from the beginning" in caplog.text
    assert_same(whole, torso)


def test_a_finished_run_is_finished_and_gets_back_what_it_lost(whole, tmp_path, caplog):
    folder = Path(shutil.copytree(whole, tmp_path / "run"))
    shutil.rmtree(folder / "agents")
    (folder / "metrics.csv").unlink()
    assert resume(folder, strategy="vmap", devices=1).completed
    assert "changed: layout" not in caplog.text  # nothing was computed
    assert_same(whole, folder)


@pytest.mark.exact
def test_extended_is_configured_longer(whole, tmp_path):
    """Replay, capped by total_steps, grows with it."""
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
def test_members_go_on_on_another_number_of_devices_to_rounding(tmp_path, devices):
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
def test_a_damaged_checkpoint_is_passed_over_aloud(whole, torso, caplog, harm):
    harm(data_files(torso, 3)[-1])  # the largest one
    resume(torso)
    assert "checkpoints/3 is damaged" in caplog.text
    assert "going back to the one before" in caplog.text
    assert_same(whole, torso)


@population
def test_no_flipped_bit_of_any_file_goes_unnoticed(whole, tmp_path):
    """Either the checkpoint is refused, or what is read is exactly what was written."""
    folder = Path(shutil.copytree(whole, tmp_path / "run"))
    for epoch in checkpoints.epochs(folder)[:-1]:
        remove(folder, epoch)
    good = checkpoints.restore(folder)
    assert good is not None
    refused, rng = 0, random.Random(0)
    for path in data_files(folder, good.epoch):
        content = path.read_bytes()
        for _ in range(2):
            bad = bytearray(content)
            bad[rng.randrange(len(bad))] ^= 1 << rng.randrange(8)
            path.write_bytes(bad)
            try:
                read = checkpoints.restore(folder)
            except InputError:
                refused += 1
            else:
                assert read is not None
                assert read.note == good.note
                for name, x in good.arrays.items():
                    assert x.tobytes() == read.arrays[name].tobytes()
        path.write_bytes(content)
    assert refused


@population
def test_where_all_are_damaged_it_ends_with_the_remedy(torso):
    for epoch in checkpoints.epochs(torso):
        flip(data_files(torso, epoch)[-1])
    with pytest.raises(
        InputError, match=r"no checkpoint can be read: .*restore it, or train again"
    ):
        resume(torso)


@population
def test_a_torso_of_an_interrupted_write_is_ignored_and_removed(whole, torso):
    begun, noteless = (torso / "checkpoints" / name for name in (f"{PART}4", "6"))
    for path in (begun, noteless):
        shutil.copytree(torso / "checkpoints" / "3", path)
        (path / "note.json").unlink()
    resume(torso, checkpoint_every=3)
    assert not begun.exists()
    assert_same(whole, torso)


def edit(folder, **changes):
    path = folder / "config.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | changes))


@population
def test_another_config_is_refused(torso):
    content = json.loads((torso / "config.json").read_text())
    for change in {"batch_size": 16}, {"total_steps": 450}:
        edit(torso, config=content["config"] | change)
        with pytest.raises(InputError, match=r"config\.json is not the one"):
            resume(torso)


@population
def test_another_format_is_refused(torso):
    edit(torso, format=99)
    with pytest.raises(InputError, match="has format 99"):
        resume(torso)


@population
def test_other_versions_are_said(torso, caplog):
    content = json.loads((torso / "config.json").read_text())
    read = checkpoints.restore(torso)
    assert read is not None
    note = read.note | {"versions": content["versions"] | {"jax": "0.9"}}
    writer = checkpoints.Writer(torso, keep=5)
    writer.save(3, note, read.arrays)
    writer.finish()
    resume(torso)
    assert f"changed: jax (0.9, now {jax.__version__})\n" in caplog.text


@population
def test_another_algorithm_is_refused(torso):
    def other(config, env):
        sac = make_sac(config, env)
        return sac._replace(init=lambda key, hp: {"more": jnp.zeros(3), "sac": sac.init(key, hp)})

    for go_on, remedy in (resume, "give that to resume"), (load, "give that to load"):
        if go_on is load:
            resume(torso)
        with pytest.raises(
            InputError, match=rf"with the algorithm sac, not .*<locals>\.other: {remedy}"
        ):
            go_on(torso, algorithm=other)
    edit(torso, algorithm=None)  # of an older sacjax
    with pytest.raises(InputError, match="is of another program"):
        resume(torso, algorithm=other)


@jax.tree_util.register_pytree_with_keys_class
class Own:
    """A state that is equal to itself only, as a class is that says nothing of it."""

    def __init__(self, sac, key, nothing, unknown):
        self.fields = {"sac": sac, "key": key, "nothing": nothing, "unknown": unknown}

    def tree_flatten_with_keys(self):
        named = [(jax.tree_util.GetAttrKey(name), x) for name, x in self.fields.items()]
        return named, None

    @classmethod
    def tree_unflatten(cls, _, fields):
        return cls(*fields)


def keyed(config, env):
    """SAC whose state holds a PRNG key of its own, an array of no elements, and one not known."""
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
def test_agents_of_any_kind_are_read_back(tmp_path, per_batch):
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
            with pytest.raises(InputError, match="set JAX_DEFAULT_PRNG_IMPL=threefry2x32"):
                use(tmp_path / "run", algorithm=keyed)


def test_numbers_of_numpy_and_seeds_of_jax_are_numbers_too(tmp_path):
    one, three = np.int64(1), np.int64(3)
    how = {"devices": one, "checkpoint_every": one, "keep": three, "members_per_batch": one}
    run(CONFIG, seeds=jnp.arange(2), directory=tmp_path / "run", **how)
    content = json.loads((tmp_path / "run" / "config.json").read_text())
    assert content["seeds"] == [0, 1]
    assert content["layout"]["devices"] == content["per_batch"] == 1
    assert content["options"] == {"every": 1, "keep": 3, "on_nan": "freeze"}


LAYOUT = {"strategy": None, "devices": None}  # nothing is given
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
def test_of_a_layout_what_is_not_given_is_as_it_was(given, layout):
    then = HERE | {"layout": {"strategy": "map", "devices": 1}}
    assert _layout(then, **LAYOUT | given) == layout


def test_devices_that_are_not_here_are_left_out():
    then = HERE | {"layout": {"strategy": "map", "devices": 64}}
    assert _layout(then, **LAYOUT) == ("map", None)


def test_a_layout_of_other_devices_is_left_out():
    then = {"layout": {"strategy": "map", "devices": 1}, "device": {"platform": "another"}}
    assert _layout(then, **LAYOUT) == ("auto", None)


def mean(q, key):
    return q.mean(0)


def test_another_rule_for_the_critics_is_another_algorithm(tmp_path, caplog, capsys):
    """Whose state has the same shapes, so that nothing else would notice."""
    rule = CLIPPED_DOUBLE_Q._replace(target=mean)
    own, folder = partial(make_sac, rule=rule), tmp_path / "run"
    run(CONFIG, seeds=1, directory=folder, algorithm=own, should_stop=lambda: True)
    told = "sac(rule=CriticRule(target=mean, loss=squared_error, value=minimum)), not sac"
    with pytest.raises(InputError, match=f"algorithm {re.escape(told)}: give that to resume"):
        resume(folder)
    assert main(["resume", str(folder)]) == 2
    assert told in capsys.readouterr().err
    assert resume_command(folder) == f"`sacjax.resume('{folder}', algorithm=...)`"
    assert resume(folder, algorithm=own).completed
    assert "algorithm" not in caplog.text
    load(folder, algorithm=own)
    assert "algorithm" not in caplog.text
    load(folder)
    assert f"{told}: its agents may act otherwise" in caplog.text


def test_an_algorithm_has_one_name_in_every_process():
    assert algorithm_name(make_sac) == PLAIN
    networks = Networks(nn.Dense(3), partial(nn.relu, negative=jnp.float32(2)))
    name = algorithm_name(partial(make_sac, nets=networks))
    assert name.startswith("sac(nets=Networks(actor=Dense( # attributes features = 3 ")
    assert name.endswith("), critic=relu(negative=Array(2., dtype=float32))))")
    assert "0x" not in name
    assert algorithm_name(lambda: 0).endswith("<lambda>")


def test_another_precision_is_refused(tmp_path):
    folder = tmp_path / "run"
    run(CONFIG, seeds=1, directory=folder, should_stop=lambda: True)
    with jax.enable_x64(), pytest.raises(InputError, match="x64=False: set JAX_ENABLE_X64=0"):
        resume(folder)


def test_another_environment_object_is_refused(tmp_path):
    config = dataclasses.replace(CONFIG, env=Noise())
    folder = tmp_path / "run"
    run(config, seeds=1, directory=folder, should_stop=lambda: True)
    with pytest.raises(InputError, match="was trained on Noise, not Chain: give env"):
        resume(folder, env=Chain())
    assert resume(folder, env=Noise()).completed


@population
def test_a_folder_in_use_is_refused_and_the_lock_goes_with_its_holder(whole, torso):
    with (
        locked(torso),
        pytest.raises(InputError, match="is being written by another process"),
    ):
        resume(torso)
    resume(torso)
    assert_same(whole, torso)


@population
def test_settings_that_cannot_work_are_refused_before_anything_is_written(tmp_path, torso):
    out = tmp_path / "new"
    for changes, message in (
        ({"checkpoint_every": -1}, "must be None or a whole number"),
        ({"checkpoint_every": 1.5}, "must be None or a whole number"),
        ({"keep": 0}, r"keep \(0\) must be"),
    ):
        with pytest.raises(InputError, match=message):
            run(CONFIG, directory=out, **changes)  # pyright: ignore[reportArgumentType]
        assert not out.exists()
    for seeds in (0, [], [0, 0], [-1], [2**32], [1.5]):
        with pytest.raises(InputError, match=r"from 0 to 2\*\*32 - 1: use seeds=8"):
            run(CONFIG, seeds=seeds, directory=out)  # pyright: ignore[reportArgumentType]
        assert not out.exists()
    with pytest.raises(InputError, match="needs a folder"):
        run(CONFIG, checkpoint_every=3)
    with pytest.raises(InputError, match=r"extend_to \(400\) must not be below"):
        resume(torso, extend_to=400)
    ends = r"extend_to \(510\) must be the end of an epoch: use extend_to=550$"
    with pytest.raises(InputError, match=ends):
        resume(torso, extend_to=510)
    with pytest.raises(InputError, match="is not a run's folder"):
        resume(tmp_path / "nothing")


@population
def test_a_damaged_one_is_not_kept_instead_of_a_good_one(whole, tmp_path, caplog):
    folder = Path(shutil.copytree(whole, tmp_path / "run"))
    flip(data_files(folder, 8)[-1])
    stops = iter([True])
    for epoch in (6, 7):
        remove(folder, epoch)
    resume(folder, should_stop=lambda: next(stops), keep=1)  # from 5 to 6
    assert checkpoints.epochs(folder) == [6]
    resume(folder, keep=1)
    assert_same(whole, folder)


def test_one_that_was_passed_over_is_none_of_those_that_are_kept(tmp_path):
    """Also where the next one is of a later epoch than the damaged one."""
    (tmp_path / "checkpoints").mkdir()
    arrays = {"x": np.arange(3.0)}

    def written(begun, *epochs):
        writer = checkpoints.Writer(tmp_path, keep=2, begun=begun)
        for epoch in epochs:
            writer.save(epoch, {}, arrays)
        writer.finish()
        writer.close()
        return checkpoints.epochs(tmp_path)

    assert written(0, 1, 2) == [1, 2]
    flip(data_files(tmp_path, 2)[-1])
    assert checkpoints.restore(tmp_path).epoch == 1
    assert written(1, 3) == [1, 3]
    assert written(3, 4) == [3, 4]


@population
def test_a_whole_one_that_cannot_be_read_here_is_not_taken_for_damaged(torso, monkeypatch):
    before = checkpoints.epochs(torso)

    def fails(*_):
        raise MemoryError("no room")

    monkeypatch.setattr(arrays.Stored, "__getitem__", fails)
    with pytest.raises(RunError, match=r"is whole, but cannot be read here \(.*no room.*\): free"):
        resume(torso)
    assert checkpoints.epochs(torso) == before


@population
def test_a_finished_run_without_checkpoints_is_not_begun_again(whole, tmp_path):
    folder = Path(shutil.copytree(whole, tmp_path / "run"))
    shutil.rmtree(folder / "checkpoints")
    before = (folder / "metrics.csv").read_bytes()
    with pytest.raises(InputError, match="has trained agents and no checkpoint to resume from"):
        resume(folder, extend_to=900)
    assert (folder / "metrics.csv").read_bytes() == before
    assert load(folder).config == CONFIG


@population
def test_what_it_was_begun_with_stays_and_what_it_goes_on_with_is_added(whole, torso, tmp_path):
    finished = Path(shutil.copytree(whole, tmp_path / "finished"))
    for folder in finished, torso:
        edit(folder, command=["sacjax", "train"], versions={"jax": "0.9"})
    before = (finished / "config.json").read_bytes()
    resume(finished, strategy="vmap", devices=1)  # nothing to do
    assert (finished / "config.json").read_bytes() == before
    resume(torso, keep=5)
    told = json.loads((torso / "config.json").read_text())
    assert told["command"] == ["sacjax", "train"]
    assert told["versions"] == {"jax": "0.9"}
    assert told["options"]["keep"] == 5
    (again,) = told["resumed"]
    assert again["versions"]["jax"] == jax.__version__
    assert load(torso).completed


@population
def test_what_others_put_beside_the_checkpoints_stays(whole, torso):
    notes = torso / "checkpoints" / "notes"
    notes.mkdir()
    notes.with_suffix(".json").write_text("mine")
    resume(torso, checkpoint_every=3)
    assert notes.is_dir()
    assert notes.with_suffix(".json").read_text() == "mine"
    assert_same(whole, torso)


@population
def test_another_layout_is_said(whole, torso, caplog):
    resume(torso, strategy="vmap", devices=1)
    assert "not to the bit what it would have been, changed: layout\n" in caplog.text


def test_the_last_ones_are_kept(tmp_path):
    folder = tmp_path / "run"
    run(CONFIG, seeds=1, directory=folder, checkpoint_every=3, keep=2)
    assert checkpoints.epochs(folder) == [6, 8]  # the last epoch always
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
def test_the_command_is_written_down(tmp_path, monkeypatch, program):
    flags = ["train", "Pendulum-v1", "--out", str(tmp_path / "run"), "--seeds", "1", *FLAGS]
    monkeypatch.setattr(sys, "argv", [str(Path(program)), *flags])
    assert main() == 0
    assert json.loads((tmp_path / "run" / "config.json").read_text())["command"][1] == "train"


@pytest.mark.processes
def test_sigterm_checkpoints_and_leaves_with_143_and_resume_goes_on(tmp_path):
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
    if len(state.history) == 4:  # from here on no file can be longer than 2 kB
        self._checkpoints.finish()
        resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, 2_000))
    before(self, state)
Recorder._save = save
sys.exit(main())
"""


@pytest.mark.processes
def test_a_disk_that_is_full_ends_the_run_with_the_one_before_whole(tmp_path):
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
    assert "the one of epoch 3 is whole: make room, then `sacjax resume" in done.stderr
    assert done.stderr.count("\n") == 1  # and nothing else
    assert checkpoints.epochs(folder) == [2, 3]
    assert main(["resume", str(folder), "--checkpoint-every", "1"]) == 0
    assert main(["train", "Pendulum-v1", "--out", str(whole), *flags]) == 0
    assert_same(whole, folder)


def test_training_goes_on_while_a_checkpoint_is_completed(tmp_path, monkeypatch):
    went_on, complete = threading.Event(), arrays.complete

    def slow(folder, *rest):
        assert folder.name != "2" or went_on.wait(120), "training waited"
        complete(folder, *rest)

    monkeypatch.setattr(arrays, "complete", slow)
    seen = []

    def tell(step, metrics):
        seen.append(step)
        if len(seen) == 3:
            assert not checkpoints.epochs(tmp_path / "run")
            went_on.set()

    done = run(CONFIG, seeds=1, directory=tmp_path / "run", on_epoch=[tell], checkpoint_every=2)
    assert done.completed
    assert checkpoints.epochs(tmp_path / "run") == [6, 8]


def test_a_checkpoint_that_cannot_be_completed_ends_the_run(tmp_path, monkeypatch):
    complete = arrays.complete

    def full(folder, *rest):
        if folder.name == "4":
            raise OSError(28, "No space left on device")
        complete(folder, *rest)

    monkeypatch.setattr(arrays, "complete", full)
    with pytest.raises(RunError, match=r"of epoch 4 could not be written .*No space left"):
        run(CONFIG, seeds=1, directory=tmp_path / "run", checkpoint_every=2)
    assert checkpoints.epochs(tmp_path / "run") == [2]
    assert not (tmp_path / "run" / "checkpoints" / "4").exists()


def test_metrics_that_cannot_be_written_are_an_error_with_the_remedy(tmp_path, monkeypatch):
    from sacjax.runs.metrics_csv import MetricsFile

    def full(self, rows):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(MetricsFile, "append", full)
    with pytest.raises(RunError, match=r"No space left on device\): make room, then `sacjax resum"):
        run(CONFIG, seeds=1, directory=tmp_path / "run")


def writing_in(folder):
    return any((folder / "checkpoints").glob(f"{PART}*"))


def kill_and_resume(tmp_path, seeds, kills, seed, *layout):
    """SIGKILL at random moments, a new process each time; every third during a write."""
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
            wait_for(lambda: writing_in(folder), process)
        elif killed % 3 == 1:
            wait_for(lambda known=known: checkpoints.epochs(folder) != known, process)
            time.sleep(rng.uniform(0, 0.1))
        else:
            time.sleep(rng.uniform(0.2, 4))
        process.kill()
        process.communicate()
        if process.returncode == 0:  # it had ended already
            break
        killed += 1
        writing += writing_in(folder)
        if (folder / "config.json").exists():
            arguments = ["resume", str(folder), "--checkpoint-every", "1"]
        elif folder.exists():
            shutil.rmtree(folder)  # killed before it wrote anything
    assert main(["resume", str(folder), "--checkpoint-every", "1"]) == 0
    assert_same(whole, folder)
    return killed, writing


@pytest.mark.processes
def test_killed_three_times_it_ends_like_never_stopped(tmp_path):
    killed, _ = kill_and_resume(tmp_path, seeds=2, kills=3, seed=0)
    assert killed == 3


@pytest.mark.nightly  # a new process, and its compilation, for each kill
@pytest.mark.parametrize(
    ("seeds", "layout"),
    [(1, ()), (4, ("--strategy", "map")), (4, ("--strategy", "vmap", "--devices", "1"))],
    ids=["one seed", "mapped over two devices", "vmapped"],
)
def test_killed_twenty_times_it_ends_like_never_stopped(tmp_path, seeds, layout):
    killed, writing = kill_and_resume(tmp_path, seeds, 20, seeds, *layout)
    assert killed == 20
    assert writing >= 3  # in the middle of a checkpoint


def test_what_goes_on_with_a_run_is_said_so_that_it_works(tmp_path):
    place = tmp_path / "my runs" / "a"
    place.mkdir(parents=True)
    (place / "config.json").write_text('{"config": {"env": "Pendulum-v1"}}')
    assert resume_command(place) == f"`sacjax resume '{place}'`"
    assert resume_command(place / "batches" / "2") == f"`sacjax resume '{place}'`"
    (place / "config.json").write_text('{"config": {"env": null}}')
    assert resume_command(place) == f"`sacjax.resume('{place}', env=...)`"
    elsewhere = tmp_path / "batches" / "b"  # a name like any other
    assert resume_command(elsewhere) == f"`sacjax resume {elsewhere}`"


@pytest.mark.parametrize("name", ["lr[0.1]", "[2024] x/run", "a\\b", "caf\udce9"])
def test_a_path_of_any_letters_holds_a_run(tmp_path, name):
    stops = iter([True])
    run(CONFIG, seeds=1, directory=tmp_path / name, should_stop=lambda: next(stops))
    assert resume(tmp_path / name).completed
    assert load(tmp_path / name).completed


def test_dollars_in_a_path_are_no_mathematics(tmp_path):
    run(CONFIG, seeds=1, directory=tmp_path / "a$_$b")
    assert (tmp_path / "a$_$b" / "learning_curve.png").exists()


@pytest.mark.exact  # where runs do not share programs
def test_programs_compile_where_they_do_not_keep_ctrl_c_from_being_heard(tmp_path, monkeypatch):
    compile_, threads = jax.stages.Lowered.compile, []

    def seen(self, *args, **kwargs):
        threads.append(threading.current_thread())
        return compile_(self, *args, **kwargs)

    monkeypatch.setattr(jax.stages.Lowered, "compile", seen)
    run(CONFIG, seeds=1, directory=tmp_path / "run")
    assert len(threads) == 2  # init, epoch
    assert threading.main_thread() not in threads


@pytest.mark.processes
def test_a_second_ctrl_c_leaves_at_once_with_whole_files(tmp_path):
    folder = tmp_path / "run"
    flags = [*FLAGS, "--seeds", "1", "--checkpoint-every", "1"]
    flags[1], flags[5] = "2000100", "500000"  # an epoch of minutes
    process = start("train", "Pendulum-v1", "--out", folder, *flags)
    wait_for(lambda: (folder / "metrics.csv").exists(), process)
    time.sleep(5)  # it compiles, or is in its first epoch
    process.send_signal(signal.SIGINT)
    time.sleep(1)
    assert process.poll() is None  # it would finish the epoch
    process.send_signal(signal.SIGINT)
    begin = time.monotonic()
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert time.monotonic() - begin < 30
    assert json.loads((folder / "config.json").read_text())
    assert checkpoints.epochs(folder) == []
    assert not list(folder.glob(f"{PART}*"))


class Signal:
    """on_epoch: a signal after every second epoch."""

    def __init__(self, number):
        self.number, self.told = number, 0

    def __call__(self, step, metrics):
        self.told += 1
        if self.told % 2 == 0:
            signal.raise_signal(self.number)


@pytest.fixture
def python_handles_ctrl_c():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    assert signal.signal(signal.SIGINT, before) is signal.default_int_handler


@pytest.mark.processes
@population
@pytest.mark.usefixtures("python_handles_ctrl_c")
def test_ctrl_c_in_a_script_takes_effect_once_the_files_are_whole(whole, tmp_path, capsys):
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
def test_a_handler_of_another_keeps_its_signal(tmp_path):
    heard = []
    before = signal.signal(signal.SIGINT, lambda *_: heard.append(True))
    try:
        done = run(CONFIG, seeds=1, directory=tmp_path / "run", on_epoch=[Signal(signal.SIGINT)])
    finally:
        signal.signal(signal.SIGINT, before)
    assert done.completed
    assert heard


def test_runs_in_a_thread_where_no_signal_can_be_handled(tmp_path):
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
def test_sigterm_ends_a_script_once_the_files_are_whole(tmp_path):
    place, tests = tmp_path / "run", str(Path(__file__).parents[1] / "helpers")
    done = subprocess.run(
        [sys.executable, "-c", TERMINATED, place], env=environment(PYTHONPATH=tests)
    )
    assert done.returncode == -signal.SIGTERM
    assert checkpoints.epochs(place) == [2]
    assert resume(place).completed
