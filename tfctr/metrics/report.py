"""The metrics of a data set, overall and by slice, as rows of a table."""

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np

from tfctr.metrics.reference import Weighting, grouped
from tfctr.metrics.table import measurable

#: The name of the slice that holds all rows.
OVERALL = "overall"


class ReportRow(SimpleNamespace):
    """The metrics of one slice: `slice` is the column ("overall" for all rows), `value` what the column holds there.

    Every metric of the table that was measured is an attribute (`auc`), and so are its further columns (`groups_used`).
    """

    slice: str
    value: str
    examples: int
    clicks: int


def report(
    labels: Any,
    scores: Any,
    groups: Any,
    weights: Any = None,
    slices: Mapping[str, Any] | None = None,
    weighting: Weighting = "impressions",
) -> list[ReportRow]:
    """Return the metrics of the table, overall and for every value of every slice column.

    Args:
        labels: 0 or 1, [n].
        scores: probabilities, [n].
        groups: user of every row, [n]; None leaves out the metrics that need groups.
        weights: optional, [n].
        slices: column name -> values [n]; the groups of a slice are the groups of its rows only. A row without a value
            is in no slice of that column.
        weighting: the weight of a group in grouped metrics.

    Returns:
        The overall row first, then the slices in the order given, their values ascending.

    Raises:
        ValueError: on bad rows or a column of another length.
    """
    flat = {"labels": np.asarray(labels).reshape(-1), "scores": np.asarray(scores).reshape(-1)}
    flat["weights"] = np.ones(flat["labels"].shape) if weights is None else np.asarray(weights).reshape(-1)
    if groups is not None:
        flat["groups"] = np.asarray(groups).reshape(-1)
    size = flat["labels"].size
    rows = [_row(OVERALL, "", flat, weighting)]
    for name, column in (slices or {}).items():
        values = np.asarray(column).reshape(-1)
        if values.size != size:
            raise ValueError(f"slice `{name}` must have one value per label. Received: {values.size}, not {size}.")
        # As in the Evaluator, a row without a value is in no slice. What is missing is the same in slices and groups.
        valued = np.flatnonzero(grouped(values))
        names, codes = np.unique(values[valued], return_inverse=True)
        # One sort for the column instead of one comparison of the whole column per value.
        order = np.argsort(codes, kind="stable")
        edges = np.searchsorted(codes[order], np.arange(names.size + 1))
        for index, value in enumerate(names):
            chosen = valued[order[edges[index] : edges[index + 1]]]
            rows.append(_row(name, _text(value), {key: array[chosen] for key, array in flat.items()}, weighting))
    return rows


def ungrouped_line(count: float) -> str:
    """The sentence about rows without a group, which every command prints that prints a GAUC."""
    return f"{count:,.0f} rows have no group and are left out of GAUC"


def _row(name: str, value: str, rows: dict[str, Any], weighting: Weighting) -> ReportRow:
    counted = rows["weights"] > 0
    numbers: dict[str, float] = {}
    for metric in measurable(grouped="groups" in rows):
        numbers |= metric.named(**rows, **metric.accepted({"weighting": weighting}))
    clicks = int((rows["labels"][counted] == 1).sum())
    return ReportRow(slice=name, value=value, clicks=clicks, **numbers)


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
