"""The one table of metrics, which reports, the Evaluator, thresholds, blessing demands and the command line read.

A new metric is a function and one entry of `_ENTRIES`.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import numpy as np

from tfctr.metrics.reference import auc, calibration, copc, ece, gauc, logloss


class Direction(Enum):
    """Which values of a metric are the better ones, in words."""

    RISING = "more is better"
    FALLING = "less is better"
    NEAREST_ONE = "nearest to one is best"


@dataclass(frozen=True)
class Metric:
    """All that the package knows about one metric.

    Attributes:
        name: what results, experiment files and thresholds call it.
        title: its heading in tables that people read.
        function: takes labels, scores and, with `needs_group`, groups; then `weights` and its options by keyword. It
            returns the value, or with `columns` an object that has the value as `value` and an attribute per column.
        direction: which values are better.
        needs_group: the metric is measured inside groups, and left out where the data has none.
        columns: further columns of the report: attribute -> (heading, the end of its name in the Evaluator's results).
        minimum: the least value over all examples that a blessing needs. The experiment file can change it with the key
            `min_<name>`, and has `max_<name>_fall` beside it. None: there are no such keys and no such demand.
        every_epoch: the metric is measured on the validation split after every epoch.
        printed: the metric is shown in tables that people read.
    """

    name: str
    title: str
    function: Callable[..., Any]
    direction: Direction
    needs_group: bool = False
    columns: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    minimum: float | None = None
    every_epoch: bool = False
    printed: bool = True

    @property
    def rising(self) -> bool:
        """Whether more is better, so that a limit on its fall against another model makes sense."""
        return self.direction is Direction.RISING

    @property
    def options(self) -> tuple[str, ...]:
        """The names of the function's options: its arguments beside the rows."""
        arguments = list(inspect.signature(self.function).parameters)[3 if self.needs_group else 2 :]
        return tuple(name for name in arguments if name != "weights")

    def accepted(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return those of the options that this metric has."""
        return {name: value for name, value in options.items() if name in self.options}

    def check(self, options: Mapping[str, Any]) -> None:
        """Raise a ValueError for an option that the metric does not have, or a value that its function refuses."""
        unknown = [name for name in options if name not in self.options]
        if unknown:
            allowed = ", ".join(self.options) or "none"
            raise ValueError(f"{self.name} has no such option. Allowed: {allowed}. Received: {', '.join(unknown)}.")
        self.measure([], [], **options)

    def measure(
        self, labels: Any, scores: Any, groups: Any = None, weights: Any = None, **options: Any
    ) -> tuple[float, ...]:
        """Return the value, then one number for each of `columns`. The rows are given as in `report`."""
        grouping = [[] if groups is None else groups] if self.needs_group else []
        found = self.function(labels, scores, *grouping, weights=weights, **options)
        return (found.value, *(getattr(found, column) for column in self.columns)) if self.columns else (found,)

    def named(self, *rows: Any, **options: Any) -> dict[str, float]:
        """Return what `measure` does, the value under the metric's name and each column under its own."""
        return dict(zip((self.name, *self.columns), self.measure(*rows, **options), strict=True))


_GROUPS = {
    "groups_used": ("groups used", "groups"),
    "groups_skipped": ("skipped", "groups_skipped"),
    "coverage": ("coverage", "coverage"),
    "ungrouped": ("ungrouped", "ungrouped"),
}


def _examples(labels: Any, scores: Any, *, weights: Any = None) -> int:
    """How many rows count: those of a weight above 0."""
    return len(labels) if weights is None else int((np.asarray(weights) > 0).sum())


_ENTRIES = (
    Metric("auc", "AUC", auc, Direction.RISING, minimum=0.5, every_epoch=True),
    Metric("gauc", "GAUC", gauc, Direction.RISING, needs_group=True, columns=_GROUPS, minimum=0.5, every_epoch=True),
    Metric("logloss", "logloss", logloss, Direction.FALLING, every_epoch=True),
    Metric("copc", "COPC", copc, Direction.NEAREST_ONE),
    Metric("ece", "ECE", ece, Direction.FALLING),
    Metric("examples", "examples", _examples, Direction.RISING, printed=False),
    # The inverse of COPC, which would tell a reader of the same table nothing new.
    Metric("calibration", "calibration", calibration, Direction.NEAREST_ONE, printed=False),
)
METRICS: dict[str, Metric] = {metric.name: metric for metric in _ENTRIES}
"""Every metric by its name."""


def metric_named(name: str) -> Metric:
    """Return the metric of that name, or raise a ValueError that lists the known names."""
    if name not in METRICS:
        raise ValueError(f"there is no such metric. Allowed: {', '.join(METRICS)}. Received: {name!r}.")
    return METRICS[name]


def measurable(grouped: bool) -> list[Metric]:
    """Return the metrics that data with or without groups allows."""
    return [metric for metric in METRICS.values() if grouped or not metric.needs_group]
