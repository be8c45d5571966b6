"""Complementary modality modelling: a weighted mean of decoupled target attention and a similarity histogram."""

import math
from typing import Any, Literal, get_args

from keras import ops
from typing_extensions import override

from tfctr.interests.base import Shapes, Tensor, Tensors, interest
from tfctr.interests.dta import DecoupledTargetAttention
from tfctr.interests.frozen import Frozen, FrozenInterest
from tfctr.interests.simtier import SimilarityHistogram
from tfctr.layers.arguments import check_choice, check_count, check_number

Mixing = Literal["fixed", "learned", "gated"]


@interest("cmm")
class ComplementaryModality(FrozenInterest):
    """The interest of DMF: a weighted mean of decoupled target attention (DTA) and a similarity histogram (SimTier).

        output = alpha * DTA(...) + (1 - alpha) * SimTier(...)

    The paper calls DTA the modality-enriched and SimTier the modality-centric view. `mixing` says what alpha is:

        fixed      the given number
        learned    sigmoid(a), one number for all requests, which starts at the given number
        gated      sigmoid(relu([t ; log(1 + length) ; mean of the request's fields] W_1 + b_1) w + a), one number for
                   each candidate of each request, which starts at the given number

    Both parts read the same frozen vectors. With the same number of bins, the buckets are computed once for both.

    Args:
        frozen: the frozen table, or several.
        alpha: the weight of DTA, or its start value. With 0 only the histogram counts, with 1 only DTA.
        mixing: `fixed`, `learned` or `gated`.
        gate_units: the width of the gate's hidden layer.
        bins: buckets over [-1, 1], in both parts.
        histogram_bins: buckets of the histogram, if it has a different number.
        soft_buckets: whether a similarity between the centres of two buckets has a share of each, in both parts.
        counts, hidden_units: arguments of the histogram, see `SimilarityHistogram`.
        enrich_values, num_heads, attention_dim, scale, activation, dropout, seed: arguments of the attention, see
            `DecoupledTargetAttention`.
        kernel_initializer, kernel_regularizer, embeddings_initializer, embeddings_regularizer: see `ConfiguredLayer`.

    The gate reads the fields of the request only if `context["fields"]` is among the shapes that the layer is built
    with. Otherwise it has no weights for them, and reads the target and the length alone.

    Shapes, call arguments and conventions: see `Interest`. Output `[B, C, d]`.
    State: `key` and `value` `[B, H, L, d_h]`, `rows/<frozen>` `[B, L]`, `length` `[B]`.

    Example:
        >>> layer = ComplementaryModality("text", num_heads=2, bins=10)
        >>> content = {"rows/text": ops.ones((1, 5), "int32"), "vectors/text": ops.full((1, 5, 4), 0.5)}
        >>> sequence = {"events": keras.random.normal((1, 5, 8)), "length": ops.array([3]), **content}
        >>> candidate = {"target": keras.random.normal((1, 5, 8)), **content}
        >>> tuple(layer({"sequence": sequence, "candidate": candidate}).shape)
        (1, 5, 8)

    References:
        Fan et al., Decoupled Multimodal Fusion (2025), section 4.4, where alpha is fixed. Its best value is between 0
        and 1 and not published; the default is the middle. `learned`, `gated` and `soft_buckets` are additions.
    """

    weight_kinds = ("kernel", "embeddings")
    part_classes = (DecoupledTargetAttention, SimilarityHistogram)
    fixed_arguments = ("output_projection", "projections", "units")

    def __init__(
        self,
        frozen: Frozen,
        alpha: float = 0.5,
        mixing: Mixing = "fixed",
        gate_units: int = 16,
        histogram_bins: int | None = None,
        **kwargs: Any,
    ) -> None:
        of_attention, of_histogram = self.passed_on(kwargs)
        if histogram_bins is not None:
            of_histogram["bins"] = histogram_bins
        super().__init__(frozen, **kwargs)
        self.mixing = check_choice("mixing", mixing, get_args(Mixing))
        if not 0.0 <= check_number("alpha", alpha) <= 1.0 or (mixing != "fixed" and alpha in (0.0, 1.0)):
            raise ValueError(f"`alpha` must be from 0 to 1, and between them unless it is fixed. Received: {alpha}")
        self.alpha = alpha
        self.gate_units = check_count("gate_units", gate_units)
        self.attention = self.make_part(DecoupledTargetAttention, "attention", frozen, **of_attention)
        self.histogram = self.make_part(SimilarityHistogram, "histogram", frozen, **of_histogram)

    @override
    def build(self, input_shape: Shapes) -> None:
        super().build(input_shape)
        fields = input_shape.get("context", {}).get("fields")
        if self.mixing == "gated" and fields is not None:
            self.gate_fields = self.make_weight("gate_fields", (fields[-1], self.gate_units), "glorot_uniform")

    @override
    def build_width(self, width: int) -> None:
        for part in (self.attention, self.histogram):
            part.build({"sequence": {"events": (None, None, width)}})
        if self.mixing == "fixed":
            return
        start = math.log(self.alpha / (1.0 - self.alpha))
        self.alpha_logit = self.add_weight(
            name="alpha_logit", shape=(), initializer=lambda shape, dtype: ops.full(shape, start, dtype)
        )
        if self.mixing == "gated":
            self.gate_fields = None
            self.gate_hidden = self.make_dense("gate_hidden", self.gate_units, width + 1)
            # With a kernel of zeros, every alpha starts at the given number.
            self.gate_kernel = self.make_weight("gate_kernel", (self.gate_units, 1), "zeros")

    @override
    def diagnostics(self) -> dict[str, float]:
        if self.mixing != "learned" or not self.built:
            return {}
        return {"alpha": float(ops.convert_to_numpy(ops.sigmoid(self.alpha_logit)))}

    @override
    def encode(self, sequence: Tensors, training: bool | None = None) -> Tensors:
        if not self.built:
            self.build({"sequence": {"events": tuple(sequence["events"].shape)}})
        return self.attention.encode(sequence, training=training)

    @override
    def attend(self, state: Tensors, candidate: Tensors, context: Tensors, training: bool | None = None) -> Tensor:
        buckets = self.attention.buckets(state, candidate)
        shared = self.histogram.bins == self.attention.bins
        enriched = self.attention.attend_buckets(state, candidate, buckets, training)
        centric = self.histogram.attend_buckets(state, buckets if shared else self.histogram.buckets(state, candidate))
        share = self.share(state, candidate, context)
        return share * enriched + (1.0 - share) * centric

    def share(self, state: Tensors, candidate: Tensors, context: Tensors) -> Any:
        """alpha: a number, or `[B, C, 1]` with the gate."""
        if self.mixing == "fixed":
            return self.alpha
        logit = ops.cast(self.alpha_logit, self.compute_dtype)
        if self.mixing == "gated":
            target = self.target(candidate)
            length = ops.log1p(ops.cast(state["length"], "float32"))[:, None, None]
            length = ops.broadcast_to(ops.cast(length, self.compute_dtype), (*ops.shape(target)[:2], 1))
            hidden = self.gate_hidden(ops.concatenate([target, length], axis=-1))
            if self.gate_fields is not None:
                if "fields" not in context:
                    raise ValueError(
                        f"`context` must hold `fields`, with which the gate was built. Received: {sorted(context)}"
                    )
                pooled = ops.mean(ops.cast(context["fields"], self.compute_dtype), axis=2)
                hidden = hidden + ops.matmul(pooled, ops.cast(self.gate_fields, self.compute_dtype))
            logit = logit + ops.matmul(ops.relu(hidden), ops.cast(self.gate_kernel, self.compute_dtype))
        return ops.sigmoid(logit)
