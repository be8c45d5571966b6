"""Metrics: one NumPy definition (`reference`), and Keras and TFMA metrics that call it.

Only NumPy is imported here; `tfctr.metrics.keras_metrics` needs Keras, `tfctr.metrics.tfma_gauc` needs TFMA.
"""

from tfctr.metrics.bootstrap import BootstrapResult, bootstrap_difference
from tfctr.metrics.reference import (
    GaucResult,
    GroupAuc,
    Weighting,
    auc,
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
    "copc",
    "ece",
    "gauc",
    "group_auc",
    "logloss",
    "normalized_entropy",
    "relative_improvement",
    "report",
]
