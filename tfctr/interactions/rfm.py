"""RFM: fields as rotations, whose angles attend to each other."""

from collections.abc import Sequence
from typing import Any, ClassVar

import keras
from keras import ops
from typing_extensions import override

from tfctr.interactions.base import Eats, interaction
from tfctr.interactions.headed import HeadedInteraction
from tfctr.layers.arguments import check_count, check_flag, check_rate, check_units
from tfctr.layers.configured import ConfiguredLayer, SameShapeLayer, Shape
from tfctr.layers.dropout import Dropout
from tfctr.layers.export import tfctr_export
from tfctr.layers.initializers import xavier_normal
from tfctr.layers.masking import merge_heads, split_heads
from tfctr.layers.normalization import LayerNormalization
from tfctr.layers.tokens import as_tokens, as_vector, contract, token_shape


@tfctr_export
class RotationAttention(ConfiguredLayer):
    """Attention between angles: how much field i attends to field j depends on the differences of their angles.

        q_i = theta_i Q_i,    k_i = theta_i K_i,    v_i = theta_i V_i           a matrix for each field
        A_ij    = sigmoid(sum_d w_d cos(q_id - k_jd))                           by head, w for all heads
        theta'_i = LN(sum_j A_ij v_j + theta_i W)

    The scores of a field do not sum to one. The cosine of a difference is a sum of two products of sines and cosines,
    so that all pairs of fields are one matrix product; the scores are computed in float32.

    Args:
        units: the width of the new angles.
        heads: the number of heads, which must divide `units`.
        dropout: the rate on v and on the theta that W is multiplied by.

    Call arguments:
        inputs: theta, float `[..., F, d]`.
        training: whether to drop out.

    Output shape: `[..., F, units]`.

    Example:
        >>> tuple(RotationAttention(12, heads=2)(keras.random.normal((8, 50, 7, 16))).shape)
        (8, 50, 7, 12)

    References:
        Tian et al., Rotative Factorization Machines (2024), the self-attentive rotation, as in its authors' code.
    """

    weight_kinds = ("kernel",)

    def __init__(self, units: int = 16, heads: int = 2, dropout: float = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = check_count("units", units)
        self.heads = check_count("heads", heads)
        if units % heads:
            raise ValueError(f"`units` must be a multiple of the {heads} heads. Received: {units}")
        rate = check_rate("dropout", dropout)
        self.value_drop = self.make_part(Dropout, "value_dropout", rate)
        self.residual_drop = self.make_part(Dropout, "residual_dropout", rate)

    @override
    def build(self, input_shape: Shape) -> None:
        fields, width = token_shape(input_shape)

        def add(name: str) -> Any:
            # The fans are those that PyTorch reads from the shape of all matrices together.
            start = xavier_normal((width * self.units, fields * self.units), gain=2**0.5)
            return self.make_weight(name, (fields, width, self.units), start)

        self.query, self.key, self.value = add("query"), add("key"), add("value")
        start = xavier_normal(gain=2**0.5)
        self.residual = self.make_dense("residual", self.units, width, start, use_bias=False)
        start = xavier_normal(gain=2**0.5)
        self.angle_weight = self.make_weight("angle_weight", (self.units // self.heads, 1), start, autocast=False)
        shape = (*input_shape[:-1], self.units)
        self.norm = self.make_part(LayerNormalization, "norm", built_for=shape)
        self.built = True

    @override
    def call(self, inputs: Any, training: bool | None = None) -> Any:
        query, key, value = (
            split_heads(contract("fd,fdw->fw", inputs, matrices), self.heads)
            for matrices in (self.query, self.key, self.value)
        )
        query, key = (ops.cast(angle, self.variable_dtype) for angle in (query, key))
        weight = self.angle_weight[:, 0]
        query = ops.concatenate([ops.cos(query) * weight, ops.sin(query) * weight], axis=-1)
        key = ops.concatenate([ops.cos(key), ops.sin(key)], axis=-1)
        scores = ops.matmul(query, ops.swapaxes(key, -1, -2))
        value = self.value_drop(value, training=training)
        attended = merge_heads(ops.matmul(ops.cast(ops.sigmoid(scores), value.dtype), value))
        return self.norm(attended + self.residual(self.residual_drop(inputs, training=training)))

    @override
    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (*input_shape[:-1], self.units)


@tfctr_export
class GroupNormalization(SameShapeLayer):
    """Layer normalization of each group of consecutive elements, with one scale and shift for all groups.

    Args:
        group_size: the number of elements of a group, which must divide the width of the inputs.

    Call arguments:
        inputs: float `[..., D]`.

    Output shape: `[..., D]`.

    Example:
        >>> tuple(GroupNormalization(4)(keras.random.normal((8, 50, 12))).shape)
        (8, 50, 12)

    References:
        Tian et al., Rotative Factorization Machines (2024), as in its authors' code.
    """

    def __init__(self, group_size: int = 4, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.group_size = check_count("group_size", group_size)

    @override
    def build(self, input_shape: Shape) -> None:
        if input_shape[-1] is None or input_shape[-1] % self.group_size:
            raise ValueError(f"The width must be a multiple of the group of {self.group_size}. Received: {input_shape}")
        self.norm = self.make_part(LayerNormalization, "norm", built_for=(None, self.group_size))
        self.built = True

    @override
    def call(self, inputs: Any) -> Any:
        return as_vector(self.norm(as_tokens(inputs, inputs.shape[-1] // self.group_size, self.group_size)))


@interaction("rfm")
class Rfm(HeadedInteraction):
    """Fields as rotations: attention between angles, then one perceptron for the two parts of the complex numbers.

        theta = the fields, then after each layer its angles                    `RotationAttention`
        r = cos(theta),    p = sin(theta)
        with `first_order`:  r = LN(r + cos(e P + c)),    p = LN(p + sin(e P + c))      e: the fields
        r = norm(relu(r W + d)),    p = norm(relu(p W + d))                     for each of `hidden`; by group
        logit = w . (r + p) + b

    Args:
        layers: the number of attentions.
        units: the width of the angles after an attention.
        heads: the number of heads, which must divide `units`.
        hidden: the widths of the layers of the perceptron.
        group_size: the size of the groups that a layer of the perceptron normalizes, which must divide its width.
        first_order: whether the angles of the fields themselves, mapped to `units`, are added.
        dropout: the rate inside of the attentions.
        hidden_dropout: the rate before each layer of the perceptron.

    Inputs float `[..., F, E]`; call arguments and output: see `Interaction`.

    Example:
        >>> tuple(Rfm(layers=1, units=8, hidden=[12])(keras.random.normal((8, 50, 7, 16))).shape)
        (8, 50)

    References:
        Tian et al., Rotative Factorization Machines (2024), and its authors' code, which adds b once for r and once
        for p. The head starts at a fifth of the published values; else the first logits would have a standard deviation
        near 2.
    """

    eats: Eats = "fields"
    head_gain: ClassVar[float] = 0.2

    def __init__(
        self,
        layers: int = 2,
        units: int = 16,
        heads: int = 2,
        hidden: Sequence[int] = (48,),
        group_size: int = 4,
        first_order: bool = False,
        dropout: float = 0.0,
        hidden_dropout: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        numbers = range(check_count("layers", layers))
        own = (units, heads, dropout)
        self.attentions = [self.make_part(RotationAttention, f"attention{i}", *own) for i in numbers]
        self.units = units
        self.hidden_units = check_units("hidden", hidden)
        if any(width % check_count("group_size", group_size) for width in self.hidden_units):
            raise ValueError(f"`hidden` must be multiples of the group of {group_size}. Received: {hidden!r}")
        self.first_order = check_flag("first_order", first_order)
        rate = check_rate("hidden_dropout", hidden_dropout)
        layers_of = list(enumerate(self.hidden_units))
        # The reference starts its perceptron far smaller than Xavier-normal values.
        self.dense = [
            self.make_dense(f"dense{i}", width, initializer=keras.initializers.RandomNormal(stddev=0.01))
            for i, width in layers_of
        ]
        self.drops = [self.make_part(Dropout, f"hidden_dropout{i}", rate) for i, _ in layers_of]
        self.real_norms = [self.make_part(GroupNormalization, f"norm{i}_real", group_size) for i, _ in layers_of]
        self.imaginary_norms = [
            self.make_part(GroupNormalization, f"norm{i}_imaginary", group_size) for i, _ in layers_of
        ]

    @override
    def build_hidden(self, input_shape: Shape) -> int:
        fields, embedding = token_shape(input_shape)
        shape = tuple(input_shape)
        for attention in self.attentions:
            attention.build(shape)
            shape = attention.compute_output_shape(shape)
        if self.first_order:
            start = keras.initializers.RandomNormal(stddev=0.01)
            self.projection = self.make_dense("projection", self.units, embedding, start)
            self.first_norms = [
                self.make_part(LayerNormalization, name, built_for=shape) for name in ("norm_real", "norm_imaginary")
            ]
        width = fields * self.units
        for dense, norms in zip(self.dense, zip(self.real_norms, self.imaginary_norms, strict=True), strict=True):
            dense.build((None, width))
            width = dense.units
            for norm in norms:
                norm.build((None, width))
        return width

    @override
    def hidden(self, inputs: Any, mask: Any = None, training: bool | None = None) -> Any:
        angles = inputs
        for attention in self.attentions:
            angles = attention(angles, training=training)
        real, imaginary = self._rotation(angles)
        if self.first_order:
            more = self._rotation(self.projection(inputs))
            real, imaginary = self.first_norms[0](real + more[0]), self.first_norms[1](imaginary + more[1])
        return self.perceived(as_vector(real), as_vector(imaginary), training=training)

    def perceived(self, real: Any, imaginary: Any, training: bool | None = None) -> Any:
        """The sum of what the perceptron makes of the two parts, each with normalizations of its own."""
        for i, dense in enumerate(self.dense):
            real, imaginary = (ops.relu(dense(self.drops[i](x, training=training))) for x in (real, imaginary))
            real, imaginary = self.real_norms[i](real), self.imaginary_norms[i](imaginary)
        return real + imaginary

    def _rotation(self, angles: Any) -> tuple[Any, Any]:
        """The cosine and the sine, computed in float32 and returned in the type of the layer."""
        angles = ops.cast(angles, self.variable_dtype)
        return ops.cast(ops.cos(angles), self.compute_dtype), ops.cast(ops.sin(angles), self.compute_dtype)
