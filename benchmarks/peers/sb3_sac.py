"""Stable-Baselines3's SAC, in PyTorch, under the protocol of protocol.py.

`train_seconds` of --once is everything after the warm-up and the first iteration, which sets up.
PyTorch uses as many threads as it likes to (OMP_NUM_THREADS limits them): where another program
runs beside it, they wait for each other, and the times are worthless.
"""

from stable_baselines import drive
from stable_baselines3 import SAC
from torch.nn import ReLU

UNEQUAL = [
    "the environments are stepped one after the other in Python (DummyVecEnv)",
    "every step of the environments is followed by bookkeeping of callbacks and logs in Python",
]

if __name__ == "__main__":
    drive(SAC, ["stable-baselines3"], UNEQUAL, {"activation_fn": ReLU})
