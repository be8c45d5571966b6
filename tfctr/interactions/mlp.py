"""The plain deep network."""

from collections.abc import Sequence
from typing import Any

from typing_extensions import override

from tfctr.interactions.base import interaction
from tfctr.interactions.headed import HeadedInteraction
from tfctr.layers.configured import Shape
from tfctr.layers.mlp import MlpBlock
from tfctr.layers.passes import Passes
from tfctr.layers.tokens import known_width


@interaction("mlp")
class Mlp(HeadedInteraction):
    """A multi-layer perceptron over the concatenated fields, and a linear head.

        logit = w . MLP(x) + b

    Args:
        hidden: the widths of the hidden layers.
        activation: a Keras activation's name, `prelu`, `dice`, or None.
        batch_norm: whether to normalize before each activation.
        dropout: the dropout rate after each activation.

    Inputs float `[..., D]`; call arguments and output: see `Interaction`.

    Example:
        >>> tuple(Mlp(hidden=[256, 128, 64], dropout=0.1)(keras.random.normal((8, 50, 160))).shape)
        (8, 50)
    """

    def __init__(
        self,
        hidden: Sequence[int] = (256, 128, 64),
        activation: str | None = "relu",
        batch_norm: bool = False,
        dropout: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.block = self.make_part(MlpBlock, "block", hidden, activation, batch_norm, dropout)

    @override
    def build_hidden(self, input_shape: Shape) -> int:
        self.block.build(input_shape)
        return known_width(self.block.compute_output_shape(input_shape))

    @override
    def pass_hidden(self, inputs: Passes, mask: Any, training: bool | None) -> Passes:
        return self.block.on_passes(inputs, mask, training)
