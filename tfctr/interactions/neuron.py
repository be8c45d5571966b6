"""The quadratic neuron formats T1 to T30: one table, one layer, one backbone."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
from keras import ops
from typing_extensions import override

from tfctr.interactions.base import interaction
from tfctr.interactions.headed import HeadedInteraction
from tfctr.layers.arguments import check_activation, check_choice, check_count, check_flag, check_rate
from tfctr.layers.configured import SameShapeLayer, Shape
from tfctr.layers.dropout import Dropout
from tfctr.layers.export import tfctr_export
from tfctr.layers.initializers import xavier_normal
from tfctr.layers.normalization import BatchNormalization
from tfctr.layers.passes import Passes
from tfctr.layers.tokens import known_width

Tensor = Any


@dataclass(frozen=True)
class Terms:
    """The input of a layer and its projections, which a format combines.

    Attributes:
        x: The input, [..., D].
        h: The output of the first linear map, split into equal parts.
        v: The output of the second linear map, for formats that have one.
        bilinear: x^T A_k x + beta_k, for formats that have it.
        alpha: A trained scale of each coordinate, for formats that have it.
    """

    x: Tensor
    h: tuple[Tensor, ...] = ()
    v: Tensor = None
    bilinear: Tensor = None
    alpha: Tensor = None


@dataclass(frozen=True)
class Format:
    """One neuron format.

    Attributes:
        output: The function that makes the layer's output from its terms.
        parts: The number of equal parts that the first map's output is split into; 0 if there is no such map.
        share: The width of each part divided by D, such as 0.5 for parts of D / 2.
        reads: The function that makes the first map's input from x; by default the input is x.
        second: The function that makes the second map's input from x and the parts; None if there is no such map.
        second_reads: The width of the second map's input divided by D.
        second_share: The width of the second map's output divided by D.
        bilinear: Whether there is a bilinear term. The backbone compresses the input of such formats.
        alpha: Whether there is a trained scale.
    """

    output: Callable[[Terms], Tensor]
    parts: int = 1
    share: float = 1.0
    reads: Callable[[Tensor], Tensor] = lambda x: x
    second: Callable[[Tensor, tuple[Tensor, ...]], Tensor] | None = None
    second_reads: float = 1.0
    second_share: float = 1.0
    bilinear: bool = False
    alpha: bool = False

    @property
    def half_wide(self) -> bool:
        """Whether D must be even."""
        return self.share < 1.0


def _join(*parts: Tensor) -> Tensor:
    return ops.concatenate(parts, axis=-1)


def _squared(x: Tensor, _: tuple[Tensor, ...] = ()) -> Tensor:
    return x * x


# t.x is the input, t.h[0], t.h[1] ... are parts of the linear map, t.v is the second map; products are elementwise.
FORMATS: dict[str, Format] = {
    "T1": Format(lambda t: t.bilinear + t.h[0], bilinear=True),
    "T2": Format(lambda t: t.bilinear, parts=0, bilinear=True),
    "T3": Format(lambda t: t.h[0], reads=_squared),
    "T4": Format(lambda t: t.h[0] * t.h[0]),
    "T5": Format(lambda t: t.h[0] * t.h[1], parts=2),
    "T6": Format(lambda t: t.bilinear + t.h[0], reads=_squared, bilinear=True),
    "T7": Format(lambda t: t.h[0] * t.h[1] + t.v, parts=2, second=_squared),
    "T8": Format(lambda t: t.h[0] * t.h[1] + t.h[2], parts=3),
    "T9": Format(lambda t: t.x * t.h[0] + t.x),
    "T10": Format(lambda t: t.x * t.h[0] + t.h[1], parts=2),
    "T11": Format(lambda t: _join(t.h[0], t.h[1] * t.h[1]), parts=2, share=0.5),
    "T12": Format(lambda t: _join(t.h[0] * t.h[1], t.v), parts=2, share=0.5, second=_squared, second_share=0.5),
    "T13": Format(lambda t: _join(t.h[0] * t.h[1], t.h[2]), parts=3, share=0.5),
    "T14": Format(lambda t: _join(t.h[0] * t.h[1], t.h[1]), parts=2, share=0.5),
    "T15": Format(lambda t: _join(t.h[0] * t.h[0], t.h[0]), share=0.5),
    "T16": Format(lambda t: t.x * t.h[0] * t.h[1] + t.x, parts=2),
    "T17": Format(lambda t: t.x * t.h[0] + t.h[1] + t.x, parts=2),
    "T18": Format(lambda t: t.v, second=lambda x, h: _join(x * h[0], x), second_reads=2.0),
    "T19": Format(lambda t: t.x * ops.relu(t.h[0]) + t.x),
    "T20": Format(lambda t: t.x * t.h[0] + t.h[0] + t.x),
    "T21": Format(lambda t: ops.square(t.x * t.h[0]) + t.x),
    "T22": Format(lambda t: t.x * t.h[0] + t.alpha * t.x, alpha=True),
    "T23": Format(lambda t: t.h[0] * t.h[1] + t.x, parts=2),
    "T24": Format(lambda t: t.h[0] * ops.relu(t.h[1]) + t.x, parts=2),
    "T25": Format(lambda t: t.x * t.v + t.x, share=0.5, second=lambda x, h: ops.relu(h[0]), second_reads=0.5),
    "T26": Format(lambda t: 0.5 * t.x * (ops.relu(t.h[0]) + ops.relu(t.h[1])) + t.x, parts=2),
    "T27": Format(lambda t: 0.5 * t.x * t.x * (ops.relu(t.h[0]) + ops.relu(t.h[1])) + t.x, parts=2),
    "T28": Format(lambda t: 0.5 * t.x * (ops.relu(t.h[0]) ** 2 + ops.relu(t.h[1]) ** 2) + t.x, parts=2),
    "T29": Format(lambda t: 0.5 * t.x * (ops.relu(t.h[0]) + ops.relu(t.h[1]) ** 2) + t.x, parts=2),
    "T30": Format(lambda t: 0.5 * (ops.relu(t.h[0]) * t.x + ops.relu(t.h[1]) * t.x * t.x) + t.x, parts=2),
}
"""The formats by their name in the QNN-alpha paper; T26 to T30 are in its released code only."""


@tfctr_export
class QuadraticNeuron(SameShapeLayer):
    """One layer of quadratic neurons of a format.

        y = g(x),    g a row of `FORMATS`, such as T9: x * (W x + b) + x

    Args:
        format: T1 to T30.

    Call arguments:
        inputs: float `[..., D]`; D must be even for the formats of half-wide parts.

    Output shape: `[..., D]`.

    Raises:
        ValueError: for an unknown format, and for an odd D where halves are needed.

    Example:
        >>> tuple(QuadraticNeuron("T9")(keras.random.normal((8, 50, 12))).shape)
        (8, 50, 12)

    References:
        Revisiting the Hadamard product with quadratic neural networks (QNN-alpha), table 1.
    """

    weight_kinds = ("kernel",)

    def __init__(self, format: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.format = check_choice("format", format, FORMATS)
        self.supports_masking = True

    @override
    def build(self, input_shape: Shape) -> None:
        dim, made = known_width(input_shape), FORMATS[self.format]
        if made.half_wide and dim % 2:
            raise ValueError(f"Format {self.format} needs an even number of inputs. Received: {dim}")
        part = int(dim * made.share)
        self.linear = self.make_dense("linear", made.parts * part, dim, xavier_normal()) if made.parts else None
        self.second = None
        if made.second is not None:
            width, units = int(dim * made.second_reads), int(dim * made.second_share)
            self.second = self.make_dense("linear2", units, width, xavier_normal())
        if made.bilinear:
            limit = 1.0 / math.sqrt(dim)
            start = keras.initializers.RandomUniform(-limit, limit)
            self.tensor = self.make_weight("bilinear", (dim, dim, dim), start)
            # A clone has a seed of its own; with the same initializer the bias would start as a part of the tensor.
            self.tensor_bias = self.add_weight(name="bilinear_bias", shape=(dim,), initializer=start.clone())
        if made.alpha:
            self.alpha = self.add_weight(name="alpha", shape=(dim,), initializer="ones")
        self.built = True

    @override
    def call(self, inputs: Any) -> Any:
        made = FORMATS[self.format]
        h = () if self.linear is None else tuple(ops.split(self.linear(made.reads(inputs)), made.parts, axis=-1))
        v = self.second(made.second(inputs, h)) if self.second is not None and made.second is not None else None
        bilinear = self._bilinear(inputs) if made.bilinear else None
        return made.output(Terms(inputs, h, v, bilinear, self.alpha if made.alpha else None))

    def _bilinear(self, inputs: Any) -> Any:
        """x^T A_k x + beta_k, computed by one product with all A_k side by side."""
        dim = inputs.shape[-1]
        rows = ops.reshape(inputs, (-1, dim))
        products = ops.matmul(rows, ops.reshape(ops.transpose(self.tensor, (1, 0, 2)), (dim, dim * dim)))
        sums = ops.sum(ops.reshape(products, (-1, dim, dim)) * rows[:, None, :], axis=-1) + self.tensor_bias
        return ops.reshape(sums, ops.shape(inputs))


@interaction("neuron")
class Neuron(HeadedInteraction):
    """A network of quadratic neurons of one format, and a linear head.

        x^l = dropout(act(norm(g(x^{l-1})))),    logit = w . x^L + b

    The bilinear term of T1, T2 and T6 costs the cube of the width. Their input is therefore z = C x, which has
    `compressed_dim` numbers.

    Args:
        format: T1 to T30, see `FORMATS`.
        layers: L.
        activation: the activation after each layer (the paper's post-activation); None for none.
        batch_norm: whether to normalize before the activation. In the paper's logs, the ReLU rows of T3, T4, T5, T7 and
            T8 have this normalization and the other rows do not.
        dropout: the rate after each layer.
        compressed_dim: the width of z, for the formats with a bilinear term.

    Inputs float `[..., D]`; call arguments and output: see `Interaction`.

    Example:
        >>> tuple(Neuron("T19", layers=2)(keras.random.normal((8, 50, 12))).shape)
        (8, 50)

    References:
        Revisiting the Hadamard product with quadratic neural networks (QNN-alpha), table 1: three layers, dropout 0.1.
    """

    def __init__(
        self,
        format: str = "T9",
        layers: int = 3,
        activation: str | None = None,
        batch_norm: bool = False,
        dropout: float = 0.1,
        compressed_dim: int = 100,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.format = check_choice("format", format, FORMATS)
        self.layers = check_count("layers", layers)
        self.act = keras.activations.get(check_activation("activation", activation))
        self.batch_norm = check_flag("batch_norm", batch_norm)
        self.dropout = check_rate("dropout", dropout)
        self.compressed_dim = check_count("compressed_dim", compressed_dim)

    @override
    def build_hidden(self, input_shape: Shape) -> int:
        width, numbers = known_width(input_shape), range(self.layers)
        self.compress = None
        if FORMATS[self.format].bilinear:
            self.compress = self.make_dense("compress", self.compressed_dim, width, xavier_normal(), use_bias=False)
            width = self.compressed_dim
        self.neurons = [self.make_part(QuadraticNeuron, f"layer{i}", self.format) for i in numbers]
        self.norms = [self.make_part(BatchNormalization, f"bn{i}") for i in numbers if self.batch_norm]
        self.drops = [self.make_part(Dropout, f"dropout{i}", self.dropout) for i in numbers]
        for layer in (*self.neurons, *self.norms):
            layer.build((None, width))
        return width

    @override
    def pass_hidden(self, inputs: Passes, mask: Any, training: bool | None) -> Passes:
        x = inputs if self.compress is None else inputs.map(self.compress)
        for i, neuron in enumerate(self.neurons):
            x = x.map(neuron)
            if self.norms:
                x = x.through(self.norms[i], mask=mask, training=training)
            x = x.map(self.act).through(self.drops[i], training=training)
        return x
