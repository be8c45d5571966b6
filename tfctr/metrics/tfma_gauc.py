"""The metrics of the table for TensorFlow Model Analysis, mergeable on Beam.

All of them read one shared computation, which gathers the label, score, weight and group of every impression of a slice
(`ImpressionBuffer`). All other features are dropped before TFMA copies an impression to each slice that it is in. The
metrics group by themselves, so `MetricsSpec.query_key` must stay empty: TFMA's grouping by query gives each slice *all*
rows of a user that has one row in it, which is wrong for slices that cut through users (hour, popularity).

Memory: 13 bytes for an impression in each of its slices (17 with float64 scores, 8 more with weights). One worker
gathers all rows of a slice for its final value: 100 million impressions need 1.3 GB there for the overall slice.

Example:
    MetricConfig(
        class_name="TableMetric", module="tfctr.metrics.tfma_gauc", config='{"metric": "gauc", "group": "user_id"}'
    )
"""

from collections.abc import Iterable, Iterator
from typing import Any

import apache_beam as beam
import numpy as np
from tensorflow_model_analysis import constants
from tensorflow_model_analysis.metrics import metric_types, metric_util
from tensorflow_model_analysis.utils import util
from typing_extensions import override

from tfctr.metrics.buffer import ImpressionBuffer
from tfctr.metrics.table import metric_named

#: Label, score, group and weight of one impression: all that is kept of it.
Row = tuple[float, float, Any, float]


class TableMetric(metric_types.Metric):
    """A metric of the table, and `<name>_<column>` for each of its columns, computed from the rows of a slice.

    Args:
        group: raw feature that holds the group (user) of an impression, an integer or a string. Metrics with the same
            group share their rows, so naming the group saves memory even for a metric that does not need it.
        weight: raw feature that holds the weight of an impression; one without it weighs 1. TFMA's own example weights
            (the default) fail the run where one is missing.
        metric: its name in the table.
        name: what the results call it; by default its name in the table.
        options: keyword arguments of the metric's function.
    """

    #: The metric that is measured if the configuration names none.
    metric = ""

    def __init__(self, group: str = "", weight: str = "", *, metric: str = "", name: str = "", **options: Any):
        entry = metric_named(metric or self.metric)
        if entry.needs_group and not group:
            raise ValueError(f"`group` must name the feature that {entry.name} groups by. Received: {group!r}.")
        # A wrong option stops the run before any worker starts.
        entry.check(options)
        super().__init__(
            metric_util.merge_per_key_computations(_computations),
            metric=entry.name,
            group=group,
            weight=weight,
            name=name or entry.name,
            options=options,
        )

    @override
    def get_config(self) -> dict[str, Any]:
        return {**{key: self.kwargs[key] for key in ("metric", "group", "weight", "name")}, **self.kwargs["options"]}


def _alias(class_name: str, metric: str) -> type[TableMetric]:
    about = f"The {metric} of the table, under the class name that EvalConfigs had for it before `TableMetric`."
    return type(class_name, (TableMetric,), {"metric": metric, "__doc__": about, "__module__": __name__})


GAUC = _alias("GAUC", "gauc")
ExactAUC = _alias("ExactAUC", "auc")
LogLoss = _alias("LogLoss", "logloss")
COPC = _alias("COPC", "copc")
ECE = _alias("ECE", "ece")


def _computations(
    metric: str,
    group: str,
    weight: str,
    name: str,
    options: dict[str, Any],
    eval_config: Any = None,
    model_name: str = "",
    output_name: str = "",
    example_weighted: bool = False,
    query_key: str | None = None,
) -> list[Any]:
    """Return the shared gathering of rows and the derivation of one metric from it."""
    entry = metric_named(metric)
    if query_key:
        raise ValueError(
            f"metric `{name}` groups by `{group}` itself: MetricsSpec.query_key must be empty. Received: {query_key!r}."
        )
    source = {"model_name": model_name, "output_name": output_name, "example_weighted": example_weighted}

    def key(name: str) -> Any:
        return metric_types.MetricKey(name, **source)

    # A leading underscore keeps the rows out of the written results; equal computations run once.
    rows_key = key(f"_impressions:{group}:{weight}")
    keys = [key(name), *(key(f"{name}_{end}") for _, end in entry.columns.values())]

    def derive(metrics: dict[Any, Any]) -> dict[Any, float]:
        labels, scores, groups, weights = metrics[rows_key].columns()
        # NaN meets no threshold, so a model that predicts NaN is refused. Measuring its scores would fail the run.
        if np.isnan(scores).any():
            return dict.fromkeys(keys, float("nan"))
        if groups is None:
            # No row of the slice has a group.
            groups = np.full(scores.shape, np.nan)
        values = entry.measure(labels, scores, groups, weights, **options)
        return dict(zip(keys, map(float, values), strict=True))

    rows = metric_types.MetricComputation(
        keys=[rows_key],
        preprocessors=[_RowPreprocessor(group, weight, eval_config, **source)],
        combiner=_RowCombiner(rows_key),
    )
    return [rows, metric_types.DerivedMetricComputation(keys=keys, result=derive)]


class _RowPreprocessor(metric_types.Preprocessor):
    """Reduces an example's extracts to one `Row`, before TFMA copies them to each slice."""

    def __init__(self, group: str, weight: str, eval_config: Any, **source: Any):
        super().__init__(name=":".join(("impression_row", group, weight, *map(str, source.values()))))
        self._group, self._weight = group, weight
        self._source = {"eval_config": eval_config, **source}

    def process(self, extracts: Any) -> Iterator[Row]:
        group = _value(extracts, self._group)
        own = 1.0 if self._weight else None
        if (found := _value(extracts, self._weight)) is not None:
            own = float(found)
        inputs = metric_types.StandardMetricInputs(extracts)
        for label, score, weight in metric_util.to_label_prediction_example_weight(inputs, **self._source):
            yield label.item(), score.item(), group, weight.item() if own is None else own


def _value(extracts: Any, name: str) -> Any:
    """The one value of a raw feature in an example; None where it is missing, or no feature is asked for."""
    values = util.get_by_keys(extracts, [constants.FEATURES_KEY, name], optional=True) if name else None
    return None if values is None or np.size(values) == 0 else metric_util.to_scalar(values, name)


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
