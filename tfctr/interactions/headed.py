"""Backbones that end in one linear layer, which a larger backbone may put in the place of a multi-layer perceptron."""

from collections.abc import Mapping
from typing import Any, TypeVar

import keras
from keras import ops

from tfctr.errors import UserError
from tfctr.interactions.base import Interaction
from tfctr.layers.initializers import xavier_normal
from tfctr.layers.registry import arguments_of, create

Part = TypeVar("Part")
DeepConfig = str | Mapping[str, Any]
"""The name of a headed backbone, or `{"type": name, argument: value, ...}`."""


class HeadedInteraction(Interaction):
    """A backbone that ends in a linear layer over a hidden vector.

        logit = w . hidden(x) + b

    A subclass writes `build_hidden` and `hidden`. Any such backbone can be the deep part of another (`create_deep`),
    which either adds its logit to others or, after setting `headless`, joins its hidden vector with others under one
    linear layer.

    Attributes:
        headless: whether the linear layer is left out; to be set before the layer is built. Then only `hidden` may be
            called.
        width: the size of the hidden vector, once built.
        build_shape: the shape of the inputs that it was built for.
    """

    headless: bool = False
    width: int
    build_shape: tuple[int | None, ...]

    def build_hidden(self, input_shape: tuple[int | None, ...]) -> int:
        """Create all but the linear head; gives the size of the hidden vector."""
        raise NotImplementedError

    def hidden(self, inputs: Any, mask: Any = None, training: bool | None = None) -> Any:
        """The vector `[..., width]` that the linear head reads; arguments as in a call."""
        raise NotImplementedError

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Create the layers and the linear head."""
        self.build_shape = tuple(input_shape)
        self.width = self.build_hidden(input_shape)
        if not self.headless:
            self.head = keras.layers.Dense(1, kernel_initializer=xavier_normal(), name="head", dtype=self.dtype_policy)
            self.head.build((None, self.width))
        self.built = True

    def call(self, inputs: Any, mask: Any = None, training: bool | None = None) -> Any:
        """The logits; see the class."""
        return ops.squeeze(self.head(self.hidden(inputs, mask=mask, training=training)), -1)

    def start_fold(self, folded: "HeadedInteraction") -> None:
        """What every `fold` begins with: build the other backbone and give it the linear head of this one."""
        if not self.built:
            raise ValueError("`fold` needs weights. Build the backbone, or call it, before.")
        folded.headless = self.headless
        folded.build(self.build_shape)
        if not self.headless:
            folded.head.set_weights(self.head.get_weights())


def create_part(kind: str, table: Mapping[str, type[Part]], config: DeepConfig, **layer_arguments: Any) -> Part:
    """Make a part of a backbone from a piece of the backbone's configuration.

    Args:
        kind: the backbone's argument, for the messages.
        table: the classes by the name that `type` selects.
        config: a name, or a mapping with `type` and arguments of its class.
        **layer_arguments: `name` and `dtype` of the layer.

    Raises:
        ValueError: what the registry says of a wrong configuration.
    """
    try:
        return create(kind, table, config, **layer_arguments)
    except UserError as error:
        # As every constructor does: the registry that makes the whole backbone turns it into a UserError and says whose
        # argument it is.
        raise ValueError(str(error)) from error


def create_deep(config: DeepConfig, kind: str = "deep", **layer_arguments: Any) -> HeadedInteraction:
    """Make the deep part of a backbone, any headed backbone of the registry; as `create_part`."""
    return create_part(kind, _headed(), config, **layer_arguments)


def deep_config(deep: HeadedInteraction) -> dict[str, Any]:
    """The configuration that makes an equal deep part."""
    config = deep.get_config()
    name = next(name for name, made in _headed().items() if made is type(deep))
    return {"type": name, **{argument: config[argument] for argument in arguments_of(type(deep))}}


def _headed() -> dict[str, type[HeadedInteraction]]:
    from tfctr.interactions import INTERACTIONS  # which imports the backbones that have a deep part

    return {name: made for name, made in INTERACTIONS.items() if issubclass(made, HeadedInteraction)}


def flat_shape(shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
    """The shape `[..., F * E]` of the concatenation of fields `[..., F, E]`."""
    fields, width = shape[-2:]
    if fields is None or width is None:
        raise ValueError(f"The axes of fields and of their width must be known. Received shape: {shape}")
    return (*shape[:-2], fields * width)


def flatten(fields: Any) -> Any:
    """The concatenation `[..., F * E]` of fields `[..., F, E]`."""
    return ops.reshape(fields, (*ops.shape(fields)[:-2], fields.shape[-2] * fields.shape[-1]))


def eaten_shape(deep: Interaction, shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
    """The shape of what `deep` eats of fields `[..., F, E]`."""
    return shape if deep.eats == "fields" else flat_shape(shape)


def eaten(deep: Interaction, fields: Any) -> Any:
    """What `deep` eats of fields `[..., F, E]`: themselves or their concatenation."""
    return fields if deep.eats == "fields" else flatten(fields)
