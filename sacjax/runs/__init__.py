"""Runs on the host: training, files, checkpoints, resuming. Start reading at `sacjax.runs.run`."""
