"""Dense layers in the order linear, normalization, activation, dropout."""

from collections.abc import Sequence
from typing import Any

import keras
from typing_extensions import override

from tfctr.layers.arguments import check_activation, check_count, check_flag, check_rate, check_units
from tfctr.layers.configured import ConfiguredLayer, Shape
from tfctr.layers.dice import Dice
from tfctr.layers.dropout import Dropout
from tfctr.layers.export import tfctr_export
from tfctr.layers.initializers import xavier_normal
from tfctr.layers.normalization import BatchNormalization
from tfctr.layers.passes import Passes
from tfctr.layers.prelu import PReLU


def activation_layer(activation: str | None, name: str, dtype: Any) -> keras.layers.Layer:
    """The layer of an activation: `prelu` (one slope), `dice`, a Keras activation's name, or None for linear.

    It is called with `apply_activation`.
    """
    if activation == "prelu":
        return PReLU(name=name, dtype=dtype)
    if activation == "dice":
        return Dice(name=name, dtype=dtype)
    return keras.layers.Activation(activation, name=name, dtype=dtype)


def apply_activation(layer: keras.layers.Layer, inputs: Any, mask: Any = None, training: bool | None = None) -> Any:
    """The outputs of a layer of `activation_layer`; Dice alone has statistics, which mask and training are for."""
    return layer(inputs, mask=mask, training=training) if isinstance(layer, Dice) else layer(inputs)


@tfctr_export
class MlpBlock(ConfiguredLayer):
    """A stack of dense layers: for each, linear -> batch normalization -> activation -> dropout.

        h_0 = x,    h_i = dropout(activation(norm(h_{i-1} W_i + b_i)))

    Kernels start Xavier-normal (not truncated), and biases start at zero.

    Args:
        hidden: the widths of the layers. If there are none, and no `output`, the block is the identity.
        activation: a Keras activation's name, `prelu`, `dice`, or None.
        batch_norm: whether to normalize before the activation.
        dropout: the dropout rate after each activation.
        output: the width of a last, purely linear layer; None for none.

    Call arguments:
        inputs: float `[..., D]`, any leading axes.
        mask: bool `[...]`, true for rows that count in the statistics of batch normalization and Dice.
        training: whether to drop out and to use and update batch statistics.

    Output shape: `[..., output or hidden[-1]]`; the shape of the inputs where there is neither.
    """

    weight_kinds = ("kernel",)

    def __init__(
        self,
        hidden: Sequence[int],
        activation: str | None = "relu",
        batch_norm: bool = False,
        dropout: float = 0.0,
        output: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.hidden = check_units("hidden", hidden)
        self.activation = check_activation("activation", activation, more=("prelu", "dice"))
        widths = [*self.hidden, *([] if output is None else [check_count("output", output)])]
        self.dense = [self.make_linear(f"dense{i}", units) for i, units in enumerate(widths)]
        numbers, rate = range(len(self.hidden)), check_rate("dropout", dropout)
        normalized = numbers if check_flag("batch_norm", batch_norm) else ()
        self.norms = [self.make_part(BatchNormalization, f"bn{i}") for i in normalized]
        self.activations = [activation_layer(activation, f"activation{i}", self.dtype_policy) for i in numbers]
        self.dropouts = [self.make_part(Dropout, f"dropout{i}", rate) for i in numbers]
        self.supports_masking = True

    def make_linear(self, name: str, units: int) -> Any:
        """Return a new layer in the place of `linear`, with `units` as its attribute."""
        return self.make_dense(name, units, initializer=xavier_normal())

    @override
    def build(self, input_shape: Shape) -> None:
        shape = tuple(input_shape)
        for i, dense in enumerate(self.dense):
            dense.build(shape)
            shape = (*shape[:-1], dense.units)
            if i < len(self.hidden):
                for layer in (*self.norms[i : i + 1], self.activations[i]):
                    layer.build(shape)
        self.built = True

    @override
    def call(self, inputs: Any, mask: Any = None, training: bool | None = None) -> Any:
        return self.on_passes(Passes(inputs), mask, training).only

    def on_passes(self, inputs: Passes, mask: Any, training: bool | None) -> Passes:
        """The outputs of several passes, with one computation of what comes before the first dropout."""
        x = inputs
        for i, dense in enumerate(self.dense):
            x = x.map(dense)
            if i == len(self.hidden):
                break
            if self.norms:
                x = x.through(self.norms[i], mask=mask, training=training)
            x = x.map(lambda one, act=self.activations[i]: apply_activation(act, one, mask, training))
            x = x.through(self.dropouts[i], training=training)
        return x

    @override
    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (*input_shape[:-1], self.dense[-1].units) if self.dense else tuple(input_shape)
