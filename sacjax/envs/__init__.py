"""Adapters that give the environments of several suites one interface, `sacjax.types.Env`.

`sacjax.envs.names.make_env` makes an environment from a name. The supported suites are gymnax,
Brax, MuJoCo Playground, Gymnasium and envpool.
"""
