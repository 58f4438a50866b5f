"""W7: how near is a gradient step to what the machine can do?

    python benchmarks/limit.py

Floating-point operations of W1's gradient step, counted from its shapes, over the best rate of a
matrix product here, interleaved with the gradient steps, is the least time such a step can take.
On a GPU also the bytes that it must move over the best rate of a copy, and, from a profile of the
iteration, kernels per gradient step.
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
    """Of one pass of a batch through dense layers."""
    return sum(2 * batch * i * o for i, o in itertools.pairwise(widths))


def gradient_step_flops(workload: Workload, obs: int, action: int) -> int:
    """Matrix products only, from `sac.update_step`; elementwise work is left out, so it is a floor.

    Through weights, a backward pass costs a forward one for the weights' gradient and one for the
    inputs' (which the first layer does not need).
    """
    batch, hidden = workload.batch_size, list(workload.hidden)
    actor = matmul_flops(batch, [obs, *hidden, 2 * action])  # mean and log_std
    critics = 2 * matmul_flops(batch, [obs + action, *hidden, 1])
    actor_first = matmul_flops(batch, [obs, hidden[0]])
    critics_first = 2 * matmul_flops(batch, [obs + action, hidden[0]])
    target = actor + critics
    critic_loss = critics + 2 * critics - critics_first
    inputs_only = critics  # the actor's loss: no gradient of the critics' weights
    actor_loss = actor + critics + inputs_only + 2 * actor - actor_first
    return target + critic_loss + actor_loss


def gradient_step_bytes(workload: Workload, obs: int, action: int) -> int:
    """Parameters, targets and Adam's moments read and written once, in float32."""
    hidden = list(workload.hidden)
    actor = matmul_flops(1, [obs, *hidden, 2 * action]) // 2
    critics = 2 * (matmul_flops(1, [obs + action, *hidden, 1]) // 2)
    return 4 * 2 * (3 * actor + 4 * critics)


def sgemm(size: int) -> Callable[[], float]:
    """Rate of a matrix product of this size, in operations a second."""
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
    """Bytes read and written per second by the best of a few passes over 1 GiB."""
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
    """Kernel launches per gradient step, from XLA's own profile of a short piece."""
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
