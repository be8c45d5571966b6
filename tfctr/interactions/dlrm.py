"""DLRM: inner products of embeddings, and of one vector that stands for all numbers."""

from collections.abc import Sequence
from typing import Any

from keras import ops
from typing_extensions import override

from tfctr.interactions.base import Eats, FieldFacts, interaction
from tfctr.interactions.headed import HeadedInteraction
from tfctr.layers.arguments import check_rate, check_units
from tfctr.layers.configured import Shape
from tfctr.layers.mlp import MlpBlock
from tfctr.layers.pairwise import inner_products
from tfctr.layers.tokens import as_vector, known_width, token_shape


@interaction("dlrm")
class Dlrm(HeadedInteraction):
    """The inner products of all pairs of fields, where the numeric fields are first made one vector.

        v     = MLP_bottom([numeric fields])                        of the width of a field
        p     = (t_i . t_j)_{i<j},    t = v and the other fields
        logit = w . MLP_top([v; p]) + b

    Without numeric fields there is no v. A numeric field is a linear map of its number, so the first layer of the
    bottom part is linear in the numbers, as that of the paper; only its weights are a product of two.

    Args:
        bottom: the widths of the hidden layers of the bottom part; one more has the width of a field. Each has ReLU.
        hidden: the widths of the hidden layers of the top part.
        dropout: the rate after each layer of either part; 0 as published.
        fields: the facts of the fields, which the model fills in; None for no numeric fields.

    Inputs float `[..., F, E]`; call arguments and output: see `Interaction`.

    Raises:
        ValueError: when built for inputs that have no pair.

    Example:
        >>> fields = [("price", "candidate", "number"), ("item", "candidate", "table"), ("user", "user", "table")]
        >>> tuple(Dlrm(bottom=[8], hidden=[32], fields=fields)(keras.random.normal((8, 50, 3, 16))).shape)
        (8, 50)

    References:
        Naumov et al., Deep Learning Recommendation Model for Personalization and Recommendation Systems (2019), section
        2. The widths are those of the released code, whose bottom part too ends with ReLU.
    """

    eats: Eats = "fields"

    def __init__(
        self,
        bottom: Sequence[int] = (512, 256, 64),
        hidden: Sequence[int] = (512, 256),
        dropout: float = 0.0,
        fields: Sequence[Sequence[str]] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.bottom_hidden = check_units("bottom", bottom)
        self.dropout = check_rate("dropout", dropout)
        facts = [FieldFacts(*one) for one in fields or ()]
        self.numeric = [i for i, one in enumerate(facts) if one.source == "number"]
        self.top = self.make_part(MlpBlock, "top", check_units("hidden", hidden), dropout=dropout)

    @override
    @classmethod
    def complete(cls, options: dict[str, Any], fields: Sequence[FieldFacts]) -> dict[str, Any]:
        return {**options, "fields": list(fields)}

    @override
    def build_hidden(self, input_shape: Shape) -> int:
        fields, width = token_shape(input_shape)
        self.others = [i for i in range(fields) if i not in self.numeric]
        self.bottom = None
        vectors = len(self.others)
        if self.numeric:
            shape = (*input_shape[:-2], len(self.numeric) * width)
            widths = [*self.bottom_hidden, width]
            self.bottom = self.make_part(MlpBlock, "bottom", widths, dropout=self.dropout, built_for=shape)
            vectors += 1
        if vectors < 2:
            received = f"{fields} fields, {len(self.numeric)} of them numeric"
            raise ValueError(f"Inner products need at least 2 vectors. Received: {received}")
        shape = (*input_shape[:-2], vectors * (vectors - 1) // 2 + (width if self.numeric else 0))
        self.top.build(shape)
        return known_width(self.top.compute_output_shape(shape))

    @override
    def hidden(self, inputs: Any, mask: Any = None, training: bool | None = None) -> Any:
        return self.top(self.products(inputs, training=training), training=training)

    def products(self, inputs: Any, training: bool | None = None) -> Any:
        """The inputs of the top part, `[v; p]`. The products are summed in float32."""
        if self.bottom is None:
            return self._pairs(inputs)
        dense = self.bottom(as_vector(ops.take(inputs, self.numeric, axis=-2)), training=training)
        others = ops.take(inputs, self.others, axis=-2)
        vectors = ops.concatenate([ops.expand_dims(dense, -2), others], axis=-2)
        return ops.concatenate([dense, self._pairs(vectors)], axis=-1)

    def _pairs(self, vectors: Any) -> Any:
        products = inner_products(ops.cast(vectors, self.variable_dtype))
        return ops.cast(products, self.compute_dtype)
