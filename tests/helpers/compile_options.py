"""The options with which XLA compiles functions for the CPU in tests.

The compiled functions in the tests are small. They run for milliseconds but compile for seconds.
LLVM's optimizations and the emission of fused kernels take most of the compile time.
"""

from importlib.metadata import version

QUICK = {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False}
USERS = {"xla_backend_optimization_level": 3, "xla_cpu_use_fusion_emitters": True}
if not version("jaxlib").startswith("0.10."):  # 0.11 removed this option and fails on it
    for options in QUICK, USERS:
        del options["xla_cpu_use_fusion_emitters"]


def as_flags(options: dict[str, int | bool]) -> str:
    """Return a value of XLA_FLAGS that applies the options to every compiled function."""
    return " ".join(f"--{name}={str(value).lower()}" for name, value in options.items())
