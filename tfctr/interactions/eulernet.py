"""EulerNet: products of fields with learned orders, as sums of logarithms and angles of complex numbers."""

from collections.abc import Sequence
from typing import Any, ClassVar

import keras
from keras import ops
from typing_extensions import override

from tfctr.interactions.base import Eats, interaction
from tfctr.interactions.headed import HeadedInteraction
from tfctr.layers.arguments import check_count, check_flag, check_rate, check_units
from tfctr.layers.configured import ConfiguredLayer, Shape
from tfctr.layers.dropout import Dropout
from tfctr.layers.export import tfctr_export
from tfctr.layers.normalization import LayerNormalization
from tfctr.layers.tokens import as_tokens, as_vector, combine_tokens, token_shape

TINY = 1e-30
"""Squared moduli up to this have the angle 0 and no gradient of it: that of atan2 divides by the squared modulus."""


def polar(real: Any, imaginary: Any) -> tuple[Any, Any]:
    """The logarithm of the modulus, ln(r^2 + p^2 + 1e-8) / 2, and the angle; both are finite for zeros too."""
    squared = ops.square(real) + ops.square(imaginary)
    zero = squared <= TINY
    angle = ops.arctan2(
        ops.where(zero, ops.zeros_like(imaginary), imaginary), ops.where(zero, ops.ones_like(real), real)
    )
    return 0.5 * ops.log(squared + 1e-8), angle


def start_of_orders(shape: Any, dtype: Any = None) -> Any:
    """The identity for as many neurons as rows; else each neuron is almost exactly one of the rows, drawn at random."""
    rows, neurons = shape
    if rows == neurons:
        return ops.eye(rows, dtype=dtype)
    return ops.softmax(keras.initializers.RandomNormal(stddev=100.0)(shape, dtype=dtype), axis=0)


@tfctr_export
class EulerLayer(ConfiguredLayer):
    """One layer of EulerNet over N complex numbers for each of E elements, from their parts r and p.

        lambda = ln(r^2 + p^2 + 1e-8) / 2,                theta = atan2(p, r)
        lambda'_k = exp(sum_n a_nk lambda_n + b_k),       theta'_k = sum_n a_nk theta_n + c_k
        r' = LN(relu(flatten(r) W + d) + lambda' cos(theta')),    p' = LN(relu(flatten(p) W + d) + lambda' sin(theta'))

    Hence neuron k is the product of the numbers n, each to the power of its order a_nk. All but the products with W is
    computed in float32.

    Args:
        neurons: K.
        layer_norm: whether r' and p' are normalized over E.
        dropout: the rate on lambda and theta.
        implicit_dropout: the rate on what W is multiplied by.

    Call arguments:
        inputs: r, float `[..., N, E]`.
        imaginary: p, float `[..., N, E]`.
        training: whether to drop out.

    Output shape: two of `[..., K, E]`.

    Example:
        >>> x = keras.random.normal((8, 50, 7, 16))
        >>> real, imaginary = EulerLayer(5)(keras.ops.cos(x), keras.ops.sin(x))
        >>> tuple(real.shape), tuple(imaginary.shape)
        ((8, 50, 5, 16), (8, 50, 5, 16))

    References:
        Tian et al., EulerNet (2023), the Euler interaction layer, and its public code.
    """

    weight_kinds = ("kernel",)

    def __init__(
        self,
        neurons: int = 52,
        layer_norm: bool = True,
        dropout: float = 0.0,
        implicit_dropout: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.neurons = check_count("neurons", neurons)
        self.layer_norm = check_flag("layer_norm", layer_norm)
        self.drop = self.make_part(Dropout, "dropout", check_rate("dropout", dropout))
        rate = check_rate("implicit_dropout", implicit_dropout)
        self.implicit_drop = self.make_part(Dropout, "implicit_dropout", rate)

    @override
    def build(self, inputs_shape: Shape, imaginary_shape: Shape) -> None:
        rows, width = token_shape(inputs_shape)
        shape = (*inputs_shape[:-2], self.neurons, width)
        self.orders = self.make_weight("orders", (rows, self.neurons), start_of_orders, autocast=False)
        self.implicit = self.make_dense("implicit", self.neurons * width, rows * width, activation="relu")

        def bias(name: str) -> Any:
            start = keras.initializers.RandomNormal(stddev=0.01)
            return self.add_weight(name=name, shape=(self.neurons * width,), initializer=start, autocast=False)

        self.modulus_bias, self.angle_bias = bias("modulus_bias"), bias("angle_bias")
        names = ("norm_real", "norm_imaginary") if self.layer_norm else ()
        self.norms = [self.make_part(LayerNormalization, name, built_for=shape) for name in names]
        self.built = True

    @override
    def call(self, inputs: Any, imaginary: Any, training: bool | None = None) -> Any:
        parts = [ops.cast(part, self.variable_dtype) for part in (inputs, imaginary)]
        modulus, angle = (self.drop(one, training=training) for one in polar(*parts))
        modulus = ops.exp(self._combined(modulus, self.modulus_bias))
        angle = self._combined(angle, self.angle_bias)
        outputs = [modulus * ops.cos(angle), modulus * ops.sin(angle)]
        for i, part in enumerate((inputs, imaginary)):
            implicit = self.implicit(self.implicit_drop(as_vector(part), training=training))
            output = outputs[i] + as_tokens(ops.cast(implicit, self.variable_dtype), self.neurons, inputs.shape[-1])
            outputs[i] = self.norms[i](output) if self.norms else ops.cast(output, self.compute_dtype)
        return tuple(outputs)

    def _combined(self, x: Any, bias: Any) -> Any:
        x = ops.cast(x, self.variable_dtype)  # dropout works in half precision, where that is the policy
        return combine_tokens(x, self.orders) + ops.reshape(bias, (self.neurons, x.shape[-1]))

    @override
    def compute_output_shape(self, inputs_shape: Shape, imaginary_shape: Shape) -> tuple[Shape, Shape]:
        shape = (*inputs_shape[:-2], self.neurons, inputs_shape[-1])
        return shape, shape


@interaction("eulernet")
class EulerNet(HeadedInteraction):
    """Fields as angles of complex numbers, multiplied with learned orders.

        r = mu * cos(e),    p = mu * sin(e)                     mu: one number a field
        (r, p) = layer_l(r, p)                                  `EulerLayer`, for each of `neurons`
        logit = w . (r + p) + b

    Args:
        neurons: the number of neurons of each layer.
        layer_norm: whether layers normalize.
        dropout: the rate on the logarithms and angles of each layer.
        implicit_dropout: the rate on the inputs of the dense part of each layer.

    Inputs float `[..., F, E]`; call arguments and output: see `Interaction`.

    Example:
        >>> tuple(EulerNet(neurons=[5, 4])(keras.random.normal((8, 50, 7, 16))).shape)
        (8, 50)

    References:
        Tian et al., EulerNet: Adaptive Feature Interaction Learning via Euler's Formula for CTR Prediction (2023), and
        its public code, which adds b once for r and once for p. The gradient of an angle is 0 where r and p are 0; it
        has no value in the public code. The head starts at a fifth of the published values; else the first logits would
        have a standard deviation near 1.5.
    """

    eats: Eats = "fields"
    head_gain: ClassVar[float] = 0.2

    def __init__(
        self,
        neurons: Sequence[int] = (52,),
        layer_norm: bool = True,
        dropout: float = 0.0,
        implicit_dropout: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.neurons = check_units("neurons", neurons)
        if not self.neurons:
            raise ValueError("`neurons` must not be empty. Received: []")
        own = (layer_norm, dropout, implicit_dropout)
        self.layers = [self.make_part(EulerLayer, f"layer{i}", units, *own) for i, units in enumerate(self.neurons)]

    @override
    def build_hidden(self, input_shape: Shape) -> int:
        fields, width = token_shape(input_shape)
        self.modulus = self.add_weight(name="modulus", shape=(fields,), initializer="ones", autocast=False)
        shape = tuple(input_shape)
        for layer in self.layers:
            layer.build(shape, shape)
            shape = (*shape[:-2], layer.neurons, width)
        return self.neurons[-1] * width

    @override
    def hidden(self, inputs: Any, mask: Any = None, training: bool | None = None) -> Any:
        angle, modulus = ops.cast(inputs, self.variable_dtype), ops.expand_dims(self.modulus, -1)
        real, imaginary = modulus * ops.cos(angle), modulus * ops.sin(angle)
        for layer in self.layers:
            real, imaginary = layer(real, imaginary, training=training)
        return as_vector(real + imaginary)
