"""The options with which XLA compiles the tests' programs for a CPU.

The programs of the tests are small: they run for milliseconds but compile for seconds. LLVM's
optimizations and the emission of fused kernels take most of that time.
"""

from importlib.metadata import version

QUICK = {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False}
USERS = {"xla_backend_optimization_level": 3, "xla_cpu_use_fusion_emitters": True}
if not version("jaxlib").startswith("0.10."):  # 0.11 removed this option and fails on it
    for options in QUICK, USERS:
        del options["xla_cpu_use_fusion_emitters"]


def as_flags(options: dict[str, int | bool]) -> str:
    """Return the value of XLA_FLAGS that applies these options to every program."""
    return " ".join(f"--{name}={str(value).lower()}" for name, value in options.items())
