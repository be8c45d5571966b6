"""The non-linear block of DLF as its authors released it."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops
from typing_extensions import override

from tfctr.layers.arguments import check_count, check_optional_count, check_rate, check_units
from tfctr.layers.configured import ConfiguredLayer, Shape
from tfctr.layers.export import tfctr_export
from tfctr.layers.initializers import xavier_normal
from tfctr.layers.masking import merge_heads, split_heads
from tfctr.layers.mlp import MlpBlock
from tfctr.layers.tokens import TokenProducts, as_tokens, as_vector, softmax, token_shape


@tfctr_export
class DlfReleasedBlock(ConfiguredLayer):
    """A block of the released DLF, which makes n tokens from a normalized vector.

        y = reshape(MLP(LN(v)))             hidden layers of MLP: linear, batch normalization, ReLU, dropout

    Without heads v = flatten(B X^T Y), the products of tokens. With heads it is the self-attention of the tokens,
    flattened feature after feature, and the MLP's output has that order too:

        v = flatten((softmax(X W_q (X W_k)^T) X W_v)^T)         by head; the scores are not scaled

    Args:
        tokens: n.
        rank: the columns of Y; not used with heads.
        heads: the number of heads of the attention, which must divide the width of a token; None for products.
        hidden: widths of the hidden layers.
        dropout: the rate after each hidden layer.

    Call arguments:
        inputs: X, float `[..., N, d]`.
        base: B, float `[..., N, d]`; None for X itself.
        mask: bool `[...]`, true for the rows that count in batch statistics.
        training: whether to drop out and to use and update batch statistics.

    Output shape: `[..., n, d]`.

    Example:
        >>> tuple(DlfReleasedBlock(tokens=4)(keras.random.normal((8, 50, 7, 16))).shape)
        (8, 50, 4, 16)

    References:
        The authors' released code of DLF (2025).
    """

    weight_kinds = ("kernel",)

    def __init__(
        self,
        tokens: int = 32,
        rank: int = 24,
        heads: int | None = None,
        hidden: Sequence[int] = (512,),
        dropout: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.tokens = check_count("tokens", tokens)
        self.rank = check_count("rank", rank)
        self.heads = check_optional_count("heads", heads)
        self.hidden = check_units("hidden", hidden)
        self.dropout = check_rate("dropout", dropout)
        self.supports_masking = True

    @override
    def build(self, inputs_shape: Shape, base_shape: Shape | None = None) -> None:
        count, self.width = token_shape(inputs_shape)
        if self.heads is None:
            self.products = self.make_part(TokenProducts, "products", self.rank, built_for=inputs_shape)
        elif self.width % self.heads:
            raise ValueError(f"`heads` must divide the width {self.width} of the tokens. Received: {self.heads}")
        else:
            self.query, self.key, self.value = (
                self.make_dense(name, self.width, self.width, xavier_normal(), use_bias=False)
                for name in ("query", "key", "value")
            )
        shape = (None, count * (self.rank if self.heads is None else self.width))
        self.norm = self.make_part(keras.layers.LayerNormalization, "norm", epsilon=1e-5, built_for=shape)
        own = {"batch_norm": True, "dropout": self.dropout, "output": self.tokens * self.width}
        self.block = self.make_part(MlpBlock, "block", self.hidden, **own, built_for=shape)
        self.built = True

    @override
    def call(self, inputs: Any, base: Any = None, mask: Any = None, training: bool | None = None) -> Any:
        if self.heads is None:
            x = self.block(self.norm(as_vector(self.products(inputs, base))), mask=mask, training=training)
            return as_tokens(x, self.tokens, self.width)
        attended = ops.swapaxes(self._attend(inputs, self.heads), -1, -2)
        x = self.block(self.norm(as_vector(attended)), mask=mask, training=training)
        return ops.swapaxes(as_tokens(x, self.width, self.tokens), -1, -2)

    def _attend(self, x: Any, heads: int) -> Any:
        """Multi-head self-attention of tokens `[..., N, d]`."""
        query, key, value = (split_heads(dense(x), heads) for dense in (self.query, self.key, self.value))
        return merge_heads(ops.matmul(softmax(ops.matmul(query, ops.swapaxes(key, -1, -2))), value))

    def compute_mask(self, inputs: Any, previous_mask: Any) -> None:
        """None, so that Keras does not attach the mask of the rows to the tokens; the caller has the mask."""

    @override
    def compute_output_shape(self, inputs_shape: Shape, base_shape: Shape | None = None) -> Shape:
        return (*inputs_shape[:-2], self.tokens, inputs_shape[-1])
