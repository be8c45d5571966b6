"""Numbers in steps that grow with them, as the benchmarks on Criteo's data have it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from typing_extensions import override

from tfctr.features.columns import INT64_MISSING
from tfctr.features.kinds.learned import Tokens

_LOWEST = -(2.0**53)


def log_squared(numbers: Any) -> Any:
    """The string token of each number, float64: floor(ln(x)^2) above 2, else the number without its fraction."""
    import tensorflow as tf

    steps = tf.square(tf.math.log(tf.maximum(numbers, 2.0)))
    # A cast leaves the fraction out, on both sides of 0.
    return tf.strings.as_string(tf.cast(tf.where(numbers > 2.0, steps, tf.maximum(numbers, _LOWEST)), tf.int64))


@dataclass(frozen=True)
class LogSquaredTokens(Tokens):
    """The steps that the numbers of a column fall in, as tokens."""

    @override
    def of(self, values: Any) -> Any:
        import tensorflow as tf

        numbers = tf.cast(values, tf.float64)
        known = values != INT64_MISSING if values.dtype == tf.int64 else tf.math.is_finite(numbers)
        return log_squared(tf.boolean_mask(numbers, known))
