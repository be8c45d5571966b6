"""Target attention over events that know their similarity: early fusion."""

from typing import Any, Literal, get_args

from keras import ops
from typing_extensions import override

from tfctr.interests.base import Tensor, Tensors, interest
from tfctr.interests.frozen import BucketInterest, Frozen, known_similarity
from tfctr.interests.target_attention import TargetAttention
from tfctr.layers.arguments import check_choice, check_optional_count
from tfctr.layers.masking import by_head, join_heads, split_heads
from tfctr.layers.similarity import embed_buckets

Similarity = Literal["bucket", "scalar"]


@interest("ta_early")
class EarlyFusionAttention(BucketInterest, TargetAttention):
    """Target attention whose events are joined with their similarity to the candidate before they are projected.

        s_i = cos(v_t, v_i)                                           frozen vectors, no gradient
        z_i = [x_i ; T[b_i]]    or, with `scalar`,    [x_i ; s_i]
        q = t W_Q,  K_i = z_i W_K,  V_i = z_i W_V
        output = concat_h(softmax(q_h K_h^T / sqrt(d_h)) V_h) W_O

    It is TA_early, a baseline of the DMF paper: K and V depend on the candidate and are really built, `[B, C, L, d]`,
    with a projection of every event for every candidate, O(B C L d^2). That cost is what the baseline shows, so it is
    not optimised away. It could be: with buckets, z_i W_K = x_i W_x + (T W_s)[b_i], which is
    `DecoupledTargetAttention` with E_K = T W_s; a test checks that the two are equal.

    A missing vector has a bucket of its own; as a scalar it is 0.

    Args:
        frozen: the frozen table, or several: each has its own similarity, and all are joined to the event.
        similarity: `bucket`, embeddings of buckets, or `scalar`, the similarity itself.
        bins: how many buckets over [-1, 1]; one more stands for a missing vector.
        similarity_dim: the width of the embeddings of the buckets; that of the events when left out.
        soft_buckets: whether a similarity between the centres of two buckets is embedded between the two.
        num_heads, attention_dim, output_projection, scale, activation, dropout, seed: see `TargetAttention`.
        kernel_initializer, kernel_regularizer, embeddings_initializer, embeddings_regularizer: see `ConfiguredLayer`.

    Shapes, call arguments and conventions: see `Interest`. Output `[B, C, d]`.
    State: `events` `[B, L, d]`, `rows/<frozen>` `[B, L]`, `length` `[B]`; there is nothing to project in advance.

    Example:
        >>> layer = EarlyFusionAttention("text", num_heads=2, bins=10)
        >>> content = {"rows/text": ops.ones((1, 5), "int32"), "vectors/text": ops.full((1, 5, 4), 0.5)}
        >>> sequence = {"events": keras.random.normal((1, 5, 8)), "length": ops.array([3]), **content}
        >>> candidate = {"target": keras.random.normal((1, 5, 8)), **content}
        >>> tuple(layer({"sequence": sequence, "candidate": candidate}).shape)
        (1, 5, 8)

    References:
        Fan et al., Decoupled Multimodal Fusion (2025), figure 2a and table 3. Whether the similarity is joined as a
        number or embedded is not published: both are here.
    """

    weight_kinds = ("kernel", "embeddings")
    fixed_arguments = ("projections",)

    def __init__(
        self,
        frozen: Frozen,
        similarity: Similarity = "bucket",
        similarity_dim: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(frozen, **kwargs)
        self.similarity = check_choice("similarity", similarity, get_args(Similarity))
        self.similarity_dim = check_optional_count("similarity_dim", similarity_dim)

    @override
    def build_width(self, width: int) -> None:
        super().build_width(width)
        self.tables = {}
        if self.similarity == "bucket":
            shape = (self.bins + 1, self.similarity_dim or width)
            for name in self.frozen_names:
                self.tables[name] = self.make_weight(f"similarity_{name}", shape, "random_uniform", kind="embeddings")

    @override
    def key_width(self, width: int) -> int:
        each = self.similarity_dim or width if self.similarity == "bucket" else 1
        return width + len(self.frozen_names) * each

    @override
    def encode(self, sequence: Tensors, training: bool | None = None) -> Tensors:
        events, state = self.start(sequence)
        return {**state, "events": events}

    @override
    def attend(self, state: Tensors, candidate: Tensors, context: Tensors, training: bool | None = None) -> Tensor:
        joined = self._joined(state, candidate)
        key, value = (by_head(dense(joined), self.num_heads) for dense in (self.key, self.value))
        query = split_heads(self.queries(candidate), self.num_heads)
        weights = self.attention(ops.einsum("bhcd,bclhd->bhcl", query, key), state, training)
        return self.project(join_heads(ops.einsum("bhcl,bclhd->bchd", weights, value)))

    def _joined(self, state: Tensors, candidate: Tensors) -> Tensor:
        """The events, joined with their similarities, `[B, C, L, d + e]`."""
        events = self.stored(state, "events")
        batch, steps, width = ops.shape(events)
        candidates = ops.shape(candidate["target"])[1]
        parts = [ops.broadcast_to(events[:, None], (batch, candidates, steps, width))]
        if self.similarity == "scalar":
            for name in self.frozen_names:
                parts.append(ops.cast(known_similarity(state, candidate, name), self.compute_dtype)[..., None])
        else:
            buckets = self.buckets(state, candidate)
            for name, table in self.tables.items():
                parts.append(embed_buckets(ops.cast(table, self.compute_dtype), buckets[name]))
        return ops.concatenate(parts, axis=-1)
