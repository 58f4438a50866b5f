"""How XLA compiles for a CPU what the tests run.

A small program runs in no time and compiles for long: most of it in LLVM's optimizations and in the
emission of fused kernels.
"""

from importlib.metadata import version

QUICK = {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False}
USERS = {"xla_backend_optimization_level": 3, "xla_cpu_use_fusion_emitters": True}
if not version("jaxlib").startswith("0.10."):  # 0.11 always fuses, and ends at an unknown option
    for options in QUICK, USERS:
        del options["xla_cpu_use_fusion_emitters"]


def as_flags(options: dict[str, int | bool]) -> str:
    """What XLA_FLAGS must be for these to be every program's."""
    return " ".join(f"--{name}={str(value).lower()}" for name, value in options.items())
