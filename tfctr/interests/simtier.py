"""The similarity histogram (SimTier)."""

from typing import Any

from keras import ops
from typing_extensions import override

from tfctr.interests.base import Tensor, Tensors, interest
from tfctr.interests.frozen import BucketInterest, Frozen
from tfctr.layers.arguments import check_choice, check_optional_count
from tfctr.layers.masking import length_mask
from tfctr.layers.similarity import bucket_sum

COUNTS = ("raw", "log1p", "fraction")


@interest("simtier")
class SimilarityHistogram(BucketInterest):
    """How many events are how similar to the candidate.

        c_n = number of real events whose similarity falls into bucket n
        output = relu(f(c) W_1 + b_1) W_2 + b_2,      f(c) = c, log(1 + c) or c / length

    A history without events gives zeros, not the biases.

    Args:
        frozen: the frozen table, or several: one histogram each, joined before W_1.
        bins: how many buckets over [-1, 1]; one more counts the events whose vector (or the candidate's) is missing.
        counts: f: `raw`, `log1p` or `fraction`.
        units: the width of the output; the width of the events when left out.
        hidden_units: the width of the hidden layer; `units` when left out.
        soft_buckets: whether an event between the centres of two buckets counts in both, by linear shares. The counts
            still sum to the length.
        kernel_initializer, kernel_regularizer: see `ConfiguredLayer`.

    Shapes, call arguments and conventions: see `Interest`. Output `[B, C, units]`.
    State: `rows/<frozen>` `[B, L]`, `length` `[B]`.

    Example:
        >>> layer = SimilarityHistogram("text", bins=10)
        >>> content = {"rows/text": ops.ones((1, 5), "int32"), "vectors/text": ops.full((1, 5, 4), 0.5)}
        >>> sequence = {"events": keras.random.normal((1, 5, 8)), "length": ops.array([3]), **content}
        >>> candidate = {"target": keras.random.normal((1, 5, 8)), **content}
        >>> tuple(layer({"sequence": sequence, "candidate": candidate}).shape)
        (1, 5, 8)

    References:
        Sheng et al., Enhancing Taobao Display Advertising with Multimodal Representations (2024), SimTier: 20 equal
        tiers; the release feeds `log1p` counts times a learned weight straight into the tower. Fan et al., Decoupled
        Multimodal Fusion (2025), section 4.4: a histogram and an MLP.
    """

    reads_events = False
    weight_kinds = ("kernel",)

    def __init__(
        self,
        frozen: Frozen,
        counts: str = "log1p",
        units: int | None = None,
        hidden_units: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(frozen, **kwargs)
        self.counts = check_choice("counts", counts, COUNTS)
        self.units = check_optional_count("units", units)
        self.hidden_units = check_optional_count("hidden_units", hidden_units)

    @override
    def output_width(self, width: int) -> int:
        return self.units or width

    @override
    def build_width(self, width: int) -> None:
        units = self.output_width(width)
        hidden = self.hidden_units or units
        counted = len(self.frozen_names) * (self.bins + 1)
        self.hidden = self.make_dense("hidden", hidden, counted, activation="relu")
        self.output_dense = self.make_dense("output", units, hidden)

    @override
    def encode(self, sequence: Tensors, training: bool | None = None) -> Tensors:
        return self.start(sequence)[1]

    @override
    def attend(self, state: Tensors, candidate: Tensors, context: Tensors, training: bool | None = None) -> Tensor:
        return self.attend_buckets(state, self.buckets(state, candidate))

    def attend_buckets(self, state: Tensors, buckets: Tensors) -> Tensor:
        """`attend` for given buckets."""
        features = self.features(state["length"], buckets)
        hidden = self.output_dense(self.hidden(ops.cast(features, self.compute_dtype)))
        known = ops.cast(state["length"] > 0, self.compute_dtype)
        return hidden * known[:, None, None]

    def features(self, length: Tensor, buckets: Tensors) -> Tensor:
        """f(c), float32 `[B, C, tables * (bins + 1)]`."""
        histograms = []
        for name in self.frozen_names:
            shape = ops.shape(buckets[name])
            real = ops.cast(length_mask(length, shape[-1]), "float32")[:, None, :]
            real = ops.broadcast_to(real, shape)[:, None]
            histograms.append(bucket_sum(real, buckets[name], self.bins + 1)[:, :, 0])
        counted = ops.concatenate(histograms, axis=-1)
        if self.counts == "log1p":
            return ops.log1p(counted)
        if self.counts == "fraction":
            return counted / ops.cast(ops.maximum(length, 1), "float32")[:, None, None]
        return counted
