"""Environments behind one contract (`sacjax.types.Env`): a module for each suite."""
