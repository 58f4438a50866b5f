"""Loggers: `OnEpoch` callables and context managers for `run(config, on_epoch=[...])`."""

from sacjax.loggers.json_lines import JsonLines
from sacjax.loggers.progress_bar import ProgressBar
from sacjax.loggers.tensorboard import TensorBoard
from sacjax.loggers.wandb import WandB

__all__ = ["JsonLines", "ProgressBar", "TensorBoard", "WandB"]
