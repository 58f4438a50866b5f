"""One module per suite of environments, all with the same interface (`sacjax.types.Env`).

`sacjax.envs.names.make_env` makes an environment from its name. The suites are gymnax, Brax, MuJoCo
Playground, Gymnasium and envpool.
"""
