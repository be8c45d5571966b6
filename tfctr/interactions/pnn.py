"""PNN, the product-based neural network."""

from collections.abc import Sequence
from typing import Any, Literal

from keras import ops
from typing_extensions import override

from tfctr.interactions.base import Eats, interaction
from tfctr.interactions.headed import HeadedInteraction
from tfctr.layers.arguments import check_choice
from tfctr.layers.configured import Shape
from tfctr.layers.mlp import MlpBlock
from tfctr.layers.pairwise import inner_products
from tfctr.layers.tokens import as_vector, known_width, token_shape


@interaction("pnn")
class Pnn(HeadedInteraction):
    """The product-based neural network: a deep network over the fields and their products.

        inner    p = [e_i . e_j for i < j]
        outer    p = flatten(f f^T),    f = sum_i e_i
        logit    = w . MLP([x; p]) + b

    Args:
        products: `inner` or `outer`.
        hidden: the widths of the hidden layers.
        activation: a Keras activation's name, `prelu`, `dice`, or None.
        batch_norm: whether to normalize before each activation.
        dropout: the dropout rate after each activation.

    Inputs float `[..., F, E]`, for inner products of at least two fields; call arguments and output: see
    `Interaction`.

    Example:
        >>> tuple(Pnn(hidden=[32])(keras.random.normal((8, 50, 7, 16))).shape)
        (8, 50)

    References:
        Qu et al., Product-based Neural Networks for User Response Prediction (2016), whose equations 8 to 11 are of
        outer products, of the superposition of all fields. Its product layer, which has weights for x and for p and one
        bias, is here the first layer of the network over both.
    """

    eats: Eats = "fields"

    def __init__(
        self,
        products: Literal["inner", "outer"] = "inner",
        hidden: Sequence[int] = (400, 400, 400),
        activation: str | None = "relu",
        batch_norm: bool = False,
        dropout: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.products = check_choice("products", products, ("inner", "outer"))
        self.block = self.make_part(MlpBlock, "block", hidden, activation, batch_norm, dropout)

    @override
    def build_hidden(self, input_shape: Shape) -> int:
        fields, width = token_shape(input_shape)
        if fields < 2 and self.products == "inner":
            raise ValueError(f"Inner products need at least 2 fields. Received: {fields}")
        count = fields * (fields - 1) // 2 if self.products == "inner" else width * width
        shape = (*input_shape[:-2], fields * width + count)
        self.block.build(shape)
        return known_width(self.block.compute_output_shape(shape))

    def with_products(self, fields: Any) -> Any:
        """The input of the network, `[x; p]`."""
        if self.products == "inner":
            products = inner_products(fields)
        else:
            total = ops.sum(fields, axis=-2)
            products = as_vector(ops.expand_dims(total, -1) * ops.expand_dims(total, -2))
        return ops.concatenate([as_vector(fields), products], axis=-1)

    @override
    def hidden(self, inputs: Any, mask: Any = None, training: bool | None = None) -> Any:
        return self.block(self.with_products(inputs), mask=mask, training=training)
