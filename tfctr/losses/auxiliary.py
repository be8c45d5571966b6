"""Losses on the fields that the backbone reads, which train the embeddings beside the loss on logits."""

from collections.abc import Mapping
from typing import Any

from typing_extensions import override

from tfctr.layers.configured import ConfiguredLayer, Shape
from tfctr.layers.registry import Registry, create


class AuxiliaryLoss(ConfiguredLayer):
    """A loss on the fields of a batch, for use with any backbone. It is part of training only and never exported.

    A subclass writes `total`, and `build` if it has weights.

    Call arguments:
        inputs: float `[..., F, E]`, the fields; `[B, C]` are the leading axes in the ranking model.
        mask: bool `[...]`, true for the rows that count; None for all.
        training: whether the loss is added to the layer's losses; otherwise a call does nothing.

    Output shape: that of `inputs`, which are returned as they are.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True

    def total(self, fields: Any, mask: Any) -> Any:
        """Return the loss, a float32 scalar, of fields `[..., F, E]`; 0 if no row counts."""
        raise NotImplementedError

    @override
    def call(self, inputs: Any, mask: Any = None, training: bool | None = None) -> Any:
        if training:
            self.add_loss(self.total(inputs, mask))
        return inputs

    @override
    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape


AUXILIARY_LOSSES: Registry[AuxiliaryLoss] = Registry()
"""The auxiliary losses by the name that a configuration uses."""

auxiliary_loss = AUXILIARY_LOSSES.register


def create_auxiliary_loss(config: str | Mapping[str, Any], **layer_arguments: Any) -> AuxiliaryLoss:
    """Make an auxiliary loss from its name or from `{"type": name, argument: value}`.

    Raises:
        UserError: for an unknown type or argument, or a value that the loss refuses.
    """
    return create("auxiliary", AUXILIARY_LOSSES, config, **layer_arguments)
