"""What one epoch is told from another by: a number of the validation split, of which more is better."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

MonitorName = Literal["auc", "auc_minus_logloss"]


@dataclass(frozen=True)
class Monitor:
    """What chooses the best epoch, lowers the learning rate and ends the training.

    Attributes:
        title: What people read.
        of: The number, from the metrics of an epoch by name.
    """

    title: str
    of: Callable[[Mapping[str, float]], float]


MONITORS: dict[MonitorName, Monitor] = {
    "auc": Monitor("AUC", lambda metrics: metrics["auc"]),
    "auc_minus_logloss": Monitor("AUC - logloss", lambda metrics: metrics["auc"] - metrics["logloss"]),
}
