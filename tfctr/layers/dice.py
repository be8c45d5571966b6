"""Dice, the activation of DIN."""

from typing import Any

from keras import ops
from typing_extensions import override

from tfctr.layers.configured import SameShapeLayer, Shape
from tfctr.layers.export import tfctr_export
from tfctr.layers.normalization import BatchNormalization


@tfctr_export
class Dice(SameShapeLayer):
    """Data-adaptive activation: a PReLU whose threshold follows the distribution of its input.

        p = sigmoid((x - mean) / sqrt(var + epsilon))
        y = p * x + (1 - p) * alpha * x

    Mean and variance are those of a batch normalization without scale and shift. Alpha is one slope per channel, which
    starts at zero.

    Args:
        epsilon: a small number that is added to the variance.
        momentum: the share of the old moving statistics that is kept.

    Call arguments:
        inputs: float `[..., D]`.
        mask: bool, broadcasts to the leading axes; rows that are false do not count in the statistics.
        training: whether to use and update batch statistics.

    Output shape: that of `inputs`.

    References:
        Zhou et al., Deep Interest Network (KDD 2018), equation 4. Epsilon and momentum as in FuxiCTR. The authors'
        release has one more factor inside the sigmoid, which neither the paper nor the libraries have.
    """

    weight_kinds = ("alpha",)

    def __init__(self, epsilon: float = 1e-9, momentum: float = 0.99, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.normalization = self.make_part(
            BatchNormalization, "normalization", epsilon=epsilon, momentum=momentum, center=False, scale=False
        )
        self.supports_masking = True

    @override
    def build(self, input_shape: Shape) -> None:
        self.alpha = self.make_weight("alpha", (input_shape[-1],), "zeros", kind="alpha")
        self.normalization.build(input_shape)

    @override
    def call(self, inputs: Any, mask: Any = None, training: bool | None = None) -> Any:
        share = ops.sigmoid(self.normalization(inputs, mask=mask, training=training))
        alpha = ops.cast(self.alpha, self.compute_dtype)
        return inputs * (share * (1.0 - alpha) + alpha)
