"""The similarity histogram as its authors released it."""

from typing import Any

import keras
from keras import ops
from typing_extensions import override

from tfctr.interests.base import SequenceFacts, Tensor, Tensors, interest, with_max_length
from tfctr.interests.frozen import Frozen, FrozenInterest, known_similarity
from tfctr.layers.arguments import check_count
from tfctr.layers.masking import length_mask
from tfctr.layers.similarity import bucket_sum


@interest("simtier_released")
class ReleasedSimilarityHistogram(FrozenInterest):
    """SimTier as released: counts of similarities by slot, each times a row of a trained table.

        n(s)   = ceil(s / epsilon) + 1 / epsilon,   epsilon = 1 / tiers                   slots 0 to 2 tiers + 1
        c_n    = number of steps of the history in slot n
        output = [log(1 + c_0) w_0 ; ... ; log(1 + c_(2 tiers + 1)) w_(2 tiers + 1)]

    There is no network on top; the model's is the only one. A missing vector and a step without an event count as the
    similarity 0, as the release's zero vectors do, so slot `tiers` tells both how many events are unlike the candidate
    and how many of the `max_length` steps are empty. A history without events gives log(1 + max_length) w in that slot
    and zeros in all others. The last slot stays empty: only rounding errors above 1 would fall into it, and they are
    cut off.

    Args:
        frozen: the frozen table, or several: one histogram and one w each, side by side.
        max_length: the steps of a history, with or without an event.
        tiers: slots between the similarities 0 and 1.
        units: k, the width of a row of w.
        embeddings_initializer, embeddings_regularizer: see `ConfiguredLayer`.

    w starts uniformly between 0 and 1.

    Shapes, call arguments and conventions: see `Interest`. Output `[B, C, tables * (2 tiers + 2) * k]`.
    State: `rows/<frozen>` `[B, L]`, `length` `[B]`.

    Example:
        >>> layer = ReleasedSimilarityHistogram("text", max_length=5)
        >>> content = {"rows/text": ops.ones((1, 5), "int32"), "vectors/text": ops.full((1, 5, 4), 0.5)}
        >>> sequence = {"events": keras.random.normal((1, 5, 8)), "length": ops.array([3]), **content}
        >>> candidate = {"target": keras.random.normal((1, 5, 8)), **content}
        >>> tuple(layer({"sequence": sequence, "candidate": candidate}).shape)
        (1, 5, 22)

    References:
        Sheng et al., Enhancing Taobao Display Advertising with Multimodal Representations (2024), SimTier, and the
        authors' release (alimama-tech/MUSE): tiers = 10, k = 1. `SimilarityHistogram` is the form with a network, a
        mask and a bucket for missing vectors.
    """

    reads_events = False
    weight_kinds = ("embeddings",)

    def __init__(self, frozen: Frozen, max_length: int, tiers: int = 10, units: int = 1, **kwargs: Any) -> None:
        super().__init__(frozen, **kwargs)
        self.max_length = check_count("max_length", max_length)
        self.tiers = check_count("tiers", tiers)
        self.units = check_count("units", units)

    @classmethod
    @override
    def complete(cls, options: dict[str, Any], sequence: SequenceFacts) -> dict[str, Any]:
        return with_max_length(super().complete(options, sequence), sequence)

    @property
    def slots(self) -> int:
        """How many slots a histogram has."""
        return 2 * self.tiers + 2

    @override
    def output_width(self, width: int) -> int:
        return len(self.frozen_names) * self.slots * self.units

    @override
    def build_width(self, width: int) -> None:
        self.tables = {
            name: self.make_weight(
                f"slots_{name}", (self.slots, self.units), keras.initializers.RandomUniform(0.0, 1.0), kind="embeddings"
            )
            for name in self.frozen_names
        }

    @override
    def encode(self, sequence: Tensors, training: bool | None = None) -> Tensors:
        return self.start(sequence)[1]

    @override
    def attend(self, state: Tensors, candidate: Tensors, context: Tensors, training: bool | None = None) -> Tensor:
        parts = []
        for name, table in self.tables.items():
            counted = ops.log1p(self.counts(state, candidate, name))
            weighted = ops.cast(counted, self.compute_dtype)[..., None] * ops.cast(table, self.compute_dtype)
            batch, count, slots, units = ops.shape(weighted)
            parts.append(ops.reshape(weighted, (batch, count, slots * units)))
        return ops.concatenate(parts, axis=-1)

    def counts(self, state: Tensors, candidate: Tensors, name: str) -> Tensor:
        """The steps in each slot, float32 `[B, C, slots]`."""
        similarity = known_similarity(state, candidate, name)
        slot = ops.cast(ops.ceil(similarity * self.tiers), "int32") + self.tiers
        real = ops.cast(length_mask(state["length"], ops.shape(slot)[-1]), "float32")[:, None, :]
        counted = bucket_sum(ops.broadcast_to(real, ops.shape(slot))[:, None], slot, self.slots)[:, :, 0]
        # By `max_length` and not by the padding of this batch, so that a history counts the same in every batch.
        empty = ops.cast(ops.maximum(self.max_length - state["length"], 0), "float32")[:, None, None]
        return counted + empty * ops.one_hot(self.tiers, self.slots, dtype="float32")
