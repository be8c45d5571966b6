"""A bootstrap over users: how sure a metric is, and how sure it is that one model is better than another.

GAUC and AUC have a resampling of their own here, which computes the ranks once and not per replicate.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from tfctr.metrics.reference import Floats, Impressions, Weighting, check_rows, group_auc, group_weights, grouped
from tfctr.metrics.table import METRICS

BootstrapMetric = Literal["auc", "gauc"]
#: From how often each user is drawn, [users], to the metric.
_Statistic = Callable[[Floats], float]


@dataclass(frozen=True)
class Interval:
    """A metric, and the percentile interval that it lies in; an end is NaN where no replicate could be measured."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class BootstrapResult:
    """The difference `second - first` of a metric, and the interval that it lies in.

    Attributes:
        first: the metric of the first scores on all rows.
        second: the metric of the second scores on all rows.
        difference: second - first.
        low: lower end of the percentile interval of the difference.
        high: upper end.
        p_value: two-sided; the smallest value it can take is 2 / (replicates + 1).
        replicates: resampled data sets that had both classes (AUC) or a valid group (GAUC).
    """

    first: float
    second: float
    difference: float
    low: float
    high: float
    p_value: float
    replicates: int


class _PairCounts:
    """AUC of one score vector under any weights of the users, after one sort.

    A replicate only changes how often a user is counted, and never the ranks. With `C` the running sum of the sorted
    negatives' weights, `AUC = sum_p w_p (C[lower_p] + C[upper_p]) / 2 / (sum_p w_p * C[-1])`.
    """

    def __init__(self, rows: Impressions, users: npt.NDArray[np.int64]):
        scores, labels = rows.scores, rows.labels
        negatives = np.flatnonzero(~labels)[np.argsort(scores[~labels], kind="stable")]
        positives = np.flatnonzero(labels)[np.argsort(scores[labels], kind="stable")]
        self._lower = np.searchsorted(scores[negatives], scores[positives], side="left")
        self._upper = np.searchsorted(scores[negatives], scores[positives], side="right")
        self._negative_users, self._negative_weights = users[negatives], rows.weights[negatives]
        self._positive_users, self._positive_weights = users[positives], rows.weights[positives]

    def auc(self, counts: Floats) -> float:
        below = np.concatenate([[0.0], np.cumsum(counts[self._negative_users] * self._negative_weights)])
        positive = counts[self._positive_users] * self._positive_weights
        pairs = positive.sum() * below[-1]
        if pairs == 0.0:
            return float("nan")
        return float(np.dot(positive, below[self._lower] + below[self._upper]) / 2.0 / pairs)


def bootstrap_difference(
    labels: Any,
    first: Any,
    second: Any,
    groups: Any,
    metric: BootstrapMetric = "gauc",
    weighting: Weighting = "impressions",
    weights: Any = None,
    replicates: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> BootstrapResult:
    """Paired bootstrap over users of the difference of a metric between two score vectors.

    Users are drawn with replacement, as many as there are, each with all of its rows; both score vectors see the same
    draw. GAUC resamples the users' (AUC, weight) pairs, so it costs nothing per row; AUC ranks the rows once and then
    takes O(rows) a replicate (about 10 ms for a million rows).

    Args:
        labels: 0 or 1, [n].
        first: scores of the baseline, [n].
        second: scores of the contender, [n].
        groups: user of every row, [n]. A row without one is drawn by itself, and so is every row if this is None.
        metric: "auc" or "gauc".
        weighting: the group weights of GAUC.
        weights: optional row weights, [n].
        replicates: resampled data sets.
        confidence: mass of the interval, between 0 and 1.
        seed: the same seed gives the same result.

    Raises:
        ValueError: on bad rows or arguments.
    """
    _check(metric, groups, replicates, confidence)
    entry = METRICS[metric]
    options = entry.accepted({"weighting": weighting})
    values = [entry.measure(labels, scores, groups, weights, **options)[0] for scores in (first, second)]
    pair = [_statistic(check_rows(labels, scores, groups, weights), metric, weighting) for scores in (first, second)]
    users, (before, after) = pair[0][0], (statistic for _, statistic in pair)
    differences = _replicates(users, lambda counts: after(counts) - before(counts), replicates, seed)
    low = high = p_value = float("nan")
    if differences.size:
        low, high = _ends(differences, confidence)
        # The observed sample counts as one more replicate, so the p-value is never zero.
        extreme = min(int((differences <= 0).sum()), int((differences >= 0).sum()))
        p_value = min(1.0, 2.0 * (extreme + 1) / (differences.size + 1))
    return BootstrapResult(values[0], values[1], values[1] - values[0], low, high, p_value, int(differences.size))


def bootstrap_interval(
    labels: Any,
    scores: Any,
    groups: Any,
    metric: BootstrapMetric = "gauc",
    weighting: Weighting = "impressions",
    weights: Any = None,
    replicates: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Bootstrap over users of a metric of one score vector.

    The arguments are those of `bootstrap_difference`, with one vector of scores.

    Raises:
        ValueError: on bad rows or arguments.
    """
    _check(metric, groups, replicates, confidence)
    entry = METRICS[metric]
    value = entry.measure(labels, scores, groups, weights, **entry.accepted({"weighting": weighting}))[0]
    users, statistic = _statistic(check_rows(labels, scores, groups, weights), metric, weighting)
    found = _replicates(users, statistic, replicates, seed)
    return Interval(value, *(_ends(found, confidence) if found.size else (float("nan"), float("nan"))))


def _check(metric: str, groups: Any, replicates: int, confidence: float) -> None:
    if metric not in get_args(BootstrapMetric):
        raise ValueError(f"`metric` must be one of {', '.join(get_args(BootstrapMetric))}. Received: {metric!r}.")
    if replicates < 1:
        raise ValueError(f"`replicates` must be at least 1. Received: {replicates}.")
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"`confidence` must be between 0 and 1. Received: {confidence}.")
    if groups is None and METRICS[metric].needs_group:
        raise ValueError(f"`groups` must be given for {metric}. Received: None.")


def _replicates(users: int, statistic: _Statistic, replicates: int, seed: int) -> Floats:
    """The statistic of resampled users, of those draws that have one."""
    generator = np.random.default_rng(seed)
    found = np.empty(replicates)
    for row in range(replicates):
        drawn = generator.integers(0, max(users, 1), users)
        found[row] = statistic(np.bincount(drawn, minlength=users).astype(np.float64))
    return found[~np.isnan(found)]


def _ends(found: Floats, confidence: float) -> tuple[float, float]:
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(found, [tail, 1.0 - tail])
    return float(low), float(high)


def _statistic(rows: Impressions, metric: BootstrapMetric, weighting: Weighting) -> tuple[int, _Statistic]:
    """How many users can be drawn, and the metric of a draw."""
    return _gauc(rows, weighting) if metric == "gauc" else _auc(rows)


def _gauc(rows: Impressions, weighting: Weighting) -> tuple[int, _Statistic]:
    table = group_auc(rows.labels, rows.scores, rows.groups, rows.weights)
    weight = group_weights(table, weighting)
    weighted = weight * np.where(weight > 0, table.auc, 0.0)

    def gauc(counts: Floats) -> float:
        total = np.dot(counts, weight)
        return float(np.dot(counts, weighted) / total) if total > 0 else float("nan")

    return weight.size, gauc


def _auc(rows: Impressions) -> tuple[int, _Statistic]:
    size = rows.scores.size
    groups = np.full(size, np.nan) if rows.groups is None else rows.groups
    known = grouped(groups)
    users = np.arange(size)
    names, users[known] = np.unique(groups[known], return_inverse=True)
    users[~known] = names.size + np.arange(size - known.sum())
    return int(users.max(initial=-1)) + 1, _PairCounts(rows, users).auc
