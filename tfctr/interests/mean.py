"""Mean pooling: the same interest for every candidate."""

from keras import ops
from typing_extensions import override

from tfctr.interests.base import Interest, Tensor, Tensors, interest


@interest("mean")
class MeanPooling(Interest):
    """The average of the history's events, for every candidate alike.

        output = sum_i x_i / max(length, 1)

    Shapes, call arguments and conventions: see `Interest`. Output `[B, C, d]`; zeros for an empty history.
    State: `mean` `[B, d]`.

    Example:
        >>> sequence = {"events": keras.random.normal((1, 50, 8)), "length": ops.array([30])}
        >>> candidate = {"target": keras.random.normal((1, 3, 8))}
        >>> tuple(MeanPooling()({"sequence": sequence, "candidate": candidate}).shape)
        (1, 3, 8)
    """

    @override
    def encode(self, sequence: Tensors, training: bool | None = None) -> Tensors:
        events, state = self.start(sequence)
        # The sum of a thousand bfloat16 numbers would lose the small ones.
        total = ops.sum(ops.cast(events, "float32"), axis=1)
        length = ops.cast(ops.maximum(state["length"], 1), "float32")
        return {"mean": ops.cast(total / length[:, None], self.compute_dtype)}

    @override
    def attend(self, state: Tensors, candidate: Tensors, context: Tensors, training: bool | None = None) -> Tensor:
        mean = state["mean"]
        batch, width = ops.shape(mean)
        return ops.broadcast_to(mean[:, None, :], (batch, ops.shape(candidate["target"])[1], width))
