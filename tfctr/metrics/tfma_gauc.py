"""GAUC, exact AUC, log loss, COPC and ECE for TensorFlow Model Analysis, mergeable on Beam.

All of them read one private computation: per slice, the label, score, weight and group of every impression
(`ImpressionBuffer`). Every other feature is dropped before the slices are fanned out. The metrics group by themselves,
so `MetricsSpec.query_key` must stay empty: TFMA's grouping by query gives each slice *all* rows of a user that has one
row in it, which is wrong for slices that cut through users (hour, popularity).

Memory: 13 bytes an impression and slice it is in (21 with float64 scores), gathered for the final value of a slice in
one worker. 100 million impressions need 1.3 GB there for the overall slice.

Example:
    MetricConfig(class_name="GAUC", module="tfctr.metrics.tfma_gauc", config='{"group": "user_id"}')
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import apache_beam as beam
import numpy as np
from tensorflow_model_analysis import constants
from tensorflow_model_analysis.metrics import metric_types, metric_util
from tensorflow_model_analysis.utils import util

from tfctr.metrics.buffer import ImpressionBuffer
from tfctr.metrics.reference import CLIP, ECE_BINS, Array, Weighting, auc, copc, ece, gauc, logloss

#: Label, score, group and weight of one impression: all that is kept of it.
Row = tuple[float, float, Any, float]


class _RowMetric(metric_types.Metric):
    """A metric computed from the gathered rows of a slice; `options` are the keyword arguments of its function."""

    def __init__(self, function: str, group: str, name: str, **options: Any):
        super().__init__(
            metric_util.merge_per_key_computations(_computations),
            function=function,
            group=group,
            name=name,
            options=options,
        )

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the class, as a MetricConfig writes them."""
        return {"group": self.kwargs["group"], "name": self.name, **self.kwargs["options"]}


class GAUC(_RowMetric):
    """Grouped AUC, with `<name>_coverage` (impressions of the used groups over all) and `<name>_groups` (used groups).

    Args:
        group: raw feature that holds the group (user) of an impression, an integer or a string.
        weighting: "impressions", "clicks" or "uniform".
        name: metric name.
    """

    def __init__(self, group: str, weighting: Weighting = "impressions", name: str = "gauc"):
        # An unknown weighting stops the run before any worker starts.
        gauc([], [], [], weighting)
        super().__init__("gauc", group, name, weighting=weighting)


class ExactAUC(_RowMetric):
    """AUC from all scores, ties one half; TFMA's own interpolates between fixed thresholds.

    Args:
        group: the group of the GAUC in the same configuration, whose rows are then shared; without it the rows are
            gathered once more.
        name: metric name.
    """

    def __init__(self, group: str = "", name: str = "auc"):
        super().__init__("auc", group, name)


class LogLoss(_RowMetric):
    """Log loss of the probabilities clipped to [clip, 1 - clip]; `group` as in ExactAUC."""

    def __init__(self, group: str = "", clip: float = CLIP, name: str = "logloss"):
        super().__init__("logloss", group, name, clip=clip)


class COPC(_RowMetric):
    """Clicks over predicted clicks, the inverse of TFMA's Calibration; `group` as in ExactAUC."""

    def __init__(self, group: str = "", name: str = "copc"):
        super().__init__("copc", group, name)


class ECE(_RowMetric):
    """Expected calibration error over bins of equal mass; `group` as in ExactAUC."""

    def __init__(self, group: str = "", bins: int = ECE_BINS, name: str = "ece"):
        super().__init__("ece", group, name, bins=bins)


def _gauc_values(labels: Array, scores: Array, groups: Any, weights: Any, **options: Any) -> dict[str, float]:
    result = gauc(labels, scores, [] if groups is None else groups, weights=weights, **options)
    return {"": result.value, "_coverage": result.coverage, "_groups": float(result.groups_used)}


def _without_groups(metric: Callable[..., float]) -> Callable[..., dict[str, float]]:
    def values(labels: Array, scores: Array, groups: Any, weights: Any, **options: Any) -> dict[str, float]:
        return {"": metric(labels, scores, weights, **options)}

    return values


#: By function name: the suffixes of the metric names it gives, and the function itself.
_FUNCTIONS: dict[str, tuple[tuple[str, ...], Callable[..., dict[str, float]]]] = {
    "gauc": (("", "_coverage", "_groups"), _gauc_values),
    "auc": (("",), _without_groups(auc)),
    "logloss": (("",), _without_groups(logloss)),
    "copc": (("",), _without_groups(copc)),
    "ece": (("",), _without_groups(ece)),
}


def _computations(
    function: str,
    group: str,
    name: str,
    options: dict[str, Any],
    eval_config: Any = None,
    model_name: str = "",
    output_name: str = "",
    example_weighted: bool = False,
    query_key: str | None = None,
) -> list[Any]:
    """Return the shared gathering of rows and the derivation of one metric from it."""
    if query_key:
        raise ValueError(
            f"metric `{name}` groups by `{group}` itself: MetricsSpec.query_key must be empty. Received: {query_key!r}."
        )

    def key(metric: str) -> Any:
        return metric_types.MetricKey(
            metric, model_name=model_name, output_name=output_name, example_weighted=example_weighted
        )

    # A leading underscore keeps the rows out of the written results; equal computations run once.
    rows_key = key(f"_impressions:{group}")
    suffixes, compute = _FUNCTIONS[function]

    def derive(metrics: dict[Any, Any]) -> dict[Any, float]:
        labels, scores, groups, weights = metrics[rows_key].columns()
        # A model that gives NaN is refused by the thresholds, which NaN never meets, instead of failing the run.
        if np.isnan(scores).any():
            values = dict.fromkeys(suffixes, float("nan"))
        else:
            values = compute(labels, scores, groups, weights, **options)
        return {key(name + suffix): value for suffix, value in values.items()}

    rows = metric_types.MetricComputation(
        keys=[rows_key],
        preprocessors=[_RowPreprocessor(group, eval_config, model_name, output_name, example_weighted)],
        combiner=_RowCombiner(rows_key),
    )
    return [
        rows,
        metric_types.DerivedMetricComputation(keys=[key(name + suffix) for suffix in suffixes], result=derive),
    ]


class _RowPreprocessor(metric_types.Preprocessor):
    """Reduces an example's extracts to one `Row`, before the slices are fanned out."""

    def __init__(self, group: str, eval_config: Any, model_name: str, output_name: str, example_weighted: bool):
        super().__init__(name=f"impression_row:{group}:{model_name}:{output_name}:{example_weighted}")
        self._group = group
        self._eval_config = eval_config
        self._model_name = model_name
        self._output_name = output_name
        self._example_weighted = example_weighted

    def process(self, extracts: Any) -> Iterator[Row]:
        group = None
        if self._group:
            values = util.get_by_keys(extracts, [constants.FEATURES_KEY, self._group], optional=True)
            group = None if values is None or np.size(values) == 0 else metric_util.to_scalar(values, self._group)
            if group is None:
                raise ValueError(f"feature `{self._group}`, the group of GAUC, is missing in an example.")
        for label, score, weight in metric_util.to_label_prediction_example_weight(
            metric_types.StandardMetricInputs(extracts),
            eval_config=self._eval_config,
            model_name=self._model_name,
            output_name=self._output_name,
            example_weighted=self._example_weighted,
        ):
            yield label.item(), score.item(), group, weight.item()


class _RowCombiner(beam.CombineFn):
    """Gathers rows in an `ImpressionBuffer`."""

    def __init__(self, key: Any):
        self._key = key

    def create_accumulator(self) -> ImpressionBuffer:
        return ImpressionBuffer()

    def add_input(self, accumulator: ImpressionBuffer, element: Row) -> ImpressionBuffer:
        accumulator.add_row(*element)
        return accumulator

    def merge_accumulators(self, accumulators: Iterable[ImpressionBuffer]) -> ImpressionBuffer:
        result = ImpressionBuffer()
        for accumulator in accumulators:
            result.merge(accumulator)
        return result

    def extract_output(self, accumulator: ImpressionBuffer) -> dict[Any, ImpressionBuffer]:
        return {self._key: accumulator}
