"""Environments behind one contract (`sacjax.types.Env`): gymnax, by name or by object."""

from sacjax.envs.gymnax_adapter import continuous_envs, make_env

__all__ = ["continuous_envs", "make_env"]
