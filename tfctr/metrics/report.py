"""The metrics of a data set, overall and by slice, as rows of a table."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfctr.metrics.reference import Weighting, auc, copc, ece, gauc, logloss

#: The name of the slice that holds all rows.
OVERALL = "overall"


@dataclass(frozen=True)
class ReportRow:
    """Metrics of one slice: `slice` is the column ("overall" for all rows), `value` what the column holds there."""

    slice: str
    value: str
    examples: int
    clicks: int
    auc: float
    gauc: float
    logloss: float
    copc: float
    ece: float
    groups_used: int
    groups_skipped: int
    coverage: float


def report(
    labels: Any,
    scores: Any,
    groups: Any,
    weights: Any = None,
    slices: Mapping[str, Any] | None = None,
    weighting: Weighting = "impressions",
) -> list[ReportRow]:
    """Return AUC, GAUC, log loss, COPC and ECE overall and for every value of every slice column.

    Args:
        labels: 0 or 1, [n].
        scores: probabilities, [n].
        groups: user of every row, [n].
        weights: optional, [n].
        slices: column name -> values [n]; the groups of a slice are the groups of its rows only.
        weighting: the group weights of GAUC.

    Returns:
        The overall row first, then the slices in the order given, their values ascending.

    Raises:
        ValueError: on bad rows or a column of another length.
    """
    flat = [np.asarray(array).reshape(-1) for array in (labels, scores, groups)]
    flat.append(np.ones(flat[0].shape) if weights is None else np.asarray(weights).reshape(-1))
    rows = [_row(OVERALL, "", flat, weighting)]
    for name, column in (slices or {}).items():
        values = np.asarray(column).reshape(-1)
        if values.shape != flat[0].shape:
            raise ValueError(
                f"slice `{name}` must have one value per label. Received: {values.size}, not {flat[0].size}."
            )
        names, codes = np.unique(values, return_inverse=True)
        # One sort for the column instead of one comparison of the whole column per value.
        order = np.argsort(codes, kind="stable")
        edges = np.searchsorted(codes[order], np.arange(names.size + 1))
        for index, value in enumerate(names):
            chosen = order[edges[index] : edges[index + 1]]
            rows.append(_row(name, _text(value), [array[chosen] for array in flat], weighting))
    return rows


def _row(name: str, value: str, columns: list[Any], weighting: Weighting) -> ReportRow:
    labels, scores, groups, weights = columns
    grouped = gauc(labels, scores, groups, weighting, weights)
    counted = np.asarray(weights) > 0
    return ReportRow(
        slice=name,
        value=value,
        examples=int(counted.sum()),
        clicks=int((labels[counted] == 1).sum()),
        auc=auc(labels, scores, weights),
        gauc=grouped.value,
        logloss=logloss(labels, scores, weights),
        copc=copc(labels, scores, weights),
        ece=ece(labels, scores, weights),
        groups_used=grouped.groups_used,
        groups_skipped=grouped.groups_skipped,
        coverage=grouped.coverage,
    )


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
