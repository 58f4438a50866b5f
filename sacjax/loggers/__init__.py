"""Loggers show or store a run's metrics after each epoch.

Each logger is an `OnEpoch` callable and a context manager. Pass loggers to `sacjax.run` or
`sacjax.resume`:

>>> with ProgressBar() as bar, TensorBoard("runs/a") as tensorboard:
...   run(config, directory="runs/a", on_epoch=[bar, tensorboard])
"""

from sacjax.loggers.json_lines import JsonLines
from sacjax.loggers.progress_bar import ProgressBar
from sacjax.loggers.tensorboard import TensorBoard
from sacjax.loggers.wandb import WandB

__all__ = ["JsonLines", "ProgressBar", "TensorBoard", "WandB"]
