"""Batch normalization with the statistics of the published CTR models, and layer normalization of two passes."""

import math
from typing import Any

import keras
from keras import ops
from typing_extensions import override

from tfctr.layers.arguments import check_positive
from tfctr.layers.configured import SameShapeLayer, Shape
from tfctr.layers.export import tfctr_export
from tfctr.layers.passes import passes_together


@tfctr_export
class BatchNormalization(SameShapeLayer):
    """Batch normalization over all axes but one, with a mask for padding rows.

    In training, over the n valid rows of the batch:

        y        = gamma * (x - mean) / sqrt(var + epsilon) + beta      var biased, divided by n
        moving_m = momentum * moving_m + (1 - momentum) * mean
        moving_v = momentum * moving_v + (1 - momentum) * var * n / (n - 1)

    Otherwise the moving statistics take the place of the batch's. The Keras layer of this name differs in three ways:
    momentum 0.99, epsilon 1e-3, and a biased variance in the moving average. Statistics are computed in float32 under
    a half-precision policy. A batch with fewer than two valid rows leaves the moving statistics as they are. A call
    that stands for several passes (see `Passes`) moves them once for each.

    Args:
        axis: the channel axis; statistics run over all other axes.
        momentum: the share of the old moving statistics that is kept.
        epsilon: a small number that is added to the variance.
        center: whether to add `beta`.
        scale: whether to multiply by `gamma`.

    Call arguments:
        inputs: float `[..., D]` for `axis=-1`.
        mask: bool, of the shape of the leading axes of `inputs` (any number of them), true where a row is valid. Other
            rows do not count in the statistics, even if they hold NaN.
        training: whether to use and update batch statistics. A layer with `trainable=False` never does.

    Output shape: that of `inputs`.

    References:
        Ioffe and Szegedy, Batch Normalization (2015).
    """

    weight_kinds = ("gamma", "beta")

    def __init__(
        self,
        axis: int = -1,
        momentum: float = 0.9,
        epsilon: float = 1e-5,
        center: bool = True,
        scale: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not 0.0 <= momentum <= 1.0:
            raise ValueError(f"`momentum` must be between 0 and 1. Received: {momentum!r}")
        self.axis = axis
        self.momentum = momentum
        self.epsilon = check_positive("epsilon", epsilon)
        self.center = center
        self.scale = scale
        self.supports_masking = True

    @override
    def build(self, input_shape: Shape) -> None:
        channels = input_shape[self.axis]
        if channels is None:
            raise ValueError(f"Axis {self.axis} of the inputs must have a known size. Received shape: {input_shape}")
        shape = (channels,)
        # Without autocast, since a moving average that is rounded to bfloat16 would stop moving.
        self.gamma = self.make_weight("gamma", shape, "ones", kind="gamma", autocast=False) if self.scale else None
        self.beta = self.make_weight("beta", shape, "zeros", kind="beta", autocast=False) if self.center else None
        # On several devices the statistics of a step are those of each device's rows, the moving ones their means.
        moving: dict[str, Any] = {"shape": shape, "trainable": False, "autocast": False, "aggregation": "mean"}
        self.moving_mean = self.add_weight(name="moving_mean", initializer="zeros", **moving)
        self.moving_variance = self.add_weight(name="moving_variance", initializer="ones", **moving)
        self.built = True

    @override
    def call(self, inputs: Any, mask: Any = None, training: bool | None = None) -> Any:
        x = ops.cast(inputs, self.variable_dtype)
        rank = len(x.shape)
        channel = self.axis % rank
        broadcast = [1] * rank
        broadcast[channel] = -1
        if training and self.trainable:
            mean, variance = self._update(x, mask, [axis for axis in range(rank) if axis != channel])
        else:
            mean, variance = self.moving_mean, self.moving_variance
        factor = ops.rsqrt(variance + self.epsilon)
        if self.gamma is not None:
            factor = factor * self.gamma
        y = (x - ops.reshape(mean, broadcast)) * ops.reshape(factor, broadcast)
        if self.beta is not None:
            y = y + ops.reshape(self.beta, broadcast)
        return ops.cast(y, self.compute_dtype)

    def _update(self, x: Any, mask: Any, axes: list[int]) -> tuple[Any, Any]:
        """Update the moving statistics, and return mean and biased variance of the valid rows."""
        if mask is None:
            weights, count = None, ops.cast(math.prod(ops.shape(x)[axis] for axis in axes), x.dtype)
        else:
            missing = len(x.shape) - len(mask.shape)
            if missing < 0:
                raise ValueError(
                    f"`mask` must have the leading axes of the inputs, {x.shape}. Received shape: {mask.shape}"
                )
            weights = ops.reshape(ops.cast(mask, x.dtype), (*ops.shape(mask), *[1] * missing))
            # Not a product, which would keep a NaN of the padding.
            x = ops.where(weights > 0, x, ops.zeros_like(x))
            weights = ops.broadcast_to(weights, ops.shape(x))
            count = ops.sum(weights, axis=axes, keepdims=True)

        def mean_of(values: Any) -> Any:
            weighted = values if weights is None else values * weights
            return ops.sum(weighted, axis=axes, keepdims=True) / ops.maximum(count, 1.0)

        mean = mean_of(x)
        variance = mean_of(ops.square(x - mean))
        mean, variance, count = (ops.reshape(value, (-1,)) for value in (mean, variance, count))
        unbiased = variance * count / ops.maximum(count - 1.0, 1.0)
        rate = ops.where(count > 1.5, 1.0 - self.momentum ** passes_together(), 0.0)
        self.moving_mean.assign(self.moving_mean + rate * (mean - self.moving_mean))
        self.moving_variance.assign(self.moving_variance + rate * (unbiased - self.moving_variance))
        return mean, variance

    def affine(self) -> tuple[Any, Any]:
        """Scale and shift as inference applies them, x * scale + shift: two float64 NumPy vectors."""
        mean, variance = (
            ops.convert_to_numpy(value).astype("float64") for value in (self.moving_mean, self.moving_variance)
        )
        scale = (variance + self.epsilon) ** -0.5
        if self.gamma is not None:
            scale = scale * ops.convert_to_numpy(self.gamma)
        shift = -mean * scale
        return scale, shift if self.beta is None else shift + ops.convert_to_numpy(self.beta)


def standardized(x: Any, epsilon: float = 1e-5) -> Any:
    """`(x - mean) / sqrt(var + epsilon)` over the last axis. Half precision is computed in float32.

    The variance is the mean of squared deviations. That of Keras, the difference of two means, has hardly any correct
    digit where the elements differ little from each other, as the cosines of small angles do.
    """
    centered = ops.cast(x, keras.backend.result_type(x.dtype, "float32"))
    centered = centered - ops.mean(centered, axis=-1, keepdims=True)
    variance = ops.mean(ops.square(centered), axis=-1, keepdims=True)
    return ops.cast(centered / ops.sqrt(variance + epsilon), x.dtype)


@tfctr_export
class LayerNormalization(SameShapeLayer):
    """Layer normalization over the last axis, for vectors whose elements may differ little from each other.

        y = gamma * (x - mean) / sqrt(var + epsilon) + beta

    It is the Keras layer of this name with another way to compute the variance, see `standardized`, and epsilon 1e-5.

    Args:
        epsilon: a small number that is added to the variance.

    Call arguments:
        inputs: float `[..., D]`.

    Output shape: that of `inputs`.

    Example:
        >>> tuple(LayerNormalization()(keras.random.normal((8, 50, 16))).shape)
        (8, 50, 16)

    References:
        Ba et al., Layer Normalization (2016).
    """

    def __init__(self, epsilon: float = 1e-5, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.epsilon = check_positive("epsilon", epsilon)
        self.supports_masking = True

    @override
    def build(self, input_shape: Shape) -> None:
        shape = (input_shape[-1],)
        self.gamma = self.add_weight(name="gamma", shape=shape, initializer="ones")
        self.beta = self.add_weight(name="beta", shape=shape, initializer="zeros")
        self.built = True

    @override
    def call(self, inputs: Any) -> Any:
        return standardized(inputs, self.epsilon) * self.gamma + self.beta
