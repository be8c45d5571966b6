"""Wukong: stacked factorization machines over tokens."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops
from typing_extensions import override

from tfctr.interactions.base import Eats, interaction
from tfctr.interactions.headed import HeadedInteraction
from tfctr.layers.arguments import check_count, check_flag, check_optional_count, check_rate, check_units
from tfctr.layers.configured import ConfiguredLayer, Shape
from tfctr.layers.export import tfctr_export
from tfctr.layers.initializers import xavier_normal
from tfctr.layers.mlp import MlpBlock
from tfctr.layers.normalization import LayerNormalization
from tfctr.layers.tokens import TokenMap, TokenProducts, as_tokens, as_vector, flat_shape, known_width, token_shape


@tfctr_export
class WukongLayer(ConfiguredLayer):
    """One layer of Wukong: products of tokens beside combinations of tokens.

        Z = relu(MLP(LN(flatten(X X^T Y))))              n_F tokens
        y = LN([Z; C X] + P X)                           n_F + n_L tokens, normalized each by itself

    P, which has a bias, exists only where numbers of tokens differ; else P X is X.

    Args:
        product_tokens: n_F.
        linear_tokens: n_L.
        rank: the number of columns of Y; None for all products X X^T, without Y.
        hidden: the widths of the hidden layers of the MLP, each with ReLU.
        layer_norm: whether the outputs are normalized.
        dropout: the rate after each hidden layer.

    Call arguments:
        inputs: X, float `[..., N, d]`.
        training: whether to drop out.

    Output shape: `[..., n_F + n_L, d]`.

    Example:
        >>> tuple(WukongLayer(product_tokens=4, linear_tokens=3)(keras.random.normal((8, 50, 7, 16))).shape)
        (8, 50, 7, 16)

    References:
        Zhang et al., Wukong (2024), section 3: the factorization machine block, the linear compression block and the
        residual. The ReLU after the MLP and the bias of P are those of FuxiCTR.
    """

    weight_kinds = ("kernel",)

    def __init__(
        self,
        product_tokens: int = 40,
        linear_tokens: int = 40,
        rank: int | None = 8,
        hidden: Sequence[int] = (512, 256),
        layer_norm: bool = True,
        dropout: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.product_tokens = check_count("product_tokens", product_tokens)
        self.linear_tokens = check_count("linear_tokens", linear_tokens)
        self.rank = check_optional_count("rank", rank)
        self.hidden = check_units("hidden", hidden)
        self.layer_norm = check_flag("layer_norm", layer_norm)
        self.dropout = check_rate("dropout", dropout)

    @override
    def build(self, input_shape: Shape) -> None:
        count, width = token_shape(input_shape)
        output_shape = self.compute_output_shape(input_shape)
        total = token_shape(output_shape)[0]
        self.products = None
        if self.rank is not None:
            own = {"initializer": keras.initializers.RandomNormal(stddev=1.0), "built_for": input_shape}
            self.products = self.make_part(TokenProducts, "products", self.rank, **own)
        shape = (*input_shape[:-2], count * (self.rank or count))
        self.product_norm = self.make_part(LayerNormalization, "product_norm", built_for=shape)
        self.block = self.make_part(
            MlpBlock, "block", self.hidden, dropout=self.dropout, output=self.product_tokens * width, built_for=shape
        )

        def token_map(name: str, tokens: int, use_bias: bool = False) -> TokenMap:
            own = {"initializer": xavier_normal(), "built_for": input_shape}
            return self.make_part(TokenMap, name, tokens, use_bias, **own)

        self.linear = token_map("linear", self.linear_tokens)
        self.residual = token_map("residual", total, use_bias=True) if count != total else None
        self.norm = self.make_part(LayerNormalization, "norm", built_for=output_shape) if self.layer_norm else None
        self.built = True

    @override
    def call(self, inputs: Any, training: bool | None = None) -> Any:
        compressed = self.products
        products = ops.matmul(inputs, ops.swapaxes(inputs, -1, -2)) if compressed is None else compressed(inputs)
        x = ops.relu(self.block(self.product_norm(as_vector(products)), training=training))
        tokens = [as_tokens(x, self.product_tokens, inputs.shape[-1]), self.linear(inputs)]
        residual = inputs if self.residual is None else self.residual(inputs)
        outputs = ops.concatenate(tokens, axis=-2) + residual
        return outputs if self.norm is None else self.norm(outputs)

    @override
    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (*input_shape[:-2], self.product_tokens + self.linear_tokens, input_shape[-1])


@interaction("wukong")
class Wukong(HeadedInteraction):
    """Layers of factorization machines, each of which can double the order of the interactions, and a perceptron.

        X^{l+1} = layer_l(X^l)                              `WukongLayer`, L times, from the fields X^0
        logit   = w . MLP(flatten(X^L)) + b                 with batch normalization

    Args:
        layers: L.
        product_tokens: the number of tokens of each layer that are made of products.
        linear_tokens: the number of its tokens that are combinations of tokens.
        rank: the number of columns that the products are compressed to; None for all products.
        hidden: the widths of the hidden layers inside of a layer.
        head_hidden: the widths of the hidden layers before the linear head.
        layer_norm: whether the outputs of a layer are normalized.
        dropout: the rate after each hidden layer.

    Inputs float `[..., F, E]`; call arguments and output: see `Interaction`.

    Example:
        >>> tuple(Wukong(layers=2, hidden=[16], head_hidden=[8])(keras.random.normal((8, 50, 7, 16))).shape)
        (8, 50)

    References:
        Zhang et al., Wukong: Towards a Scaling Law for Large-Scale Recommendation (2024). The defaults and the batch
        normalization in the head are those of FuxiCTR.
    """

    eats: Eats = "fields"
    part_classes = (WukongLayer,)

    def __init__(
        self, layers: int = 3, head_hidden: Sequence[int] = (512, 256), dropout: float = 0.0, **kwargs: Any
    ) -> None:
        (own,) = self.passed_on(kwargs)
        super().__init__(**kwargs)
        numbers = range(check_count("layers", layers))
        self.stack = [self.make_part(WukongLayer, f"layer{i}", dropout=dropout, **own) for i in numbers]
        widths = check_units("head_hidden", head_hidden)
        self.block = self.make_part(MlpBlock, "block", widths, batch_norm=True, dropout=dropout)

    @override
    def build_hidden(self, input_shape: Shape) -> int:
        shape = tuple(input_shape)
        for layer in self.stack:
            layer.build(shape)
            shape = layer.compute_output_shape(shape)
        flat = flat_shape(shape)
        self.block.build(flat)
        return known_width(self.block.compute_output_shape(flat))

    @override
    def hidden(self, inputs: Any, mask: Any = None, training: bool | None = None) -> Any:
        x = inputs
        for layer in self.stack:
            x = layer(x, training=training)
        return self.block(as_vector(x), mask=mask, training=training)
