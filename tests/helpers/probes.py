"""Probe environments: small MDPs with known solutions, and functions that train on these MDPs.

There are two families of probes. vmap trains all probes of a family in one compiled function.

* `Chain`: The reward does not depend on the action, so Q is known for every policy.
* `Aim`: An episode has one step, and the best action is known. The bounds are not symmetric.

`Noise` has nothing to learn. Its observations are random numbers.
"""

from collections.abc import Callable, Iterable
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from compile_options import QUICK, USERS
from flax import struct
from gymnax.environments import spaces
from gymnax.environments.environment import Environment, EnvParams, EnvState

from sacjax.config import Config, Hyperparams
from sacjax.networks import mlp

quick_jit = partial(jax.jit, compiler_options=QUICK)
users_jit = partial(jax.jit, compiler_options=USERS)


@struct.dataclass
class ChainState(EnvState):
    x: jax.Array


@struct.dataclass
class ChainParams(EnvParams):
    max_steps_in_episode: int = 1_000_000  # the time limit
    length: int = 1_000_000  # the step at which an episode terminates
    reward_each: float = 0.0
    reward_last: float = 0.0  # reward at termination
    reward_x: float = 0.0  # reward per x, at every step
    clock: float = 0.0  # weight of the step count in the observation


class Chain(Environment[ChainState, ChainParams]):
    """An MDP with observation [x, clock t] in step t. A reset sets x to -1 or 1 at random."""

    @property
    def default_params(self) -> ChainParams:
        return ChainParams()

    def reset_env(self, key: jax.Array, params: ChainParams) -> tuple[jax.Array, ChainState]:
        state = ChainState(time=jnp.array(0), x=jax.random.rademacher(key, (), float))
        return self._obs(state, params), state

    def step_env(
        self, key: jax.Array, state: ChainState, action: Any, params: ChainParams
    ) -> tuple[Any, ChainState, jax.Array, jax.Array, dict[Any, Any]]:
        del key, action
        state = state.replace(time=state.time + 1)
        terminated = self.is_terminated(state, params)
        reward = params.reward_each + params.reward_x * state.x + params.reward_last * terminated
        return self._obs(state, params), state, reward, terminated, {}

    def _obs(self, state: ChainState, params: ChainParams) -> jax.Array:
        return jnp.stack([state.x, params.clock * state.time])

    def is_terminated(self, state: ChainState, params: ChainParams) -> jax.Array:
        return jnp.asarray(state.time >= params.length)

    def action_space(self, params: Any = None) -> spaces.Box:
        return spaces.Box(-1.0, 1.0, (1,))

    def observation_space(self, params: Any = None) -> spaces.Box:
        return spaces.Box(-jnp.inf, jnp.inf, (2,))


@struct.dataclass
class AimParams(EnvParams):
    max_steps_in_episode: int = 1_000_000
    centre: Any = (3.0, -2.8)
    turn: Any = (0.0, 0.0)


class Aim(Environment[ChainState, AimParams]):
    """An MDP with one step. The reward is -sum(((action - best) / half range)^2).

    The best action is `centre + turn x`.
    """

    low, high = np.array([0.0, -3.0]), np.array([4.0, -2.0])

    @property
    def default_params(self) -> AimParams:
        return AimParams()

    def reset_env(self, key: jax.Array, params: AimParams) -> tuple[jax.Array, ChainState]:
        state = ChainState(time=jnp.array(0), x=jax.random.rademacher(key, (), float))
        return state.x[None], state

    def step_env(
        self, key: jax.Array, state: ChainState, action: Any, params: AimParams
    ) -> tuple[Any, ChainState, jax.Array, jax.Array, dict[Any, Any]]:
        del key
        best = jnp.asarray(params.centre) + jnp.asarray(params.turn) * state.x
        reward = -jnp.sum(((action - best) / ((self.high - self.low) / 2)) ** 2)
        state = state.replace(time=state.time + 1)
        return state.x[None], state, reward, jnp.array(True), {}

    def action_space(self, params: Any = None) -> spaces.Box:
        return spaces.Box(jnp.asarray(self.low), jnp.asarray(self.high), (2,))

    def observation_space(self, params: Any = None) -> spaces.Box:
        return spaces.Box(-1.0, 1.0, (1,))


@struct.dataclass
class NoiseParams(EnvParams):
    max_steps_in_episode: int = 3
    hazard: float = 0.0


class Noise(Environment[EnvState, NoiseParams]):
    """An MDP whose observations and rewards are random numbers in [0, 1).

    The episode terminates if the random number is below `hazard`.
    """

    @property
    def default_params(self) -> NoiseParams:
        return NoiseParams()

    def reset_env(self, key: jax.Array, params: NoiseParams) -> tuple[jax.Array, EnvState]:
        return jax.random.uniform(key, (1,)), EnvState(time=jnp.array(0))

    def step_env(
        self, key: jax.Array, state: EnvState, action: Any, params: NoiseParams
    ) -> tuple[Any, EnvState, jax.Array, jax.Array, dict[Any, Any]]:
        noise = jax.random.uniform(key, (1,))
        return noise, EnvState(time=state.time + 1), noise[0], noise[0] < params.hazard, {}

    def action_space(self, params: Any = None) -> spaces.Box:
        return spaces.Box(-1.0, 1.0, (1,))

    def observation_space(self, params: Any = None) -> spaces.Box:
        return spaces.Box(0.0, 1.0, (1,))


GAMMA = 0.8


class ChainProbe(NamedTuple):
    """The parameters of a chain, and the value of every state as [(x, step count), Q].

    Q is the same for all actions. If the temperature is above 0, every reward is 1, and `values`
    are sums of rewards without entropy.
    """

    params: ChainParams
    values: list[tuple[tuple[float, float], float]]
    alpha: float = 0.0


def _sum_of_discounts(steps: int) -> float:
    return sum(GAMMA**k for k in range(steps))


_COUNTDOWN = [((x, t), _sum_of_discounts(5 - t)) for t in range(5) for x in (-1, 1)]
CHAIN_PROBES = {
    "one step of reward 1: Q is 1": ChainProbe(
        ChainParams(length=1, reward_each=1.0), [((x, 0), 1.0) for x in (-1, 1)]
    ),
    "one step of reward x: Q is x": ChainProbe(
        ChainParams(length=1, reward_x=1.0), [((x, 0), x) for x in (-1, 1)]
    ),
    "reward 1 at the second step: Q is gamma at the first": ChainProbe(
        ChainParams(length=2, reward_last=1.0, clock=0.5),
        [((x, t), GAMMA ** (1 - t)) for t in (0, 1) for x in (-1, 1)],
    ),
    "reward 1 for ever under a time limit: Q is 1 / (1 - gamma)": ChainProbe(
        ChainParams(max_steps_in_episode=5, reward_each=1.0),
        [((x, 0), 1 / (1 - GAMMA)) for x in (-1, 1)],
    ),
    "reward x for ever under a time limit: Q is x / (1 - gamma)": ChainProbe(
        ChainParams(max_steps_in_episode=2, reward_x=1.0),
        [((x, 0), x / (1 - GAMMA)) for x in (-1, 1)],
    ),
    "reward 1, then termination: Q is the finite sum": ChainProbe(
        ChainParams(length=5, reward_each=1.0, clock=0.2), _COUNTDOWN
    ),
    "termination at the time limit: Q is the finite sum": ChainProbe(
        ChainParams(length=5, max_steps_in_episode=5, reward_each=1.0, clock=0.2), _COUNTDOWN
    ),
    "reward 1 for ever and its entropy: Q is (1 + gamma alpha H) / (1 - gamma)": ChainProbe(
        ChainParams(max_steps_in_episode=5, reward_each=1.0),
        [((x, 0), 1 / (1 - GAMMA)) for x in (-1, 1)],
        alpha=1.0,
    ),
    "reward 1, then termination: no entropy after the last action": ChainProbe(
        ChainParams(length=5, reward_each=1.0, clock=0.2), _COUNTDOWN, alpha=1.0
    ),
}


class AimProbe(NamedTuple):
    params: AimParams
    init_alpha: float = 0.1
    alpha_lr: float = 0.0


AIM_PROBES = {
    "the best action is off centre": AimProbe(AimParams()),
    "the best action follows the observation": AimProbe(
        AimParams(centre=(2.0, -2.5), turn=(1.0, -0.3))
    ),
    "the temperature falls until the entropy is its target": AimProbe(AimParams(), alpha_lr=0.03),
    "the temperature rises until the entropy is its target": AimProbe(
        AimParams(), init_alpha=0.001, alpha_lr=0.03
    ),
}


def stack(members: Iterable[Any]) -> Any:
    """Stack many pytrees along a new leading axis."""
    return jax.tree.map(lambda *leaves: jnp.stack([jnp.asarray(x) for x in leaves]), *members)


def member(tree: Any, index: int) -> Any:
    """Return one member of a stacked tree."""
    return jax.tree.map(lambda x: x[index], tree)


@cache
def train_chain(make_train: Callable[..., Any]) -> tuple[Config, Any]:
    """Train one agent per chain in one compiled function. Each agent has a fixed temperature."""
    config = Config(
        Chain(),
        total_steps=80 + 4000,
        eval_every=4000,
        num_envs=8,
        warmup_steps=80,
        utd=0.25,
        batch_size=128,
        hidden=(16, 16),
        eval_episodes=1,
    )
    alphas = jnp.array([probe.alpha for probe in CHAIN_PROBES.values()])
    hp = Hyperparams(
        gamma=GAMMA, tau=0.05, critic_lr=3e-3, actor_lr=1e-3, alpha_lr=0.0, init_alpha=alphas
    )
    params = stack(probe.params for probe in CHAIN_PROBES.values())
    train_one = make_train(config)
    run = quick_jit(jax.vmap(lambda *given: train_one(jax.random.key(0), *given).agent))
    return config, run(hp, params)


@cache
def train_aim(make_train: Callable[..., Any]) -> tuple[Config, Any]:
    """Train one agent per `Aim` probe in one compiled function. Return (config, result)."""
    config = Config(
        Aim(),
        total_steps=200 + 2400,
        eval_every=2400,
        num_envs=8,
        warmup_steps=200,
        utd=0.25,
        batch_size=64,
        hidden=(32, 32),
        eval_episodes=8,
    )
    hp = Hyperparams(
        gamma=GAMMA,
        tau=0.05,
        critic_lr=3e-3,
        actor_lr=3e-3,
        alpha_lr=jnp.array([probe.alpha_lr for probe in AIM_PROBES.values()]),
        init_alpha=jnp.array([probe.init_alpha for probe in AIM_PROBES.values()]),
    )
    train_one = make_train(config)
    run = quick_jit(jax.vmap(lambda *given: train_one(jax.random.key(0), *given)))
    return config, run(hp, stack(probe.params for probe in AIM_PROBES.values()))


def most_entropy() -> float:
    """Return the largest entropy in nats of a = tanh(u) over all std, where u ~ N(0, std^2)."""
    u, std = np.linspace(-12, 12, 2001), np.linspace(0.5, 1.5, 101)[:, None]
    density = np.exp(-0.5 * (u / std) ** 2) / (std * np.sqrt(2 * np.pi))
    log_derivative = 2 * (np.log(2) - u - np.logaddexp(0, -2 * u))
    return ((log_derivative - np.log(density)) * density).sum(axis=1).max() * (u[1] - u[0])


def entropy_of(config: Config, agent: Any, observations: Any, action_size: int) -> float:
    """Estimate the policy's entropy from samples. Return the mean over observations in nats."""
    policy = mlp(config, action_size).actor.apply(agent.actor_params, jnp.array(observations))
    keys = jax.random.split(jax.random.key(0), 4096)
    _, log_prob = jax.vmap(lambda key: policy.sample_and_log_prob(seed=key))(keys)
    return float(-log_prob.mean())


def check_chain(probe: str, make_train: Callable[..., Any]) -> None:
    """Assert that every critic predicts Q with an error below 5% of the largest value.

    If the temperature is above 0, Q includes the entropy of every action after the first. All
    actions are equally good here, so the policy has the largest possible entropy.
    """
    config, agents = train_chain(make_train)
    agent = member(agents, list(CHAIN_PROBES).index(probe))
    params, values, alpha = CHAIN_PROBES[probe]
    entropy = 0.0
    if alpha:
        entropy = entropy_of(config, agent, [[x, params.clock * t] for (x, t), _ in values], 1)
        np.testing.assert_allclose(entropy, most_entropy(), atol=0.05)
    for (x, t), rewards in values:
        want = rewards + alpha * entropy * (rewards - 1)
        obs, action = (
            jnp.tile(jnp.array([[x, params.clock * t]], float), (5, 1)),
            jnp.linspace(-1, 1, 5)[:, None],
        )
        q = mlp(config, 1).critic.apply(agent.critic_params, obs, action)
        np.testing.assert_allclose(q, want, atol=0.05 / (1 - GAMMA))


def check_aim(probe: str, make_train: Callable[..., Any]) -> None:
    """Assert that the greedy action is at most 15% of the half range from the best action."""
    config, result = train_aim(make_train)
    index, params = list(AIM_PROBES).index(probe), AIM_PROBES[probe].params
    agent = member(result.agent, index)
    half, middle = (Aim.high - Aim.low) / 2, (Aim.high + Aim.low) / 2
    for x in (-1.0, 1.0):
        policy = mlp(config, 2).actor.apply(agent.actor_params, jnp.array([x]))
        best = np.array(params.centre) + np.array(params.turn) * x
        np.testing.assert_allclose(policy.mode(), (best - middle) / half, atol=0.15)
    assert result.metrics["eval_return"][index].min() > -2 * 0.15**2


def check_entropy(probe: str, make_train: Callable[..., Any]) -> None:
    """Assert that the entropy differs from its target of -2 nats by at most 0.25 nats."""
    config, result = train_aim(make_train)
    agent = member(result.agent, list(AIM_PROBES).index(probe))
    np.testing.assert_allclose(entropy_of(config, agent, [[-1.0], [1.0]], 2), -2, atol=0.25)
