"""Environments that run outside of JAX, such as the environments of Gymnasium and envpool.

The compiled training loop steps all copies with one ordered callback, and waits for the result. The
compiled loop and the `HostEnvs` object both count the steps of the environments. The loop stores
its count in a `Ticket`. The callback compares the count of the loop with the count of the
`HostEnvs` object. If the counts differ, another run has stepped the environments, and the callback
raises an error.

The callbacks use NumPy and not JAX, because a callback that calls JAX can deadlock.
"""

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_batching import custom_vmap
from jax.experimental import io_callback

from sacjax.envs.base import Spaces, check_spaces, flatten, make_record, make_timestep, rescale
from sacjax.types import Array, Env, EnvParams, InputError, Key, MakeEnv, RunError, one_line

_SCALARS, _LARGEST = (float, bool, np.bool_), float(np.finfo(np.float32).max)
_WRONG_TICKET = (
    "another run has stepped the environments of this run: call make_program or make_train once "
    "per run"
)


def read_spaces(name: str, action: Any, obs: Any) -> Spaces:
    """Convert spaces of Gymnasium to `Spaces`, or raise InputError if SAC does not support them."""
    from gymnasium.spaces import Box

    return check_spaces(name, action, obs, Box)


class Ticket(NamedTuple):
    """The numbers that the compiled loop stores for environments outside of JAX.

    Checkpoints use the field names as the names of arrays.

    Attributes:
      seed: the seed of the last reset of all copies, a scalar.
      steps: the number of steps since the last reset of all copies, a scalar.
    """

    seed: Array
    steps: Array


class HostEnvs(ABC):
    """E copies of an environment that runs outside of JAX."""

    def __init__(self, spaces: Spaces, copies: int):
        self.spaces, self.copies = spaces, copies
        self.seed, self.steps = -1, 0
        self.obs = np.zeros((copies, spaces.obs_size), np.float32)  # the current observations
        self.info: dict[str, Any] = {}  # name -> values [E] of the last step
        self.logged: Collection[str] | None = ()  # entries of info to read, or None for all
        self.errors: list[Exception] = []  # the error if the last callback failed
        self.family: list[HostEnvs] = [self]  # all `HostEnvs` of one Program
        self._turn = Lock()

    @abstractmethod
    def reset_all(self) -> np.ndarray:
        """Begin an episode in each copy, and return the observations [E, O].

        `self.seed` and `self.steps` determine the episodes.
        """

    @abstractmethod
    def step_all(self, action: np.ndarray) -> tuple[np.ndarray, ...]:
        """Step each copy with actions [E, ...] in the simulator's units.

        Return the fields of `TimeStep`.
        """

    def replay(self, saved: dict[str, np.ndarray]) -> bool:
        """Repeat the saved episodes after a reset. Return False if this is impossible."""
        del saved
        return False

    @abstractmethod
    def close(self) -> None:
        """Close all simulators. The next reset makes new simulators."""

    def save(self) -> dict[str, np.ndarray]:
        """Return the arrays that `load` needs. No array may be empty."""
        return {"seed": np.array(self.seed), "steps": np.array(self.steps)}

    def reset(self, seed: Any) -> np.ndarray:
        """Begin an episode in each copy, and return the observations [E, O]."""
        with self._callback():
            self.seed, self.steps = int(np.asarray(seed)), 0
            self.obs = self.reset_all()
            return self.obs

    def step(self, ticket: Any, action: Any) -> tuple[np.ndarray, ...]:
        """Step each copy with actions [E, A] in [-1, 1], and return the fields of `TimeStep`.

        Instead of the last field `info`, the result contains values [E] for each name in `logged`.
        """
        with self._callback():
            seed, steps = (int(np.asarray(x)) for x in ticket)
            if (seed, steps) != (self.seed, self.steps):
                raise RuntimeError(_WRONG_TICKET)
            self.steps += 1
            fields = self.step_all(rescale(np.asarray(action), self.spaces.low, self.spaces.high))
            self.obs = fields[0]
            logged = self.logged or ()
            return *fields, *(np.asarray(self.info[name], np.float32) for name in logged)

    def read_info(self, env: str, names: list[str]) -> set[str]:
        """Choose the entries of `info` to log. Return the names of all numbers in `info`.

        Some entries of `info` occur only in the last step of an episode. Therefore this method
        steps the copies until an episode has ended or all `names` have occurred. The method steps
        the copies at most 1000 times.
        """
        self.logged, found = None, set()
        with errors_named(self, env):
            self.reset(0)
            for step in range(1000):
                fields = self.step((0, step), np.zeros((self.copies, self.spaces.low.size)))
                numbers = (x for x in self.info if np.shape(self.info[x]) == (self.copies,))
                found |= {x for x in numbers if not np.isnan(self.info[x]).all()}
                if found >= set(names) or (fields[3] | fields[4]).any():
                    break
        self.logged = names
        self.close()
        return found

    def load(self, saved: dict[str, np.ndarray]) -> bool:
        """Restore all copies and episodes. Return False if new episodes begin instead."""
        with self._callback():
            self.seed, self.steps = int(saved["seed"]), int(saved["steps"])
            self.obs = self.reset_all()
            return self.replay(saved)

    def close_all(self) -> None:
        """Wait until the current steps end, and close all `HostEnvs` of a Program.

        After a second Ctrl-C, another thread may still step the environments.
        """
        for envs in self.family:
            with envs._turn:
                envs.close()

    def read(self, field: str, value: Any, *shape: int, copy: int | None = None) -> Any:
        """Convert a value to a new float32 array. Raise RunError if the value is not usable.

        Args:
          field: the name of the value: "observation", "reward", "terminated" or "truncated".
          value: the value of one copy, or of all copies with a leading axis [E].
          *shape: the shape of the result.
          copy: the index of the copy, or None for all copies.
        """
        if not shape and isinstance(value, _SCALARS) and abs(value) < _LARGEST:
            return np.float32(value)  # for most values, ten times as fast as the code below
        try:
            with np.errstate(over="ignore"):
                found = np.asarray(value).astype(np.float32, casting="same_kind").reshape(shape)
            if np.isfinite(found).all():
                return found
            bad = np.argwhere(~np.isfinite(found))[0]
            problem = f"is {found[tuple(bad)]} in float32"
            copy = bad[0] if copy is None else copy
        except (TypeError, ValueError):  # such as None, text or a wrong size
            problem = f"must be numbers of shape {list(shape)}, but is {value!r}"
        raise self.fault(field, problem, copy)

    def fault(self, field: str, problem: str, copy: int | None) -> RunError:
        """Return a RunError about one copy. `errors_named` adds the name of the environment."""
        problem = " ".join(problem[:200].split())
        return RunError(f"{field} {problem}, in step {self.steps} of copy {copy}", field)

    @contextmanager
    def _callback(self) -> Iterator[None]:
        """Run one callback at a time. Store its error, because JAX raises a different error."""
        with self._turn:
            self.errors.clear()
            try:
                yield
            except Exception as error:
                self.errors.append(error)
                raise


@contextmanager
def errors_named(envs: HostEnvs | None, name: str) -> Iterator[None]:
    """Re-raise an error of an environment as a RunError that contains the environment's name."""
    logger = logging.getLogger("jax._src.callback")  # prints error tracebacks
    is_other = lambda _: not (envs and envs.errors)  # noqa: E731
    logger.addFilter(is_other)
    try:
        yield
    except Exception:
        if envs is None or not envs.errors:
            raise
        cause = envs.errors[-1]
        why = str(cause) if isinstance(cause, RunError) else one_line(cause)
        raise RunError(
            f"{name} failed ({why}): fix the environment, then continue the run from its last "
            "checkpoint with `sacjax resume`",
            getattr(cause, "field", "env"),
        ) from cause
    finally:
        logger.removeFilter(is_other)


@contextmanager
def for_a_while(envs: HostEnvs | None, name: str) -> Iterator[None]:
    """Re-raise errors as `errors_named` does, and close the environments after the block."""
    try:
        with errors_named(envs, name):
            yield
    finally:
        if envs is not None:
            envs.close_all()


def make_host_env(name: str, make: Callable[[int], HostEnvs], spaces: Spaces) -> MakeEnv:
    """Return a function that makes E copies of an environment outside of JAX.

    Args:
      name: the name of the environment.
      make: a function that takes the number of copies E and returns a `HostEnvs`.
      spaces: the sizes and bounds of the environment's spaces.

    Returns:
      A function that takes the number of copies E and returns an `Env`. All environments that this
      function makes share one list of errors.
    """
    action_size = int(np.prod(spaces.low.shape))
    family: list[HostEnvs] = []
    errors: list[Exception] = []

    def make_copies(num_envs: int) -> Env:
        envs = make(num_envs)
        envs.errors, envs.family = errors, family
        family.append(envs)
        unbatched = _forbid_vmap(name)
        obs_shape = jax.ShapeDtypeStruct((num_envs, spaces.obs_size), jnp.float32)
        flags = jax.ShapeDtypeStruct((num_envs,), jnp.bool_)
        rewards = jax.ShapeDtypeStruct((num_envs,), jnp.float32)

        def reset(key: Key, params: EnvParams) -> tuple[Ticket, Array]:
            del params
            seed = unbatched(jax.random.bits(key, (), jnp.uint32))
            obs = io_callback(envs.reset, obs_shape, seed, ordered=True)
            return Ticket(seed, jnp.zeros((), jnp.int32)), flatten(obs)

        def step(state: Ticket, action: Array, key: Key, params: EnvParams) -> Any:
            del key, params  # the key of the reset determines the seeds of all episodes
            logged = envs.logged or ()
            shapes = obs_shape, obs_shape, rewards, flags, flags, *(rewards for _ in logged)
            action = unbatched(action.astype(jnp.float32))
            fields = io_callback(envs.step, shapes, tuple(state), action, ordered=True)
            timestep = make_timestep(*fields[:5])
            info = dict(zip(logged, fields[5:], strict=True))
            return state._replace(steps=state.steps + 1), timestep._replace(info=info)

        sizes = num_envs, spaces.obs_size, action_size
        bounds = spaces.low, spaces.high
        return make_record(name, *sizes, reset, step, params=None, bounds=bounds, host=envs)

    return make_copies


def _forbid_vmap(name: str) -> Callable[[Array], Array]:
    """Return an identity function that raises InputError under vmap."""

    unbatched = custom_vmap(lambda x: x)

    @unbatched.def_vmap
    def raise_error(*_: Any) -> Any:
        raise InputError(
            f"{name} runs outside of JAX and cannot be vmapped: use `sacjax train` or sacjax.run, "
            "which train the seeds one after another",
            "env",
        )

    return unbatched


def derive_seed(*words: int) -> int:
    """Convert `words` to a seed between 0 and 2**31 - 1.

    Args:
      *words: the seed of the last reset, and then numbers that make the new seed unique. Examples
        of such numbers are the index of a copy and the index of an episode.
    """
    return int(np.random.SeedSequence(words).generate_state(1)[0]) % 2**31
