"""Test populations that two processes train together."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from sacjax import load
from sacjax.cli.main import main
from sacjax.runs import checkpoints

FLAGS = [
    *("--warmup-steps", "100", "--eval-every", "50", "--hidden", "8", "--batch-size", "8"),
    *("--eval-episodes", "2", "--seeds", "6", "--checkpoint-every", "2"),
]


def port():
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]


def start(devices, *arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "sacjax", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(devices)},
    )


def start_two(*arguments):
    where = ["--coordinator", f"localhost:{port()}", "--num-processes", 2, "--process-id"]
    return [start(2, *arguments, *where, i) for i in range(2)]


@pytest.mark.processes
def test_two_processes_are_bit_identical_to_one_process(tmp_path):
    """One process has four devices. The two processes have two devices each."""
    one, two = tmp_path / "one", tmp_path / "two"
    command = ["train", "Pendulum-v1", "--total-steps", 400, *FLAGS, "--out"]
    pair = start_two(*command, two)
    (printed, errors), (other, _) = (process.communicate(timeout=200) for process in pair)
    assert [process.returncode for process in pair] == [0, 0], errors
    alone = start(4, *command, one)
    alone.communicate(timeout=200)
    assert "seed 5" in printed
    assert "seed" not in other
    assert (one / "metrics.csv").read_bytes() == (two / "metrics.csv").read_bytes()
    first, second = checkpoints.restore(one), checkpoints.restore(two)
    assert first is not None
    assert second is not None
    for name, x in first.arrays.items():
        np.testing.assert_array_equal(x, second.arrays[name], err_msg=name)
    assert load(two).completed


@pytest.mark.nightly
def test_two_processes_can_resume_batches_that_one_process_started(tmp_path):
    """The result equals the result of one process with the same number of devices."""
    one, two = tmp_path / "one", tmp_path / "two"
    command = ["train", "Pendulum-v1", "--total-steps", 200, *FLAGS, "--members-per-batch", 4]
    alone = start(4, *command, "--out", one)
    alone.communicate(timeout=200)
    shutil.copytree(one, two)
    shutil.rmtree(two / "batches" / "2")
    pair = start_two("resume", two)
    (printed, errors), (_, other) = (process.communicate(timeout=200) for process in pair)
    assert [process.returncode for process in pair] == [0, 0], errors
    assert "seed 5" in printed
    assert "damaged" not in errors + other
    assert (one / "metrics.csv").read_bytes() == (two / "metrics.csv").read_bytes()


@pytest.mark.processes
def test_a_signal_to_one_process_stops_all_processes(tmp_path):
    folder = tmp_path / "run"
    pair = start_two("train", "Pendulum-v1", "--total-steps", 200_100, *FLAGS, "--out", folder)
    end = time.monotonic() + 200
    while not checkpoints.epochs(folder) and time.monotonic() < end:
        assert pair[0].poll() is None, pair[0].communicate()
        time.sleep(0.05)
    pair[1].send_signal(signal.SIGTERM)
    printed = [process.communicate(timeout=200) for process in pair]
    assert [process.returncode for process in pair] == [143, 143], printed
    assert load(folder).epochs[0] == checkpoints.epochs(folder)[-1]


@pytest.mark.processes
@pytest.mark.parametrize("killed", [1, 0])
def test_a_run_ends_if_a_process_is_killed_and_can_be_resumed(tmp_path, killed):
    """The process that resumes the run has another number of devices."""
    folder = tmp_path / "run"
    command = ["train", "Pendulum-v1", "--total-steps", 200_100, *FLAGS, "--out", folder]
    pair = start_two(*command)
    end = time.monotonic() + 200
    while len(checkpoints.epochs(folder)) < 2 and time.monotonic() < end:
        assert pair[0].poll() is None, pair[0].communicate()
        time.sleep(0.05)
    pair[killed].send_signal(signal.SIGKILL)
    left = pair[1 - killed]
    _, errors = left.communicate(timeout=200)
    pair[killed].communicate()
    if left.returncode == -signal.SIGABRT and killed == 0:  # JAX ended it before the next epoch
        assert "another task died" in errors
    else:
        assert left.returncode == 3, errors
        assert "another process of this run has died" in errors
        assert "sacjax resume" in errors
    last = checkpoints.epochs(folder)[-1]
    before = (folder / "metrics.csv").read_text().splitlines()[: 1 + 6 * last]
    stopped = stop_after(folder, last + 2)
    assert not stopped.completed
    after = (folder / "metrics.csv").read_text().splitlines()
    assert after[: len(before)] == before
    assert len(after) >= 1 + 6 * (last + 2)


def stop_after(folder, epochs):
    from sacjax import resume

    done = []
    return resume(
        folder,
        on_epoch=[lambda step, metrics: done.append((step - 100) // 50)],
        should_stop=lambda: done[-1] >= epochs,
    )


@pytest.mark.parametrize(
    ("flags", "remedy"),
    [
        (["--coordinator", "localhost:1"], "give all three"),
        (["--coordinator", "localhost:1", "--num-processes", "2", "--process-id", "2"], "(2) - 1"),
        (["--coordinator", "here", "--num-processes", "2", "--process-id", "0"], "here:1234"),
        (["--coordinator", "here:", "--num-processes", "2", "--process-id", "0"], "here:1234"),
        (["--coordinator", "here:1", "--num-processes", "0", "--process-id", "0"], "(0) - 1"),
        (["--distributed"], "start every process with"),
    ],
)
def test_invalid_flags_for_several_processes_exit_with_2(flags, remedy, tmp_path, capsys):
    assert main(["train", "Pendulum-v1", "--out", str(tmp_path / "run"), *flags]) == 2
    assert remedy in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


REFUSED = """
import sys
from sacjax import InputError
from sacjax.runs.processes import join, on_first

def refuse():
    raise InputError("seeds (0) must be more: use 8", "seeds")

join(sys.argv[1], 2, int(sys.argv[2]))
try:
    on_first(refuse)
except InputError as error:
    print(error, error.field, sep="|")
"""


@pytest.mark.processes
def test_all_processes_raise_the_error_of_the_first_process():
    where = f"localhost:{port()}"
    pair = [
        subprocess.Popen([sys.executable, "-c", REFUSED, where, str(i)], stdout=-1, text=True)
        for i in range(2)
    ]
    printed = [process.communicate(timeout=100)[0].splitlines()[-1] for process in pair]
    assert printed == ["seeds (0) must be more: use 8|seeds"] * 2
