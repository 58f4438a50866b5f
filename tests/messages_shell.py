"""The messages of the command line, the loggers and the report."""

import sys

import pytest
from checks import TINY

from sacjax import InputError
from sacjax.cli import commands
from sacjax.cli.flags import parse_train
from sacjax.config import Hyperparams
from sacjax.loggers import TensorBoard
from sacjax.report import compare, comparison, page
from sacjax.runs import directory, provenance

CASES = []


def says(field, message, kind=InputError):
    """Register a case: `do(path)` raises `kind` about `field`, and says `message`."""

    def register(do):
        CASES.append(pytest.param(do, kind, field, message, id=do.__name__))
        return do

    return register


# --- command line --------------------------------------------------------------------------------


@says("env", "name the environment first, as in `sacjax train Pendulum-v1`")
def no_environment(path):
    parse_train(["--seeds", "2"])


@says("env", "{path} is a run: `sacjax resume {path}` resumes it")
def train_a_run(path):
    (path / "config.json").write_text("{}")
    parse_train([str(path)])


@says("buffer_size", "no option --buffer-size: use replay_size")
def a_flag_of_another_library(path):
    parse_train(["Pendulum-v1", "--buffer-size=9"])


@says(
    "seed",
    "seeds (2) must be 1 or more, and every seed, from the first (4294967295) to the last "
    "(4294967296), must be from 0 to 4294967295: use --seed 0 or fewer seeds",
)
def too_large_a_seed(path):
    parse_train(["Pendulum-v1", "--seed", "4294967295", "--seeds", "2"])


@says(
    "config",
    "cannot read --config {path}/none.toml (No such file or directory): give a file that you may "
    "read",
)
def no_settings_file(path):
    parse_train(["Pendulum-v1", "--config", str(path / "none.toml")])


@says(
    "config",
    "--config {path}/a.json is not a file of settings ('list' object has no attribute 'get'): use "
    "JSON or TOML",
)
def a_file_without_settings(path):
    (path / "a.json").write_text("[1]")
    parse_train(["Pendulum-v1", "--config", str(path / "a.json")])


@says("config", "--config {path}/a.json has 2 settings: keep one of them")
def a_file_of_a_sweep(path):
    (path / "a.json").write_text('{"hyperparams": [{"tau": 0.1}, {"tau": 0.2}]}')
    parse_train(["Pendulum-v1", "--config", str(path / "a.json")])


@says(
    "sweep",
    "--sweep hidden=8,16: hidden is fixed in the compiled program: run `sacjax train` once for "
    "each value",
)
def a_sweep_of_a_size(path):
    parse_train(["Pendulum-v1", "--sweep", "hidden=8,16"])


@says("sweep", "--sweep tua=1,2: no hyperparameter 'tua': use tau")
def a_sweep_of_nothing(path):
    parse_train(["Pendulum-v1", "--sweep", "tua=1,2"])


@says("sweep", "--sweep tau=1,2: tau is given twice: give it once, with all its values")
def a_sweep_and_a_flag(path):
    parse_train(["Pendulum-v1", "--tau", "0.1", "--sweep", "tau=1,2"])


@says("sweep", "--sweep tau=a,b: write numbers with commas, as in --sweep tau=0.005,0.02")
def a_sweep_of_words(path):
    parse_train(["Pendulum-v1", "--sweep", "tau=a,b"])


@says(
    "coordinator",
    "`sacjax plan` plans for one process: pass that process's share of the seeds, without "
    "--distributed or --coordinator",
)
def a_plan_for_several_processes(path):
    commands.plan(["Pendulum-v1", "--coordinator", "host:1234"])


# --- loggers -------------------------------------------------------------------------------------


@says("tensorboard", "tensorboard needs a package: pip install 'sacjax[tensorboard]'")
def no_tensorboard(path):
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "tensorboardX.event_file_writer", None)
        TensorBoard(path)


# --- reports -------------------------------------------------------------------------------------


def write_run(path, name, seed=0, rows="0,{seed},100,1.5", **fields):
    """Write the folder of a run of one seed."""
    points = [Hyperparams(**fields)]
    content = provenance.description(vars(TINY), TINY.env_name, points, [], [seed])
    directory.write_config(path / name, content)
    header = "member,seed,env_steps,eval_return"
    (path / name / "metrics.csv").write_text(f"{header}\n{rows.format(seed=seed)}\n")
    return path / name


@says("directories", "name the runs, as in `sacjax report runs/a runs/b`")
def a_report_of_nothing(path):
    compare()


@says(
    "labels",
    "labels (a) must be one name for each of 2 runs: write them after the DIRs, in the same order",
)
def one_label_for_two_runs(path):
    compare("a", "b", labels=["a"])


@says("last", "last (0) must be 1 evaluation or more")
def no_last_evaluation(path):
    compare("a", last=0)


@says("until", "until (0) must be 1 step or more")
def no_steps(path):
    compare("a", until=0)


@says(
    "last",
    "last (2) must be at most the number of evaluations (1 in {path}/a, seed 0): use a smaller "
    "--last or a larger --until, or leave the run out",
)
def too_few_evaluations(path):
    compare(write_run(path, "a"), last=2)


@says(
    "labels",
    "{path}/a and {path}/b are both 'sac' in Pendulum-v1, and seed 0 is in both: give each run its "
    "own name with --labels",
)
def the_same_seed_twice(path):
    compare(write_run(path, "a"), write_run(path, "b"), labels=["sac", "sac"])


@says(
    "labels",
    "{path}/a and {path}/b are both 'sac' in Pendulum-v1, and their settings differ: give each run "
    "its own name with --labels",
)
def different_settings_with_one_label(path):
    compare(write_run(path, "a"), write_run(path, "b", seed=1, tau=0.5), labels=["sac", "sac"])


@says("metrics.csv", "{path}/a/metrics.csv does not match config.json: restore it, or train again")
def metrics_of_another_run(path):
    compare(write_run(path, "a", rows="0,9,100,1.5"))


@says("out", "{path} is not an earlier report: give a new folder with --out, or empty this one")
def a_folder_with_other_files(path):
    (path / "mine.txt").touch()
    page.write(comparison.read([write_run(path, "a")]), path)


@pytest.mark.parametrize(("do", "kind", "field", "message"), CASES)
def test_message(do, kind, field, message, tmp_path):
    with pytest.raises(kind) as caught:
        do(tmp_path)
    assert str(caught.value).replace(str(tmp_path), "{path}") == message
    assert caught.value.field == field
