"""Environments that run outside of JAX, behind one ordered callback for all copies.

The compiled loop calls out once per step, with the actions of all copies, and waits. What it
carries as the environments' state is a ticket, the number of their steps: if they are elsewhere
(another run has used them), that is an error and no wrong data.

Callbacks use NumPy only: JAX called inside of one can wait for itself.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_batching import custom_vmap
from jax.experimental import io_callback

from sacjax.envs.base import as_timestep, check_spaces, flat, make_record, rescale
from sacjax.types import Array, Env, EnvParams, InputError, Key, MakeEnv, RunError

_ELSEWHERE = (
    "these environments are not where this run left them: two runs stepped the same ones in turn. "
    "Make a program, or a train function, for each"
)


class Spaces(NamedTuple):
    """Sizes, and the bounds of actions in the simulator's units."""

    obs_size: int
    low: np.ndarray  # of the shape of an action
    high: np.ndarray


def spaces_of(name: str, action: Any, obs: Any) -> Spaces:
    """Of Gymnasium's spaces; InputError where they are not ones that SAC can act in."""
    from gymnasium.spaces import Box

    check_spaces(name, action, obs, Box)
    return Spaces(int(np.prod(obs.shape)), np.asarray(action.low), np.asarray(action.high))


class Ticket(NamedTuple):
    """Which reset the copies come from, and how many steps ago that was."""

    seed: Array  # []
    steps: Array  # []


class HostEnvs(ABC):
    """E copies that run outside of JAX."""

    def __init__(self, spaces: Spaces, copies: int):
        self.spaces, self.copies = spaces, copies
        self.seed, self.steps = -1, 0
        self.obs = np.zeros((copies, spaces.obs_size), np.float32)  # where they are
        self.errors: list[Exception] = []  # what the last callback raised
        self.family: list[HostEnvs] = [self]  # all copies that were made for one program
        self._turn = Lock()

    @abstractmethod
    def reset_all(self) -> np.ndarray:
        """Obs [E, O] of new episodes, which follow from `seed` and `steps`."""

    @abstractmethod
    def step_all(self, action: np.ndarray) -> tuple[np.ndarray, ...]:
        """The fields of a TimeStep. `action` [E, ...] in the simulator's units."""

    def put_back(self, saved: dict[str, np.ndarray]) -> bool:
        """From new episodes to where the copies were, if that is possible; whether it was."""
        del saved
        return False

    @abstractmethod
    def close(self) -> None:
        """What these copies hold is given back; a reset makes it anew."""

    def save(self) -> dict[str, np.ndarray]:
        """Where the copies are. No array is without elements: such ones are not stored."""
        return {"seed": np.array(self.seed), "steps": np.array(self.steps)}

    def reset(self, seed: Any) -> np.ndarray:
        """Obs [E, O] of new episodes."""
        with self._callback():
            self.seed, self.steps = int(np.asarray(seed)), 0
            self.obs = self.reset_all()
            return self.obs

    def step(self, ticket: Any, action: Any) -> tuple[np.ndarray, ...]:
        """The fields of a TimeStep. `action` [E, A] in [-1, 1]."""
        with self._callback():
            seed, steps = (int(np.asarray(x)) for x in ticket)
            if (seed, steps) != (self.seed, self.steps):
                raise RuntimeError(_ELSEWHERE)
            fields = self.step_all(rescale(np.asarray(action), *self.spaces[1:]))
            self.steps += 1
            self.obs = fields[0]
            return fields

    def load(self, saved: dict[str, np.ndarray]) -> bool:
        """To where they were when they were saved; False if new episodes begin instead."""
        with self._callback():
            self.seed, self.steps = int(saved["seed"]), int(saved["steps"])
            self.obs = self.reset_all()
            return self.put_back(saved)

    def close_all(self) -> None:
        """What the family holds is given back. Where a run is left at once (a second Ctrl-C), its
        program still steps them in a thread: not in the middle of a step.
        """
        for envs in self.family:
            with envs._turn:
                envs.close()

    @contextmanager
    def _callback(self) -> Iterator[None]:
        """One at a time. JAX turns what it raises into an error of its own: keep the cause."""
        with self._turn:
            self.errors.clear()
            try:
                yield
            except Exception as error:
                self.errors.append(error)
                raise


@contextmanager
def errors_named(envs: HostEnvs | None, name: str) -> Iterator[None]:
    """What an environment outside of JAX raised, as a RunError."""
    try:
        yield
    except Exception:
        if envs is None or not envs.errors:
            raise
        cause = envs.errors[-1]
        raise RunError(
            f"{name} failed ({type(cause).__name__}: {cause}): mend it; a run goes on from its "
            "last checkpoint with `sacjax resume`"
        ) from cause


@contextmanager
def for_a_while(envs: HostEnvs | None, name: str) -> Iterator[None]:
    """`errors_named`, and what they hold is given back at the end."""
    try:
        with errors_named(envs, name):
            yield
    finally:
        if envs is not None:
            envs.close_all()


def make_host_env(name: str, make: Callable[[int], HostEnvs], spaces: Spaces) -> MakeEnv:
    """A maker of E copies; `make(E)` are they."""
    action_size = int(np.prod(spaces.low.shape))
    family: list[HostEnvs] = []
    errors: list[Exception] = []  # of all of it

    def make_copies(num_envs: int) -> Env:
        envs = make(num_envs)
        envs.errors, envs.family = errors, family
        family.append(envs)
        alone = _one_run_only(name)
        obs_shape = jax.ShapeDtypeStruct((num_envs, spaces.obs_size), jnp.float32)
        flags = jax.ShapeDtypeStruct((num_envs,), jnp.bool_)
        rewards = jax.ShapeDtypeStruct((num_envs,), jnp.float32)

        def reset(key: Key, params: EnvParams) -> tuple[Ticket, Array]:
            del params
            seed = alone(jax.random.bits(key, (), jnp.uint32))
            obs = io_callback(envs.reset, obs_shape, seed, ordered=True)
            return Ticket(seed, jnp.zeros((), jnp.int32)), flat(obs)

        def step(state: Ticket, action: Array, key: Key, params: EnvParams) -> Any:
            del key, params  # the reset's key seeds all that follows
            shapes = obs_shape, obs_shape, rewards, flags, flags
            action = alone(action.astype(jnp.float32))
            fields = io_callback(envs.step, shapes, tuple(state), action, ordered=True)
            return state._replace(steps=state.steps + 1), as_timestep(*fields)

        sizes = num_envs, spaces.obs_size, action_size
        return make_record(name, *sizes, reset, step, params=None, bounds=spaces[1:], host=envs)

    return make_copies


def _one_run_only(name: str) -> Callable[[Array], Array]:
    """The identity, which cannot be vmapped."""

    @custom_vmap
    def alone(x: Array) -> Array:
        return x

    @alone.def_vmap
    def refuse(*_: Any) -> Any:
        raise InputError(
            f"{name} runs outside of JAX, one run at a time, so it cannot be vmapped: use "
            "`sacjax train` or sacjax.run, which train the seeds one after another"
        )

    return alone


# Simulators that are made, stepped and reset one by one. An episode is its seed and its actions:
# a checkpoint keeps these, and a resumed run plays the episode again. What is inside of a simulator
# is never looked at.


class Simulator(Protocol):
    """One copy, as Gymnasium has it."""

    def reset(self, *, seed: int) -> tuple[Any, Any]: ...
    def step(self, action: Any) -> tuple[Any, Any, bool, bool, Any]: ...
    def close(self) -> None: ...


class Copies(HostEnvs):
    """`make()` makes one."""

    def __init__(self, make: Callable[[], Simulator], spaces: Spaces, copies: int):
        super().__init__(spaces, copies)
        self._make = make
        self._envs: list[Simulator] = []
        self._episode = np.zeros(copies, np.int64)  # of each copy, counted from the reset
        self._actions: list[list[np.ndarray]] = [[] for _ in range(copies)]  # in it, so far

    def reset_all(self) -> np.ndarray:
        if not self._envs:
            self._envs = [self._make() for _ in range(self.copies)]
        self._episode[:] = -1
        return np.stack([self._new_episode(i) for i in range(self.copies)])

    def step_all(self, action: np.ndarray) -> tuple[np.ndarray, ...]:
        rows = []
        for i, env in enumerate(self._envs):
            obs, reward, terminated, truncated, _ = env.step(action[i].copy())
            final, reward = _flat(obs), np.float32(np.asarray(reward).item())
            self._actions[i].append(action[i])
            first = self._new_episode(i) if terminated or truncated else final
            rows.append((first, final, reward, bool(terminated), bool(truncated)))
        return tuple(np.stack(field) for field in zip(*rows, strict=True))

    def save(self) -> dict[str, np.ndarray]:
        """Where the copies are."""
        longest = max(1, *map(len, self._actions))
        low = self.spaces.low
        actions = np.zeros((self.copies, longest, *low.shape), low.dtype)
        for i, taken in enumerate(self._actions):
            if taken:
                actions[i, : len(taken)] = taken
        return super().save() | {
            "episode": self._episode.copy(),
            "length": np.array([len(taken) for taken in self._actions]),
            "actions": actions,
            "obs": self.obs.copy(),
        }

    def put_back(self, saved: dict[str, np.ndarray]) -> bool:
        """By playing the open episodes again. Where that leads elsewhere, new ones begin."""
        self._episode[:] = saved["episode"] - 1
        for i, env in enumerate(self._envs):
            self.obs[i] = self._new_episode(i)
            for action in saved["actions"][i, : saved["length"][i]]:
                obs, _, terminated, truncated, _ = env.step(action.copy())
                self.obs[i] = _flat(obs)
                self._actions[i].append(action)
                if terminated or truncated:
                    self.obs[i] = self._new_episode(i)
                    break
        if np.array_equal(self.obs, saved["obs"]):
            return True
        self.obs = np.stack([self._new_episode(i) for i in range(self.copies)])
        return False

    def close(self) -> None:
        """What these copies hold."""
        for env in self._envs:
            env.close()
        self._envs = []

    def _new_episode(self, i: int) -> np.ndarray:
        self._episode[i] += 1
        self._actions[i] = []
        seed = episode_seed(self.seed, i, int(self._episode[i]))
        obs, _ = self._envs[i].reset(seed=seed)
        return _flat(obs)


def _flat(obs: Any) -> np.ndarray:
    """One copy's observation as the program has it."""
    return np.array(obs, np.float32).reshape(-1)  # a copy: some write into one array for ever


def episode_seed(seed: int, copy: int, episode: int) -> int:
    """Of a copy's episode, counted from the reset that had this seed."""
    words = np.random.SeedSequence([seed, copy, episode]).generate_state(1)
    return int(words[0]) % 2**31
