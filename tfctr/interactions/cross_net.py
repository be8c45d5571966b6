"""The cross networks of DCN, DCN V2 and its mixture of low-rank experts, and GDCN."""

from typing import Any, Literal

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
from tfctr.layers.tokens import contract, known_width

VERSIONS = ("v1", "v2", "mix", "gated")


@tfctr_export
class CrossV1(SameShapeLayer):
    """One cross layer with a vector of weights.

        y = x + x_0 (w . x) + b

    Args:
        residual: whether to add x.

    Call arguments:
        inputs: x, float `[..., D]`.
        x0: the input of the network, float `[..., D]`.

    Output shape: `[..., D]`.

    Example:
        >>> x = keras.random.normal((8, 50, 12))
        >>> tuple(CrossV1()(x, x).shape)
        (8, 50, 12)

    References:
        Wang et al., Deep & Cross Network for Ad Click Predictions (2017), equation 3, which has the residual.
    """

    weight_kinds = ("kernel",)

    def __init__(self, residual: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.residual = check_flag("residual", residual)
        self.supports_masking = True

    @override
    def build(self, input_shape: Shape) -> None:
        dim = input_shape[-1]
        self.kernel = self.make_weight("kernel", (dim, 1), xavier_normal())
        self.bias = self.add_weight(name="bias", shape=(dim,), initializer="zeros")
        self.built = True

    @override
    def call(self, inputs: Any, x0: Any) -> Any:
        # A sum and not a matrix product, since some matrix multiplications are wrong for a kernel of one column.
        weight = ops.sum(inputs * self.kernel[:, 0], axis=-1, keepdims=True)
        crossed = x0 * weight + self.bias
        return inputs + crossed if self.residual else crossed


@tfctr_export
class CrossV2(SameShapeLayer):
    """One cross layer with a matrix of weights.

        y = x + x_0 * act(norm(W x + b))

    Args:
        activation: a Keras activation's name; None, as published, for none.
        batch_norm: whether to normalize W x + b; the paper does not.

    Call arguments:
        inputs: x, float `[..., D]`.
        x0: the input of the network, float `[..., D]`.
        mask: bool `[...]`, true for the rows that count in batch statistics.
        training: whether to use and update batch statistics.

    Output shape: `[..., D]`.

    Example:
        >>> x = keras.random.normal((8, 50, 12))
        >>> tuple(CrossV2()(x, x).shape)
        (8, 50, 12)

    References:
        Wang et al., DCN V2 (2021), equation 1. The activation and the normalization are those of the released code of
        QNN-alpha (2025), table 5.
    """

    weight_kinds = ("kernel",)

    def __init__(self, activation: str | None = None, batch_norm: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.act = keras.activations.get(check_activation("activation", activation))
        normalized = check_flag("batch_norm", batch_norm)
        self.norm = self.make_part(BatchNormalization, "bn") if normalized else None
        self.supports_masking = True

    @override
    def build(self, input_shape: Shape) -> None:
        dim = input_shape[-1]
        self.kernel = self.make_weight("kernel", (dim, dim), xavier_normal())
        self.bias = self.add_weight(name="bias", shape=(dim,), initializer="zeros")
        if self.norm is not None:
            self.norm.build(input_shape)
        self.built = True

    @override
    def call(self, inputs: Any, x0: Any, mask: Any = None, training: bool | None = None) -> Any:
        projected = ops.matmul(inputs, self.kernel) + self.bias
        if self.norm is not None:
            projected = self.norm(projected, mask=mask, training=training)
        return inputs + x0 * self.act(projected)


@tfctr_export
class CrossMix(SameShapeLayer):
    """One cross layer with a mixture of low-rank experts.

        y = x + sum_m g_m x_0 * (U_m tanh(C_m tanh(V_m^T x)) + b)

    As the gates sum to one, the bias is added outside of the sum. The experts are mixed before they are projected back
    to D, with all U_m as one matrix.

    Args:
        experts: the number of experts.
        rank: the width of an expert.

    Call arguments:
        inputs: x, float `[..., D]`.
        x0: the input of the network, float `[..., D]`.
        gates: g, float `[..., experts]`, which sum to one.

    Output shape: `[..., D]`.

    Example:
        >>> x = keras.random.normal((8, 50, 12))
        >>> tuple(CrossMix(experts=2, rank=4)(x, x, keras.ops.ones((8, 50, 2)) / 2).shape)
        (8, 50, 12)

    References:
        Wang et al., DCN V2 (2021), the mixture of low-rank DCN, with tanh. The weights start as in the public
        implementations, where the fans of a matrix are those of all experts together.
    """

    weight_kinds = ("kernel",)

    def __init__(self, experts: int = 4, rank: int = 32, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.experts = check_count("experts", experts)
        self.rank = check_count("rank", rank)

    @override
    def build(self, input_shape: Shape) -> None:
        dim = known_width(input_shape)
        experts, rank = self.experts, self.rank

        def add(name: str, rows: int) -> Any:
            start = xavier_normal((rows * rank, experts * rank))
            return self.make_weight(name, (experts, rows, rank), start)

        self.inward, self.between, self.outward = add("V", dim), add("C", rank), add("U", dim)
        self.bias = self.add_weight(name="bias", shape=(dim,), initializer="zeros")
        self.built = True

    @override
    def call(self, inputs: Any, x0: Any, gates: Any) -> Any:
        inner = ops.tanh(contract("d,mdr->mr", inputs, self.inward))
        inner = ops.tanh(contract("ms,mrs->mr", inner, self.between))
        mixed = contract("mr,mdr->d", inner * ops.expand_dims(gates, -1), self.outward)
        return inputs + x0 * (mixed + self.bias)


@tfctr_export
class CrossGated(SameShapeLayer):
    """One cross layer with a gate for each product.

        y = x + x_0 * (W x + b) * sigmoid(G x)

    Call arguments:
        inputs: x, float `[..., D]`.
        x0: the input of the network, float `[..., D]`.

    Output shape: `[..., D]`.

    Example:
        >>> x = keras.random.normal((8, 50, 12))
        >>> tuple(CrossGated()(x, x).shape)
        (8, 50, 12)

    References:
        Wang et al., Towards Deeper, Lighter and Interpretable Cross Network for CTR Prediction (2023).
        The bias starts uniform between 0 and 1, as in the released code.
    """

    weight_kinds = ("kernel",)

    @override
    def build(self, input_shape: Shape) -> None:
        dim = known_width(input_shape)
        self.product = self.make_dense("product", dim, dim, xavier_normal(), use_bias=False)
        self.gate = self.make_dense("gate", dim, dim, xavier_normal(), use_bias=False, activation="sigmoid")
        self.bias = self.add_weight(name="bias", shape=(dim,), initializer=keras.initializers.RandomUniform(0.0, 1.0))
        self.built = True

    @override
    def call(self, inputs: Any, x0: Any) -> Any:
        return inputs + x0 * (self.product(inputs) + self.bias) * self.gate(inputs)


@interaction("cross_net")
class CrossNet(HeadedInteraction):
    """A cross network and a linear head: each layer raises the degree of the products by one.

        c^0 = x,    c^k = dropout(cross_k(c^{k-1}, x)),    logit = w . c^K + b

    where `cross_k` is a `CrossV1`, `CrossV2`, `CrossMix` or `CrossGated`. The gates of `mix` are softmax(c^{k-1} A),
    with the same A in all layers.

    Args:
        layers: K.
        version: `v1`, `v2`, `mix` or `gated`.
        activation: the activation of the projection of a `v2` layer; None, as published, for none.
        batch_norm: whether to normalize the projection of a `v2` layer; the paper does not.
        dropout: the rate after each layer; 0 as published.
        experts: the number of experts of `mix`; a single one has no gate.
        rank: the width of an expert of `mix`.

    Inputs float `[..., D]`; call arguments and output: see `Interaction`.

    Example:
        >>> tuple(CrossNet(layers=2, version="mix", rank=4)(keras.random.normal((8, 50, 12))).shape)
        (8, 50)

    References:
        Wang et al., Deep & Cross Network (2017), DCN V2 (2021) and GDCN (2023). `activation="relu"`, `batch_norm` and
        `dropout` make the cross part of DCNv2 with QNN-alpha as its authors released it.
    """

    def __init__(
        self,
        layers: int = 3,
        version: Literal["v1", "v2", "mix", "gated"] = "v2",
        activation: str | None = None,
        batch_norm: bool = False,
        dropout: float = 0.0,
        experts: int = 4,
        rank: int = 32,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.version = check_choice("version", version, VERSIONS)
        if version != "v2" and (activation is not None or check_flag("batch_norm", batch_norm)):
            raise ValueError(f"`activation` and `batch_norm` are for version v2 only. Received version: {version!r}")
        numbers = range(check_count("layers", layers))
        self.experts = check_count("experts", experts)
        rank, rate = check_count("rank", rank), check_rate("dropout", dropout)
        parts: dict[str, tuple[Any, ...]] = {
            "v1": (CrossV1,),
            "v2": (CrossV2, activation, batch_norm),
            "mix": (CrossMix, experts, rank),
            "gated": (CrossGated,),
        }
        part, *arguments = parts[version]
        self.crosses = [self.make_part(part, f"layer{i}", *arguments) for i in numbers]
        self.drops = [self.make_part(Dropout, f"dropout{i}", rate) for i in numbers]

    @override
    def build_hidden(self, input_shape: Shape) -> int:
        dim = known_width(input_shape)
        for cross in self.crosses:
            cross.build((None, dim))
        if self.version == "mix" and self.experts > 1:
            # The reference has a matrix `[D, 1]` for each expert, which has those fans.
            start = xavier_normal((dim, 1))
            self.gate = self.make_dense("gate", self.experts, dim, start, activation="softmax", use_bias=False)
        return dim

    @override
    def hidden(self, inputs: Any, mask: Any = None, training: bool | None = None) -> Any:
        x = inputs
        for cross, drop in zip(self.crosses, self.drops, strict=True):
            if self.version in ("v1", "gated"):
                x = cross(x, inputs)
            elif self.version == "v2":
                x = cross(x, inputs, mask=mask, training=training)
            else:
                gates = self.gate(x) if self.experts > 1 else ops.ones_like(x[..., :1])
                x = cross(x, inputs, gates)
            x = drop(x, training=training)
        return x
