"""AFM, the attentional factorization machine."""

from typing import Any

from keras import ops
from typing_extensions import override

from tfctr.interactions.base import Eats, interaction
from tfctr.interactions.headed import HeadedInteraction
from tfctr.layers.arguments import check_count, check_rate
from tfctr.layers.configured import Shape
from tfctr.layers.dropout import Dropout
from tfctr.layers.initializers import xavier_normal
from tfctr.layers.pairwise import pairwise_products
from tfctr.layers.tokens import softmax, token_shape


@interaction("afm")
class Afm(HeadedInteraction):
    """The attentional factorization machine: a factorization machine that weighs its pairs of fields.

        P_ij  = e_i * e_j                                       i < j
        a     = softmax_ij(q . relu(W P_ij + b))
        logit = b_0 + linear + p . dropout(sum_{i<j} dropout_a(a_ij) P_ij)

    Args:
        attention_units: the width of the hidden layer of the attention, the size of b.
        attention_dropout: the dropout rate of the weights a.
        dropout: the dropout rate of the weighted sum.

    Inputs float `[..., F, E]` of at least two fields; call arguments and output: see `Interaction`.

    Example:
        >>> tuple(Afm(attention_units=8)(keras.random.normal((8, 50, 7, 16))).shape)
        (8, 50)

    References:
        Xiao et al., Attentional Factorization Machines (2017). Without attention and projection it is
        `Fm`.
    """

    eats: Eats = "fields"
    wide: bool = True

    def __init__(
        self, attention_units: int = 16, attention_dropout: float = 0.0, dropout: float = 0.0, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.attention_units = check_count("attention_units", attention_units)
        attention_rate = check_rate("attention_dropout", attention_dropout)
        self.attention_drop = self.make_part(Dropout, "attention_dropout", attention_rate)
        self.drop = self.make_part(Dropout, "dropout", check_rate("dropout", dropout))

    @override
    def build_hidden(self, input_shape: Shape) -> int:
        fields, width = token_shape(input_shape)
        if fields < 2:
            raise ValueError(f"A factorization machine needs at least 2 fields. Received: {fields}")
        self.attention = self.make_dense("attention", self.attention_units, width, xavier_normal(), activation="relu")
        self.score = self.make_dense("score", 1, self.attention_units, xavier_normal(), use_bias=False)
        return width

    @override
    def hidden(self, inputs: Any, mask: Any = None, training: bool | None = None) -> Any:
        pairs = pairwise_products(inputs)
        weights = softmax(ops.squeeze(self.score(self.attention(pairs)), -1))
        weights = self.attention_drop(weights, training=training)
        pooled = ops.sum(ops.expand_dims(weights, -1) * pairs, axis=-2)
        return self.drop(pooled, training=training)

    @override
    def call(self, inputs: Any, mask: Any = None, training: bool | None = None, linear: Any = None) -> Any:
        return self.logit(self.hidden(inputs, mask=mask, training=training), linear)
