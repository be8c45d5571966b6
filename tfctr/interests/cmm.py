"""Complementary modality modelling: decoupled target attention and the similarity histogram together."""

import math
from typing import Any

from keras import ops

from tfctr.interests.base import Interest, Tensor, Tensors
from tfctr.interests.dta import DecoupledTargetAttention
from tfctr.interests.simtier import SimilarityHistogram
from tfctr.layers.export import tfctr_export


@tfctr_export
class ComplementaryModality(Interest):
    """The interest of DMF: a mixture of the modality-enriched and the modality-centric view.

        output = alpha * DTA(...) + (1 - alpha) * SimTier(...)

    Both read the same frozen vectors; with equal bins the similarities and buckets are computed once.

    Args:
        frozen: the frozen table, or several.
        alpha: the share of DTA; 0 leaves the histogram alone, 1 DTA alone.
        learn_alpha: whether alpha is trained, as sigmoid(a), from the given start.
        bins: buckets over [-1, 1], in both.
        histogram_bins: buckets of the histogram, where they shall differ.
        counts, hidden_units: of the histogram, see `SimilarityHistogram`.
        enrich_values, num_heads, attention_dim, scale, dropout, seed: of the attention, see
            `DecoupledTargetAttention`.

    Shapes, call arguments and conventions: see `Interest`. Output `[B, C, d]`.
    State: `key` and `value` `[B, H, L, d_h]`, `rows/<frozen>` `[B, L]`, `length` `[B]`.

    Example:
        >>> layer = ComplementaryModality("text", num_heads=2, bins=10)
        >>> sequence = {"events": keras.random.normal((1, 50, 8)), "length": ops.array([30])}
        >>> sequence["rows/text"] = ops.ones((1, 50), "int32")
        >>> state = layer.encode(sequence)
        >>> candidate = {"target": keras.random.normal((1, 3, 8)), "rows/text": ops.ones((1, 3), "int32")}
        >>> candidate["vectors/text"] = keras.utils.normalize(np.random.normal(size=(1, 3, 6))).astype("float32")
        >>> state["vectors/text"] = keras.utils.normalize(np.random.normal(size=(1, 50, 6))).astype("float32")
        >>> tuple(layer.attend(state, candidate, {}).shape)
        (1, 3, 8)

    References:
        Fan et al., Decoupled Multimodal Fusion (2025), section 4.4. Its best alpha is not known to us; the default is
        the middle.
    """

    def __init__(
        self,
        frozen: str | list[str] | tuple[str, ...],
        alpha: float = 0.5,
        learn_alpha: bool = False,
        bins: int = 40,
        histogram_bins: int | None = None,
        counts: str = "log1p",
        hidden_units: int | None = None,
        enrich_values: bool = True,
        num_heads: int = 4,
        attention_dim: int | None = None,
        scale: bool = True,
        dropout: float = 0.0,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not 0.0 <= alpha <= 1.0 or (learn_alpha and alpha in (0.0, 1.0)):
            raise ValueError(f"`alpha` must be from 0 to 1, and between them when it is learned. Received: {alpha}")
        self.alpha = alpha
        self.learn_alpha = learn_alpha
        self.histogram_bins = histogram_bins
        self.attention = DecoupledTargetAttention(
            frozen,
            bins=bins,
            enrich_values=enrich_values,
            num_heads=num_heads,
            attention_dim=attention_dim,
            scale=scale,
            dropout=dropout,
            seed=seed,
            dtype=self.dtype_policy,
            name="attention",
        )
        self.histogram = SimilarityHistogram(
            frozen,
            bins=bins if histogram_bins is None else histogram_bins,
            counts=counts,
            hidden_units=hidden_units,
            dtype=self.dtype_policy,
            name="histogram",
        )

    @property
    def frozen_names(self) -> tuple[str, ...]:
        """The frozen tables."""
        return self.attention.frozen_names

    def build_width(self, width: int) -> None:
        """Create both parts, and alpha where it is learned."""
        for part in (self.attention, self.histogram):
            part.build({"sequence": {"events": (None, None, width)}})
        if self.learn_alpha:
            start = math.log(self.alpha / (1.0 - self.alpha))
            self.alpha_logit = self.add_weight(
                name="alpha_logit", shape=(), initializer=lambda shape, dtype: ops.full(shape, start, dtype)
            )

    def encode(self, sequence: Tensors, training: bool | None = None) -> Tensors:
        """Keys, values and rows; the histogram needs nothing more."""
        if not self.built:
            self.build({"sequence": {"events": tuple(sequence["events"].shape)}})
        return self.attention.encode(sequence, training=training)

    def attend(self, state: Tensors, candidate: Tensors, context: Tensors, training: bool | None = None) -> Tensor:
        """The mixture for each candidate."""
        buckets = self.attention.buckets(state, candidate)
        shared = self.histogram.bins == self.attention.bins
        enriched = self.attention.attend_buckets(state, candidate, buckets, training)
        centric = self.histogram.attend_buckets(state, buckets if shared else self.histogram.buckets(state, candidate))
        share = ops.sigmoid(ops.cast(self.alpha_logit, self.compute_dtype)) if self.learn_alpha else self.alpha
        return share * enriched + (1.0 - share) * centric

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        attention, histogram = self.attention, self.histogram
        return {
            **super().get_config(),
            "frozen": list(attention.frozen),
            "alpha": self.alpha,
            "learn_alpha": self.learn_alpha,
            "bins": attention.bins,
            "histogram_bins": self.histogram_bins,
            "counts": histogram.counts,
            "hidden_units": histogram.hidden_units,
            "enrich_values": attention.enrich_values,
            "num_heads": attention.num_heads,
            "attention_dim": attention.attention_dim,
            "scale": attention.scale,
            "dropout": attention.dropout,
            "seed": attention.seed,
        }
