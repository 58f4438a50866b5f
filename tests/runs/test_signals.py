"""Test that a run stops within seconds of a signal, also in the middle of an epoch."""

import os
import signal
import subprocess
import sys
import time

import pytest

from sacjax.runs import checkpoints
from sacjax.runs.files import PART

LONG_EPOCHS = [
    *("--total-steps", "4000100", "--warmup-steps", "100", "--eval-every", "1000000"),
    *("--hidden", "8", "--batch-size", "8", "--seeds", "1"),
]


@pytest.mark.processes
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_stops_a_long_epoch_after_the_grace_period(tmp_path, number, code):
    folder = tmp_path / "run"
    flags = ["--grace", "1.5", "--out", folder]
    process = subprocess.Popen(
        [sys.executable, "-m", "sacjax", "train", "Pendulum-v1", *LONG_EPOCHS, *flags],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
    )
    while not (folder / "metrics.csv").exists():
        assert process.poll() is None
        time.sleep(0.1)
    begin = time.monotonic()
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code, errors
    assert 1.5 <= time.monotonic() - begin < 20
    assert "Stopping after this epoch, but in 1.5 s at the latest." in errors
    assert checkpoints.epochs(folder) == []
    assert not list(folder.glob(f"{PART}*"))
