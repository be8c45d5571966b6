"""Metrics: their NumPy definitions (`reference`), and the table of them from which everything else follows (`table`).

Only NumPy is imported here. The metrics for Keras are in `tfctr.metrics.keras_metrics`, those for TensorFlow Model
Analysis in `tfctr.metrics.tfma_gauc`; both call the functions of the table.
"""

from tfctr.metrics.bootstrap import BootstrapResult as BootstrapResult
from tfctr.metrics.bootstrap import Interval as Interval
from tfctr.metrics.bootstrap import bootstrap_difference as bootstrap_difference
from tfctr.metrics.bootstrap import bootstrap_interval as bootstrap_interval
from tfctr.metrics.reference import GaucResult as GaucResult
from tfctr.metrics.reference import GroupAuc as GroupAuc
from tfctr.metrics.reference import Weighting as Weighting
from tfctr.metrics.reference import auc as auc
from tfctr.metrics.reference import calibration as calibration
from tfctr.metrics.reference import copc as copc
from tfctr.metrics.reference import ece as ece
from tfctr.metrics.reference import gauc as gauc
from tfctr.metrics.reference import group_auc as group_auc
from tfctr.metrics.reference import logloss as logloss
from tfctr.metrics.reference import normalized_entropy as normalized_entropy
from tfctr.metrics.reference import relative_improvement as relative_improvement
from tfctr.metrics.report import ReportRow as ReportRow
from tfctr.metrics.report import report as report
