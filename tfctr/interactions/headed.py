"""Backbones that end in one linear layer, which a larger backbone may use in place of a multi-layer perceptron."""

from collections.abc import Mapping
from typing import Any, ClassVar, TypeVar

from keras import ops
from typing_extensions import override

from tfctr.errors import UserError
from tfctr.interactions.base import INTERACTIONS, Interaction
from tfctr.layers.configured import Shape
from tfctr.layers.initializers import xavier_normal
from tfctr.layers.passes import Passes, draws
from tfctr.layers.registry import create

Part = TypeVar("Part")
DeepConfig = str | Mapping[str, Any]
"""The name of a headed backbone, or `{"type": name, argument: value, ...}`."""


class HeadedInteraction(Interaction):
    """A backbone that ends in a linear layer over a hidden vector.

        logit = w . hidden(x) + b

    A subclass writes `build_hidden`, and `hidden` or `pass_hidden`. Any such backbone can be the deep part of another
    (`create_deep`), which either adds its logit to others or, after setting `headless`, joins its hidden vector with
    others under one linear layer.

    Args:
        kernel_initializer: how all kernels start, see `ConfiguredLayer`. By default each starts as published.
        kernel_regularizer: the penalty on all kernels.

    Attributes:
        head_gain: the factor of the head's Xavier-normal initial values. A backbone whose hidden vector is large at the
            start has a small one, so that a model starts undecided.
        headless: whether the linear layer is left out; to be set before the layer is built. Then only `hidden` may be
            called.
        width: the size of the hidden vector, once built.
        build_shape: the shape of the inputs that it was built for.
    """

    weight_kinds = ("kernel",)
    head_gain: ClassVar[float] = 1.0
    headless: bool = False
    width: int
    build_shape: Shape

    def build_hidden(self, input_shape: Shape) -> int:
        """Create all layers but the linear head, and return the size of the hidden vector."""
        raise NotImplementedError

    def hidden(self, inputs: Any, mask: Any = None, training: bool | None = None) -> Any:
        """The vector `[..., width]` that the linear head reads. The arguments are those of a call."""
        if type(self).pass_hidden is HeadedInteraction.pass_hidden:
            raise NotImplementedError(f"{type(self).__name__} must write `hidden` or `pass_hidden`.")
        return self.pass_hidden(Passes(inputs), mask, training).only

    def pass_hidden(self, inputs: Passes, mask: Any, training: bool | None) -> Passes:
        """`hidden` of several passes. A subclass whose passes have a common beginning writes this and not `hidden`."""
        apart = bool(training) and draws(self)
        return inputs.map(lambda one: self.hidden(one, mask=mask, training=training), apart=apart)

    def logit(self, hidden: Any, linear: Any = None) -> Any:
        """The logit `[...]` of a hidden vector, plus the first-order weights if there are any."""
        logit = ops.squeeze(self.head(hidden), -1)
        return logit if linear is None else logit + linear

    @override
    def build(self, input_shape: Shape) -> None:
        self.build_shape = tuple(input_shape)
        self.width = self.build_hidden(input_shape)
        if not self.headless:
            self.head = self.make_dense("head", 1, self.width, xavier_normal(gain=self.head_gain))
        self.built = True

    @override
    def call(self, inputs: Any, mask: Any = None, training: bool | None = None) -> Any:
        return self.logit(self.hidden(inputs, mask=mask, training=training))

    @override
    def pass_logits(self, inputs: Any, passes: int, mask: Any = None, training: bool | None = None, **wide: Any) -> Any:
        hidden = self.pass_hidden(Passes(inputs, passes), mask, training)
        return hidden.map(lambda one: self.logit(one, **wide)).stacked()

    def start_fold(self, folded: "HeadedInteraction") -> None:
        """Build the backbone that `fold` returns and give it the linear head of this one.

        Raises:
            ValueError: if this backbone has no weights yet.
        """
        if not self.built:
            raise ValueError("`fold` needs weights. Build the backbone, or call it, before.")
        folded.headless = self.headless
        folded.build(self.build_shape)
        if not self.headless:
            folded.head.set_weights(self.head.get_weights())


def create_part(whole: Interaction, argument: str, table: Mapping[str, type[Part]], config: DeepConfig) -> Part:
    """Make a part of a backbone from a piece of the backbone's configuration.

    The part has the backbone's dtype policy and, where its configuration does not say otherwise, its initializers and
    regularizers.

    Args:
        argument: the backbone's argument that describes the part, which is also the part's name.
        table: the classes by the name that `type` selects.

    Raises:
        ValueError: for a configuration that the registry refuses.
    """

    def complete(part: type[Part], arguments: dict[str, Any]) -> dict[str, Any]:
        return {**whole.weight_arguments(part), **arguments}

    try:
        return create(argument, table, config, complete, name=argument, dtype=whole.dtype_policy)
    except UserError as error:
        # Constructors raise a ValueError. The registry that makes the whole backbone turns it into a UserError and says
        # which backbone it is about.
        raise ValueError(str(error)) from error


def create_deep(whole: Interaction, config: DeepConfig, argument: str = "deep") -> HeadedInteraction:
    """Make the deep part of a backbone, which may be any headed backbone of the registry; see `create_part`.

    A deep part gets no first-order weights. Where there are some, the whole adds them.
    """
    headed = {name: made for name, made in INTERACTIONS.items() if issubclass(made, HeadedInteraction)}
    return create_part(whole, argument, headed, config)
