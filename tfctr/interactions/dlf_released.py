"""DLF as its authors released it."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from tfctr.errors import UserError
from tfctr.interactions.base import Eats
from tfctr.interactions.headed import HeadedInteraction
from tfctr.layers.arguments import check_count, check_flag, check_rate, check_units
from tfctr.layers.dlf_released_block import DlfReleasedBlock
from tfctr.layers.export import tfctr_export
from tfctr.layers.mlp import MlpBlock
from tfctr.layers.tokens import TokenMap, as_vector, token_shape

Shape = tuple[int | None, ...]


@tfctr_export
class DlfReleasedLayer(keras.layers.Layer):
    """One layer of the released DLF.

        y = LN([high(X, X); low(X, T^T B); C^T X; attention(X)] + P^T X)        by tokens

    T and P are there only where numbers of tokens differ.

    Args:
        product_tokens: the tokens that `high` and `low`, the blocks of products, give each.
        linear_tokens: the tokens of C^T X.
        attention_tokens: the tokens of the attention block; None for no such block.
        rank: the columns that the products are compressed to.
        heads: the heads of the attention.
        hidden: widths of the hidden layers of the blocks.
        dropout: the rate after each hidden layer.

    Call arguments:
        inputs: X, float `[..., N, d]`.
        base: B, the fields, float `[..., F, d]`.
        mask: bool `[...]`, true for the rows that count in batch statistics.
        training: whether to drop out and to use and update batch statistics.

    Output shape:
        `[..., M, d]`: M is the sum of the tokens of the blocks.

    Example:
        >>> fields = keras.random.normal((8, 50, 7, 16))
        >>> tuple(DlfReleasedLayer(product_tokens=4, linear_tokens=3)(fields, fields).shape)
        (8, 50, 11, 16)

    References:
        The authors' released code of DLF (2025).
    """

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
        self.attention_tokens = None if attention_tokens is None else check_count("attention_tokens", attention_tokens)
        self.rank = check_count("rank", rank)
        self.heads = check_count("heads", heads)
        self.hidden = check_units("hidden", hidden)
        self.dropout = check_rate("dropout", dropout)
        self.supports_masking = True

    def build(self, inputs_shape: Shape, base_shape: Shape) -> None:
        """Create the blocks and the maps between numbers of tokens."""
        (count, width), fields = token_shape(inputs_shape), token_shape(base_shape)[0]
        total = self.compute_output_shape(inputs_shape, base_shape)[-2]
        self.high = self._block("high", self.product_tokens)
        self.low = self._block("low", self.product_tokens)
        attention = self.attention_tokens is not None
        self.attention = self._block("attention", self.attention_tokens, self.heads) if attention else None
        for block in (self.high, self.low, *([self.attention] if self.attention else [])):
            block.build(inputs_shape)
        self.linear = self._map("linear", self.linear_tokens, inputs_shape)
        self.base_map = self._map("base", count, base_shape) if fields != count else None
        self.residual = self._map("residual", total, inputs_shape) if count != total else None
        self.norm = keras.layers.LayerNormalization(epsilon=1e-5, name="norm", dtype=self.dtype_policy)
        self.norm.build((*inputs_shape[:-2], total, width))
        self.built = True

    def _block(self, name: str, tokens: Any, heads: int | None = None) -> DlfReleasedBlock:
        return DlfReleasedBlock(tokens, self.rank, heads, self.hidden, self.dropout, name=name, dtype=self.dtype_policy)

    def _map(self, name: str, tokens: Any, shape: Shape) -> TokenMap:
        layer = TokenMap(tokens, name=name, dtype=self.dtype_policy)
        layer.build(shape)
        return layer

    def call(self, inputs: Any, base: Any, mask: Any = None, training: bool | None = None) -> Any:
        """Apply the layer; see the class."""
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
        """None: the caller owns the mask; Keras must not attach it to the tokens."""

    def compute_output_shape(self, inputs_shape: Shape, base_shape: Shape) -> Shape:
        """The tokens are replaced."""
        total = 2 * self.product_tokens + self.linear_tokens + (self.attention_tokens or 0)
        return (*inputs_shape[:-2], total, inputs_shape[-1])

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        names = "product_tokens linear_tokens attention_tokens rank heads hidden dropout"
        return {**super().get_config(), **{name: getattr(self, name) for name in names.split()}}


@tfctr_export
class DlfReleased(HeadedInteraction):
    """DLF as its authors released it, which is not what the paper writes.

        E^{l+1} = LN([high; low; C^T E^l; attention] + P^T E^l)         `DlfReleasedLayer`, L times
        logit   = w . MLP(flatten(E^{L+1})) + b

    Against the paper (`Dlf`): the residual has no gate but a layer normalization; blocks end without ReLU and have
    layer and batch normalization inside; the implicit block is a linear map of tokens; no attention runs between
    blocks. Without `attention` this is the class `DLF`, which the README of the code runs. With it, this is
    `DLF_att_cross`, nearest to the paper: plain self-attention over the inputs of a layer is a fourth block. Its scale
    flag divides scores by 1, so there is none here. `DLF_att_self` is the same with F `attention_tokens`.

    Args:
        layers: L.
        product_tokens: the tokens that the high and the low block give each.
        linear_tokens: the tokens of the linear map.
        rank: the columns that the products of tokens are compressed to.
        hidden: widths of the hidden layers of the blocks.
        head_hidden: widths of the hidden layers in front of the linear head.
        attention: whether there is the block of self-attention.
        attention_tokens: the tokens that it gives.
        heads: its heads; must divide the embedding width.
        dropout: the rate after each hidden layer.

    Call arguments:
        inputs: float `[..., F, E]`.
        mask: bool `[...]`, true for the rows that count in batch statistics.
        training: whether to drop out and to use and update batch statistics.

    Output shape:
        `[...]`.

    Example:
        >>> tuple(DlfReleased(layers=2, hidden=[16])(keras.random.normal((8, 50, 7, 16))).shape)
        (8, 50)

    References:
        The authors' released code of DLF (2025); the defaults are its settings.
    """

    def __init__(
        self,
        layers: int = 3,
        product_tokens: int = 32,
        linear_tokens: int = 32,
        rank: int = 24,
        hidden: Sequence[int] = (512,),
        head_hidden: Sequence[int] = (512,),
        attention: bool = False,
        attention_tokens: int = 32,
        heads: int = 2,
        dropout: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.layers = check_count("layers", layers)
        self.product_tokens = check_count("product_tokens", product_tokens)
        self.linear_tokens = check_count("linear_tokens", linear_tokens)
        self.rank = check_count("rank", rank)
        self.hidden_units = check_units("hidden", hidden)
        self.head_hidden = check_units("head_hidden", head_hidden)
        self.attention = check_flag("attention", attention)
        self.attention_tokens = check_count("attention_tokens", attention_tokens)
        self.heads = check_count("heads", heads)
        self.dropout = check_rate("dropout", dropout)

    @property
    def eats(self) -> Eats:
        """`fields`."""
        return "fields"

    def build_hidden(self, input_shape: Shape) -> int:
        """Create the layers and the perceptron."""
        if self.attention and token_shape(input_shape)[1] % self.heads:
            raise UserError(
                f"interaction {type(self).__name__}: `heads` must divide the embedding width {input_shape[-1]}. "
                f"Received: {self.heads}"
            )
        self.stack: list[DlfReleasedLayer] = []
        shape = tuple(input_shape)
        for i in range(self.layers):
            layer = DlfReleasedLayer(
                product_tokens=self.product_tokens,
                linear_tokens=self.linear_tokens,
                attention_tokens=self.attention_tokens if self.attention else None,
                rank=self.rank,
                heads=self.heads,
                hidden=self.hidden_units,
                dropout=self.dropout,
                name=f"layer{i}",
                dtype=self.dtype_policy,
            )
            layer.build(shape, input_shape)
            shape = layer.compute_output_shape(shape, input_shape)
            self.stack.append(layer)
        tokens, width = token_shape(shape)
        self.block = MlpBlock(
            self.head_hidden, batch_norm=True, dropout=self.dropout, name="block", dtype=self.dtype_policy
        )
        self.block.build((None, tokens * width))
        return self.head_hidden[-1] if self.head_hidden else tokens * width

    def tokens(self, inputs: Any, mask: Any = None, training: bool | None = None) -> Any:
        """The tokens `[..., M, E]` of the last layer; arguments as in a call."""
        x = inputs
        for layer in self.stack:
            x = layer(x, inputs, mask=mask, training=training)
        return x

    def hidden(self, inputs: Any, mask: Any = None, training: bool | None = None) -> Any:
        """The output of the perceptron over the tokens; arguments as in a call."""
        tokens = self.tokens(inputs, mask=mask, training=training)
        return self.block(as_vector(tokens), mask=mask, training=training)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        names = "layers product_tokens linear_tokens rank hidden head_hidden attention attention_tokens heads dropout"
        own = {name: getattr(self, name) for name in names.split()}
        # `hidden` is also the method of a headed backbone; the place in the order is kept.
        return {**super().get_config(), **own, "hidden": self.hidden_units}
