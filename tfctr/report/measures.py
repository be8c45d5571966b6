"""Metrics of runs with their intervals, as all rows and as slices have them, and how the page writes them."""

from __future__ import annotations

from typing import Any

import numpy as np

from tfctr.metrics.bootstrap import BootstrapMetric, Interval, bootstrap_interval
from tfctr.metrics.report import OVERALL, report
from tfctr.metrics.table import METRICS
from tfctr.report.runs import Run, slices_of

REPLICATES = 400
"""Of each bootstrap."""
UNKNOWN = Interval(float("nan"), float("nan"), float("nan"))
"""Stands for what was not measured."""


def weights_of(run: Run) -> Any:
    """The weights of its rows; 1 where the feature file names none."""
    rows = run.predictions
    return np.ones(len(rows.labels)) if rows.weights is None else rows.weights


def bootstrapped(run: Run) -> list[BootstrapMetric]:
    """The metrics that have intervals."""
    return ["auc"] if run.predictions.groups is None else ["auc", "gauc"]


def measured(run: Run, name: str) -> str:
    """A metric of all rows, with its interval if it has one."""
    rows = run.predictions
    if name in bootstrapped(run):
        return cell(_interval(run, np.ones(len(rows.labels), bool), "gauc" if name == "gauc" else "auc"))
    metric = METRICS[name]
    if metric.needs_group and rows.groups is None:
        return ""
    options = metric.accepted({"weighting": run.weighting})
    return f"{metric.measure(rows.labels, rows.scores, rows.groups, rows.weights, **options)[0]:.4f}"


def _interval(run: Run, chosen: Any, metric: BootstrapMetric) -> Interval:
    rows = run.predictions
    groups = None if rows.groups is None else rows.groups[chosen]
    weights = None if rows.weights is None else rows.weights[chosen]
    return bootstrap_interval(
        rows.labels[chosen], rows.scores[chosen], groups, metric, run.weighting, weights, REPLICATES
    )


def by_slice(run: Run) -> dict[tuple[str, str], dict[str, Interval]]:
    """Intervals by metric of all rows and of each slice, with the number of rows."""
    rows = run.predictions
    columns = {name: rows.slices[name] for name in slices_of(run)}
    texts = {name: np.array([_text(value) for value in column]) for name, column in columns.items()}
    found: dict[tuple[str, str], dict[str, Interval]] = {}
    for row in report(rows.labels, rows.scores, rows.groups, rows.weights, columns, run.weighting):
        everywhere = row.slice == OVERALL
        chosen = np.ones(len(rows.labels), bool) if everywhere else texts[row.slice] == row.value
        measured: dict[str, Interval] = {name: _interval(run, chosen, name) for name in bootstrapped(run)}
        found[row.slice, row.value] = {**measured, "rows": Interval(float(chosen.sum()), np.nan, np.nan)}
    return found


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def slice_name(place: tuple[str, str]) -> str:
    """A slice as the page writes it."""
    return place[0] if place[0] == OVERALL else f"{place[0]}={place[1]}"


def cell(interval: Interval) -> str:
    """A value and its interval as the page writes them."""
    if np.isnan(interval.value):
        return "none"
    if np.isnan(interval.low):
        return f"{interval.value:.4f}"
    return f"{interval.value:.4f} ({interval.low:.4f} to {interval.high:.4f})"
