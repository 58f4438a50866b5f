"""Statistics over seeds, from the paper "Deep RL at the Edge of the Statistical Precipice".

The paper (arXiv:2108.13264) recommends interquartile means, performance profiles and probabilities
of improvement. The interquartile mean (IQM) is the mean of the middle half of the scores. Each
statistic has a 95% percentile bootstrap interval over seeds. The formulas are those of the package
rliable, and `tests/test_statistics.py` compares the results with those of rliable.

`scores` is a list with one array [S] per environment. Each array contains one score per seed. The
number S of seeds may differ between environments. The bootstrap is stratified, so it resamples the
seeds of each environment separately.

An interval needs at least 5 seeds in every environment (`LEAST_SEEDS`). With 2 to 4 seeds, the
interval would always reach from the worst to the best score. For example, 4 seeds have 256
resamples, and 13 of these resamples (5.1%) have the worst score as IQM. A 95% interval omits only
the lowest 2.5% of the IQMs, so the lower end would be the worst score. With 5 seeds, only 0.7% of
the resamples have the worst score as IQM, so the interval depends on all scores. If scores are
normally distributed, the interval contains the true IQM in 50% of cases with 2 seeds, 74% with 3
seeds, 87% with 4 seeds, 90% with 5 seeds and 93% with 8 seeds.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

RESAMPLES = 2_000  # rliable's default for profiles and probabilities of improvement
LEAST_SEEDS = 5  # an interval needs at least this many seeds
_HELD = 10_000_000  # a bootstrap keeps at most this many numbers in memory
Scores = Sequence[np.ndarray]


class Estimate(NamedTuple):
    """A statistic with its 95% interval.

    Attributes:
      value: the statistic.
      low: lower end of the interval; NaN if an environment has fewer than `LEAST_SEEDS` seeds.
      high: upper end of the interval; NaN if an environment has fewer than `LEAST_SEEDS` seeds.
    """

    value: Any
    low: Any
    high: Any


def iqm(x: np.ndarray, axis: int = 0) -> np.ndarray:
    """Return the interquartile mean along `axis`, the mean of the middle half of the scores.

    Args:
      x: scores of any shape.
      axis: the axis of the seeds.

    Returns:
      An array of means. Its shape is the shape of `x` without the axis `axis`.

    Example:
      >>> import numpy as np
      >>> from sacjax import statistics
      >>> float(statistics.iqm(np.array([100.0, 1, 2, 3, 4, 5, 6, -100])))
      3.5
    """
    from scipy import stats  # imported here, because the import takes half a second

    return stats.trim_mean(x, 0.25, axis=axis)


def interval(
    x: np.ndarray, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Return the 95% bootstrap interval of the IQM over seeds.

    Args:
      x: scores [S, ...], with the seeds on the first axis.
      resamples: number of bootstrap samples.
      seed: seed of the random numbers. The same seed and scores give the same interval.

    Returns:
      The lower and the upper ends of the intervals, or NaN if S is less than `LEAST_SEEDS`.

    Example:
      >>> import numpy as np
      >>> from sacjax import statistics
      >>> low, high = statistics.interval(np.arange(80.0).reshape(8, 10))
      >>> low.shape
      (10,)
    """
    x = np.asarray(x, float)
    if len(x) < LEAST_SEEDS:
        return np.full(x.shape[1:], np.nan), np.full(x.shape[1:], np.nan)
    picks = np.random.default_rng(seed).integers(len(x), size=(resamples, len(x)))
    columns, most = x.reshape(len(x), -1), max(1, _HELD // picks.size)
    ends = [  # a few columns at a time, because a long run has gigabytes of resamples
        np.percentile(iqm(columns[:, i : i + most][picks], axis=1), [2.5, 97.5], axis=0)
        for i in range(0, max(columns.shape[1], 1), most)
    ]
    low, high = np.concatenate(ends, axis=1).reshape(2, *x.shape[1:])
    return low, high


def aggregate_iqm(scores: Scores) -> Estimate:
    """Return the interquartile mean over all seeds of all environments (section 4.3).

    Args:
      scores: one array [S] per environment.

    Returns:
      An Estimate whose fields are numbers.

    Example:
      >>> import numpy as np
      >>> from sacjax import statistics
      >>> float(statistics.aggregate_iqm([np.array([1.0, 2.0]), np.array([3.0, 4.0])]).value)
      2.5
    """
    rng = np.random.default_rng(0)
    drawn = [x[rng.integers(len(x), size=(RESAMPLES, len(x)))] for x in scores]  # [R, S] each
    value = iqm(np.concatenate(scores))
    return _estimate(value, iqm(np.concatenate(drawn, axis=1), axis=1), scores)


def performance_profile(scores: Scores, taus: np.ndarray) -> Estimate:
    """Return the fraction of scores above each threshold, averaged over environments (section 4.2).

    Args:
      scores: one array [S] per environment.
      taus: thresholds [T].

    Returns:
      An Estimate whose fields are arrays [T].

    Example:
      >>> import numpy as np
      >>> from sacjax import statistics
      >>> scores = [np.array([1.0, 2.0]), np.array([3.0, 4.0])]
      >>> statistics.performance_profile(scores, taus=np.array([1.5, 3.5])).value.tolist()
      [0.75, 0.25]
    """
    rng = np.random.default_rng(0)
    above = [(x[:, None] > taus).astype(float) for x in scores]  # [S, T]
    value = np.mean([a.mean(0) for a in above], axis=0)
    drawn = np.mean([_weights(rng, len(a)) @ a for a in above], axis=0)  # [R, T]
    return _estimate(value, drawn, scores)


def probability_of_improvement(x: Scores, y: Scores) -> Estimate:
    """Return the probability that X scores higher than Y, averaged over environments (section 4.3).

    For one environment, the probability is P(X > Y) + P(X = Y) / 2, where X and Y are the scores of
    two random seeds. The probability equals Mann-Whitney's U divided by the number of pairs.

    Args:
      x: scores of X, one array [S] per environment.
      y: scores of Y, one array [S] per environment, with environments in the order of `x`. X and Y
        may have different numbers of seeds.

    Returns:
      An Estimate whose fields are numbers in [0, 1].

    Example:
      >>> import numpy as np
      >>> from sacjax import statistics
      >>> x, y = [np.array([1.0, 3.0])], [np.array([2.0, 3.0])]
      >>> float(statistics.probability_of_improvement(x, y).value)
      0.375
    """
    rng = np.random.default_rng(0)
    value, drawn = [], []
    for a, b in zip(x, y, strict=True):
        wins = (a[:, None] > b) + 0.5 * (a[:, None] == b)  # [Sx, Sy]
        value.append(wins.mean())
        drawn.append(((_weights(rng, len(a)) @ wins) * _weights(rng, len(b))).sum(1))  # [R]
    return _estimate(np.mean(value), np.mean(drawn, axis=0), [*x, *y])


def normalised(scores: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Rescale one environment's scores so that the lowest score is 0 and the highest is 1.

    Args:
      scores: a dictionary from the label of each run to the scores [S] of the run.

    Returns:
      A dictionary from the labels of the runs to the rescaled scores. If all scores are equal, the
      rescaled scores are 0.

    Example:
      >>> import numpy as np
      >>> from sacjax import statistics
      >>> found = statistics.normalised({"a": np.array([1.0, 3.0]), "b": np.array([5.0])})
      >>> found["a"].tolist(), found["b"].tolist()
      ([0.0, 0.5], [1.0])
    """
    everything = np.concatenate(list(scores.values()))
    low, high = everything.min(), everything.max()
    return {label: (x - low) / (high - low if high > low else 1) for label, x in scores.items()}


def _weights(rng: np.random.Generator, n: int) -> np.ndarray:
    """Draw bootstrap weights [R, n], which are the counts of n seeds in n draws, divided by n."""
    return rng.multinomial(n, np.full(n, 1 / n), size=RESAMPLES) / n


def _estimate(value: Any, drawn: np.ndarray, scores: Scores) -> Estimate:
    """Return `value` with its 95% interval, from the bootstrap samples `drawn` [R, ...]."""
    if min(len(x) for x in scores) < LEAST_SEEDS:
        return Estimate(value, np.full_like(value, np.nan), np.full_like(value, np.nan))
    return Estimate(value, *np.percentile(drawn, [2.5, 97.5], axis=0))
