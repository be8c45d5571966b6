"""The quadratic neuron formats T1 to T30: one table, one layer, one backbone."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
from keras import ops

from tfctr.errors import UserError
from tfctr.interactions.headed import HeadedInteraction
from tfctr.layers.arguments import check_activation, check_count, check_flag, check_rate
from tfctr.layers.export import tfctr_export
from tfctr.layers.initializers import xavier_normal
from tfctr.layers.normalization import BatchNormalization

Tensor = Any


@dataclass(frozen=True)
class Terms:
    """What a format may combine: its input and the projections of it.

    Attributes:
        x: The input, [..., D].
        h: The equal parts of the first linear map.
        v: The second linear map, of formats that have one.
        bilinear: x^T A_k x + beta_k, of formats that have it.
        alpha: A trained scale of each coordinate, of formats that have it.
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
        output: The layer's output from its terms.
        parts: In how many equal parts the first linear map is split; 0 for no such map.
        share: Width of a part as a share of D.
        reads: What the first map reads; x itself by default.
        second: What the second map reads; None for no such map.
        second_reads: Width of that as a share of D.
        second_share: Width of the second map as a share of D.
        bilinear: Whether there is a bilinear term. Such formats work on a compressed input.
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


def check_format(name: str) -> str:
    """A name of `FORMATS`."""
    if name not in FORMATS:
        raise ValueError(f"`format` must be one of {', '.join(FORMATS)}. Received: {name!r}")
    return name


@tfctr_export
class QuadraticNeuron(keras.layers.Layer):
    """One layer of quadratic neurons of a format.

        y = g(x),    g a row of `FORMATS`, such as T9: x * (W x + b) + x

    Args:
        format: T1 to T30.

    Call arguments:
        inputs: float `[..., D]`; D must be even for the formats of half-wide parts.

    Output shape:
        `[..., D]`.

    Raises:
        ValueError: for an unknown format, and for an odd D where halves are needed.

    Example:
        >>> tuple(QuadraticNeuron("T9")(keras.random.normal((8, 50, 12))).shape)
        (8, 50, 12)

    References:
        Revisiting the Hadamard product with quadratic neural networks (QNN-alpha), table 1.
    """

    def __init__(self, format: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.format = check_format(format)
        self.supports_masking = True

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Create the maps that the format has."""
        dim, made = input_shape[-1], FORMATS[self.format]
        if dim is None:
            raise ValueError(f"The last axis of the inputs must be known. Received shape: {input_shape}")
        if made.half_wide and dim % 2:
            raise ValueError(f"Format {self.format} needs an even width. Received shape: {input_shape}")
        part = int(dim * made.share)
        self.linear = self._dense("linear", dim, made.parts * part) if made.parts else None
        self.second = None
        if made.second is not None:
            self.second = self._dense("linear2", int(dim * made.second_reads), int(dim * made.second_share))
        if made.bilinear:
            limit = 1.0 / math.sqrt(dim)
            start = keras.initializers.RandomUniform(-limit, limit)
            self.tensor = self.add_weight(name="bilinear", shape=(dim, dim, dim), initializer=start)
            self.tensor_bias = self.add_weight(name="bilinear_bias", shape=(dim,), initializer=start)
        if made.alpha:
            self.alpha = self.add_weight(name="alpha", shape=(dim,), initializer="ones")
        self.built = True

    def _dense(self, name: str, width: int, units: int) -> keras.layers.Dense:
        dense = keras.layers.Dense(units, kernel_initializer=xavier_normal(), name=name, dtype=self.dtype_policy)
        dense.build((None, width))
        return dense

    def call(self, inputs: Any) -> Any:
        """Apply the format; see the class."""
        made = FORMATS[self.format]
        h = () if self.linear is None else tuple(ops.split(self.linear(made.reads(inputs)), made.parts, axis=-1))
        v = self.second(made.second(inputs, h)) if self.second is not None and made.second is not None else None
        bilinear = self._bilinear(inputs) if made.bilinear else None
        return made.output(Terms(inputs, h, v, bilinear, self.alpha if made.alpha else None))

    def _bilinear(self, inputs: Any) -> Any:
        """x^T A_k x + beta_k, by one product with all A_k side by side."""
        dim = inputs.shape[-1]
        rows = ops.reshape(inputs, (-1, dim))
        products = ops.matmul(rows, ops.reshape(ops.transpose(self.tensor, (1, 0, 2)), (dim, dim * dim)))
        sums = ops.sum(ops.reshape(products, (-1, dim, dim)) * rows[:, None, :], axis=-1) + self.tensor_bias
        return ops.reshape(sums, ops.shape(inputs))

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """The shape of the inputs."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**super().get_config(), "format": self.format}


@tfctr_export
class Neuron(HeadedInteraction):
    """A network of quadratic neurons of one format, and a linear head.

        x^l = dropout(act(norm(g(x^{l-1})))),    logit = w . x^L + b

    T1, T2 and T6, whose bilinear term costs the cube of the width, work on z = C x of `compressed_dim` numbers.

    Args:
        format: T1 to T30, see `FORMATS`.
        layers: L.
        activation: after each layer (the paper's post-activation); None for none.
        batch_norm: whether to normalize before it. The logs of the paper's ReLU rows of T3, T4, T5, T7 and T8 have
            this normalization, its other rows have not.
        dropout: the rate after each layer.
        compressed_dim: width of z, for the formats with a bilinear term.

    Call arguments:
        inputs: float `[..., D]`.
        mask: bool `[...]`, true for the rows that count in batch statistics.
        training: whether to drop out and to use and update batch statistics.

    Output shape:
        `[...]`.

    Raises:
        ValueError: for an unknown format, and for an odd D where halves are needed.

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
        self.format = check_format(format)
        self.layers = check_count("layers", layers)
        self.activation = check_activation("activation", activation)
        self.batch_norm = check_flag("batch_norm", batch_norm)
        self.dropout = check_rate("dropout", dropout)
        self.compressed_dim = check_count("compressed_dim", compressed_dim)
        self.act = keras.activations.get(activation)

    def build_hidden(self, input_shape: tuple[int | None, ...]) -> int:
        """Create the layers."""
        width, policy = input_shape[-1], self.dtype_policy
        if width is None:
            raise ValueError(f"The last axis of the inputs must be known. Received shape: {input_shape}")
        if FORMATS[self.format].half_wide and width % 2:
            raise UserError(
                f"interaction neuron: format {self.format} needs an even number of inputs, fields times embedding "
                f"width. Received: {width}"
            )
        self.compress = None
        if FORMATS[self.format].bilinear:
            self.compress = keras.layers.Dense(
                self.compressed_dim, use_bias=False, kernel_initializer=xavier_normal(), name="compress", dtype=policy
            )
            self.compress.build((None, width))
            width = self.compressed_dim
        self.neurons = [QuadraticNeuron(self.format, name=f"layer{i}", dtype=policy) for i in range(self.layers)]
        self.norms = [
            BatchNormalization(name=f"bn{i}", dtype=policy) for i in range(self.layers if self.batch_norm else 0)
        ]
        self.drops = [keras.layers.Dropout(self.dropout, name=f"dropout{i}", dtype=policy) for i in range(self.layers)]
        layers: list[keras.layers.Layer] = [*self.neurons, *self.norms]
        for layer in layers:
            layer.build((None, width))
        return width

    def hidden(self, inputs: Any, mask: Any = None, training: bool | None = None) -> Any:
        """The output of the last layer, before the linear head; arguments as in a call."""
        x = inputs if self.compress is None else self.compress(inputs)
        for i, neuron in enumerate(self.neurons):
            x = neuron(x)
            if self.norms:
                x = self.norms[i](x, mask=mask, training=training)
            x = self.drops[i](self.act(x), training=training)
        return x

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        names = "format layers activation batch_norm dropout compressed_dim"
        return {**super().get_config(), **{name: getattr(self, name) for name in names.split()}}
