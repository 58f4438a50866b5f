"""Runs on the host: training, files, checkpoints, resuming. `sacjax.runs.run` is the way in."""
