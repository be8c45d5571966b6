"""What every interaction backbone has in common, and the table of the backbones."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, NamedTuple

from keras import ops
from typing_extensions import override

from tfctr.layers.configured import ConfiguredLayer, Shape
from tfctr.layers.passes import Passes
from tfctr.layers.registry import Registry, arguments_of
from tfctr.layers.tokens import as_vector, flat_shape

Eats = Literal["fields", "flat"]


class FieldFacts(NamedTuple):
    """What only the model knows of a field, from which a backbone completes its arguments.

    Attributes:
        name: the feature, or the interest, that the field comes from.
        side: `candidate`, `user`, `context`, or `history` for the output of an interest.
        source: `table` for a row of a trained table, `number` for a linear map of numbers, `vector` for a projected row
            of a frozen table, `interest`, or `elapsed` for the time since the newest event.
    """

    name: str
    side: str
    source: str


def select_fields(argument: str, wanted: Sequence[str], fields: Sequence[Sequence[str]]) -> list[int]:
    """Return the places of the fields that are named, in order.

    Args:
        argument: the backbone's argument, for the message.
        wanted: names of fields, or of sides, which stand for all fields of the side, even if there are none.
        fields: the facts of all fields, in order.

    Raises:
        ValueError: for what is neither a field nor a side.
    """
    facts = [FieldFacts(*one) for one in fields]
    found: set[int] = set()
    for name in wanted:
        places = {i for i, one in enumerate(facts) if one.name == name}
        if not places and name not in SIDES:
            allowed = ", ".join(dict.fromkeys([*(one.name for one in facts), *SIDES]))
            raise ValueError(f"`{argument}` names no field and no side: {name!r}. Allowed: {allowed}")
        found |= places or {i for i, one in enumerate(facts) if one.side == name}
    return sorted(found)


SIDES = ("candidate", "user", "context", "history")


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
        branches: how many logits the backbone has, whose mean is its logit; see `branch_logits`.
        jit_compile: whether its training step is faster when XLA compiles it, where the experiment file does not say.
        deep_arguments: the arguments that describe a backbone inside this one.
    """

    eats: Eats = "flat"
    wide: bool = False
    branches: int = 1
    # XLA saves passes over memory: on two idle CPU cores the step of each backbone but AutoInt was as fast or faster
    # (docs/benchmarks.md).
    jit_compile: ClassVar[bool] = True
    deep_arguments: ClassVar[tuple[str, ...]] = ()

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True

    @classmethod
    def complete(cls, options: dict[str, Any], fields: Sequence[FieldFacts]) -> dict[str, Any]:
        """Return the constructor's arguments: the given ones, and what the backbone needs to know of its fields.

        Args:
            options: the arguments that a configuration gives.
            fields: the facts of the fields `[..., F, E]`, in order.

        Raises:
            ValueError: if the fields lack what the backbone needs.
        """
        parts = {name: options.get(name, arguments_of(cls)[name]) for name in cls.deep_arguments}
        return {**options, **{name: _completed(part, fields) for name, part in parts.items()}}

    def branch_logits(self, inputs: Any, mask: Any = None, training: bool | None = None, **wide: Any) -> Any:
        """The logits `[branches, ...]` whose mean is what a call returns. A loss may ask for them (`over: branches`).

        A backbone with more than one branch writes this method, and its call is `ops.mean(..., axis=0)` of it.
        """
        return ops.expand_dims(self(inputs, mask=mask, training=training, **wide), 0)

    def pass_logits(self, inputs: Any, passes: int, mask: Any = None, training: bool | None = None, **wide: Any) -> Any:
        """The logits `[passes, ...]` of several calls, for a loss that asks for them. What is equal is computed once.

        Without dropout in training all of it is equal. A backbone whose beginning is equal with dropout, too, writes
        this method, or `HeadedInteraction.pass_hidden`, over `Passes`.
        """
        return Passes(inputs, passes).through(self, mask=mask, training=training, **wide).stacked()

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


def _completed(part: Any, fields: Sequence[FieldFacts]) -> Any:
    """The configuration of a backbone inside another one, completed. What can't be read is left to the constructor."""
    config = {"type": part} if isinstance(part, str) else part
    if not isinstance(config, Mapping) or config.get("type") not in INTERACTIONS:
        return part
    options = {name: value for name, value in config.items() if name != "type"}
    return {"type": config["type"], **INTERACTIONS[config["type"]].complete(options, fields)}
