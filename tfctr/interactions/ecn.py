"""ECN and LCN, cross networks with a mask made of their own products, and FCN, which is both of them."""

from collections.abc import Mapping
from typing import Any, Literal

import keras
from keras import ops
from typing_extensions import override

from tfctr.interactions.base import Eats, Interaction, interaction
from tfctr.interactions.headed import HeadedInteraction, create_part
from tfctr.layers.arguments import check_choice, check_count, check_flag, check_rate
from tfctr.layers.configured import SameShapeLayer, Shape
from tfctr.layers.dropout import Dropout
from tfctr.layers.export import tfctr_export
from tfctr.layers.initializers import xavier_normal
from tfctr.layers.normalization import BatchNormalization
from tfctr.layers.tokens import known_width, token_shape

Growth = Literal["exponential", "linear"]
GROWTHS = ("exponential", "linear")


@tfctr_export
class SelfMaskCross(SameShapeLayer):
    """One cross layer for all heads, half of whose products are masked by themselves.

        g = norm_heads(x W),    m = relu(norm(g)),    y = base * ([g; g * m] + b) + x

    The weights are shared by the heads. b starts uniform between 0 and 1.

    Args:
        layer_norm: whether the mask is made of g normalized over its width.
        batch_norm: whether to normalize g over the batch, with one channel a head.

    Call arguments:
        inputs: x, float `[..., H, D]`, D even.
        base: float `[..., H, D]`: x itself doubles the degree, the input of the network raises it by one.
        mask: bool `[...]`, true for the rows that count in batch statistics.
        training: whether to use and update batch statistics.

    Output shape: `[..., H, D]`.

    Example:
        >>> x = keras.random.normal((8, 50, 2, 12))
        >>> tuple(SelfMaskCross()(x, x).shape)
        (8, 50, 2, 12)

    References:
        Li et al., FCN: Fusing Exponential and Linear Cross Network for Click-Through Rate Prediction (2025), in the
        form of the released code.
    """

    weight_kinds = ("kernel",)

    def __init__(self, layer_norm: bool = True, batch_norm: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        normalized = check_flag("layer_norm", layer_norm)
        self.norm = self.make_part(keras.layers.LayerNormalization, "norm", epsilon=1e-5) if normalized else None
        normalized = check_flag("batch_norm", batch_norm)
        self.batch_norm = self.make_part(BatchNormalization, "bn", axis=-2) if normalized else None
        self.supports_masking = True

    @override
    def build(self, input_shape: Shape) -> None:
        dim = known_width(input_shape)
        self.kernel = self.make_weight("kernel", (dim, dim // 2), xavier_normal())
        self.bias = self.add_weight(name="bias", shape=(dim,), initializer=keras.initializers.RandomUniform(0.0, 1.0))
        for part in (self.norm, self.batch_norm):
            if part is not None:
                part.build((*input_shape[:-1], dim // 2))
        self.built = True

    @override
    def call(self, inputs: Any, base: Any, mask: Any = None, training: bool | None = None) -> Any:
        products = ops.matmul(inputs, self.kernel)
        if self.batch_norm is not None:
            products = self.batch_norm(products, mask=mask, training=training)
        own_mask = ops.relu(products if self.norm is None else self.norm(products))
        return base * (ops.concatenate([products, products * own_mask], axis=-1) + self.bias) + inputs


@interaction("ecn")
class Ecn(HeadedInteraction):
    """ECN, the exponential cross network, or LCN, the linear one, and a linear head.

        x^0_h = [the first halves of head h of all fields; the second halves],    h = 1..H
        exponential (ECN)   x^l_h = dropout(x^{l-1}_h * ([g; g * m] + b) + x^{l-1}_h)
        linear (LCN)        x^l_h = dropout(x^0_h * ([g; g * m] + b) + x^{l-1}_h)
        logit = mean_h(w . x^L_h + b)

    with g and m of `SelfMaskCross`. The degree of the products doubles with each exponential layer, and grows by one
    with each linear layer. Each head is a slice of every field.

    Args:
        layers: L.
        heads: H.
        growth: `exponential` for ECN, `linear` for LCN.
        dropout: the rate after each layer.
        layer_norm: whether the masks are made of normalized products.
        batch_norm: whether to normalize the products over the batch, with one channel a head.

    Inputs float `[..., F, E]`, where 2 H divides E; call arguments and output: see `Interaction`.

    Raises:
        ValueError: when built, if 2 H does not divide E.

    Example:
        >>> tuple(Ecn(layers=2, heads=2)(keras.random.normal((8, 50, 7, 16))).shape)
        (8, 50)

    References:
        Li et al., FCN: Fusing Exponential and Linear Cross Network for Click-Through Rate Prediction (2025), in the
        form of the released code. That code makes fields H times as wide as the configured width and splits those; here
        the width of the fields is what is split, so that heads cost nothing.
    """

    eats: Eats = "fields"

    def __init__(
        self,
        layers: int = 3,
        heads: int = 1,
        growth: Growth = "exponential",
        dropout: float = 0.1,
        layer_norm: bool = True,
        batch_norm: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.heads = check_count("heads", heads)
        self.exponential = check_choice("growth", growth, GROWTHS) == "exponential"
        numbers, rate = range(check_count("layers", layers)), check_rate("dropout", dropout)
        self.crosses = [self.make_part(SelfMaskCross, f"layer{i}", layer_norm, batch_norm) for i in numbers]
        self.drops = [self.make_part(Dropout, f"dropout{i}", rate) for i in numbers]

    @override
    def build_hidden(self, input_shape: Shape) -> int:
        fields, width = token_shape(input_shape)
        if width % (2 * self.heads):
            raise ValueError(
                f"The width of the fields must be a multiple of {2 * self.heads}: of {self.heads} heads, each in two "
                f"halves. Received: {width}"
            )
        dim = fields * width // self.heads
        for cross in self.crosses:
            cross.build((None, self.heads, dim))
        return dim

    def head_vectors(self, inputs: Any) -> Any:
        """The input of the network, `[..., H, F * E / H]`, of fields `[..., F, E]`."""
        *leading, fields, width = ops.shape(inputs)
        half = inputs.shape[-1] // (2 * self.heads)
        x = ops.moveaxis(ops.reshape(inputs, (*leading, fields, self.heads, 2, half)), -4, -2)
        return ops.reshape(x, (*leading, self.heads, fields * width // self.heads))

    def crossed(self, vectors: Any, mask: Any = None, training: bool | None = None) -> Any:
        """The output of the last layer, `[..., H, D]`, of head vectors of this shape."""
        x = vectors
        for cross, drop in zip(self.crosses, self.drops, strict=True):
            x = cross(x, x if self.exponential else vectors, mask=mask, training=training)
            x = drop(x, training=training)
        return x

    @override
    def hidden(self, inputs: Any, mask: Any = None, training: bool | None = None) -> Any:
        # The linear head of the mean is the mean of the heads' logits.
        return ops.mean(self.crossed(self.head_vectors(inputs), mask, training), axis=-2)


@interaction("fcn")
class Fcn(Interaction):
    """FCN: an exponential and a linear cross network side by side.

        logit = (logit_ECN + logit_LCN) / 2

    The two networks are the branches of the backbone: `loss: {type: tri_bce, over: branches, mean: logit}` is the loss
    of the paper.

    Args:
        heads: the heads of both networks.
        exponential: further arguments of `Ecn` for the exponential network; by default it has 3 layers.
        linear: the same for the linear network, which has 4 layers by default.

    Inputs float `[..., F, E]`, where 2 heads divides E; call arguments and output: see `Interaction`.

    Raises:
        ValueError: for arguments that `Ecn` refuses.

    Example:
        >>> layer = Fcn(heads=2, exponential={"layers": 2}, linear={"layers": 1})
        >>> tuple(layer(keras.random.normal((8, 50, 7, 16))).shape)
        (8, 50)

    References:
        Li et al., FCN: Fusing Exponential and Linear Cross Network for Click-Through Rate Prediction (2025), also known
        as DCNv3, in the form of the released code; see `Ecn`.
    """

    weight_kinds = ("kernel",)
    eats: Eats = "fields"
    branches = 2

    def __init__(
        self,
        heads: int = 1,
        exponential: Mapping[str, Any] | None = None,
        linear: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.heads = check_count("heads", heads)
        self.exponential = self._create_network("exponential", {"layers": 3}, exponential)
        self.linear = self._create_network("linear", {"layers": 4}, linear)

    def _create_network(self, growth: Growth, default: dict[str, Any], given: Any) -> Ecn:
        if given is not None and not isinstance(given, Mapping):
            raise ValueError(f"`{growth}` must be a mapping of arguments of Ecn. Received: {given!r}")
        decided = {"heads": self.heads, "growth": growth}
        taken = ", ".join(f"`{name}`" for name in decided if name in (given or {}))
        if taken:
            raise ValueError(f"`{growth}` must not have {taken}, which this backbone decides. Received: {given!r}")
        return create_part(self, growth, {"ecn": Ecn}, {"type": "ecn", **default, **(given or {}), **decided})

    @override
    def build(self, input_shape: Shape) -> None:
        self.exponential.build(input_shape)
        self.linear.build(input_shape)
        self.built = True

    @override
    def branch_logits(self, inputs: Any, mask: Any = None, training: bool | None = None, **_: Any) -> Any:
        networks = (self.exponential, self.linear)
        return ops.stack([network(inputs, mask=mask, training=training) for network in networks])

    @override
    def call(self, inputs: Any, mask: Any = None, training: bool | None = None) -> Any:
        return ops.mean(self.branch_logits(inputs, mask=mask, training=training), axis=0)
