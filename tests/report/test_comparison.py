"""Test `sacjax report`: its numbers, its HTML page and its errors."""

import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from checks import refused
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
    """Write the folder of a run with `returns` [settings x seeds, epochs].

    A sweep has the values of tau in `swept`.
    """
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


def test_a_score_is_the_mean_return_of_the_last_evaluations(tmp_path):
    run = write_run(tmp_path / "a", [[1, 2, 4], [5, 6, 9]])
    assert comparison.read([run])[0].scores.tolist() == [4, 9]
    assert comparison.read([run], last=2)[0].scores.tolist() == [3, 7.5]
    assert comparison.read([run], until=300)[0].scores.tolist() == [2, 6]
    assert comparison.read([run], until=399)[0].steps.tolist() == [200, 300]


def test_the_report_has_one_entry_per_setting_of_a_sweep(tmp_path):
    run = write_run(tmp_path / "a", [[1], [2], [3], [4]], swept=[0.005, 0.02])
    low, high = comparison.read([run])
    assert (low.label, high.label) == ("a, tau=0.005", "a, tau=0.02")
    assert (low.scores.tolist(), high.scores.tolist()) == ([1, 2], [3, 4])
    assert (low.settings["tau"], high.settings["tau"]) == (0.005, 0.02)
    assert comparison.differing([low, high]) == ["tau"]


def test_folders_with_equal_names_are_labelled_with_their_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for parent in "xy":
        write_run(Path(parent, "run"), curves())
    assert [e.label for e in comparison.read(["x/run", "y/run"])] == ["x/run", "y/run"]


def test_a_label_without_results_in_one_environment_is_not_aggregated(tmp_path):
    runs = [
        write_run(tmp_path / "1", [[0], [1]]),
        write_run(tmp_path / "2", [[2], [4]]),
        write_run(tmp_path / "3", [[10], [30]], env="Reacher-misc"),
    ]
    pendulum, reacher, together = comparison.panels(comparison.read(runs, ["a", "b", "a"]))
    assert (list(pendulum.scores), list(reacher.scores)) == (["a", "b"], ["a"])
    assert [x.tolist() for x in together.scores["a"]] == [[0, 0.25], [0, 1]]
    assert list(together.scores) == ["a"]
    assert len(comparison.panels(comparison.read(runs))) == 2  # no folder's name has both


class Page(HTMLParser):
    """Collect the tags and links of an HTML page, and check that every tag is closed."""

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


def test_report_writes_one_html_page_that_contains_all_figures(tmp_path, capsys):
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


def test_the_legends_show_every_label_unchanged(tmp_path, monkeypatch):
    """Matplotlib would hide labels that begin with "_" and read dollars as mathematics."""
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


def test_report_rejects_the_folder_of_one_batch_of_a_run(tmp_path):
    whole = write_run(tmp_path / "a", curves())
    batch = write_run(whole / "batches" / "1", curves())
    with pytest.raises(InputError, match=str(whole)):
        comparison.read([batch])
    other = write_run(tmp_path / "batches" / "b", curves())  # not in a run's folder
    assert comparison.read([other])[0].label == "b"


def test_report_overwrites_only_files_of_an_earlier_report(tmp_path, capsys):
    out = tmp_path / "out"
    one, two = write_run(tmp_path / "1", curves()), write_run(tmp_path / "2", curves(level=1))
    assert main(["report", str(one), str(two), "--out", str(out)]) == 0
    assert main(["report", str(one), "--out", str(out)]) == 0
    assert {path.name for path in out.iterdir()} == {
        "report.html", "learning_curves.png", "profiles.png"
    }  # fmt: skip
    (out / "report.html").write_text("<p>another page</p>")
    assert main(["report", str(one), "--out", str(out)]) == 2
    assert (out / "report.html").read_text() == "<p>another page</p>"
    assert main(["report", str(one), "--out", str(one)]) == 2
    assert {path.name for path in one.iterdir()} == {"config.json", "metrics.csv"}
    assert main(["report", str(one), "--out", str(one / "config.json")]) == 2
    assert "give a new folder with --out" in capsys.readouterr().err


def test_report_excludes_diverged_seeds_and_counts_them_in_a_note(tmp_path, capsys):
    some, all_of = curves(seeds=4), curves(seeds=2, level=5)
    some[1, 1:], all_of[:, 2:] = np.nan, np.nan
    runs = [write_run(tmp_path / "some", some), write_run(tmp_path / "all", all_of)]
    assert comparison.read(runs)[0].alive.tolist() == some[[0, 2, 3], -1].tolist()
    assert main(["report", *map(str, runs), "--out", str(tmp_path / "out")]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "3 of 4" in printed
    assert "all diverged" in printed
    text = (tmp_path / "out" / "report.html").read_text()
    assert "some in Pendulum-v1: 1 of 4 seeds diverged. All statistics and the IQM" in text
    assert "all in Pendulum-v1: 2 of 2 seeds diverged" in text


def test_an_environment_without_scores_does_not_hide_other_environments(tmp_path, capsys):
    """If the first environment has no scores, the first run cannot be the baseline."""
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


def test_the_notes_of_a_report_list_unfinished_settings(tmp_path):
    """Batch 1 is finished, batch 2 has 1 of 3 evaluations, and batch 3 has not started."""
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
    notes = " ".join(comparison.notes([low, high]))
    assert "the runs end between 200 and 400 steps" in notes
    assert f"{run}: the report covers 200 to 400 of 400 steps" in notes
    assert f"{run}: only 4 of 6 agents have evaluations" in notes
    assert "seeds end at different steps" not in notes  # equal within a setting
    assert low.folders == high.folders
    assert low.folders[0].reached == "200 to 400"


def test_the_notes_of_a_report_list_package_versions_that_differ(tmp_path):
    one, other = (write_run(tmp_path / name, curves()) for name in "ab")
    content = directory.read_description(other)
    versions = content["versions"] | {"optax": "0.0.1", "mujoco": "9"}  # one has no mujoco
    directory.write_config(other, content | {"versions": versions})
    (note,) = (n for n in comparison.notes(comparison.read([one, other])) if "versions" in n)
    assert "optax 0.0.1 and " in note
    assert "mujoco" not in note


@pytest.mark.parametrize("shape", [(1, 1), (1, 4), (4, 1), (5, 1)])
def test_a_report_works_with_few_seeds_or_a_single_evaluation(tmp_path, capsys, shape):
    run = write_run(tmp_path / "a", curves(*shape))
    assert main(["report", str(run), "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert ("none below 5 seeds" in printed) == (shape[0] < 5)
    assert ("No interval for 1 of 1 runs: with fewer than 5 seeds" in printed) == (shape[0] < 5)
    assert not (tmp_path / "out" / "improvement.png").exists()


@pytest.mark.parametrize("seeds", [2, 5])
def test_the_probability_of_improvement_has_no_interval_for_two_seeds(tmp_path, capsys, seeds):
    """With 2 seeds, the bootstrap would say [1.00, 1.00], whatever lies behind them."""
    runs = [write_run(tmp_path / x, curves(seeds, level=y)) for x, y in (("a", 0), ("b", 9))]
    entries = comparison.read(runs)
    (panel,) = comparison.panels(entries)
    text, shade = tables.matrix(panel).rows[1][1]
    assert (text, shade) == (("1.00", "even") if seeds == 2 else ("1.00 [1.00, 1.00]", "good"))
    out = tmp_path / "out"
    assert main(["report", *map(str, runs), "--out", str(out)]) == 0
    for shown in (capsys.readouterr().out, (out / "report.html").read_text()):
        assert ("No interval for 2 of 2 runs" in shown) == (seeds == 2)
    assert (out / "improvement.png").exists()


def test_report_works_if_every_seed_diverged(tmp_path):
    run = write_run(tmp_path / "a", np.full((2, 2), np.nan))
    assert main(["report", str(run), "--out", str(tmp_path / "out")]) == 0
    assert not (tmp_path / "out" / "profiles.png").exists()


def test_report_shows_an_unfinished_run_up_to_its_last_evaluation(tmp_path):
    run = write_run(tmp_path / "a", curves(epochs=4))
    lines = (run / "metrics.csv").read_text().splitlines(keepends=True)
    (run / "metrics.csv").write_text("".join(lines[:11]))  # two epochs and a half
    (entry,) = comparison.read([run])
    assert entry.steps.tolist() == [200, 300]
    assert any("covers 300 of 500 steps" in note for note in comparison.notes([entry]))


def test_report_lists_the_algorithm_among_the_settings_that_differ(tmp_path):
    runs = [
        write_run(tmp_path / name, curves(), seeds=s)
        for name, s in (("a", [0, 1, 2, 3]), ("b", [4, 5, 6, 7]))
    ]
    content = directory.read_description(runs[1])
    directory.write_config(runs[1], content | {"algorithm": "make_sac(rule=mean)"})
    assert comparison.differing(comparison.read(runs)) == ["algorithm"]
    with refused("labels"):
        comparison.read(runs, labels=["one", "one"])


def test_report_shows_the_class_of_an_environment_object(tmp_path):
    run = write_run(tmp_path / "a", curves())
    content = directory.read_description(run)
    content["config"]["env"] = None
    directory.write_config(run, content | {"env_object": "Maze"})
    assert comparison.read([run])[0].env == "Maze object"
    directory.write_config(run, content)  # as older versions wrote it
    assert comparison.read([run])[0].env == "environment object"


def test_report_uses_gymnax_if_an_environment_name_has_no_suite(tmp_path):
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
        (lambda run: (run / "config.json").unlink(), "no config.json"),
        (lambda run: (run / "metrics.csv").unlink(), "missing"),
        (damage("config.json", "{"), "damaged"),
        (damage("config.json", "[]"), "damaged"),
        (damage("config.json", '{"format": 4, "config": {}}'), "damaged"),
        (damage("metrics.csv", ""), "no evaluation yet"),
        (damage("metrics.csv", f"{COLUMNS}\n"), "no evaluation"),
        (
            damage("metrics.csv", f"{COLUMNS}\n0,0,1,1\n"),
            "no complete evaluation yet",
        ),
        (
            damage("metrics.csv", f"{COLUMNS}\n0,0,1,1\n0,0,2,1\n"),
            "does not match config.json",
        ),
        (
            damage("metrics.csv", f"{COLUMNS}\n9,9,1,1\n"),
            "does not match config.json",
        ),
        (damage("metrics.csv", "seed,q\n0,1\n1,1\n2,1\n3,1\n"), "damaged"),
    ],
)
def test_report_writes_nothing_if_a_run_folder_is_damaged(tmp_path, capsys, harm, message):
    good, bad = write_run(tmp_path / "good", curves()), write_run(tmp_path / "bad", curves())
    harm(bad)
    assert main(["report", str(good), str(bad), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert str(bad) in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"labels": ["a"]}, "labels"),
        ({"labels": ["a", "a"]}, "labels"),
        ({"labels": ["a", " "]}, "labels"),
        ({"labels": ["a", "", "b"]}, "labels"),
        ({"last": 0}, "last"),
        ({"last": 4}, "last"),
        ({"until": 100}, "last"),
        ({"until": 0}, "until"),
    ],
)
def test_invalid_report_options_raise_input_errors(tmp_path, options, field):
    runs = [write_run(tmp_path / name, curves()) for name in "xy"]
    with refused(field):
        comparison.read(runs, **options)


def test_runs_with_equal_settings_and_the_same_label_are_combined(tmp_path):
    """One of the two runs is not finished."""
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
    assert any(f"{y}: the report covers 300 of 400" in note for note in comparison.notes([both]))
    write_run(tmp_path / "z", curves(), seeds=[9, 10, 11, 12], tau=0.5)
    with refused("labels"):
        comparison.read([x, tmp_path / "z"], ["sac", "sac"])


def test_report_needs_at_least_one_folder(capsys):
    assert main(["report"]) == 2
    assert "name the runs" in capsys.readouterr().err


def test_report_raises_a_run_error_if_the_disk_is_full(tmp_path, monkeypatch, capsys):
    def full(*_):
        raise OSError(28, "No space left on device")

    run, out = write_run(tmp_path / "a", curves()), tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(files, "write_bytes", full)
        assert main(["report", str(run), "--out", str(out)]) == 3
        assert "No space left" in capsys.readouterr().err
    synced = iter([None, None])
    with monkeypatch.context() as patch:  # fails after the page and one figure
        patch.setattr(files.os, "fsync", lambda _: next(synced, 0) == 0 and full())
        assert main(["report", str(run), "--out", str(out)]) == 3
    assert {path.name for path in out.iterdir()} == {"report.html", "learning_curves.png"}
    assert main(["report", str(run), "--out", str(out)]) == 0


def test_tables_show_more_decimals_for_small_numbers():
    shown = [tables.number(x) for x in (-1234.56, 98.44, 2.614, 0.0312, 0.0)]
    assert shown == ["-1,234.6", "98.4", "2.61", "0.031", "0.000"]
