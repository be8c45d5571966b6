"""The parametric ReLU of the published models."""

from typing import Any

import keras
from keras import ops

from tfctr.layers.export import tfctr_export


@tfctr_export
class PReLU(keras.layers.Layer):
    """Parametric ReLU: y = x for x > 0, alpha * x otherwise.

    The Keras layer of this name learns one slope per position of the input and starts at 0; the published models learn
    one slope for all and start at 0.25.

    Args:
        shared: one slope for all channels (default), or one per channel of the last axis.
        initial: the slope's start value.

    Call arguments:
        inputs: float `[..., D]`.

    Output shape:
        The shape of `inputs`.

    References:
        He et al., Delving Deep into Rectifiers (2015).
    """

    def __init__(self, shared: bool = True, initial: float = 0.25, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.shared = shared
        self.initial = initial
        self.supports_masking = True

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Create the slope."""
        shape = (1,) if self.shared else (input_shape[-1],)
        self.alpha = self.add_weight(name="alpha", shape=shape, initializer=keras.initializers.Constant(self.initial))
        self.built = True

    def call(self, inputs: Any) -> Any:
        """Apply the slope to the negative part."""
        return ops.where(inputs > 0, inputs, self.alpha * inputs)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """The shape of the inputs."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**super().get_config(), "shared": self.shared, "initial": self.initial}
