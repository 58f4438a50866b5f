"""What a run needs of memory, from shapes, before anything is allocated; and what there is.

Everything but the working memory is exact. That follows what XLA:CPU allocates for the compiled
epoch: tests/runs/test_memory.py compiles programs, and the total of each is within a fifth of the
estimate, most within a twentieth. Not counted: what an environment allocates for itself in a step,
which shows where thousands of copies of a large one meet networks of a few neurons.
"""

import itertools
import os
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from sacjax.config import Config
from sacjax.types import is_key


class Memory(NamedTuple):
    """Bytes per member."""

    replay: int
    parameters: int  # of networks and targets, and what else the algorithm's state holds
    optimizer: int
    environments: int  # their states, statistics of episodes, keys
    working: int  # at most, learning or evaluating: keys, activations, gradients, the agent before
    copied: int  # the replay, where an epoch is a single step: XLA copies it (`copies`)

    @property
    def state(self) -> int:
        """What a member is between epochs."""
        return self.replay + self.parameters + self.optimizer + self.environments

    def total(self, members: int, strategy: str) -> int:
        """Of so many members on one device: mapped ones share one's working memory, and the one
        that is learning is held twice."""
        if strategy == "map" and members > 1:
            held = (members + 1) * self.state + self.working
        else:
            held = members * (self.state + self.working)
        return held + self.copies(members, strategy)

    def copies(self, members: int, strategy: str) -> int:
        """Of replays, in every epoch, where so many members are on one device."""
        if members == 1:
            return 2 * self.copied
        return self.copied if strategy == "map" else 0

    def fitting(self, available: int, strategy: str) -> int:
        """The most members that one device has memory for."""
        many = available // (self.state + self.working)
        if strategy == "map":
            many = (available - self.working - self.copied) // self.state - 1
        return many if many > 1 else int(available >= self.total(1, strategy))


def estimate(config: Config, loop: Any) -> Memory:
    """For one member's `loop` state, as shapes."""
    replay, agent = _bytes(loop.replay), _bytes(loop.agent)
    leaves = jax.tree_util.tree_leaves_with_path(loop.agent)
    optimizer = sum(_bytes(x) for path, x in leaves if "_opt" in jax.tree_util.keystr(path))
    environments = jax.tree.leaves((loop.env_state, loop.obs))
    copy = sum(_bytes(x) for x in environments if x.shape[:1] == (config.num_envs,))
    copy //= config.num_envs  # what they share is left out
    # Without a loop around it, XLA:CPU fuses the insertion into the gather, unless under vmap.
    single_step = config.eval_every == config.num_envs
    return Memory(
        replay=replay,
        parameters=agent - optimizer,
        optimizer=optimizer,
        environments=_bytes(loop) - replay - agent,
        working=_working(config, replay // config.capacity, agent, _bytes(loop.key), copy),
        copied=replay if single_step else 0,
    )


def _working(config: Config, row: int, agent: int, key: int, copy: int) -> int:
    """The largest of what lives one after the other. What is no shape is fitted to XLA:CPU."""
    number = jnp.zeros(()).itemsize
    per_iteration = 1 + 2 * config.rollout + config.updates_per_iteration
    keys = config.eval_every // config.steps_per_iteration * per_iteration * key
    pairs = itertools.pairwise((0, *config.hidden))  # a layer is made from the one before it
    widest = max(below + above for below, above in pairs) * number
    # A copy's state before and after a step. Hashing holds five words for a key's two, and twice.
    acting = 2 * copy + max(widest, 2 * 5 * key)
    layers = config.batch_size * sum(config.hidden) * number
    of_critics = (6 if config.layer_norm else 3) * config.num_critics  # LayerNorm: 5 to 7
    of_policy = 2 if config.policy_delay == 1 else 1  # delayed: 0, or 2 under vmap
    inputs = config.updates_per_iteration * config.n_step + config.num_critics + 2.5
    learning = (
        2.2 * agent  # as it was before the epoch (a diverged one is put back), as it is, gradients
        + (of_critics + of_policy) * layers  # activations
        + inputs * config.batch_size * row  # minibatches, and what each network is given of one
    )
    small = 10 * 2**10  # many arrays of a few bytes: all there is in the smallest programs
    return small + int(
        max(
            5 * keys,  # hashed, all of an epoch's first; then they lie there
            keys + agent + config.num_envs * acting,
            keys + learning,
            agent + config.eval_episodes * acting,
            3.25 * agent,  # is it finite? The one before; both as vectors; a byte for each number
        )
    )


def available() -> int | None:
    """Bytes that one device has; None where it does not say. CPU devices have the machine's memory
    together, or what this process's control group may have of it."""
    device = jax.local_devices()[0]
    if device.platform != "cpu":
        return (device.memory_stats() or {}).get("bytes_limit")
    if not hasattr(os, "sysconf"):
        return None
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for name in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            limits.append(int(Path(name).read_text()))
        except (OSError, ValueError):  # none, or "max"
            continue
    return min(limits)


def shared() -> bool:
    """Whether the devices of this machine have their memory together."""
    return jax.default_backend() == "cpu"


def _bytes(tree: Any) -> int:
    def size(x: Any) -> int:
        if is_key(x):
            x = jax.eval_shape(jax.random.key_data, x)
        return x.size * x.dtype.itemsize

    return sum(size(x) for x in jax.tree.leaves(tree))
