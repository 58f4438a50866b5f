from . import envs as envs
from . import loggers as loggers
from . import report as report
from . import statistics as statistics
from .config import Config as Config
from .config import Hyperparams as Hyperparams
from .devices import keep_compiled_programs as keep_compiled_programs
from .devices import over_grid as over_grid
from .devices import over_members as over_members
from .devices import use_all_cores as use_all_cores
from .networks import mlp as mlp
from .policies import policy as policy
from .presets import preset as preset
from .runs.load import evaluate_run as evaluate_run
from .runs.load import load as load
from .runs.result import Run as Run
from .runs.run import resume as resume
from .runs.run import run as run
from .sac import TrainState as TrainState
from .sac import make_sac as make_sac
from .sac import update_step as update_step
from .train import make_program as make_program
from .train import make_train as make_train
from .types import InputError as InputError
from .types import RunError as RunError
from .types import Transition as Transition

__version__: str
_forked_after_start: bool
