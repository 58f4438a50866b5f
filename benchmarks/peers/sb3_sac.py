"""Time Stable-Baselines3's SAC, in PyTorch, with the protocol of protocol.py.

`train_seconds` of --once exclude the warm-up and the first iteration, which does the set-up.
PyTorch chooses its number of threads, and OMP_NUM_THREADS limits it. If another program runs at the
same time, the threads wait for each other, and the times are meaningless.
"""

from stable_baselines import drive
from stable_baselines3 import SAC
from torch.nn import ReLU

UNEQUAL = [
    "the environments are stepped in sequence in Python (DummyVecEnv)",
    "callbacks and logs run in Python after every step of the environments",
]

if __name__ == "__main__":
    drive(SAC, ["stable-baselines3"], UNEQUAL, {"activation_fn": ReLU})
