"""Dice, the activation of DIN."""

from typing import Any

import keras
from keras import ops

from tfctr.layers.export import tfctr_export
from tfctr.layers.normalization import BatchNormalization


@tfctr_export
class Dice(keras.layers.Layer):
    """Data-adaptive activation: a PReLU whose kink follows the distribution of its input.

        p = sigmoid((x - mean) / sqrt(var + epsilon))
        y = p * x + (1 - p) * alpha * x

    Mean and variance are those of a batch normalization without scale and shift; alpha is one slope per channel,
    zero at the start.

    Args:
        epsilon: added to the variance.
        momentum: the share of the old moving statistics that is kept.

    Call arguments:
        inputs: float `[..., D]`.
        mask: bool, broadcasts to the leading axes; rows that are false do not count in the statistics.
        training: use and update with the statistics of this batch.

    Output shape:
        The shape of `inputs`.

    References:
        Zhou et al., Deep Interest Network (KDD 2018), equation 4. Epsilon and momentum as in FuxiCTR. The authors'
        release has one more factor inside the sigmoid, which neither the paper nor the libraries have.
    """

    def __init__(self, epsilon: float = 1e-9, momentum: float = 0.99, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.epsilon = epsilon
        self.momentum = momentum
        self.normalization = BatchNormalization(
            epsilon=epsilon,
            momentum=momentum,
            center=False,
            scale=False,
            dtype=self.dtype_policy,
            name="normalization",
        )
        self.supports_masking = True

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Create one slope per channel."""
        self.alpha = self.add_weight(name="alpha", shape=(input_shape[-1],), initializer="zeros")
        self.normalization.build(input_shape)

    def call(self, inputs: Any, mask: Any = None, training: bool | None = None) -> Any:
        """Activate; see the class."""
        share = ops.sigmoid(self.normalization(inputs, mask=mask, training=training))
        alpha = ops.cast(self.alpha, self.compute_dtype)
        return inputs * (share * (1.0 - alpha) + alpha)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """The shape of the inputs."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**super().get_config(), "epsilon": self.epsilon, "momentum": self.momentum}
