"""The statistics of Agarwal et al. 2021, "Deep RL at the Edge of the Statistical Precipice".

arXiv:2108.13264: interquartile means (IQM: the mean of the middle half), performance profiles and
probabilities of improvement, each with its 95% percentile bootstrap interval over seeds. The
formulas are rliable's, and `tests/test_statistics.py` holds them to its numbers.

Of several environments, `scores` has an array [S] for each, a score per seed; S may differ. Their
bootstrap is stratified: every environment's seeds are drawn again on their own.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

RESAMPLES = 2_000  # as rliable draws for profiles and for the improvement
_HELD = 10_000_000  # numbers that a bootstrap holds at once
Scores = Sequence[np.ndarray]


class Estimate(NamedTuple):
    """A statistic and the ends of its 95% interval; NaN where one seed alone has none."""

    value: Any
    low: Any
    high: Any


def iqm(x: np.ndarray, axis: int = 0) -> np.ndarray:
    """Interquartile mean along `axis`."""
    from scipy import stats  # half a second to import, and needed only at the end of a run

    return stats.trim_mean(x, 0.25, axis=axis)


def interval(
    x: np.ndarray, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Ends of the 95% bootstrap interval of the IQM over the first axis [S, ...] -> [...], [...].

    NaN for a single seed, which says nothing of its spread.
    """
    x = np.asarray(x, float)
    if len(x) < 2:
        return np.full(x.shape[1:], np.nan), np.full(x.shape[1:], np.nan)
    picks = np.random.default_rng(seed).integers(len(x), size=(resamples, len(x)))
    columns, most = x.reshape(len(x), -1), max(1, _HELD // picks.size)
    ends = [  # few columns at once: a long run of many seeds would take gigabytes
        np.percentile(iqm(columns[:, i : i + most][picks], axis=1), [2.5, 97.5], axis=0)
        for i in range(0, max(columns.shape[1], 1), most)
    ]
    low, high = np.concatenate(ends, axis=1).reshape(2, *x.shape[1:])
    return low, high


def aggregate_iqm(scores: Scores) -> Estimate:
    """Interquartile mean of all scores, each counted once (section 4.3)."""
    rng = np.random.default_rng(0)
    drawn = [x[rng.integers(len(x), size=(RESAMPLES, len(x)))] for x in scores]  # [R, S] each
    value = iqm(np.concatenate(scores))
    return _estimate(value, iqm(np.concatenate(drawn, axis=1), axis=1), scores)


def performance_profile(scores: Scores, taus: np.ndarray) -> Estimate:
    """Fraction of scores above each tau [T], averaged over environments (section 4.2)."""
    rng = np.random.default_rng(0)
    above = [(x[:, None] > taus).astype(float) for x in scores]  # [S, T]
    value = np.mean([a.mean(0) for a in above], axis=0)
    drawn = np.mean([_weights(rng, len(a)) @ a for a in above], axis=0)  # [R, T]
    return _estimate(value, drawn, scores)


def probability_of_improvement(x: Scores, y: Scores) -> Estimate:
    """P(X > Y) for seeds drawn at random, ties half, averaged over environments (section 4.3).

    In each environment it is Mann-Whitney's U over the number of pairs.
    """
    rng = np.random.default_rng(0)
    value, drawn = [], []
    for a, b in zip(x, y, strict=True):
        wins = (a[:, None] > b) + 0.5 * (a[:, None] == b)  # [Sx, Sy]
        value.append(wins.mean())
        drawn.append(((_weights(rng, len(a)) @ wins) * _weights(rng, len(b))).sum(1))  # [R]
    return _estimate(np.mean(value), np.mean(drawn, axis=0), [*x, *y])


def normalised(scores: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """One environment's scores with the lowest of all that are shown at 0 and the highest at 1."""
    everything = np.concatenate(list(scores.values()))
    low, high = everything.min(), everything.max()
    return {label: (x - low) / (high - low if high > low else 1) for label, x in scores.items()}


def _weights(rng: np.random.Generator, n: int) -> np.ndarray:
    """Bootstrap weights [R, n]: how often each of n seeds is drawn in n draws, over n."""
    return rng.multinomial(n, np.full(n, 1 / n), size=RESAMPLES) / n


def _estimate(value: Any, drawn: np.ndarray, scores: Scores) -> Estimate:
    """The percentile bootstrap over the first axis of `drawn`."""
    if min(len(x) for x in scores) < 2:  # a single seed says nothing of its spread
        return Estimate(value, np.full_like(value, np.nan), np.full_like(value, np.nan))
    return Estimate(value, *np.percentile(drawn, [2.5, 97.5], axis=0))
