"""`sacjax report`: what it compares, its page, what it refuses."""

import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from sacjax import statistics
from sacjax.cli.main import main
from sacjax.config import Config, Hyperparams
from sacjax.report import comparison, page, tables
from sacjax.runs import directory, files, provenance
from sacjax.runs.metrics_csv import MetricsFile
from sacjax.types import InputError

PNG = b"\x89PNG"

COLUMNS = "member,seed,env_steps,eval_return"


def write_run(path, returns, env="Pendulum-v1", every=100, swept=(), seeds=None, **hp):
    """A run's folder as `run` leaves it. `returns` [points x seeds, epochs]; a point per tau."""
    returns = np.asarray(returns, float)
    taus = swept or [hp.pop("tau", 0.01)]
    seeds = seeds or list(range(len(returns) // len(taus)))
    config = Config(env, total_steps=every * (1 + returns.shape[1]), warmup_steps=every,
                    eval_every=every, batch_size=1)  # fmt: skip
    points = [Hyperparams(tau=tau, **hp) for tau in taus]
    path.mkdir(parents=True)
    of = vars(config), config.env_name, points, ["tau"] if swept else [], seeds
    content = provenance.description(*of)
    directory.write_config(path, content)
    file = MetricsFile(path / "metrics.csv")
    keys = [{"tau": tau, "seed": s} if swept else {"seed": s} for tau in taus for s in seeds]
    for epoch, column in enumerate(returns.T):
        steps = every * (epoch + 2)
        file.append(
            {"member": i} | key | {"env_steps": steps, "eval_return": float(x)}
            for i, (key, x) in enumerate(zip(keys, column, strict=True))
        )
    file.close()
    return path


def curves(seeds=4, epochs=3, level=0.0, seed=0):
    rng = np.random.default_rng(seed)
    return level + np.arange(epochs) + rng.normal(size=(seeds, epochs))


def test_a_seeds_score_is_the_mean_of_its_last_evaluations(tmp_path):
    run = write_run(tmp_path / "a", [[1, 2, 4], [5, 6, 9]])
    assert comparison.read([run])[0].scores.tolist() == [4, 9]
    assert comparison.read([run], last=2)[0].scores.tolist() == [3, 7.5]
    assert comparison.read([run], until=300)[0].scores.tolist() == [2, 6]
    assert comparison.read([run], until=399)[0].steps.tolist() == [200, 300]


def test_each_point_of_a_sweep_is_compared(tmp_path):
    run = write_run(tmp_path / "a", [[1], [2], [3], [4]], swept=[0.005, 0.02])
    low, high = comparison.read([run])
    assert (low.label, high.label) == ("a, tau=0.005", "a, tau=0.02")
    assert (low.scores.tolist(), high.scores.tolist()) == ([1, 2], [3, 4])
    assert (low.settings["tau"], high.settings["tau"]) == (0.005, 0.02)
    assert comparison.differing([low, high]) == ["tau"]


def test_folders_of_one_name_are_told_apart_by_their_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for parent in "xy":
        write_run(Path(parent, "run"), curves())
    assert [e.label for e in comparison.read(["x/run", "y/run"])] == ["x/run", "y/run"]


def test_aggregated_are_the_labels_that_have_every_environment(tmp_path):
    runs = [
        write_run(tmp_path / "1", [[0], [1]]),
        write_run(tmp_path / "2", [[2], [4]]),
        write_run(tmp_path / "3", [[10], [30]], env="Reacher-misc"),
    ]
    pendulum, reacher, together = comparison.panels(comparison.read(runs, ["a", "b", "a"]))
    assert (list(pendulum.scores), list(reacher.scores)) == (["a", "b"], ["a"])
    assert [x.tolist() for x in together.scores["a"]] == [[0, 0.25], [0, 1]]
    assert list(together.scores) == ["a"]
    assert len(comparison.panels(comparison.read(runs))) == 2  # by the folders' names: none has


class Page(HTMLParser):
    """Every tag that opens is closed, and what is referred to."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.links = [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [v for k, v in attrs if k in ("src", "srcset", "href", "data", "action")]
        if tag not in ("meta", "img", "source", "br", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_command_writes_a_page_that_needs_nothing_else(tmp_path, capsys):
    runs = [
        write_run(tmp_path / "1", curves(level=-200)),
        write_run(tmp_path / "2", curves(seeds=8, epochs=5, level=-198), swept=[0.005, 0.02]),
        write_run(tmp_path / "3", curves(level=20, seed=3), env="Reacher-misc"),
    ]
    labels = ["--labels", "plain", "<b>&</b> $x^", "plain", "--out", str(tmp_path / "out")]
    assert main(["report", *map(str, runs), *labels]) == 0
    names = {"report.html", "learning_curves.png", "profiles.png", "improvement.png"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == names
    for name in names - {"report.html"}:
        assert (tmp_path / "out" / name).read_bytes().startswith(PNG)
    text = (tmp_path / "out" / "report.html").read_text()
    parsed = Page(text)
    assert parsed.tags.count("img") == 3
    assert len(parsed.links) == 3
    assert all(link.startswith("data:image/png;base64,") for link in parsed.links)
    assert not {"script", "link", "iframe"} & set(parsed.tags)
    assert "url(" not in text
    assert "<b>&" not in text
    assert "&lt;b&gt;&amp;&lt;/b&gt; $x^, tau=0.005" in text
    for title in ("Settings that differ", "All environments", "Probability of improvement"):
        assert f"<h2>{title}</h2>" in text
    printed = capsys.readouterr().out
    assert "<b>&</b> $x^, tau=0.005" in printed
    assert "the runs end between 400 and 600 steps" in " ".join(printed.split())
    middle = tables.number(float(statistics.aggregate_iqm([curves(level=-200)[:, -1]]).value))
    assert re.search(rf"Pendulum-v1 +│ plain +│ +4 │ +400 │ +{middle} ", printed)


def test_every_label_has_its_line_in_the_legends(tmp_path, monkeypatch):
    """Matplotlib leaves out those that begin with "_", and takes dollars for mathematics."""
    shown, legend = [], Figure.legend

    def spy(*args, **kwargs):
        made = legend(*args, **kwargs)
        shown.append(made.get_texts())
        return made

    monkeypatch.setattr(Figure, "legend", spy)
    runs = [write_run(tmp_path / name, curves(seed=i)) for i, name in enumerate("xyz")]
    page.write(comparison.read(runs, ["_x", "$y$", "z"]), tmp_path / "report")
    assert len(shown) == 2  # curves and profiles
    for texts in shown:
        assert [text.get_text() for text in texts] == ["_x", "$y$", "z"]
        assert not any(text.get_parse_math() for text in texts)


def test_a_batch_is_not_a_run(tmp_path):
    whole = write_run(tmp_path / "a", curves())
    batch = write_run(whole / "batches" / "1", curves())
    with pytest.raises(InputError, match=f"is a batch of {whole}: give that folder"):
        comparison.read([batch])
    other = write_run(tmp_path / "batches" / "b", curves())  # a name like any other
    assert comparison.read([other])[0].label == "b"


def test_an_earlier_report_is_replaced_and_nothing_else_is(tmp_path, capsys):
    out = tmp_path / "out"
    one, two = write_run(tmp_path / "1", curves()), write_run(tmp_path / "2", curves(level=1))
    assert main(["report", str(one), str(two), "--out", str(out)]) == 0
    assert main(["report", str(one), "--out", str(out)]) == 0
    assert {path.name for path in out.iterdir()} == {
        "report.html", "learning_curves.png", "profiles.png"
    }  # fmt: skip
    (out / "report.html").write_text("<p>somebody's own</p>")
    assert main(["report", str(one), "--out", str(out)]) == 2
    assert (out / "report.html").read_text() == "<p>somebody's own</p>"
    assert main(["report", str(one), "--out", str(one)]) == 2
    assert {path.name for path in one.iterdir()} == {"config.json", "metrics.csv"}
    assert main(["report", str(one), "--out", str(one / "config.json")]) == 2
    assert "give a new folder with --out" in capsys.readouterr().err


def test_diverged_seeds_are_left_out_and_that_is_said(tmp_path, capsys):
    some, all_of = curves(seeds=4), curves(seeds=2, level=5)
    some[1, 1:], all_of[:, 2:] = np.nan, np.nan
    runs = [write_run(tmp_path / "some", some), write_run(tmp_path / "all", all_of)]
    assert comparison.read(runs)[0].alive.tolist() == some[[0, 2, 3], -1].tolist()
    assert main(["report", *map(str, runs), "--out", str(tmp_path / "out")]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "3 of 4" in printed
    assert "all diverged" in printed
    text = (tmp_path / "out" / "report.html").read_text()
    assert "some in Pendulum-v1: 1 of 4 seeds diverged, left out of every statistic" in text
    assert "all in Pendulum-v1: 2 of 2 seeds diverged" in text


def test_where_all_diverged_in_one_environment_the_others_are_shown(tmp_path, capsys):
    """Also where that is the first one, and the first run has no score to be measured against."""
    gone = write_run(tmp_path / "gone", np.full((2, 2), np.nan))
    here = [write_run(tmp_path / name, curves(), "Reacher-misc") for name in "ab"]
    for order in ([gone, *here], [*here, gone], [here[0], gone]):
        out = tmp_path / "-".join(run.name for run in order)
        assert main(["report", *map(str, order), "--out", str(out)]) == 0
        assert (out / "profiles.png").exists()
        assert (out / "improvement.png").exists() == (len(order) == 3)
        text = (out / "report.html").read_text()
        assert ("<h2>Probability of improvement</h2>" in text) == (len(order) == 3)
        assert ("(beats a)" in text) == (order[0] == gone)


def test_what_is_not_trained_to_the_end_is_said_of_each_point(tmp_path):
    """A sweep in three batches: whole, stopped after one of three evaluations, not begun."""
    taus = [0.005, 0.01, 0.02]
    run = write_run(tmp_path / "a", curves(seeds=6), swept=taus)
    header, *rows = (run / "metrics.csv").read_text().splitlines(keepends=True)
    (run / "metrics.csv").unlink()
    for number, (tau, epochs) in enumerate(zip(taus, (3, 1), strict=False), 1):
        (run / "batches" / str(number)).mkdir(parents=True)
        shutil.copy(run / "config.json", run / "batches" / str(number))
        mine = [row for row in rows if float(row.split(",")[1]) == tau][: 2 * epochs]
        (run / "batches" / str(number) / "metrics.csv").write_text(header + "".join(mine))
    low, high = comparison.read([run])
    assert (low.steps.tolist(), high.steps.tolist()) == ([200, 300, 400], [200])
    said = " ".join(comparison.notes([low, high]))
    assert "the runs end between 200 and 400 steps" in said
    assert f"{run}: shown to 200 to 400 of 400 steps" in said
    assert f"{run}: 4 of 6 agents have evaluations yet" in said
    assert "equally far" not in said  # within a point they are
    assert low.folders == high.folders
    assert low.folders[0].reached == "200 to 400"


def test_versions_that_differ_are_named(tmp_path):
    one, other = (write_run(tmp_path / name, curves()) for name in "ab")
    content = directory.read_description(other)
    versions = content["versions"] | {"optax": "0.0.1", "mujoco": "9"}  # one has no mujoco
    directory.write_config(other, content | {"versions": versions})
    (note,) = (n for n in comparison.notes(comparison.read([one, other])) if "versions" in n)
    assert "optax 0.0.1 and " in note
    assert "mujoco" not in note


@pytest.mark.parametrize("shape", [(1, 1), (1, 4), (3, 1)])
def test_one_seed_or_one_evaluation(tmp_path, capsys, shape):
    run = write_run(tmp_path / "a", curves(*shape))
    assert main(["report", str(run), "--out", str(tmp_path / "out")]) == 0
    assert ("one seed has none" in capsys.readouterr().out) == (shape[0] == 1)
    assert not (tmp_path / "out" / "improvement.png").exists()


def test_every_seed_diverged(tmp_path):
    run = write_run(tmp_path / "a", np.full((2, 2), np.nan))
    assert main(["report", str(run), "--out", str(tmp_path / "out")]) == 0
    assert not (tmp_path / "out" / "profiles.png").exists()


def test_a_run_that_is_still_going_is_shown_as_far_as_it_is(tmp_path):
    run = write_run(tmp_path / "a", curves(epochs=4))
    lines = (run / "metrics.csv").read_text().splitlines(keepends=True)
    (run / "metrics.csv").write_text("".join(lines[:11]))  # two epochs and a half
    (entry,) = comparison.read([run])
    assert entry.steps.tolist() == [200, 300]
    assert any("shown to 300 of 500 steps" in note for note in comparison.notes([entry]))


def test_runs_of_two_algorithms_differ_in_that(tmp_path):
    runs = [
        write_run(tmp_path / name, curves(), seeds=s)
        for name, s in (("a", [0, 1, 2, 3]), ("b", [4, 5, 6, 7]))
    ]
    content = directory.read_description(runs[1])
    directory.write_config(runs[1], content | {"algorithm": "make_sac(rule=mean)"})
    assert comparison.differing(comparison.read(runs)) == ["algorithm"]
    with pytest.raises(InputError, match="their settings differ"):
        comparison.read(runs, labels=["one", "one"])


def test_an_environment_object_is_shown_under_that_name(tmp_path):
    run = write_run(tmp_path / "a", curves())
    content = directory.read_description(run)
    content["config"]["env"] = None
    directory.write_config(run, content | {"env_object": "Maze"})
    assert comparison.read([run])[0].env == "Maze object"
    directory.write_config(run, content)  # of an older sacjax
    assert comparison.read([run])[0].env == "environment object"


def test_gymnax_is_the_suite_of_names_without_one(tmp_path):
    runs = [
        write_run(tmp_path / "a", curves(), env="Pendulum-v1"),
        write_run(tmp_path / "b", curves(), env="gymnax/Pendulum-v1", seeds=[4, 5, 6, 7]),
    ]
    (entry,) = comparison.read(runs, labels=["one", "one"])
    assert (entry.env, len(entry.seeds)) == ("Pendulum-v1", 8)


def damage(name, text):
    return lambda run: (run / name).write_text(text)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda run: (run / "config.json").unlink(), "not a run's folder"),
        (lambda run: (run / "metrics.csv").unlink(), "missing: restore"),
        (damage("config.json", "{"), "damaged"),
        (damage("config.json", "[]"), "damaged"),
        (damage("config.json", '{"format": 4, "config": {}}'), "damaged"),
        (damage("metrics.csv", ""), "no evaluation yet: wait"),
        (damage("metrics.csv", f"{COLUMNS}\n"), "damaged"),
        (
            damage("metrics.csv", f"{COLUMNS}\n0,0,1,1\n"),
            "no whole evaluation yet",
        ),
        (
            damage("metrics.csv", f"{COLUMNS}\n0,0,1,1\n0,0,2,1\n"),
            "not that of config.json",
        ),
        (
            damage("metrics.csv", f"{COLUMNS}\n9,9,1,1\n"),
            "not that of config.json",
        ),
        (damage("metrics.csv", "seed,q\n0,1\n1,1\n2,1\n3,1\n"), "damaged"),
    ],
)
def test_a_damaged_folder_is_one_line_and_nothing_is_written(tmp_path, capsys, harm, message):
    good, bad = write_run(tmp_path / "good", curves()), write_run(tmp_path / "bad", curves())
    harm(bad)
    assert main(["report", str(good), str(bad), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert str(bad) in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": ["a"]}, "--labels names 1 runs of 2"),
        ({"labels": ["a", "a"]}, "are both 'a' in Pendulum-v1, and seed 0 is in both: give"),
        ({"last": 0}, "1 evaluation or more"),
        ({"last": 4}, "has 3 evaluations of seed 0: use a smaller --last"),
        ({"until": 100}, "has 0 evaluations up to 100 steps"),
        ({"until": 0}, "--until (0) must be 1 environment step or more"),
        ({"labels": ["a", " "]}, "--labels has an empty one"),
    ],
)
def test_options_that_cannot_work(tmp_path, options, message):
    runs = [write_run(tmp_path / name, curves()) for name in "xy"]
    with pytest.raises(InputError, match=re.escape(message)):
        comparison.read(runs, **options)


def test_runs_of_other_seeds_under_one_name_are_one(tmp_path):
    """One of them not finished."""
    x, y = (write_run(tmp_path / n, curves(level=i), seeds=s) for i, (n, s) in enumerate(
        [("x", [0, 1, 2, 3]), ("y", [7, 8, 5, 6])]))  # fmt: skip
    lines = (y / "metrics.csv").read_text().splitlines(keepends=True)
    (y / "metrics.csv").write_text("".join(lines[:9]))
    one, other = comparison.read([x, y])
    (both,) = comparison.read([x, y], ["sac", "sac"])
    assert both.seeds == [0, 1, 2, 3, 7, 8, 5, 6]
    np.testing.assert_array_equal(both.scores, [*one.scores, *other.scores])
    assert both.steps.tolist() == [200, 300, 400]
    assert np.isfinite(both.returns).sum(1).tolist() == [3] * 4 + [2] * 4
    page.write([both], tmp_path / "report")
    text = (tmp_path / "report" / "report.html").read_text()
    assert str(x) in text
    assert "7, 8, 5, 6" in text
    assert any(f"{y}: shown to 300 of 400" in note for note in comparison.notes([both]))
    write_run(tmp_path / "z", curves(), seeds=[9, 10, 11, 12], tau=0.5)
    with pytest.raises(InputError, match="their settings differ"):
        comparison.read([x, tmp_path / "z"], ["sac", "sac"])


def test_no_folder_at_all(capsys):
    assert main(["report"]) == 2
    assert "name the folders" in capsys.readouterr().err


def test_a_disk_that_is_full_is_a_run_error(tmp_path, monkeypatch, capsys):
    def full(*_):
        raise OSError(28, "No space left on device")

    run, out = write_run(tmp_path / "a", curves()), tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(files, "write_bytes", full)
        assert main(["report", str(run), "--out", str(out)]) == 3
        assert "No space left" in capsys.readouterr().err
    synced = iter([None, None])
    with monkeypatch.context() as patch:  # after the page and a picture
        patch.setattr(files.os, "fsync", lambda _: next(synced, 0) == 0 and full())
        assert main(["report", str(run), "--out", str(out)]) == 3
    assert {path.name for path in out.iterdir()} == {"report.html", "learning_curves.png"}
    assert main(["report", str(run), "--out", str(out)]) == 0


def test_numbers_have_the_decimals_that_say_something():
    shown = [tables.number(x) for x in (-1234.56, 98.44, 2.614, 0.0312, 0.0)]
    assert shown == ["-1,234.6", "98.4", "2.61", "0.031", "0.000"]
