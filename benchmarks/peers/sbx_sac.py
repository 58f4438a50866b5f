"""Time SBX's SAC with the protocol of protocol.py. SBX is Stable-Baselines3 with updates in JAX.

`train_seconds` of --once exclude the warm-up and the first iteration, which compiles.
"""

import jax
from flax.linen import relu
from sbx import SAC
from stable_baselines import drive

UNEQUAL = [
    "the environments are stepped in sequence in Python (DummyVecEnv)",
    "callbacks and logs run in Python after every step of the environments",
    "the replay is in NumPy; the batches of all `updates` gradient steps are drawn at once",
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
