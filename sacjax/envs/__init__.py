"""Environments behind one contract (`sacjax.types.Env`): gymnax, by name or by object."""

from sacjax.envs.gymnax_adapter import base_env, continuous_envs, make_env

__all__ = ["base_env", "continuous_envs", "make_env"]
