"""What the Evaluator measures, when it blesses a model, and how its results are read.

`eval_config` writes the EvalConfig; `load_slices` and `blessing_reasons` read what the Evaluator wrote. The metrics are
those of `tfctr.metrics.table`, so AUC is exact: TFMA's own interpolates between 10,000 thresholds spread evenly over
[0, 1], of which a model with a click rate of one percent uses a few hundred.

The config module is imported by its path because `tensorflow_model_analysis.EvalConfig` only exists when TFX was
imported first.
"""

import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import tensorflow as tf
from google.protobuf.wrappers_pb2 import DoubleValue
from tensorflow_model_analysis import constants
from tensorflow_model_analysis.proto import config_pb2, validation_result_pb2
from tensorflow_model_analysis.writers import metrics_plots_and_validations_writer as results

from tfctr.errors import UserError
from tfctr.metrics import tfma_gauc
from tfctr.metrics.table import measurable
from tfctr.training.demands import Demand, Evaluation

#: Modules a Beam worker must be able to import to run the Evaluator.
BEAM_MODULES: tuple[str, ...] = (tfma_gauc.__name__,)

#: Columns the metrics are sliced by unless the experiment says otherwise.
DEFAULT_SLICES: tuple[str, ...] = ("user_activity", "hour", "gender", "item_popularity")


@dataclass(frozen=True)
class SliceRow:
    """The metrics of one slice.

    Attributes:
        key: (column, value) pairs; empty for all examples.
        metrics: the candidate's metrics by name.
        baseline: the latest blessed model's, empty when there was none.
    """

    key: tuple[tuple[str, str], ...]
    metrics: dict[str, float]
    baseline: dict[str, float] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The slice in words: "overall" or "hour=3"."""
        return _slice_name(self.key)


def eval_config(
    evaluation: Evaluation,
    *,
    label: str = "label",
    group: str = "user_id",
    weight: str = "",
    slices: Sequence[str] = DEFAULT_SLICES,
    signature: str = "serving_default",
    output: str = "probabilities",
) -> config_pb2.EvalConfig:
    """Return the Evaluator's configuration: metrics overall and by slice, and what a blessing needs.

    A fall is measured against the latest blessed model and is not looked at while there is none. A metric that is NaN
    meets no demand.

    Args:
        evaluation: the experiment's demands and the weighting of groups.
        label: raw column of the label.
        group: raw column of the groups, the user; empty for none, which leaves out the metrics that need groups.
        weight: raw column of example weights; empty for none. An example without one weighs 1.
        slices: raw columns to slice by, beside those of the demands.
        signature: signature of the SavedModel that takes serialized examples.
        output: name of the signature's output that holds the probabilities.

    Raises:
        UserError: on a demand on a metric that needs groups when there are none.
    """
    table = measurable(grouped=bool(group))
    options = {"weighting": evaluation.weighting}
    thresholds: dict[str, list[config_pb2.PerSliceMetricThreshold]] = {metric.name: [] for metric in table}
    demands = evaluation.all_demands(grouped=bool(group))
    for demand in demands:
        if demand.metric not in thresholds:
            raise UserError(
                f"evaluation: a demand on {demand.metric} needs a `group` in the feature file, which has none. "
                f"Allowed without one: {', '.join(thresholds)}"
            )
        thresholds[demand.metric].append(_threshold(demand))
    columns = dict.fromkeys([*slices, *(demand.column for demand in demands if demand.column)])
    metrics = [
        config_pb2.MetricConfig(
            class_name=tfma_gauc.TableMetric.__name__,
            module=tfma_gauc.__name__,
            config=json.dumps({"metric": metric.name, "group": group, "weight": weight, **metric.accepted(options)}),
            per_slice_thresholds=thresholds[metric.name],
        )
        for metric in table
    ]
    model = config_pb2.ModelSpec(
        # TFMA supports Keras 2 at most, so the model is given to it as a SavedModel with a signature.
        model_type=constants.TF_GENERIC,
        signature_name=signature,
        prediction_key=output,
        label_key=label,
    )
    config = config_pb2.EvalConfig(
        model_specs=[model],
        slicing_specs=[config_pb2.SlicingSpec(), *(config_pb2.SlicingSpec(feature_keys=[name]) for name in columns)],
        # The metrics read the weights themselves: TFMA's `example_weight_key` fails where an example has none.
        metrics_specs=[config_pb2.MetricsSpec(metrics=metrics)],
    )
    config.options.include_default_metrics.value = False
    return config


def load_slices(directory: str) -> list[SliceRow]:
    """Return the metrics of the slices in the Evaluator's `directory`: overall first, then by column and value.

    Raises:
        UserError: when the directory holds no evaluation.
    """
    _check_written(directory, constants.METRICS_KEY)
    rows = []
    for record in results.load_and_deserialize_metrics(directory):
        key = _slice_key(record.slice_key)
        if any(value == "" for _, value in key):
            continue  # an empty string is a missing value, and rows without a value are in no slice
        metrics: dict[str, float] = {}
        baseline: dict[str, float] = {}
        for item in record.metric_keys_and_values:
            if item.key.is_diff or item.value.WhichOneof("type") != "double_value":
                continue
            values = baseline if item.key.model_name == constants.BASELINE_KEY else metrics
            values[item.key.name] = item.value.double_value.value
        rows.append(SliceRow(key, metrics, baseline))
    return sorted(rows, key=lambda row: [(column, _numeric(value)) for column, value in row.key])


def load_validation(directory: str) -> validation_result_pb2.ValidationResult:
    """Return the Evaluator's verdict as TFMA wrote it into `directory`.

    Raises:
        UserError: when the directory holds no verdict.
    """
    _check_written(directory, constants.VALIDATIONS_KEY)
    return results.load_and_deserialize_validation_result(directory)


def blessing_reasons(directory: str) -> list[str]:
    """Return in words why the model was not blessed, one sentence per slice and metric; nothing when it was."""
    verdict = load_validation(directory)
    reasons = []
    for record in verdict.metric_validations_per_slice:
        name = _slice_name(_slice_key(record.slice_key))
        reasons.extend(_reason(name, failure) for failure in record.failures)
    reasons.sort(key=lambda reason: not reason.startswith("overall"))
    for spec in verdict.missing_slices:
        values = [f"{column}={value}" for column, value in sorted(spec.feature_values.items())]
        name = ", ".join([*spec.feature_keys, *values]) or "overall"
        reasons.append(f"{name}: the experiment makes a demand on this slice, but it has no examples")
    if verdict.missing_thresholds:
        reasons.append("the evaluation makes no demand, and a model is never blessed without one")
    if not verdict.validation_ok and not reasons:
        reasons.append("the Evaluator refused the model without naming a metric")
    return reasons


def _check_written(directory: str, name: str) -> None:
    # For a wrong directory TFMA itself gives no rows, or an assertion without a message.
    if not tf.io.gfile.glob(os.path.join(directory, f"{name}*")):
        raise UserError(
            f"`{directory}` holds no evaluation (no {name} file): give the output directory of an Evaluator."
        )


def _threshold(demand: Demand) -> config_pb2.PerSliceMetricThreshold:
    threshold = config_pb2.MetricThreshold()
    bounds = {"lower_bound": demand.minimum, "upper_bound": demand.maximum}
    given = {name: DoubleValue(value=value) for name, value in bounds.items() if value is not None}
    if given:
        threshold.value_threshold.CopyFrom(config_pb2.GenericValueThreshold(**given))
    if demand.max_fall is not None:
        threshold.change_threshold.CopyFrom(
            config_pb2.GenericChangeThreshold(
                absolute=DoubleValue(value=-demand.max_fall), direction=config_pb2.MetricDirection.HIGHER_IS_BETTER
            )
        )
    spec = config_pb2.SlicingSpec()
    if demand.value is not None:
        spec.feature_values[demand.column] = demand.value
    elif demand.column:
        spec.feature_keys.append(demand.column)
    return config_pb2.PerSliceMetricThreshold(slicing_specs=[spec], threshold=threshold)


def _reason(slice_name: str, failure: Any) -> str:
    metric, value = failure.metric_key.name, failure.metric_value.double_value.value
    if failure.message.strip() == "Metric not found.":
        return f"{slice_name}: {metric} was not measured"
    threshold = failure.metric_threshold
    if threshold.HasField("change_threshold"):
        allowed = -threshold.change_threshold.absolute.value
        if math.isnan(value):
            return f"{slice_name}: the change of {metric} is not defined (NaN), so it cannot be compared"
        return f"{slice_name}: {metric} fell by {-value:.4f} against the latest blessed model; {allowed:.4f} is allowed"
    bounds = threshold.value_threshold
    if math.isnan(value):
        return f"{slice_name}: {metric} is not defined (NaN): one class only, no group with both classes, or NaN scores"
    if bounds.HasField("lower_bound") and value < bounds.lower_bound.value:
        return f"{slice_name}: {metric} is {value:.4f}; at least {bounds.lower_bound.value:.4f} is needed"
    return f"{slice_name}: {metric} is {value:.4f}; at most {bounds.upper_bound.value:.4f} is allowed"


def _slice_key(proto: Any) -> tuple[tuple[str, str], ...]:
    pairs = []
    for item in proto.single_slice_keys:
        value = getattr(item, item.WhichOneof("kind"))
        pairs.append((item.column, value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)))
    return tuple(pairs)


def _slice_name(key: Sequence[tuple[str, str]]) -> str:
    return ", ".join(f"{column}={value}" for column, value in key) or "overall"


def _numeric(value: str) -> tuple[float, str]:
    """A sort key: numbers by their value, and all other text after them."""
    try:
        return float(value), value
    except ValueError:
        return math.inf, value
