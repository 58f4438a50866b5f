"""SBX's SAC, Stable-Baselines3 with its gradient steps in JAX, under the protocol of protocol.py.

`train_seconds` of --once is everything after the warm-up and the first iteration, which compiles.
"""

import jax
from flax.linen import relu
from sbx import SAC
from stable_baselines import drive

UNEQUAL = [
    "the environments are stepped one after the other in Python (DummyVecEnv)",
    "every step of the environments is followed by bookkeeping of callbacks and logs in Python",
    "the replay lies in NumPy; the batches of all `updates` gradient steps are drawn at once",
]

if __name__ == "__main__":
    drive(
        SAC,
        ["sbx-rl", "stable-baselines3", "jax", "jaxlib", "flax"],
        UNEQUAL,
        {"activation_fn": relu},
        lambda model: jax.block_until_ready(
            (model.policy.qf_state.params, model.policy.actor_state.params)
        ),
    )
