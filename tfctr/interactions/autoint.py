"""AutoInt and AutoInt+."""

from typing import Any

import keras
from keras import ops
from typing_extensions import override

from tfctr.interactions.base import Eats, interaction
from tfctr.interactions.headed import DeepConfig, HeadedInteraction, create_deep
from tfctr.layers.arguments import check_count, check_flag, check_rate
from tfctr.layers.configured import ConfiguredLayer, Shape
from tfctr.layers.dropout import Dropout
from tfctr.layers.export import tfctr_export
from tfctr.layers.initializers import xavier_normal
from tfctr.layers.masking import merge_heads, split_heads
from tfctr.layers.passes import Passes
from tfctr.layers.tokens import as_vector, join_vectors, known_width, softmax, token_shape


@tfctr_export
class FieldAttention(ConfiguredLayer):
    """Multi-head self-attention of the fields, with a residual and a ReLU after it.

        A_h = softmax(Q_h K_h^T * s),    y = relu(norm([A_1 V_1; ...; A_H V_H] + R x))

    Args:
        units: the width of the result, over all heads.
        heads: H, which must divide `units`.
        residual: whether there is R x. R is the identity if the inputs are as wide as the result, else a matrix.
        scale: whether s is 1 / sqrt(units / H), as in the Transformer; otherwise it is 1, as in the paper.
        layer_norm: whether there is the norm, which the paper does not have.
        dropout: the dropout rate of A.

    Call arguments:
        inputs: float `[..., F, E]`.
        training: whether to drop out.

    Output shape: `[..., F, units]`.

    Example:
        >>> tuple(FieldAttention(8, heads=2)(keras.random.normal((8, 50, 7, 16))).shape)
        (8, 50, 7, 8)

    References:
        Song et al., AutoInt (2019). Scale, layer norm and dropout are those of the public benchmarks.
    """

    weight_kinds = ("kernel",)

    def __init__(
        self,
        units: int,
        heads: int = 2,
        residual: bool = True,
        scale: bool = False,
        layer_norm: bool = False,
        dropout: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.units = check_count("units", units)
        self.heads = check_count("heads", heads)
        if units % heads:
            raise ValueError(f"`heads` must divide the {units} units of the attention. Received: {heads}")
        self.use_residual = check_flag("residual", residual)
        self.factor = (units // heads) ** -0.5 if check_flag("scale", scale) else 1.0
        self.drop = self.make_part(Dropout, "dropout", check_rate("dropout", dropout))
        normalized = check_flag("layer_norm", layer_norm)
        self.norm = self.make_part(keras.layers.LayerNormalization, "norm", epsilon=1e-5) if normalized else None

    @override
    def build(self, input_shape: Shape) -> None:
        width = known_width(input_shape)
        names = ["query", "key", "value"]
        if self.use_residual and width != self.units:
            names.append("residual")
        for name in names:
            setattr(self, name, self.make_dense(name, self.units, width, xavier_normal(), use_bias=False))
        if self.norm is not None:
            self.norm.build((*input_shape[:-1], self.units))
        self.projects = "residual" in names
        self.built = True

    @override
    def call(self, inputs: Any, training: bool | None = None) -> Any:
        query, key, value = (split_heads(one(inputs), self.heads) for one in (self.query, self.key, self.value))
        weights = softmax(ops.matmul(query, ops.swapaxes(key, -1, -2)) * self.factor)
        attended = merge_heads(ops.matmul(self.drop(weights, training=training), value))
        if self.use_residual:
            attended = attended + (self.residual(inputs) if self.projects else inputs)
        return ops.relu(attended if self.norm is None else self.norm(attended))

    @override
    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (*input_shape[:-1], self.units)


@interaction("autoint")
class AutoInt(HeadedInteraction):
    """AutoInt: layers of self-attention over the fields. With a deep network beside them it is AutoInt+.

        X^0 = the fields;    X^k = FieldAttention(X^{k-1})
        logit = w . [flatten(X^K); deep(x)] + b [+ linear]

    The one linear layer over both is the published sum of two logits, with one bias for their two.

    Args:
        layers: K.
        deep: the deep part, which may be any backbone with a linear head, without its head; None, the AutoInt of the
            paper, for none.
        first_order: whether the logit has first-order weights, as in some rows of the public benchmarks.
        units, heads, residual, scale, layer_norm, dropout: see `FieldAttention`.

    Inputs float `[..., F, E]`; call arguments and output: see `Interaction`.

    Example:
        >>> tuple(AutoInt(layers=2, units=8)(keras.random.normal((8, 50, 7, 16))).shape)
        (8, 50)

    References:
        Song et al., AutoInt: Automatic Feature Interaction Learning via Self-Attentive Neural Networks (2019), with
        AutoInt+.
    """

    # 85 ms a step of 4,096 rows against 119 with XLA, which is slow in products of many small matrices.
    jit_compile = False
    eats: Eats = "fields"
    # What layer norm gives is as large for small embeddings as for large ones.
    head_gain = 0.1
    deep_arguments = ("deep",)
    part_classes = (FieldAttention,)

    def __init__(
        self,
        layers: int = 3,
        units: int = 64,
        deep: DeepConfig | None = None,
        first_order: bool = False,
        **kwargs: Any,
    ) -> None:
        (attention,) = self.passed_on(kwargs)
        super().__init__(**kwargs)
        self.wide = check_flag("first_order", first_order)
        numbers = range(check_count("layers", layers))
        self.attentions = [self.make_part(FieldAttention, f"layer{i}", units, **attention) for i in numbers]
        self.deep = None if deep is None else create_deep(self, deep)
        if self.deep is not None:
            self.deep.headless = True

    @override
    def build_hidden(self, input_shape: Shape) -> int:
        shape = tuple(input_shape)
        for layer in self.attentions:
            layer.build(shape)
            shape = layer.compute_output_shape(shape)
        fields, width = token_shape(shape)
        if self.deep is None:
            return fields * width
        self.deep.build(self.deep.eaten_shape(input_shape))
        return fields * width + self.deep.width

    @override
    def pass_hidden(self, inputs: Passes, mask: Any, training: bool | None) -> Passes:
        x = inputs
        for layer in self.attentions:
            x = x.through(layer, training=training)
        x = x.map(as_vector)
        if self.deep is None:
            return x
        beside = self.deep.pass_hidden(inputs.map(self.deep.eaten), mask, training)
        return x.map(join_vectors, beside)

    @override
    def call(self, inputs: Any, mask: Any = None, training: bool | None = None, linear: Any = None) -> Any:
        return self.logit(self.hidden(inputs, mask=mask, training=training), linear)
