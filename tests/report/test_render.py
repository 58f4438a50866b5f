"""Test the pictures of `sacjax render`: drawings, an environment's own, and bars."""

import jax
import numpy as np
import pytest
from checks import TINY, refused
from matplotlib import pyplot
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image
from probes import Aim, ChainState

from sacjax import run
from sacjax.config import Config
from sacjax.envs import drawings
from sacjax.envs.gymnax import base_env
from sacjax.report.render import render
from sacjax.types import Episode

PIXELS = np.zeros((40, 60, 3), np.uint8)


def shown(env, obs=((0.5, -1.0), (0.5, -1.0)), states=None):
    """Return the pictures of an episode whose observations are `obs`."""
    obs = np.array(obs)
    states = states or [ChainState(time=i, x=np.array(0.0)) for i in range(len(obs))]
    episode = Episode(states, np.zeros((len(obs), 1)), np.zeros(len(obs)), 0, obs)
    return list(drawings.pictures(env, None, episode))


def own(result, *, with_params=False):
    """Return an environment whose `render` returns `result(state)`."""

    class Own(Aim):
        def render(self, state):
            return result(state)

    class OwnWithParams(Aim):
        def render(self, state, params):
            assert type(params) is type(self.default_params)
            return result(state)

    return OwnWithParams() if with_params else Own()


def test_the_bars_show_only_the_observation():
    first, second = shown(Aim())
    np.testing.assert_array_equal(first, second)  # state.time differs
    first, second = shown(Aim(), [[0.5, -1.0], [0.1, -1.0]])
    assert (first != second).any()
    rows = np.flatnonzero((second == (31, 119, 180)).all(-1).any(1))  # the rows of blue bars
    assert len(rows) > 150  # the bars use the height of the picture


def test_the_scale_of_the_bars_ignores_numbers_that_are_not_finite():
    low, high = drawings._limits(np.array([[1.0, np.nan], [np.inf, 3.0]]))
    assert low < 0
    assert 3 < high < 4


def test_all_frames_of_pendulum_are_drawn_on_one_figure(monkeypatch):
    made = []

    def spy(figure):
        made.append(figure)
        return FigureCanvasAgg(figure)

    monkeypatch.setattr(drawings, "FigureCanvasAgg", spy)
    reset = base_env("Pendulum-v1").reset
    states = [reset(jax.random.key(i))[1] for i in range(2)]
    first, second = shown("Pendulum-v1", states=states)
    assert (first != second).any()
    assert made[0] is made[1]
    assert len(made[0].axes[0].lines) == 2  # those of the last state only


@pytest.mark.parametrize("with_params", [False, True])
def test_a_custom_environment_can_draw_its_own_frames(with_params, tmp_path):
    def draw(state):
        figure, axes = pyplot.subplots(figsize=(2, 1), dpi=100)
        axes.set_title(str(state.time))
        return figure, axes

    for result, size in (lambda state: PIXELS, (60, 40)), (draw, (200, 100)):
        env = own(result, with_params=with_params)
        assert shown(env)[0].shape == (size[1], size[0], 3)
        assert not pyplot.get_fignums()  # pyplot would keep all figures
    done = run(Config(**vars(TINY) | {"env": own(lambda state: PIXELS)}), seeds=1)
    render(done, 0, tmp_path / "own.gif", frames=3)
    with Image.open(tmp_path / "own.gif") as gif:
        assert gif.size == (60, 40)

    def broken(state):
        raise RuntimeError("no wheels")

    done = done._replace(config=Config(**vars(TINY) | {"env": own(broken)}))
    with refused("env") as caught:
        render(done, 0, tmp_path / "own.gif", frames=3)
    assert "no wheels): correct its render(state)" in str(caught.value)


@pytest.mark.parametrize("wrong", [PIXELS / 255, PIXELS[..., 0], None])
def test_render_refuses_a_result_that_is_not_a_picture(wrong):
    with refused("render"):
        shown(own(lambda state: wrong))


def test_render_shows_its_progress_only_in_a_terminal(tmp_path, monkeypatch, capsys):
    done = run(TINY, seeds=1)
    for terminal in (False, True):
        monkeypatch.setattr("sys.stderr.isatty", lambda terminal=terminal: terminal)
        render(done, 0, tmp_path / "policy.gif", frames=2)
        assert ("drawing" in capsys.readouterr().err) == terminal
