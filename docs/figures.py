"""Draws the pictures of theory.md with sacjax's own code: `python docs/figures.py`.

Writes docs/figures/*.png. Seeded, on the CPU, in about a minute.
"""

import os
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from sacjax.config import Config, Hyperparams
from sacjax.networks import SquashedGaussian, mlp
from sacjax.sac import init, minimum, update_step
from sacjax.types import Transition

FIGURES = Path(__file__).parent / "figures"
WIDTH = 6.0  # inches; 900 pixels at 150 per inch
BLUE, ORANGE, GREEN, GREY = "#0072b2", "#d55e00", "#009e73", "#666666"  # Okabe and Ito
STYLE = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "lines.linewidth": 1.6,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "figure.dpi": 150,
    "mathtext.fontset": "dejavusans",
}


def squashing():
    """A Gaussian before tanh and after it: the density, and samples that bear it out."""
    cases = [
        (0.0, 0.35, BLUE, (0.5, 0.95)),
        (0.8, 0.70, GREEN, (1.6, 0.45)),
        (0.0, 2.00, ORANGE, (2.2, 0.15)),
    ]
    u, a = jnp.linspace(-5, 6, 801), jnp.linspace(-0.9995, 0.9995, 801)
    bins = np.linspace(-1, 1, 51)
    fig, (before, after) = plt.subplots(1, 2, figsize=(WIDTH, 2.5))
    for mean, std, color, at in cases:
        policy = SquashedGaussian(jnp.array([mean]), jnp.log(jnp.array([std])))
        before.plot(u, jnp.exp(policy.distribution.log_prob(u[:, None])), color=color)
        before.annotate(rf"$\mu = {mean:g},\ \sigma = {std:g}$", at, color=color)
        samples = policy.sample(seed=jax.random.key(0), sample_shape=(5000,))
        after.hist(samples[:, 0], bins, density=True, color=color, alpha=0.25, linewidth=0)
        after.plot(a, jnp.exp(policy.log_prob(a[:, None])), color=color)
    before.set(title=r"$u \sim \mathcal{N}(\mu, \sigma^2)$", xlabel="$u$", ylabel="density")
    before.set(xlim=(-5, 6), ylim=(0, None))
    after.set(title=r"$a = \tanh u$: density, 5,000 samples", xlabel="$a$")
    after.set(xlim=(-1, 1), ylim=(0, 3), xticks=(-1, -0.5, 0, 0.5, 1))
    save(fig, "squashing")


def soft_value():
    """The Boltzmann policy of one Q(a), and its soft value as the temperature goes to 0."""
    a = np.linspace(-1, 1, 4001)
    q = 1.0 * np.exp(-(((a - 0.55) / 0.18) ** 2)) + 0.75 * np.exp(-(((a + 0.4) / 0.3) ** 2))

    def boltzmann(alpha):
        """exp(Q / alpha) / Z on the grid, and alpha log Z."""
        weight = np.exp((q - q.max()) / alpha)
        z = np.trapezoid(weight, a)
        return weight / z, q.max() + alpha * np.log(z)

    fig = plt.figure(figsize=(WIDTH, 3.4))
    grid = fig.add_gridspec(2, 2, width_ratios=(1.1, 1), height_ratios=(1, 1.4))
    top, bottom, right = (fig.add_subplot(grid[i]) for i in ((0, 0), (1, 0), (slice(None), 1)))
    top.plot(a, q, color="black")
    top.set(title="$Q(a)$", xlim=(-1, 1), ylim=(0, 1.1), xticklabels=[])

    marks = [(0.1, BLUE, (0.66, 3.2)), (0.3, GREEN, (-0.2, 1.25)), (2.0, ORANGE, (-0.97, 0.8))]
    for alpha, color, at in marks:
        bottom.plot(a, boltzmann(alpha)[0], color=color)
        bottom.annotate(rf"$\alpha = {alpha:g}$", at, color=color)
    bottom.set(title=r"$\pi(a) = \exp(Q(a)/\alpha)\,/\,Z$", xlabel="$a$", xlim=(-1, 1))
    bottom.set(ylim=(0, None), ylabel="density")

    alphas = np.geomspace(0.01, 3, 200)
    densities, values = zip(*(boltzmann(alpha) for alpha in alphas), strict=True)
    mean_q = [np.trapezoid(density * q, a) for density in densities]
    right.axhline(q.max(), color="black", linewidth=0.8, linestyle=":")
    right.fill_between(alphas, mean_q, values, color=GREY, alpha=0.15, linewidth=0)
    right.plot(alphas, mean_q, color=GREY)
    right.plot(alphas, values, color="black")
    for alpha, color, _ in marks:
        right.plot(alpha, boltzmann(alpha)[1], "o", color=color, markersize=5)
    right.annotate(r"$\max\, Q$", (0.03, 1.03))
    right.annotate(r"$V = \alpha\, \log \int e^{Q/\alpha}\, da$", (0.06, 1.75))
    right.annotate(r"$\mathbb{E}_\pi\, Q$", (0.35, 0.42), color=GREY)
    right.annotate(r"$\alpha \mathcal{H}$", (1.05, 0.78), color=GREY)
    right.set(title="soft value against temperature", xlabel=r"$\alpha$", xscale="log")
    right.set(xlim=(0.01, 3), ylim=(0.3, 2.5))
    save(fig, "soft_value")


def temperature(steps=8000):
    """`update_step` on a one-step task whose rewards grow fourfold half-way.

    r(s, a) = -c (a - 0.3)^2 and the episode ends, so Q = r, the Boltzmann policy is a Gaussian of
    variance alpha / 2c, and the entropy H is met at alpha = c exp(2H) / (pi e).
    """
    size, key = 128, jax.random.key(1)
    nets = mlp(Config("Pendulum-v1", hidden=(32, 32)), action_size=1)
    hp = Hyperparams(actor_lr=1e-3, critic_lr=3e-3, alpha_lr=3e-3)
    c = jnp.where(jnp.arange(steps) < steps // 2, 1.0, 4.0)
    obs = jnp.ones((size, 1))

    def step(state, inputs):
        c, key = inputs
        key_action, key_update = jax.random.split(key)
        action = jax.random.uniform(key_action, (size, 1), minval=-1, maxval=1)
        reward = -c * (action[:, 0] - 0.3) ** 2
        batch = Transition(obs, action, reward, discount=jnp.zeros(size), next_obs=obs)
        return update_step(state, batch, key_update, hp, nets=nets)

    @jax.jit
    def run(alpha):
        example = Transition(obs[0], jnp.zeros(1), jnp.zeros(()), jnp.zeros(()), obs[0])
        state = init(key, hp, nets=nets, example=example).replace(log_alpha=jnp.log(alpha))
        return jax.lax.scan(step, state, (c, jax.random.split(key, steps)))[1]

    target = hp.target_entropy_per_dim
    fig, (top, bottom) = plt.subplots(2, 1, figsize=(WIDTH, 3.5), sharex=True)
    for alpha, color, at in ((0.2, BLUE, (150, 0.17)), (0.002, ORANGE, (800, 0.003))):
        metrics = run(alpha)
        means = metrics["entropy"].reshape(-1, 20).mean(1)  # over 20 steps: less sampling noise
        top.plot(np.arange(10, steps, 20), means, color=color, linewidth=1.2)
        bottom.plot(metrics["alpha"], color=color)
        bottom.annotate(rf"from $\alpha = {alpha:g}$", at, color=color)
    thin = {"color": "black", "linewidth": 0.9, "linestyle": ":"}
    top.axhline(target, **thin)
    top.annotate(r"target $\bar{\mathcal{H}}$", (5600, target + 0.15))
    top.set(title="entropy of the policy (nats)", xlim=(0, steps))
    bottom.plot(c * np.exp(2 * target - 1) / np.pi, **thin)
    bottom.annotate(r"$\alpha = c\, e^{2 \bar{\mathcal{H}}} / (\pi e)$", (5600, 0.022))
    bottom.annotate("rewards x 4", (steps // 2 - 80, 0.0009), ha="right")
    for axis in (top, bottom):
        axis.axvline(steps // 2, color=GREY, linewidth=0.6)
    bottom.set(title=r"temperature $\alpha$", yscale="log", xlabel="gradient steps")
    bottom.set(ylim=(6e-4, 0.4))
    save(fig, "temperature")


def clipped_double_q(draws=4000):
    """The greedy value of noisy critics against the true one: one draw, then the mean bias."""
    a = jnp.linspace(-1, 1, 201)
    q = 1 - a**2
    waves = jnp.arange(1, 6) * jnp.pi / 2
    basis = jnp.concatenate([jnp.cos(waves[:, None] * a), jnp.sin(waves[:, None] * a)])
    key_noise, key_rule = jax.random.split(jax.random.key(2))
    # Smooth Gaussian noise over the actions, of unit variance: [N, draws, actions]
    noise = jax.random.normal(key_noise, (10, draws, len(basis))) @ basis / np.sqrt(len(waves))

    fig, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, 2.7))
    critics = q + 0.2 * noise[:2, 0]  # [N, actions]
    least = minimum(critics, key_rule)
    left.plot(a, least, color=BLUE, linewidth=5, alpha=0.35, solid_capstyle="butt")
    for curve, color in ((critics[0], ORANGE), (critics[1], GREEN), (q, "black")):
        left.plot(a, curve, color=color, linewidth=1.2)
    for curve, color in ((critics[0], ORANGE), (critics[1], GREEN), (least, BLUE), (q, "black")):
        left.plot(a[curve.argmax()], curve.max(), "o", color=color, markersize=5)
    left.annotate("$Q_1$", (0.15, 1.16), color=ORANGE)
    left.annotate("$Q_2$", (-0.48, 1.13), color=GREEN)
    left.annotate(r"$\min(Q_1, Q_2)$", (-0.22, 0.6), color=BLUE)
    left.annotate("$Q$", (-0.67, 0.38))
    left.set(title="two noisy critics and their maxima", xlabel="$a$", xlim=(-1, 1))
    left.set(ylim=(-0.15, 1.28))

    counts = range(1, 11)
    for scale, color, at in ((0.1, GREY, (6.6, -0.07)), (0.2, "black", (2.9, -0.18))):
        estimates = q + scale * noise
        bias = [(minimum(estimates[:n], key_rule).max(-1) - q.max()).mean() for n in counts]
        right.plot(counts, bias, "o-", color=color, markersize=3.5)
        right.annotate(rf"noise $\sigma = {scale:g}$", at, color=color)
    right.axhline(0, color="black", linewidth=0.9, linestyle=":")
    right.set(title=r"mean of $\max_a \min_i Q_i - \max_a Q$", xlabel="critics $N$")
    right.set(xticks=(1, 2, 4, 6, 8, 10))
    save(fig, "clipped_double_q")


def save(fig, name):
    fig.tight_layout()
    fig.savefig(FIGURES / f"{name}.png", metadata={"Software": None})
    plt.close(fig)


if __name__ == "__main__":
    FIGURES.mkdir(exist_ok=True)
    plt.style.use(STYLE)
    squashing()
    soft_value()
    temperature()
    clipped_double_q()
