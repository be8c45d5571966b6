"""Metrics: their NumPy definitions (`reference`), and the table of them from which everything else follows (`table`).

Only NumPy is imported here. The metrics for Keras are in `tfctr.metrics.keras_metrics`, those for TensorFlow Model
Analysis in `tfctr.metrics.tfma_gauc`; both call the functions of the table.
"""

from tfctr.metrics.bootstrap import BootstrapResult, bootstrap_difference
from tfctr.metrics.reference import (
    GaucResult,
    GroupAuc,
    Weighting,
    auc,
    calibration,
    copc,
    ece,
    gauc,
    group_auc,
    logloss,
    normalized_entropy,
    relative_improvement,
)
from tfctr.metrics.report import ReportRow, report

__all__ = [
    "BootstrapResult",
    "GaucResult",
    "GroupAuc",
    "ReportRow",
    "Weighting",
    "auc",
    "bootstrap_difference",
    "calibration",
    "copc",
    "ece",
    "gauc",
    "group_auc",
    "logloss",
    "normalized_entropy",
    "relative_improvement",
    "report",
]
