"""The parametric ReLU of the published models."""

from typing import Any

import keras
from keras import ops
from typing_extensions import override

from tfctr.layers.configured import SameShapeLayer, Shape
from tfctr.layers.export import tfctr_export


@tfctr_export
class PReLU(SameShapeLayer):
    """Parametric ReLU: y = x for x > 0, alpha * x otherwise.

    The Keras layer of this name learns one slope per position of the input, which starts at 0. The published models
    learn one slope for all positions, which starts at 0.25.

    Args:
        shared: whether there is one slope for all channels; else there is one per channel of the last axis.
        initial: the initial value of the slope.

    Call arguments:
        inputs: float `[..., D]`.

    Output shape: that of `inputs`.

    References:
        He et al., Delving Deep into Rectifiers (2015).
    """

    weight_kinds = ("alpha",)

    def __init__(self, shared: bool = True, initial: float = 0.25, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.shared = shared
        self.initial = initial
        self.supports_masking = True

    @override
    def build(self, input_shape: Shape) -> None:
        shape = (1,) if self.shared else (input_shape[-1],)
        self.alpha = self.make_weight("alpha", shape, keras.initializers.Constant(self.initial), kind="alpha")
        self.built = True

    @override
    def call(self, inputs: Any) -> Any:
        return ops.where(inputs > 0, inputs, self.alpha * inputs)
