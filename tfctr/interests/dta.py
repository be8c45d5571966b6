"""Decoupled target attention over multimodal similarity."""

from typing import Any

from keras import ops
from typing_extensions import override

from tfctr.interests.base import Tensor, Tensors, interest
from tfctr.interests.frozen import BucketInterest, Frozen
from tfctr.interests.target_attention import TargetAttention
from tfctr.layers.arguments import check_flag
from tfctr.layers.masking import merge_heads, split_heads
from tfctr.layers.similarity import bucket_lookup, bucket_sum, pool_buckets, score_buckets


@interest("dta")
class DecoupledTargetAttention(BucketInterest, TargetAttention):
    """Target attention whose keys and values know how similar the candidate's content is to each event's.

        s_i = cos(v_t, v_i),  b_i = its bucket                        frozen vectors, no gradient
        q = t W_Q,  K_i = x_i W_K + E_K[b_i],  V_i = x_i W_V + E_V[b_i]
        output = concat_h(softmax(q_h K_h^T / sqrt(d_h)) V_h) W_O

    K and V depend on the candidate, but they are never built. What is computed is equal to it:

        q K_i = q (x_i W_K) + (q E_K^T)[b_i]
        a V   = a (X W_V) + h E_V,   h_n = sum of a_i over the steps in bucket n

    so nothing is larger than `[B, H, C, max(L, N)]`, and `x W_K`, `x W_V` are computed in `encode`.

    Args:
        frozen: the frozen table, or several: each has its own similarity and its own E_K and E_V, and they add up.
        bins: how many buckets over [-1, 1]; one more stands for a missing vector.
        enrich_values: false is the non-invasive variant, which leaves E_V out.
        soft_buckets: whether a similarity between the centres of two buckets has a share of both, in E_K and in E_V,
            linearly. The output is then continuous in the similarities; it costs a second look-up and a second sum.
        num_heads, attention_dim, output_projection, scale, activation, dropout, seed: see `TargetAttention`.
        kernel_initializer, kernel_regularizer, embeddings_initializer, embeddings_regularizer: see `ConfiguredLayer`.

    E_K and E_V, the `embeddings`, start at zero: the module starts as plain target attention.

    Shapes, call arguments and conventions: see `Interest`. Output `[B, C, d]`.
    State: `key` and `value` `[B, H, L, d_h]`, `rows/<frozen>` `[B, L]`, `length` `[B]`.

    Example:
        >>> layer = DecoupledTargetAttention("text", num_heads=2, bins=10)
        >>> content = {"rows/text": ops.ones((1, 5), "int32"), "vectors/text": ops.full((1, 5, 4), 0.5)}
        >>> sequence = {"events": keras.random.normal((1, 5, 8)), "length": ops.array([3]), **content}
        >>> candidate = {"target": keras.random.normal((1, 5, 8)), **content}
        >>> tuple(layer({"sequence": sequence, "candidate": candidate}).shape)
        (1, 5, 8)

    References:
        Fan et al., Decoupled Multimodal Fusion (2025), sections 4.1 and 4.3. Bin count, heads and start values are
        not published; the buckets are uniform. `soft_buckets` and `activation` are not in the paper.
    """

    weight_kinds = ("kernel", "embeddings")
    fixed_arguments = ("projections",)

    def __init__(self, frozen: Frozen, enrich_values: bool = True, **kwargs: Any) -> None:
        super().__init__(frozen, **kwargs)
        self.enrich_values = check_flag("enrich_values", enrich_values)

    @override
    def build_width(self, width: int) -> None:
        super().build_width(width)
        values = self.frozen_names if self.enrich_values else ()
        self.key_tables = {name: self._table(f"key_similarity_{name}", width) for name in self.frozen_names}
        self.value_tables = {name: self._table(f"value_similarity_{name}", width) for name in values}

    def _table(self, name: str, width: int) -> Any:
        return self.make_weight(name, (self.bins + 1, self.attention_dim or width), "zeros", kind="embeddings")

    @override
    def attend(self, state: Tensors, candidate: Tensors, context: Tensors, training: bool | None = None) -> Tensor:
        return self.attend_buckets(state, candidate, self.buckets(state, candidate), training)

    def attend_buckets(self, state: Tensors, candidate: Tensors, buckets: Tensors, training: bool | None) -> Tensor:
        """`attend` for given buckets."""
        query = self.queries(candidate)
        scores = ops.matmul(split_heads(query, self.num_heads), ops.swapaxes(self.stored(state, "key"), -1, -2))
        for name, table in self.key_tables.items():
            added = score_buckets(query, ops.cast(table, self.compute_dtype), self.num_heads)
            scores = scores + bucket_lookup(added, buckets[name])
        weights = self.attention(scores, state, training)
        pooled = merge_heads(ops.matmul(weights, self.stored(state, "value")))
        for name, table in self.value_tables.items():
            # Sums of many small numbers: float32 also under half precision.
            histogram = bucket_sum(ops.cast(weights, "float32"), buckets[name], self.bins + 1)
            histogram = ops.cast(histogram, self.compute_dtype)
            pooled = pooled + pool_buckets(histogram, ops.cast(table, self.compute_dtype))
        return self.project(pooled)
