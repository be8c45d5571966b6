"""What every interaction backbone has in common, and the table of the backbones."""

from typing import Any, Literal

from typing_extensions import override

from tfctr.layers.configured import ConfiguredLayer, Shape
from tfctr.layers.registry import Registry
from tfctr.layers.tokens import as_vector, flat_shape

Eats = Literal["fields", "flat"]


class Interaction(ConfiguredLayer):
    """A backbone that mixes the fields of an impression into a logit.

    Call arguments:
        inputs: float `[..., F, E]` when `eats` is `fields`, `[..., D]` when it is `flat`; any leading axes, `[B, C]` in
            the ranking model.
        linear: float `[...]`, the sum of first-order weights; only for backbones that are `wide`. None stands for 0.
        mask: bool `[...]`, true for the rows that count in batch statistics.
        training: whether to drop out and to use and update batch statistics.

    Output shape: `[...]`: one logit a row.

    Attributes:
        eats: whether the inputs are `fields` of one width or their `flat` concatenation. A backbone whose arguments
            decide it sets the attribute in its constructor.
        wide: whether the logit has first-order weights. If so, `call` takes `linear`.
    """

    eats: Eats = "flat"
    wide: bool = False

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True

    def fold(self) -> "Interaction":
        """An equal backbone for inference, in which constant factors are multiplied out; itself if there are none."""
        return self

    def eaten(self, fields: Any) -> Any:
        """The inputs that this backbone wants, made of fields `[..., F, E]`."""
        return fields if self.eats == "fields" else as_vector(fields)

    def eaten_shape(self, fields_shape: Shape) -> Shape:
        """The shape of the inputs that this backbone wants, for fields of a shape `[..., F, E]`."""
        return fields_shape if self.eats == "fields" else flat_shape(fields_shape)

    @override
    def call(self, inputs: Any, mask: Any = None, training: bool | None = None) -> Any:
        raise NotImplementedError

    def compute_mask(self, inputs: Any, previous_mask: Any) -> None:
        """None, so that Keras does not attach the mask of the inputs to the logits; the caller has the mask."""

    @override
    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return tuple(input_shape[:-1] if self.eats == "flat" else input_shape[:-2])


INTERACTIONS: Registry[Interaction] = Registry()
"""The backbones by the name that a configuration uses."""
interaction = INTERACTIONS.register
