"""What every interaction backbone has in common."""

from typing import Any, Literal

import keras

Eats = Literal["fields", "flat"]


class Interaction(keras.layers.Layer):
    """A backbone that mixes the fields of an impression into a logit.

    Call arguments:
        inputs: float `[..., F, E]` when `eats` is `fields`, `[..., D]` when it is `flat`; any leading axes, `[B, C]` in
            the ranking model.
        linear: float `[...]`, the sum of first-order weights; only for backbones that are `wide`. None stands for 0.
        mask: bool `[...]`, true for the rows that count in batch statistics.
        training: whether to drop out and to use and update batch statistics.

    Output shape:
        `[...]`: one logit a row.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True

    @property
    def eats(self) -> Eats:
        """Whether the inputs are `fields` of one width or their `flat` concatenation."""
        return "flat"

    @property
    def wide(self) -> bool:
        """Whether the logit has first-order weights; if so, `call` takes `linear`."""
        return False

    def fold(self) -> "Interaction":
        """An equal backbone for inference, with what is constant there multiplied out; itself where nothing is."""
        return self

    def call(self, inputs: Any, mask: Any = None, training: bool | None = None) -> Any:
        """The logits; see the class."""
        raise NotImplementedError

    def compute_mask(self, inputs: Any, previous_mask: Any) -> None:
        """None: the caller owns the mask; Keras must not attach it to the logits."""

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """The leading axes of the inputs."""
        return tuple(input_shape[:-1] if self.eats == "flat" else input_shape[:-2])
