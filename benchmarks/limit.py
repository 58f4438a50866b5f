"""W7: compare the speed of a gradient step with the limit of the machine.

    python benchmarks/limit.py

The shapes give the floating-point operations of W1's gradient step. Matrix products, interleaved
with the gradient steps, give the best rate of this machine. Their quotient is the least time of a
step. On a GPU, this also counts the bytes that a step must move, the best rate of a copy, and the
kernels per gradient step from a profile.
"""

import itertools
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median

import jax
import jax.numpy as jnp
from jax.profiler import ProfileData
from rounds import entry, on_gpu, options, report
from sacjax_sac import compiled
from workloads import ACTION, OBS, Workload

from sacjax import Hyperparams

SIZES = {"Pendulum": (3, 1), "synthetic, 17 / 6": (OBS, ACTION)}


def matmul_flops(batch: int, widths: list[int]) -> int:
    """Count the operations of one pass of a batch through dense layers."""
    return sum(2 * batch * i * o for i, o in itertools.pairwise(widths))


def gradient_step_flops(workload: Workload, obs: int, action: int) -> int:
    """Count the matrix products of `sac.update_step`. Elementwise work is left out.

    A backward pass through weights costs as much as two forward passes: one for the gradient of the
    weights, one for the gradient of the inputs. The first layer does not need the latter.
    """
    batch, hidden = workload.batch_size, list(workload.hidden)
    actor = matmul_flops(batch, [obs, *hidden, 2 * action])  # mean and log_std
    critics = 2 * matmul_flops(batch, [obs + action, *hidden, 1])
    actor_first = matmul_flops(batch, [obs, hidden[0]])
    critics_first = 2 * matmul_flops(batch, [obs + action, hidden[0]])
    target = actor + critics
    critic_loss = critics + 2 * critics - critics_first
    inputs_only = critics  # the actor's loss needs no gradient of the critics' weights
    actor_loss = actor + critics + inputs_only + 2 * actor - actor_first
    return target + critic_loss + actor_loss


def gradient_step_bytes(workload: Workload, obs: int, action: int) -> int:
    """Count the bytes of parameters, targets and Adam's moments, each read and written once."""
    hidden = list(workload.hidden)
    actor = matmul_flops(1, [obs, *hidden, 2 * action]) // 2
    critics = 2 * (matmul_flops(1, [obs + action, *hidden, 1]) // 2)
    return 4 * 2 * (3 * actor + 4 * critics)


def sgemm(size: int) -> Callable[[], float]:
    """Return a function that measures a matrix product of this size, in operations per second."""
    a = jax.random.normal(jax.random.key(0), (size, size))
    times = 20 if not on_gpu() else 200

    @jax.jit
    def products(a):
        return jax.lax.fori_loop(0, times, lambda _, x: (x @ a) * (1 / size), a)

    products(a).block_until_ready()

    def piece() -> float:
        begin = time.perf_counter()
        products(a).block_until_ready()
        return times * 2 * size**3 / (time.perf_counter() - begin)

    return piece


def copying() -> float:
    """Measure the best rate of a copy of 1 GiB: bytes read and written per second."""
    x = jnp.zeros(2**28)
    double = jax.jit(lambda x: x + 1)
    double(x).block_until_ready()
    best = float("inf")
    for _ in range(5):
        begin = time.perf_counter()
        double(x).block_until_ready()
        best = min(best, time.perf_counter() - begin)
    return 2 * x.nbytes / best


def kernels(workload: Workload) -> float:
    """Count kernel launches per gradient step in XLA's profile of a short piece."""
    workload = replace(workload, iterations=100)
    loop, piece = compiled(workload, Hyperparams())
    loop = jax.block_until_ready(piece.run(loop))
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            jax.block_until_ready(piece.run(loop))
        file = next(Path(folder).rglob("*.xplane.pb"))
        launches = sum(
            len(list(line.events))
            for plane in ProfileData.from_file(str(file)).planes
            for line in plane.lines
            if "GPU" in plane.name and "Stream" in line.name
        )
    return launches / workload.gradient_steps


if __name__ == "__main__":
    rounds = options(__doc__).rounds
    entries, extra = [], {}
    iterations = 500 if not on_gpu() else 10_000
    for case, sizes in SIZES.items():
        env = "pendulum" if case == "Pendulum" else "synthetic"
        workload = replace(Workload(env=env), iterations=iterations)
        flops = gradient_step_flops(workload, *sizes)
        loop, piece = compiled(workload, Hyperparams())
        loop = jax.block_until_ready(piece.run(loop))
        products = [
            sgemm(size) for size in (256, 512, 1_024, 2_048, *((8_192,) if on_gpu() else ()))
        ]
        rates, steps = [], []
        for _ in range(rounds):
            rates.append(max(product() for product in products))
            begin = time.perf_counter()
            loop = jax.block_until_ready(piece.run(loop))
            steps.append(workload.gradient_steps / (time.perf_counter() - begin))
        best = max(rates)
        entries += [
            entry(case, "sacjax", steps, "gradient steps/s", "higher"),
            entry(
                case,
                "matrix products alone",
                [r / flops for r in rates],
                "gradient steps/s",
                "higher",
            ),
        ]
        share = median(steps) / (best / flops)
        extra[case] = {
            "flops": flops,
            "sgemm_flops_per_second": best,
            "share_of_the_limit": share,
            "limit_gradient_steps_per_second": best / flops,
        }
        print(f"{case}: {flops / 1e9:.3f} GFLOP, best sgemm {best / 1e9:.0f} GFLOP/s, {share:.0%}")
        if on_gpu():
            bandwidth = copying()
            extra[case] |= {
                "bytes": gradient_step_bytes(workload, *sizes),
                "bytes_per_second": bandwidth,
                "kernels_per_gradient_step": kernels(workload),
            }
    report("limit", "W7: gradient steps against the machine's limit", entries, limit=extra)
