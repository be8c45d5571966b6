"""Keras metrics that give the reference's numbers inside `fit` and `evaluate`.

They keep every row on the host (`ImpressionBuffer`: 5 to 21 bytes an impression), because neither AUC nor GAUC can be
had exactly from a state of fixed size. So they are for validation sets and epochs of up to some hundred million rows
in one process. They do not run under XLA (compile the model with `jit_compile=False`), in JAX's compiled steps or
across the replicas of a distribution strategy.
"""

from typing import Any

import keras
import numpy as np
from typing_extensions import override

from tfctr.metrics.buffer import ImpressionBuffer
from tfctr.metrics.reference import Array, Weighting
from tfctr.metrics.table import METRICS

#: Inside a compiled step the value is computed anew when the rows have grown by this factor.
REFRESH = 1.2


class HostMetric(keras.metrics.Metric):
    """A metric of the table over all rows since the last reset, held on the host; subclasses define `update_state`.

    `result()` is exact in eager code, where Keras reads it at the end of an epoch. Inside a compiled step it is
    computed anew only when the rows have grown by a fifth: what the progress bar shows may lag that much, and an epoch
    costs a handful of sorts instead of one a step.
    """

    def __init__(self, metric: str, name: str, dtype: Any = None, **options: Any):
        super().__init__(name=name, dtype=dtype)
        self._metric, self._options = METRICS[metric], options
        # A wrong option is an error now and not after the first epoch.
        self._metric.check(options)
        self._direction = "up" if self._metric.rising else "down"
        self._buffer = ImpressionBuffer()
        self._shown = float("nan")
        self._shown_rows = 0

    def append(self, labels: Any, scores: Any, groups: Any = None, weights: Any = None) -> None:
        """Append a batch, eagerly or from inside a `tf.function`."""
        columns = {"labels": labels, "scores": scores, "groups": groups, "weights": weights}
        given = {name: column for name, column in columns.items() if column is not None}
        if _in_graph():
            import tensorflow as tf

            def on_host(*values: Array) -> None:
                self._buffer.add_rows(**dict(zip(given, values, strict=True)))

            tf.numpy_function(on_host, [tf.convert_to_tensor(column) for column in given.values()], [], stateful=True)
        else:
            self._buffer.add_rows(**{name: _to_numpy(column) for name, column in given.items()})

    def result(self) -> Any:
        """Return the metric as a float64 scalar; NaN when it is not defined or a score is NaN."""
        if _in_graph():
            import tensorflow as tf

            value = tf.numpy_function(self._recent, [], tf.float64, stateful=True)
            value.set_shape(())
            return value
        return keras.ops.convert_to_tensor(np.float64(self._exact()), dtype="float64")

    @override
    def reset_state(self) -> None:
        self._buffer.clear()
        self._shown_rows = 0

    def _recent(self) -> Any:
        if self._shown_rows == 0 or self._buffer.rows >= REFRESH * self._shown_rows:
            self._shown, self._shown_rows = self._exact(), self._buffer.rows
        return np.float64(self._shown)

    def _exact(self) -> float:
        labels, scores, groups, weights = self._buffer.columns()
        # A model that diverged is a value to see, not a reason to lose the run.
        if np.isnan(scores).any():
            return float("nan")
        return float(self._metric.measure(labels, scores, groups, weights, **self._options)[0])


@keras.saving.register_keras_serializable(package="tfctr")
class ExactAUC(HostMetric):
    """Exact area under the ROC curve: no thresholds, and a tie counts one half.

    Keras's own AUC interpolates between 200 fixed thresholds, most of them above the scores of a low click rate.

    Args:
        name: metric name.
        dtype: ignored for the value, which is float64.

    Call arguments:
        y_true: labels 0 or 1, [n] or any shape.
        y_pred: scores, the same shape.
        sample_weight: optional, the same shape.

    Example:
        >>> metric = ExactAUC()
        >>> metric.update_state([1, 0, 0], [0.5, 0.5, 0.2])
        >>> float(metric.result())
        0.75
    """

    def __init__(self, name: str = "auc", dtype: Any = None):
        super().__init__("auc", name, dtype)

    @override
    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        self.append(y_true, y_pred, None, sample_weight)


@keras.saving.register_keras_serializable(package="tfctr")
class GAUC(HostMetric):
    """Grouped AUC: the weighted mean of the AUC inside each group (user), groups with one class skipped.

    Args:
        weighting: weight of a group: "impressions", "clicks" or "uniform".
        name: metric name.
        dtype: ignored for the value, which is float64.

    Call arguments:
        y_true: labels 0 or 1, [n].
        y_pred: scores, [n].
        groups: the group of every row, integers or strings, [n].
        sample_weight: optional, [n]; rows of weight zero (padding) are left out.

    References:
        `tfctr.metrics.reference.gauc` has the definition.
    """

    def __init__(self, weighting: Weighting = "impressions", name: str = "gauc", dtype: Any = None):
        super().__init__("gauc", name, dtype, weighting=weighting)
        self.weighting = weighting

    @override
    def update_state(self, y_true: Any, y_pred: Any, groups: Any, sample_weight: Any = None) -> None:
        self.append(y_true, y_pred, groups, sample_weight)

    @override
    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "weighting": self.weighting}


def _in_graph() -> bool:
    if keras.backend.backend() != "tensorflow":
        return False
    import tensorflow as tf

    return not tf.executing_eagerly()


def _to_numpy(column: Any) -> Array:
    # Strings never pass through the backend: not every one has them.
    return column if isinstance(column, np.ndarray) else np.asarray(keras.ops.convert_to_numpy(column))
