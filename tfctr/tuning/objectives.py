"""What one trial is told from another by: a number of the validation split at the epoch whose weights are kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tfctr.metrics.table import METRICS, Metric
from tfctr.training.monitors import MONITORS


@dataclass(frozen=True)
class Objective:
    """What chooses the best trial.

    Attributes:
        title: What people read.
        of: The number, from the metrics of an epoch by name.
        rising: Whether more is better.
        needs_group: Whether it is measured inside groups only.
    """

    title: str
    of: Callable[[Mapping[str, float]], float]
    rising: bool = True
    needs_group: bool = False


def _of_metric(metric: Metric) -> Objective:
    return Objective(metric.title, lambda metrics: metrics[metric.name], metric.rising, metric.needs_group)


OBJECTIVES: dict[str, Objective] = {
    **{name: Objective(monitor.title, monitor.of) for name, monitor in MONITORS.items()},
    **{name: _of_metric(metric) for name, metric in METRICS.items() if metric.every_epoch},
}
"""The monitors of a training, and the metrics that are measured after every epoch."""
