"""MaskNet: multiplicative masks that the embeddings compute for their own and for hidden vectors."""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import keras
from keras import ops
from typing_extensions import override

from tfctr.interactions.base import Eats, interaction
from tfctr.interactions.headed import HeadedInteraction
from tfctr.layers.arguments import (
    check_activation,
    check_choice,
    check_count,
    check_flag,
    check_positive,
    check_rate,
    check_units,
)
from tfctr.layers.configured import ConfiguredLayer, SameShapeLayer, Shape
from tfctr.layers.dropout import Dropout
from tfctr.layers.export import tfctr_export
from tfctr.layers.initializers import xavier_normal
from tfctr.layers.mlp import MlpBlock, activation_layer
from tfctr.layers.normalization import standardized
from tfctr.layers.tokens import as_vector, flat_shape, known_width, token_shape

Structure = Literal["serial", "parallel"]
STRUCTURES: tuple[Structure, ...] = ("serial", "parallel")


@tfctr_export
class MaskBlock(ConfiguredLayer):
    """A dense layer over a vector that is first multiplied by a mask.

        mask = relu(x W_1 + b_1) W_2 + b_2,    y = dropout(act(LN((mask * v) U)))

    Args:
        units: the width of the output.
        ratio: the width of the layer inside the mask, in widths of v.
        layer_norm: whether there is a layer normalization.
        activation: a Keras activation's name, `prelu`, or None.
        dropout: the rate after the activation.

    Call arguments:
        inputs: v, float `[..., d]`.
        embeddings: x, float `[..., D]`.
        training: whether to drop out.

    Output shape: `[..., units]`.

    Example:
        >>> x = keras.random.normal((8, 50, 12))
        >>> tuple(MaskBlock(5)(x, x).shape)
        (8, 50, 5)

    References:
        Wang et al., MaskNet (2021), the instance-guided mask and the MaskBlock.
    """

    weight_kinds = ("kernel",)

    def __init__(
        self,
        units: int = 64,
        ratio: float = 1.0,
        layer_norm: bool = True,
        activation: str | None = "relu",
        dropout: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.units = check_count("units", units)
        self.ratio = check_positive("ratio", ratio)
        self.layer_norm = check_flag("layer_norm", layer_norm)
        self.act = activation_layer(
            check_activation("activation", activation, more=("prelu",)), "activation", self.dtype_policy
        )
        self.drop = self.make_part(Dropout, "dropout", check_rate("dropout", dropout))

    @override
    def build(self, inputs_shape: Shape, embeddings_shape: Shape) -> None:
        width = known_width(inputs_shape)
        inner = max(1, int(width * self.ratio))
        self.mask = self.make_part(MlpBlock, "mask", [inner], output=width, built_for=embeddings_shape)
        self.dense = self.make_dense("dense", self.units, width, xavier_normal(), use_bias=False)
        shape = (*inputs_shape[:-1], self.units)
        self.norm = None
        if self.layer_norm:
            self.norm = self.make_part(keras.layers.LayerNormalization, "norm", epsilon=1e-5, built_for=shape)
        self.act.build(shape)
        self.built = True

    @override
    def call(self, inputs: Any, embeddings: Any, training: bool | None = None) -> Any:
        x = self.dense(self.mask(embeddings) * inputs)
        if self.norm is not None:
            x = self.norm(x)
        return self.drop(self.act(x), training=training)

    @override
    def compute_output_shape(self, inputs_shape: Shape, embeddings_shape: Shape) -> Shape:
        return (*inputs_shape[:-1], self.units)


@tfctr_export
class FieldNormalization(SameShapeLayer):
    """Layer normalization of each field by itself, with a scale and a shift of its own for each of its elements.

        y_f = gamma_f * (x_f - mean(x_f)) / sqrt(var(x_f) + epsilon) + beta_f

    Call arguments:
        inputs: float `[..., F, E]`.

    Output shape: `[..., F, E]`.

    Example:
        >>> tuple(FieldNormalization()(keras.random.normal((8, 50, 7, 16))).shape)
        (8, 50, 7, 16)

    References:
        Wang et al., MaskNet (2021), the layer normalization of feature embeddings.
    """

    @override
    def build(self, input_shape: Shape) -> None:
        fields, width = token_shape(input_shape)
        shape = (fields * width,)
        self.gamma = self.add_weight(name="gamma", shape=shape, initializer="ones")
        self.beta = self.add_weight(name="beta", shape=shape, initializer="zeros")
        self.built = True

    @override
    def call(self, inputs: Any) -> Any:
        shape = inputs.shape[-2:]
        return standardized(inputs) * ops.reshape(self.gamma, shape) + ops.reshape(self.beta, shape)


@interaction("masknet")
class MaskNet(HeadedInteraction):
    """Blocks whose inputs are multiplied by masks of the embeddings, one after another or side by side.

        x = the fields,    v_0 = each field normalized by itself, or x
        serial:   v_i = block_i(v_{i-1}, x),                                 logit = w . v_K + b
        parallel: h   = MLP([block_1(v_0, x); ...; block_K(v_0, x)]),        logit = w . h + b

    A `MaskBlock` computes its mask from x, whatever it multiplies by it.

    Args:
        structure: `serial` or `parallel`.
        hidden: `serial`: the widths of the blocks; `parallel`: those of the perceptron after the blocks.
        blocks: K, for `parallel` only.
        block_units: the width of a block, for `parallel` only.
        ratio: the width of the layer inside a mask, in widths of the vector that the mask is for.
        embedding_norm: whether v_0 is normalized.
        layer_norm: whether blocks normalize.
        activation: the activation of the blocks and of the perceptron.
        dropout: the rate after each block and each layer.

    Inputs float `[..., F, E]`; call arguments and output: see `Interaction`.

    Example:
        >>> tuple(MaskNet("parallel", hidden=[32], blocks=2, block_units=16)(keras.random.normal((8, 50, 7, 16))).shape)
        (8, 50)

    References:
        Wang et al., MaskNet: Introducing Feature-Wise Multiplication to CTR Ranking Models by Instance-Guided Mask
        (2021). Without biases before the normalization of a block, as in FuxiCTR, which made both normalizations
        options. A block normalizes whatever it gets, so the head starts at a quarter of the published values; else the
        first logits would have a standard deviation near 1.
    """

    eats: Eats = "fields"
    head_gain: ClassVar[float] = 0.25

    def __init__(
        self,
        structure: Structure = "serial",
        hidden: Sequence[int] = (64, 64, 64),
        blocks: int = 3,
        block_units: int = 64,
        ratio: float = 1.0,
        embedding_norm: bool = True,
        layer_norm: bool = True,
        activation: str | None = "relu",
        dropout: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.structure = check_choice("structure", structure, STRUCTURES)
        widths = check_units("hidden", hidden)
        if structure == "serial" and not widths:
            raise ValueError("`hidden` must not be empty for the serial structure. Received: []")
        of_blocks = [check_count("block_units", block_units)] * check_count("blocks", blocks)
        own = (ratio, layer_norm, activation, dropout)
        self.blocks = [
            self.make_part(MaskBlock, f"block{i}", units, *own)
            for i, units in enumerate(widths if structure == "serial" else of_blocks)
        ]
        self.perceptron = None
        if structure == "parallel":
            self.perceptron = self.make_part(MlpBlock, "perceptron", widths, activation, dropout=dropout)
        normalized = check_flag("embedding_norm", embedding_norm)
        self.norm = self.make_part(FieldNormalization, "embedding_norm") if normalized else None

    @override
    def build_hidden(self, input_shape: Shape) -> int:
        flat = flat_shape(input_shape)
        if self.norm is not None:
            self.norm.build(input_shape)
        shape = flat
        for block in self.blocks:
            block.build(shape if self.perceptron is None else flat, flat)
            shape = (*flat[:-1], block.units)
        if self.perceptron is None:
            return known_width(shape)
        shape = (*flat[:-1], sum(block.units for block in self.blocks))
        self.perceptron.build(shape)
        return known_width(self.perceptron.compute_output_shape(shape))

    @override
    def hidden(self, inputs: Any, mask: Any = None, training: bool | None = None) -> Any:
        x = as_vector(inputs)
        v = x if self.norm is None else as_vector(self.norm(inputs))
        if self.perceptron is None:
            for block in self.blocks:
                v = block(v, x, training=training)
            return v
        joined = ops.concatenate([block(v, x, training=training) for block in self.blocks], axis=-1)
        return self.perceptron(joined, training=training)
