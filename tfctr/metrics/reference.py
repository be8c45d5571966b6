"""Ranking and calibration metrics in NumPy: the definitions that `tfctr.metrics.table` lists and all else calls.

Conventions, the same for every function here:

* rows are columns of one length, [n]: `labels`, 0 or 1; `scores`, of which only the order counts, or `probabilities`;
  `groups`, the user or request of a row, integers or strings; and optional `weights`;
* ties count one half, so the order of the input never changes a result;
* a weight of zero takes a row out of the data, negative weights are refused;
* a row whose group is missing ("", NaN or the smallest int64) is in no group: what groups rows leaves it out;
* a value that is not defined (one class only, no valid group) is NaN, never 0 and never 0.5;
* arithmetic is float64.
"""

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

Weighting = Literal["impressions", "clicks", "uniform"]
"""What a group counts in GAUC: its impressions, its clicks, or one."""
Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]

#: Probabilities are clipped to [CLIP, 1 - CLIP] before a logarithm: a certain and wrong prediction costs 16.1 nats.
CLIP = 1e-7
#: What a row without a group holds, by the kind of the array. TensorFlow's strings are objects of type bytes.
NO_GROUP: dict[str, tuple[Any, ...]] = {
    "i": (np.iinfo(np.int64).min,),
    "S": (b"",),
    "U": ("",),
    "O": (b"", "", np.iinfo(np.int64).min),
}
#: Bins of the expected calibration error.
ECE_BINS = 20


@dataclass(frozen=True)
class Impressions:
    """Checked rows: labels bool [n], scores float64 [n], weights float64 [n] (all positive), groups [n] or None."""

    labels: npt.NDArray[np.bool_]
    scores: Floats
    weights: Floats
    groups: Array | None = None


@dataclass(frozen=True)
class GroupAuc:
    """AUC of every group.

    Attributes:
        groups: the groups, ascending, [g].
        auc: NaN where a group has one class only, [g].
        impressions: sum of the weights of the group's rows, [g].
        clicks: sum of the weights of its positives, [g].
        ungrouped: the weights of the rows without a group, [r].
    """

    groups: Array
    auc: Floats
    impressions: Floats
    clicks: Floats
    ungrouped: Floats


@dataclass(frozen=True)
class GaucResult:
    """GAUC and what it rests on.

    Attributes:
        value: the weighted mean of the groups' AUCs; NaN when no group has both classes.
        groups_used: groups with both classes.
        groups_skipped: groups with one class only; they are in neither the numerator nor the denominator.
        coverage: impressions of the used groups over all impressions; NaN without impressions.
        ungrouped: rows without a group, which are left out too.
    """

    value: float
    groups_used: int
    groups_skipped: int
    coverage: float
    ungrouped: int


def check_rows(labels: Any, scores: Any, groups: Any = None, weights: Any = None) -> Impressions:
    """Return the rows as flat arrays of one length, without the rows of weight zero.

    Raises:
        ValueError: on lengths that differ, a label other than 0 and 1, a NaN score, a negative or infinite weight.
    """
    label_values = np.asarray(labels).reshape(-1)
    score_values = _column(scores, "scores", label_values.size).astype(np.float64)
    positive = label_values == 1
    other = ~(positive | (label_values == 0))
    if other.any():
        row = int(np.argmax(other))
        raise ValueError(f"`labels` must be 0 or 1. Received: {label_values[row]!r} in row {row}.")
    missing = np.isnan(score_values)
    if missing.any():
        raise ValueError(
            f"`scores` must not be NaN. Received: {int(missing.sum())} NaN, the first in row {int(np.argmax(missing))}."
        )
    group_values = None if groups is None else _column(groups, "groups", label_values.size)
    if weights is None:
        return Impressions(positive, score_values, np.ones(score_values.shape), group_values)
    weight_values = _column(weights, "weights", label_values.size).astype(np.float64)
    if not (np.isfinite(weight_values) & (weight_values >= 0)).all():
        raise ValueError("`weights` must be finite and not negative. Received: a weight that is not.")
    keep = weight_values > 0
    if keep.all():
        return Impressions(positive, score_values, weight_values, group_values)
    return Impressions(
        positive[keep], score_values[keep], weight_values[keep], None if group_values is None else group_values[keep]
    )


def grouped(groups: Array) -> npt.NDArray[np.bool_]:
    """Return which rows have a group, [n]."""
    known = ~np.isnan(groups) if groups.dtype.kind == "f" else np.ones(groups.shape, np.bool_)
    for missing in NO_GROUP.get(groups.dtype.kind, ()):
        known &= groups != missing
    return known


def _column(values: Any, name: str, size: int) -> Array:
    column = np.asarray(values).reshape(-1)
    if column.size != size:
        raise ValueError(f"`{name}` must have one value per label. Received: {column.size} values, {size} labels.")
    return column


def auc(labels: Any, scores: Any, weights: Any = None) -> float:
    """Area under the ROC curve, exact: `P(s+ > s-) + P(s+ = s-) / 2`.

    Every pair of a positive and a negative counts the product of their weights. NaN when one class is missing.
    """
    rows = check_rows(labels, scores, weights=weights)
    negative_scores = rows.scores[~rows.labels]
    order = np.argsort(negative_scores, kind="stable")
    negative_scores = negative_scores[order]
    below = np.concatenate([[0.0], np.cumsum(rows.weights[~rows.labels][order])])
    positive_scores, positive_weights = rows.scores[rows.labels], rows.weights[rows.labels]
    pairs = positive_weights.sum() * below[-1]
    if pairs == 0.0:
        return float("nan")
    # A sorted left side keeps searchsorted in cache: several times faster on a million rows.
    order = np.argsort(positive_scores, kind="stable")
    positive_scores, positive_weights = positive_scores[order], positive_weights[order]
    lower = np.searchsorted(negative_scores, positive_scores, side="left")
    upper = np.searchsorted(negative_scores, positive_scores, side="right")
    return float(np.dot(positive_weights, below[lower] + below[upper]) / 2.0 / pairs)


def group_auc(labels: Any, scores: Any, groups: Any, weights: Any = None) -> GroupAuc:
    """AUC of every group in one sort over all rows."""
    rows = check_rows(labels, scores, groups, weights)
    if rows.groups is None:
        raise ValueError("`groups` must be given. Received: None.")
    known = grouped(rows.groups)
    ungrouped = rows.weights[~known]
    names, codes = np.unique(rows.groups[known], return_inverse=True)
    empty = np.zeros(0)
    if names.size == 0:
        return GroupAuc(names, empty, empty, empty, ungrouped)
    scores, positives, weight = rows.scores[known], rows.labels[known], rows.weights[known]
    order = np.lexsort((scores, codes))
    codes, ordered_scores, weight = codes[order], scores[order], weight[order]
    positive = np.where(positives[order], weight, 0.0)
    negative = weight - positive
    new_group = np.concatenate([[True], codes[1:] != codes[:-1]])
    # A block is a run of equal scores inside one group: all its pairs are ties.
    block_starts = np.flatnonzero(new_group | np.concatenate([[True], ordered_scores[1:] != ordered_scores[:-1]]))
    block_positive = np.add.reduceat(positive, block_starts)
    block_negative = np.add.reduceat(negative, block_starts)
    group_starts = np.searchsorted(block_starts, np.flatnonzero(new_group))
    negatives = np.add.reduceat(block_negative, group_starts)
    clicks = np.add.reduceat(block_positive, group_starts)
    before = np.cumsum(block_negative) - block_negative
    before -= before[group_starts][codes[block_starts]]
    wins = np.add.reduceat(block_positive * (before + block_negative / 2.0), group_starts)
    pairs = clicks * negatives
    values = np.divide(wins, pairs, out=np.full(pairs.shape, np.nan), where=pairs > 0)
    return GroupAuc(names, values, clicks + negatives, clicks, ungrouped)


def group_weights(groups: GroupAuc, weighting: Weighting) -> Floats:
    """Weight of every group in GAUC, [g]; zero for groups with one class only."""
    if weighting not in get_args(Weighting):
        raise ValueError(f"`weighting` must be one of {', '.join(get_args(Weighting))}. Received: {weighting!r}.")
    by_name = {"impressions": groups.impressions, "clicks": groups.clicks, "uniform": np.ones(groups.auc.shape)}
    return np.where(np.isnan(groups.auc), 0.0, by_name[weighting])


def gauc(
    labels: Any, scores: Any, groups: Any, weighting: Weighting = "impressions", weights: Any = None
) -> GaucResult:
    """Grouped AUC: `sum_g w_g AUC_g / sum_g w_g` over the groups with both classes.

    `weighting` chooses `w_g`: the group's impressions (DIN), its clicks, or 1 for every group (a plain mean). With
    `weights`, impressions and clicks are sums of weights. Rows without a group are left out and counted.

    References:
        Zhou et al., Deep Interest Network for Click-Through Rate Prediction, section 6.3.
    """
    table = group_auc(labels, scores, groups, weights)
    used = ~np.isnan(table.auc)
    weight = group_weights(table, weighting)
    total = weight.sum()
    value = float(np.dot(weight[used], table.auc[used]) / total) if total > 0 else float("nan")
    all_impressions = table.impressions.sum() + table.ungrouped.sum()
    coverage = float(table.impressions[used].sum() / all_impressions) if all_impressions > 0 else float("nan")
    return GaucResult(value, int(used.sum()), int((~used).sum()), coverage, table.ungrouped.size)


def logloss(labels: Any, probabilities: Any, weights: Any = None, clip: float = CLIP) -> float:
    """Weighted mean of `-(y ln p + (1 - y) ln(1 - p))` with p clipped to [clip, 1 - clip]; NaN without rows."""
    rows = check_rows(labels, probabilities, weights=weights)
    if rows.scores.size == 0:
        return float("nan")
    p = np.clip(rows.scores, clip, 1.0 - clip)
    return float(np.average(-np.log(np.where(rows.labels, p, 1.0 - p)), weights=rows.weights))


def normalized_entropy(labels: Any, probabilities: Any, weights: Any = None, clip: float = CLIP) -> float:
    """Log loss over the entropy of the mean label: below 1 beats predicting the mean; NaN with one class only.

    References:
        He et al., Practical Lessons from Predicting Clicks on Ads at Facebook, section 3.
    """
    rows = check_rows(labels, probabilities, weights=weights)
    if rows.scores.size == 0:
        return float("nan")
    rate = float(np.average(rows.labels, weights=rows.weights))
    if rate in (0.0, 1.0):
        return float("nan")
    entropy = -(rate * np.log(rate) + (1.0 - rate) * np.log(1.0 - rate))
    return logloss(labels, probabilities, weights, clip) / float(entropy)


def copc(labels: Any, probabilities: Any, weights: Any = None) -> float:
    """Clicks over predicted clicks, `sum y / sum p`: above 1 the model promises too little; NaN when `sum p` is 0."""
    rows = check_rows(labels, probabilities, weights=weights)
    predicted = float(np.dot(rows.weights, rows.scores))
    return float(np.dot(rows.weights, rows.labels)) / predicted if predicted else float("nan")


def calibration(labels: Any, probabilities: Any, weights: Any = None) -> float:
    """Predicted clicks over clicks, `sum p / sum y`, as TFMA's metric of that name has it; NaN without clicks."""
    rows = check_rows(labels, probabilities, weights=weights)
    clicks = float(np.dot(rows.weights, rows.labels))
    return float(np.dot(rows.weights, rows.scores)) / clicks if clicks else float("nan")


def ece(labels: Any, probabilities: Any, weights: Any = None, bins: int = ECE_BINS) -> float:
    """Expected calibration error over bins of equal mass: `sum_k (n_k / n) |mean y_k - mean p_k|`.

    A run of equal predictions goes as a whole to the bin of its middle, so the order of the rows does not matter. With
    `weights` the bins hold equal sums of weights.
    """
    if bins < 1:
        raise ValueError(f"`bins` must be at least 1. Received: {bins}.")
    rows = check_rows(labels, probabilities, weights=weights)
    if rows.scores.size == 0:
        return float("nan")
    values, codes = np.unique(rows.scores, return_inverse=True)
    mass = np.bincount(codes, rows.weights, values.size)
    gap = np.bincount(codes, rows.weights * (rows.labels - rows.scores), values.size)
    total = mass.sum()
    middle = (np.cumsum(mass) - mass / 2.0) / total
    chosen = np.minimum((middle * bins).astype(np.int64), bins - 1)
    return float(np.abs(np.bincount(chosen, gap, bins)).sum() / total)


def relative_improvement(model_auc: float, base_auc: float) -> float:
    """RelaImpr in percent: `((AUC_model - 0.5) / (AUC_base - 0.5) - 1) * 100`; NaN when the base is 0.5.

    Not the difference in points, which papers also print under the same sign.

    References:
        Zhou et al., Deep Interest Network for Click-Through Rate Prediction, equation 11.
    """
    if base_auc == 0.5:
        return float("nan")
    return ((model_auc - 0.5) / (base_auc - 0.5) - 1.0) * 100.0
