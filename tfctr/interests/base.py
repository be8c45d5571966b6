"""The contract of an interest module."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

from keras import ops
from typing_extensions import override

from tfctr.features.kinds.event_time import AGE_BUCKETS as AGE_BUCKETS
from tfctr.layers.configured import ConfiguredLayer, Shape
from tfctr.layers.masking import length_mask, zero_padding
from tfctr.layers.registry import Registry

Tensor = Any
Tensors = dict[str, Tensor]
Shapes = dict[str, dict[str, Shape]]
"""The shapes of the call arguments `sequence`, `candidate` and `context`, each by the name of the tensor."""


@dataclass(frozen=True)
class SequenceFacts:
    """What only the feature file knows of a sequence, from which an interest completes its arguments.

    Attributes:
        name: the sequence.
        max_length: the most events of a history.
        frozen: the frozen tables that have vectors of the events.
        features: the candidate's features that the events have too, with the number of rows of each one's embedding
            table; None for a feature without a table of its own.
    """

    name: str
    max_length: int
    frozen: tuple[str, ...]
    features: Mapping[str, int | None]

    @property
    def category(self) -> str | None:
        """The shared feature with the smallest vocabulary; None where none has a table of its own."""
        sizes = {name: rows for name, rows in self.features.items() if rows is not None}
        return min(sizes, key=lambda name: sizes[name], default=None)


class Interest(ConfiguredLayer):
    """What a user's history says about a candidate, in two steps.

        state  = encode(sequence)                     once a user; reads nothing of candidate or context
        output = attend(state, candidate, context)    once a candidate; reads nothing of the user but `state`

    Both may be called directly, inside another layer or not, and give what `call` gives: they cast floats to this
    layer's compute dtype and leave frozen vectors in float32. The layer does not autocast, which would cast those too.

    sequence:
        events: float `[B, L, d]`, newest first, padded on the right.
        length: int32 `[B]`, the number of real steps. All masks are made from it.
        ages: int32 `[B, L]`, optional: 1 + floor(log2(1 + seconds before the newest event)), 0 for unknown.
        ids/<feature>: int32 `[B, L]` (`[B, L, M]` with several values), for the names in `id_names`; 0 for missing.
        rows/<frozen>: int32 `[B, L]`, rows of a frozen table; 0 means that the item has no vector.

    candidate:
        target: float `[B, C, d]`, in the space of the events.
        mask: bool `[B, C]`, optional: false candidates do not count in batch statistics.
        ids/<feature>: int32 `[B, C]` (`[B, C, M]`), for the names in `id_names`; 0 for missing.
        rows/<frozen>: int32 `[B, C]`, as above.
        vectors/<frozen>: float32 `[B, C, dm]`, L2-normalised, zero for row 0.

    context:
        fields: float `[B, C, Fc, E]`, optional: the embedded features of the request, `[B, 1, Fc, E]` where all
            candidates share them.

    The state holds rows of a frozen table, never vectors. Whoever calls `attend` gathers `vectors/<frozen>`, float32
    `[B, L, dm]`, for the names in `frozen_names` and puts them beside the state.

    What padded steps contain does not change a single bit of the output. The output for an empty history is zero,
    unless the module says otherwise.

    Args:
        **kwargs: of `keras.layers.Layer` (`name`, `dtype`, ...), and the initializers and regularizers of the module's
            `weight_kinds`, see `ConfiguredLayer`.
    """

    frozen_names: tuple[str, ...] = ()
    """The frozen tables whose rows and vectors this module needs."""

    reads_events: bool = True
    """Whether the module reads the events' embeddings, and not only ids or rows of frozen tables."""

    id_names: tuple[str, ...] = ()
    """The candidate's features whose ids this module compares with those of the events."""

    jit_compile: ClassVar[bool] = True
    """Whether a training step with this module is faster when XLA compiles it, where the experiment does not say."""

    auxiliary: Mapping[str, float] = MappingProxyType({})
    """Logits of its own that the module is trained by: name -> weight of their cross-entropy in the loss.

    Where there are any, `attend` returns `(output, {name: logits [B, C]})`.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(autocast=False, **kwargs)

    @classmethod
    def complete(cls, options: dict[str, Any], sequence: SequenceFacts) -> dict[str, Any]:
        """Return the constructor's arguments: the given ones, and what the module needs to know of the sequence.

        Args:
            options: the arguments that a configuration gives.
            sequence: the sequence that the module is for.

        Raises:
            ValueError: if the sequence lacks what the module needs.
        """
        return options

    @classmethod
    def similarity_bins(cls, options: Mapping[str, Any]) -> int | None:
        """How many buckets over [-1, 1] it puts similarities of frozen vectors into, with these arguments; None: none.

        Args:
            options: the arguments that a configuration gives.
        """
        return None

    def output_width(self, width: int) -> int:
        """The width of the output for events of this width, which is that width unless the module says otherwise."""
        return width

    def diagnostics(self) -> dict[str, float]:
        """Numbers about the module's health, read from its variables; the training loop logs them every epoch."""
        return {}

    @override
    def build(self, input_shape: Shapes) -> None:
        # Here only the width of the events matters.
        width = input_shape["sequence"]["events"][-1]
        if width is None:
            raise ValueError("`events` must have a known width. Received: None")
        self.build_width(int(width))

    def build_width(self, width: int) -> None:
        """Create the weights for events and targets of this width."""

    def encode(self, sequence: Tensors, training: bool | None = None) -> Tensors:
        """The state of the history: tensors by name, each `[B, ...]`."""
        raise NotImplementedError

    def attend(self, state: Tensors, candidate: Tensors, context: Tensors, training: bool | None = None) -> Tensor:
        """The interest in each candidate, `[B, C, width]`."""
        raise NotImplementedError

    def call(self, inputs: dict[str, Tensors], training: bool | None = None) -> Tensor:
        """`attend(encode(sequence), candidate, context)`.

        Args:
            inputs: `{"sequence": ..., "candidate": ..., "context": ...}`; `context` may be left out. The frozen
                vectors of the history come as `sequence["vectors/<frozen>"]` here, since no model gathers them.
            training: as in any layer.
        """
        sequence = inputs["sequence"]
        vectors = {name: value for name, value in sequence.items() if name.startswith("vectors/")}
        state = {**self.encode(sequence, training=training), **vectors}
        output = self.attend(state, inputs["candidate"], inputs.get("context", {}), training=training)
        return output[0] if self.auxiliary else output

    def start(self, sequence: Tensors) -> tuple[Tensor, Tensors]:
        """Prepare the events and the state; every `encode` begins with this.

        Returns:
            The events in the compute dtype with zeros at padded steps, and the part of the state that is not computed:
            `length` (at most L), and the compared ids and the rows of the frozen tables with zeros at padded steps.
        """
        events = sequence["events"]
        if not self.built:
            self.build({"sequence": {"events": tuple(events.shape)}})
        steps = ops.shape(events)[1]
        length = ops.clip(ops.cast(sequence["length"], "int32"), 0, steps)
        mask = length_mask(length, steps)
        state = {"length": length}
        for name in (*(f"ids/{name}" for name in self.id_names), *(f"rows/{name}" for name in self.frozen_names)):
            state[name] = zero_padding(ops.cast(tensor_of(sequence, name), "int32"), mask)
        return zero_padding(ops.cast(events, self.compute_dtype), mask), state

    def target(self, candidate: Tensors) -> Tensor:
        """The candidate's embedding in the compute dtype, `[B, C, d]`."""
        return ops.cast(candidate["target"], self.compute_dtype)


def with_max_length(options: dict[str, Any], sequence: SequenceFacts) -> dict[str, Any]:
    """The options with `max_length`, which is that of the sequence where they leave it out.

    Raises:
        ValueError: it is less than that of the sequence.
    """
    given = options.get("max_length", sequence.max_length)
    if isinstance(given, int) and given < sequence.max_length:
        raise ValueError(
            f"`max_length` must be at least {sequence.max_length}, that of sequence '{sequence.name}'; "
            f"a shorter history is a sequence of its own in the feature file. Received: {given}"
        )
    return {**options, "max_length": given}


INTERESTS: Registry[Interest] = Registry()
"""The interests by the name that a configuration uses."""

interest = INTERESTS.register


def tensor_of(tensors: Tensors, name: str) -> Tensor:
    """The tensor of a name, or an error that says which names there are."""
    if name not in tensors:
        raise ValueError(f"`{name}` must be given. Received only: {', '.join(sorted(tensors))}")
    return tensors[name]
