"""The one table of metrics: reports, the Evaluator, thresholds, demands and the command line all follow from it.

A new metric is a function and one entry of `METRICS`.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

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
        function: takes labels, scores and, with `needs_group`, groups; then `weights` and its options by keyword. It
            returns the value, or with `columns` an object that has the value as `value` and an attribute per column.
        direction: which values are better.
        title: its heading in tables that people read; by default the name.
        needs_group: it is measured inside groups, and left out where the data has none.
        columns: what the report holds beside the value, by name, with the heading of each.
        least: the smallest value over all examples with which a model is blessed, unless the experiment file says
            otherwise: `min_<name>` and `max_<name>_fall` are keys of it then. None makes no such demand.
        every_epoch: it is measured on the validation split after every epoch.
        printed: it stands in tables that people read.
    """

    name: str
    function: Callable[..., Any]
    direction: Direction
    title: str = ""
    needs_group: bool = False
    columns: Mapping[str, str] = field(default_factory=dict)
    least: float | None = None
    every_epoch: bool = False
    printed: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "title", self.title or self.name)

    @property
    def rising(self) -> bool:
        """Whether more is better, so that a fall against another model is a loss."""
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
        """Raise a ValueError on an option that the metric has not, or a value that its function refuses."""
        unknown = [name for name in options if name not in self.options]
        if unknown:
            allowed = ", ".join(self.options) or "none"
            raise ValueError(f"{self.name} has no such option. Allowed: {allowed}. Received: {', '.join(unknown)}.")
        self.measure([], [], **options)

    def measure(
        self, labels: Any, scores: Any, groups: Any = None, weights: Any = None, **options: Any
    ) -> tuple[float, ...]:
        """Return the value, and after it one number per column.

        Args:
            labels: 0 or 1, [n].
            scores: probabilities, [n].
            groups: the group of every row, [n]; not read by a metric that needs none.
            weights: optional, [n].
            options: keyword arguments of the function.

        Raises:
            ValueError: on bad rows or a bad option.
        """
        grouping = [[] if groups is None else groups] if self.needs_group else []
        found = self.function(labels, scores, *grouping, weights=weights, **options)
        return (found.value, *(getattr(found, column) for column in self.columns)) if self.columns else (found,)


_ENTRIES = (
    Metric("auc", auc, Direction.RISING, "AUC", least=0.5, every_epoch=True),
    Metric(
        "gauc",
        gauc,
        Direction.RISING,
        "GAUC",
        needs_group=True,
        columns={"groups_used": "users used", "groups_skipped": "skipped", "coverage": "coverage"},
        least=0.5,
        every_epoch=True,
    ),
    Metric("logloss", logloss, Direction.FALLING, every_epoch=True),
    Metric("copc", copc, Direction.NEAREST_ONE, "COPC"),
    Metric("ece", ece, Direction.FALLING, "ECE"),
    # The inverse of COPC, which would tell a reader of the same table nothing new.
    Metric("calibration", calibration, Direction.NEAREST_ONE, printed=False),
)
#: Every metric by its name.
METRICS: dict[str, Metric] = {metric.name: metric for metric in _ENTRIES}


def metric_named(name: str) -> Metric:
    """Return the metric of that name.

    Raises:
        ValueError: when there is none.
    """
    if name not in METRICS:
        raise ValueError(f"there is no such metric. Allowed: {', '.join(METRICS)}. Received: {name!r}.")
    return METRICS[name]


def measurable(grouped: bool) -> list[Metric]:
    """Return the metrics that data with or without groups allows."""
    return [metric for metric in METRICS.values() if grouped or not metric.needs_group]
