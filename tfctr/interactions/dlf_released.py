"""DLF as its authors released it."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops
from typing_extensions import override

from tfctr.interactions.base import Eats, interaction
from tfctr.interactions.headed import HeadedInteraction
from tfctr.layers.arguments import check_count, check_flag, check_optional_count, check_rate, check_units
from tfctr.layers.configured import ConfiguredLayer, Shape
from tfctr.layers.dlf_released_block import DlfReleasedBlock
from tfctr.layers.export import tfctr_export
from tfctr.layers.mlp import MlpBlock
from tfctr.layers.tokens import TokenMap, as_vector, token_shape


@tfctr_export
class DlfReleasedLayer(ConfiguredLayer):
    """One layer of the released DLF.

        y = LN([high(X, X); low(X, T^T B); C^T X; attention(X)] + P^T X)        by tokens

    T and P exist only where numbers of tokens differ.

    Args:
        product_tokens: the number of tokens of each of `high` and `low`, the blocks of products.
        linear_tokens: the number of tokens of C^T X.
        attention_tokens: the number of tokens of the attention block; None for no such block.
        rank: the number of columns that the products are compressed to.
        heads: the number of heads of the attention.
        hidden: widths of the hidden layers of the blocks.
        dropout: the rate after each hidden layer.

    Call arguments:
        inputs: X, float `[..., N, d]`.
        base: B, the fields, float `[..., F, d]`.
        mask: bool `[...]`, true for the rows that count in batch statistics.
        training: whether to drop out and to use and update batch statistics.

    Output shape: `[..., M, d]`: M is the sum of the tokens of the blocks.

    Example:
        >>> fields = keras.random.normal((8, 50, 7, 16))
        >>> tuple(DlfReleasedLayer(product_tokens=4, linear_tokens=3)(fields, fields).shape)
        (8, 50, 11, 16)

    References:
        The authors' released code of DLF (2025).
    """

    weight_kinds = ("kernel",)

    def __init__(
        self,
        product_tokens: int = 32,
        linear_tokens: int = 32,
        attention_tokens: int | None = None,
        rank: int = 24,
        heads: int = 2,
        hidden: Sequence[int] = (512,),
        dropout: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.product_tokens = check_count("product_tokens", product_tokens)
        self.linear_tokens = check_count("linear_tokens", linear_tokens)
        self.attention_tokens = check_optional_count("attention_tokens", attention_tokens)
        self.rank = check_count("rank", rank)
        self.heads = check_count("heads", heads)
        self.hidden = check_units("hidden", hidden)
        self.dropout = check_rate("dropout", dropout)
        self.supports_masking = True

    @override
    def build(self, inputs_shape: Shape, base_shape: Shape) -> None:
        (count, width), fields = token_shape(inputs_shape), token_shape(base_shape)[0]
        total = token_shape(self.compute_output_shape(inputs_shape, base_shape))[0]
        self.high = self._block("high", self.product_tokens)
        self.low = self._block("low", self.product_tokens)
        tokens = self.attention_tokens
        self.attention = None if tokens is None else self._block("attention", tokens, self.heads)
        for block in (self.high, self.low, self.attention):
            if block is not None:
                block.build(inputs_shape)
        self.linear = self.make_part(TokenMap, "linear", self.linear_tokens, built_for=inputs_shape)
        self.base_map = self.make_part(TokenMap, "base", count, built_for=base_shape) if fields != count else None
        self.residual = self.make_part(TokenMap, "residual", total, built_for=inputs_shape) if count != total else None
        shape = (*inputs_shape[:-2], total, width)
        self.norm = self.make_part(keras.layers.LayerNormalization, "norm", epsilon=1e-5, built_for=shape)
        self.built = True

    def _block(self, name: str, tokens: int, heads: int | None = None) -> DlfReleasedBlock:
        return self.make_part(DlfReleasedBlock, name, tokens, self.rank, heads, self.hidden, self.dropout)

    @override
    def call(self, inputs: Any, base: Any, mask: Any = None, training: bool | None = None) -> Any:
        base = base if self.base_map is None else self.base_map(base)
        blocks = [
            self.high(inputs, mask=mask, training=training),
            self.low(inputs, base, mask=mask, training=training),
            self.linear(inputs),
        ]
        if self.attention is not None:
            blocks.append(self.attention(inputs, mask=mask, training=training))
        residual = inputs if self.residual is None else self.residual(inputs)
        return self.norm(ops.concatenate(blocks, axis=-2) + residual)

    def compute_mask(self, inputs: Any, previous_mask: Any) -> None:
        """None, so that Keras does not attach the mask of the rows to the tokens; the caller has the mask."""

    @override
    def compute_output_shape(self, inputs_shape: Shape, base_shape: Shape) -> Shape:
        total = 2 * self.product_tokens + self.linear_tokens + (self.attention_tokens or 0)
        return (*inputs_shape[:-2], total, inputs_shape[-1])


@interaction("dlf_released")
class DlfReleased(HeadedInteraction):
    """DLF as its authors released it, which is not what the paper writes.

        E^{l+1} = LN([high; low; C^T E^l; attention] + P^T E^l)         `DlfReleasedLayer`, L times
        logit   = w . MLP(flatten(E^{L+1})) + b

    It differs from the paper (`Dlf`): the residual has no gate but a layer normalization; blocks end without ReLU and
    have layer and batch normalization inside; the implicit block is a linear map of tokens; there is no attention
    between blocks. Without `attention` this is the class `DLF` of the released code, which its README runs. With it,
    this is the class nearest to the paper, `DLF_att_cross`, where self-attention over the inputs of a layer is a fourth
    block; its scale flag divides scores by 1 and is left out here. `DLF_att_self` is the same with F
    `attention_tokens`.

    The last layer normalization and the linear layers after it would start the logits at a standard deviation of 1.2
    whatever the fields. Here w starts at a quarter of the released size.

    Args:
        layers: L.
        product_tokens: the number of tokens of each of the blocks `high` and `low`.
        linear_tokens: the number of tokens of the linear map.
        rank: the number of columns that the products of tokens are compressed to.
        hidden: widths of the hidden layers of the blocks.
        head_hidden: widths of the hidden layers before the linear head.
        attention: whether there is a block of self-attention.
        attention_tokens: the number of its tokens.
        heads: the number of its heads, which must divide the embedding width.
        dropout: the rate after each hidden layer.

    Inputs float `[..., F, E]`; call arguments and output: see `Interaction`.

    Example:
        >>> tuple(DlfReleased(layers=2, hidden=[16])(keras.random.normal((8, 50, 7, 16))).shape)
        (8, 50)

    References:
        The authors' released code of DLF (2025); the defaults are its settings.
    """

    eats: Eats = "fields"
    part_classes = (DlfReleasedLayer,)
    head_gain = 0.25

    def __init__(
        self,
        layers: int = 3,
        head_hidden: Sequence[int] = (512,),
        attention: bool = False,
        attention_tokens: int = 32,
        heads: int = 2,
        dropout: float = 0.0,
        **kwargs: Any,
    ) -> None:
        (own,) = self.passed_on(kwargs)
        super().__init__(**kwargs)
        self.head_hidden = check_units("head_hidden", head_hidden)
        self.attention = check_flag("attention", attention)
        self.heads = check_count("heads", heads)
        self.dropout = check_rate("dropout", dropout)
        attended = check_count("attention_tokens", attention_tokens)
        own |= {"attention_tokens": attended if attention else None, "heads": heads, "dropout": dropout}
        numbers = range(check_count("layers", layers))
        self.stack = [self.make_part(DlfReleasedLayer, f"layer{i}", **own) for i in numbers]

    @override
    def build_hidden(self, input_shape: Shape) -> int:
        shape = tuple(input_shape)
        for layer in self.stack:
            layer.build(shape, input_shape)
            shape = layer.compute_output_shape(shape, input_shape)
        tokens, width = token_shape(shape)
        own = {"batch_norm": True, "dropout": self.dropout, "built_for": (None, tokens * width)}
        self.block = self.make_part(MlpBlock, "block", self.head_hidden, **own)
        return self.head_hidden[-1] if self.head_hidden else tokens * width

    def tokens(self, inputs: Any, mask: Any = None, training: bool | None = None) -> Any:
        """The tokens `[..., M, E]` of the last layer. The arguments are those of a call."""
        x = inputs
        for layer in self.stack:
            x = layer(x, inputs, mask=mask, training=training)
        return x

    @override
    def hidden(self, inputs: Any, mask: Any = None, training: bool | None = None) -> Any:
        tokens = self.tokens(inputs, mask=mask, training=training)
        return self.block(as_vector(tokens), mask=mask, training=training)
