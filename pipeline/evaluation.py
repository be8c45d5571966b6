"""What the Evaluator measures, when it blesses a model, and how its results are read.

`eval_config` writes the EvalConfig; `load_slices` and `blessing_reasons` read what the Evaluator wrote. AUC is exact
(`tfctr.metrics.tfma_gauc.ExactAUC`): TFMA's own interpolates between 10,000 thresholds spread evenly over [0, 1], of
which a model with a click rate of one percent uses a few hundred; the rows GAUC gathers give the exact value for free.

The config module is imported by its path because `tensorflow_model_analysis.EvalConfig` only exists when TFX was
imported first.
"""

import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import tensorflow as tf
from google.protobuf.wrappers_pb2 import DoubleValue
from tensorflow_model_analysis import constants
from tensorflow_model_analysis.proto import config_pb2, validation_result_pb2
from tensorflow_model_analysis.writers import metrics_plots_and_validations_writer as results

from tfctr.errors import UserError
from tfctr.metrics import tfma_gauc
from tfctr.metrics.reference import Weighting

#: Modules a Beam worker must be able to import to run the Evaluator.
BEAM_MODULES: tuple[str, ...] = (tfma_gauc.__name__,)

#: Columns the metrics are sliced by unless the experiment says otherwise.
DEFAULT_SLICES: tuple[str, ...] = ("user_activity", "hour", "gender", "item_popularity")

MetricName = Literal["auc", "gauc", "logloss", "copc", "ece", "calibration"]
#: Metrics where more is better; of the others less is, or nearer to one.
RISING: tuple[str, ...] = ("auc", "gauc")


@dataclass(frozen=True)
class SliceBar:
    """A demand on one metric in one slice.

    Attributes:
        column: the column the slice is made of.
        metric: "auc", "gauc", "logloss", "copc", "ece" or "calibration".
        value: the slice's value; None asks it of every value of the column.
        minimum: the metric must be at least this.
        maximum: the metric must be at most this.
        max_fall: "auc" and "gauc" only: how much it may be below the latest blessed model's.
    """

    column: str
    metric: MetricName = "gauc"
    value: str | None = None
    minimum: float | None = None
    maximum: float | None = None
    max_fall: float | None = None


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
    *,
    label: str = "label",
    group: str = "user_id",
    weight: str = "",
    slices: Sequence[str] = DEFAULT_SLICES,
    weighting: Weighting = "impressions",
    min_auc: float = 0.5,
    min_gauc: float = 0.5,
    max_auc_fall: float = 0.005,
    max_gauc_fall: float = 0.005,
    slice_bars: Sequence[SliceBar] = (),
    signature: str = "serving_default",
    output: str = "probabilities",
) -> config_pb2.EvalConfig:
    """Return the Evaluator's configuration: metrics overall and by slice, and what a blessing needs.

    The demands on AUC and GAUC hold for all examples together; a slice has none unless `slice_bars` makes one. A fall
    is measured against the latest blessed model and is not looked at while there is none. A metric that is NaN meets
    no demand.

    Args:
        label: raw column of the label.
        group: raw column of GAUC's groups, the user.
        weight: raw column of example weights; empty for none.
        slices: raw columns to slice by.
        weighting: weight of a group in GAUC.
        min_auc: least AUC of all examples.
        min_gauc: least GAUC of all examples.
        max_auc_fall: how much lower than the latest blessed model's the AUC may be, in absolute terms.
        max_gauc_fall: the same for GAUC.
        slice_bars: demands on single slices.
        signature: signature of the SavedModel that takes serialized examples.
        output: name of the signature's output that holds the probabilities.

    Raises:
        UserError: on a demand that no model could meet or that means nothing.
    """
    for name, value in {"min_auc": min_auc, "min_gauc": min_gauc}.items():
        if not 0.0 <= value <= 1.0:
            raise UserError(f"evaluation: `{name}` must be between 0 and 1. Received: {value}.")
    for name, value in {"max_auc_fall": max_auc_fall, "max_gauc_fall": max_gauc_fall}.items():
        if not 0.0 <= value <= 1.0:
            raise UserError(
                f"evaluation: `{name}` must be between 0 and 1 (a drop of 0.005 is 0.005). Received: {value}."
            )
    if weighting not in get_args(Weighting):
        raise UserError(
            f"evaluation: `weighting` must be one of {', '.join(get_args(Weighting))}. Received: {weighting!r}."
        )
    bars = {
        "auc": [_bar(SliceBar("", "auc", minimum=min_auc, max_fall=max_auc_fall))],
        "gauc": [_bar(SliceBar("", "gauc", minimum=min_gauc, max_fall=max_gauc_fall))],
    }
    columns = list(dict.fromkeys(slices))
    for bar in slice_bars:
        if bar.column not in columns:
            raise UserError(
                f"evaluation: a bar names the slice `{bar.column}`, which is not evaluated. "
                f"Allowed: {', '.join(columns) or 'none'}. Add it to the slices."
            )
        if bar.metric not in get_args(MetricName):
            raise UserError(
                f"evaluation: there is no metric `{bar.metric}` to set a bar on. "
                f"Allowed: {', '.join(get_args(MetricName))}."
            )
        bars.setdefault(bar.metric, []).append(_bar(bar))
    own = {
        "auc": ("ExactAUC", {"group": group}),
        "gauc": ("GAUC", {"group": group, "weighting": weighting}),
        "logloss": ("LogLoss", {"group": group}),
        "copc": ("COPC", {"group": group}),
        "ece": ("ECE", {"group": group}),
    }
    metrics = [
        config_pb2.MetricConfig(
            class_name=class_name,
            module=tfma_gauc.__name__,
            config=json.dumps({**arguments, "name": name}),
            per_slice_thresholds=bars.get(name, []),
        )
        for name, (class_name, arguments) in own.items()
    ]
    metrics.append(config_pb2.MetricConfig(class_name="Calibration", per_slice_thresholds=bars.get("calibration", [])))
    # Under the weights of the others, TFMA's example count would be the sum of the weights.
    count = config_pb2.MetricsSpec(
        metrics=[config_pb2.MetricConfig(class_name="ExampleCount")],
        example_weights=config_pb2.ExampleWeightOptions(unweighted=True),
    )
    model = config_pb2.ModelSpec(
        # Not a Keras model to TFMA, whose Keras support ends at version 2: a SavedModel with a signature.
        model_type=constants.TF_GENERIC,
        signature_name=signature,
        prediction_key=output,
        label_key=label,
        example_weight_key=weight,
    )
    config = config_pb2.EvalConfig(
        model_specs=[model],
        slicing_specs=[config_pb2.SlicingSpec(), *(config_pb2.SlicingSpec(feature_keys=[name]) for name in columns)],
        metrics_specs=[config_pb2.MetricsSpec(metrics=metrics), count],
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
        metrics: dict[str, float] = {}
        baseline: dict[str, float] = {}
        for item in record.metric_keys_and_values:
            if item.key.is_diff or item.value.WhichOneof("type") != "double_value":
                continue
            values = baseline if item.key.model_name == constants.BASELINE_KEY else metrics
            values[item.key.name] = item.value.double_value.value
        rows.append(SliceRow(_slice_key(record.slice_key), metrics, baseline))
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
        reasons.append(f"{name}: a bar is set for this slice, but it has no examples")
    if verdict.missing_thresholds:
        reasons.append("no demand is configured, and a model is never blessed without one")
    if not verdict.validation_ok and not reasons:
        reasons.append("the Evaluator refused the model without naming a metric")
    return reasons


def _check_written(directory: str, name: str) -> None:
    # TFMA itself answers a wrong directory with no rows, or with a bare assertion.
    if not tf.io.gfile.glob(os.path.join(directory, f"{name}*")):
        raise UserError(
            f"`{directory}` holds no evaluation (no {name} file): give the output directory of an Evaluator."
        )


def _bar(bar: SliceBar) -> config_pb2.PerSliceMetricThreshold:
    where = f"{bar.metric} in {bar.column or 'overall'}{'' if bar.value is None else '=' + bar.value}"
    if bar.minimum is None and bar.maximum is None and bar.max_fall is None:
        raise UserError(f"evaluation: the bar on {where} demands nothing. Give it a minimum, a maximum or a max_fall.")
    threshold = config_pb2.MetricThreshold()
    if bar.minimum is not None or bar.maximum is not None:
        bounds = {"lower_bound": bar.minimum, "upper_bound": bar.maximum}
        threshold.value_threshold.CopyFrom(
            config_pb2.GenericValueThreshold(
                **{name: DoubleValue(value=value) for name, value in bounds.items() if value is not None}
            )
        )
    if bar.max_fall is not None:
        if bar.metric not in RISING:
            raise UserError(f"evaluation: `max_fall` is for {' and '.join(RISING)}. Received: the bar on {where}.")
        threshold.change_threshold.CopyFrom(
            config_pb2.GenericChangeThreshold(
                absolute=DoubleValue(value=-bar.max_fall), direction=config_pb2.MetricDirection.HIGHER_IS_BETTER
            )
        )
    spec = config_pb2.SlicingSpec()
    if bar.value is not None:
        spec.feature_values[bar.column] = bar.value
    elif bar.column:
        spec.feature_keys.append(bar.column)
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
    """Sort numbers as numbers, words after them."""
    try:
        return float(value), value
    except ValueError:
        return math.inf, value
