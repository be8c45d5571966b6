"""Logistic regression."""

from collections.abc import Sequence
from typing import Any

from keras import ops
from typing_extensions import override

from tfctr.interactions.base import Eats, FieldFacts, Interaction, interaction
from tfctr.layers.configured import Shape
from tfctr.layers.tokens import as_vector, token_shape

_WEIGHED = ("table", "number")


@interaction("lr")
class Lr(Interaction):
    """Logistic regression: a weight for each value of each feature.

        logit = b + linear [+ w . x']

    x' are the fields that have no first-order weights: the interests' outputs, frozen vectors, and the time since the
    newest event. Without such fields the embeddings are not used at all.

    Args:
        fields: the facts of the fields, which the model fills in; None for no x'.

    Inputs float `[..., F, E]`; call arguments and output: see `Interaction`.

    Example:
        >>> tuple(Lr()(keras.random.normal((8, 50, 7, 16)), linear=keras.random.normal((8, 50))).shape)
        (8, 50)

    References:
        Richardson et al., Predicting Clicks: Estimating the Click-Through Rate for New Ads (2007).
    """

    weight_kinds = ("kernel",)
    eats: Eats = "fields"
    wide: bool = True

    def __init__(self, fields: Sequence[Sequence[str]] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        facts = [FieldFacts(*one) for one in fields or ()]
        self.places = [i for i, one in enumerate(facts) if one.source not in _WEIGHED]

    @override
    @classmethod
    def complete(cls, options: dict[str, Any], fields: Sequence[FieldFacts]) -> dict[str, Any]:
        return {**options, "fields": list(fields)}

    @override
    def build(self, input_shape: Shape) -> None:
        _, width = token_shape(input_shape)
        self.bias = self.add_weight(name="bias", shape=(), initializer="zeros")
        self.weights_of_fields = None
        if self.places:
            # Zeros, as all other weights of a logistic regression.
            count = len(self.places) * width
            self.weights_of_fields = self.make_dense("fields", 1, count, "zeros", use_bias=False)
        self.built = True

    @override
    def call(self, inputs: Any, mask: Any = None, training: bool | None = None, linear: Any = None) -> Any:
        logits = ops.zeros_like(inputs[..., 0, 0]) + self.bias
        if self.weights_of_fields is not None:
            chosen = as_vector(ops.take(inputs, self.places, axis=-2))
            logits = logits + ops.squeeze(self.weights_of_fields(chosen), -1)
        return logits if linear is None else logits + linear
