"""Decoupled target attention over multimodal similarity."""

from typing import Any

from keras import ops

from tfctr.interests.base import Tensor, Tensors, frozen_argument, frozen_pair
from tfctr.interests.target_attention import TargetAttention
from tfctr.layers.export import tfctr_export
from tfctr.layers.masking import merge_heads, split_heads
from tfctr.layers.similarity import (
    block_diagonal,
    bucket_lookup,
    bucket_sum,
    cosine_similarity,
    similarity_buckets,
)


@tfctr_export
class DecoupledTargetAttention(TargetAttention):
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
        num_heads, attention_dim, output_projection, scale, dropout, seed: see `TargetAttention`.

    E_K and E_V start at zero: the module starts as plain target attention.

    Shapes, call arguments and conventions: see `Interest`. Output `[B, C, d]`.
    State: `key` and `value` `[B, H, L, d_h]`, `rows/<frozen>` `[B, L]`, `length` `[B]`.

    Example:
        >>> layer = DecoupledTargetAttention("text", num_heads=2, bins=10)
        >>> sequence = {"events": keras.random.normal((1, 50, 8)), "length": ops.array([30])}
        >>> sequence["rows/text"] = ops.ones((1, 50), "int32")
        >>> state = layer.encode(sequence)
        >>> candidate = {"target": keras.random.normal((1, 3, 8)), "rows/text": ops.ones((1, 3), "int32")}
        >>> candidate["vectors/text"] = keras.utils.normalize(np.random.normal(size=(1, 3, 6))).astype("float32")
        >>> state["vectors/text"] = keras.utils.normalize(np.random.normal(size=(1, 50, 6))).astype("float32")
        >>> tuple(layer.attend(state, candidate, {}).shape)
        (1, 3, 8)

    References:
        Fan et al., Decoupled Multimodal Fusion (2025), sections 4.1 and 4.3. Bin count, heads and start values are
        not published; the buckets are uniform.
    """

    def __init__(
        self,
        frozen: str | list[str] | tuple[str, ...],
        bins: int = 40,
        enrich_values: bool = True,
        num_heads: int = 4,
        attention_dim: int | None = None,
        output_projection: bool = True,
        scale: bool = True,
        dropout: float = 0.0,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            num_heads=num_heads,
            attention_dim=attention_dim,
            output_projection=output_projection,
            scale=scale,
            dropout=dropout,
            seed=seed,
            **kwargs,
        )
        if bins < 1:
            raise ValueError(f"`bins` must be at least 1. Received: {bins}")
        self.frozen = frozen_argument(frozen)
        self.bins = bins
        self.enrich_values = enrich_values

    @property
    def frozen_names(self) -> tuple[str, ...]:
        """The frozen tables."""
        return self.frozen

    def build_width(self, width: int) -> None:
        """Create the projections and the tables of the buckets."""
        super().build_width(width)
        self.key_tables = {name: self._table("key", name, width) for name in self.frozen}
        self.value_tables = {name: self._table("value", name, width) for name in self.frozen if self.enrich_values}

    def _table(self, kind: str, name: str, width: int) -> Any:
        shape = (self.bins + 1, self.attention_dim or width)
        return self.add_weight(name=f"{kind}_similarity_{name}", shape=shape, initializer="zeros")

    def attend(self, state: Tensors, candidate: Tensors, context: Tensors, training: bool | None = None) -> Tensor:
        """Attention over the history for each candidate."""
        return self.attend_buckets(state, candidate, self.buckets(state, candidate), training)

    def buckets(self, state: Tensors, candidate: Tensors) -> Tensors:
        """The bucket of every candidate and step, int32 `[B, C, L]`, by frozen table."""
        result = {}
        for name in self.frozen:
            target, history, missing = frozen_pair(state, candidate, name)
            result[name] = similarity_buckets(cosine_similarity(target, history), self.bins, missing)
        return result

    def attend_buckets(self, state: Tensors, candidate: Tensors, buckets: Tensors, training: bool | None) -> Tensor:
        """`attend` for given buckets."""
        query = self.queries(candidate)
        scores = ops.matmul(split_heads(query, self.num_heads), ops.swapaxes(self.stored(state, "key"), -1, -2))
        for name, table in self.key_tables.items():
            scores = scores + bucket_lookup(self._score_buckets(query, table), buckets[name])
        weights = self.attention(scores, state, training)
        pooled = merge_heads(ops.matmul(weights, self.stored(state, "value")))
        for name, table in self.value_tables.items():
            # Sums of many small numbers: float32 also under half precision.
            histogram = bucket_sum(ops.cast(weights, "float32"), buckets[name], self.bins + 1)
            pooled = pooled + self._pool_buckets(histogram, table)
        return self.project(pooled)

    def _score_buckets(self, query: Tensor, table: Any) -> Tensor:
        """q E_K^T: what each bucket adds to the score, `[B, C, N, H]`."""
        batch, candidates, width = ops.shape(query)
        size, heads = self.bins + 1, self.num_heads
        blocks = block_diagonal(ops.cast(table, self.compute_dtype), heads)
        products = ops.matmul(query, ops.reshape(blocks, (width, size * heads)))
        return ops.reshape(products, (batch, candidates, size, heads))

    def _pool_buckets(self, histogram: Tensor, table: Any) -> Tensor:
        """h E_V: the attention-weighted histograms `[B, C, H, N]` times the table, `[B, C, H * d_h]`."""
        batch, candidates, heads, size = ops.shape(histogram)
        blocks = ops.transpose(block_diagonal(ops.cast(table, self.compute_dtype), heads), (3, 2, 0, 1))
        flat = ops.reshape(ops.cast(histogram, self.compute_dtype), (batch, candidates, heads * size))
        return ops.matmul(flat, ops.reshape(blocks, (heads * size, table.shape[-1])))

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        config = super().get_config()
        del config["projections"]
        return {
            **config,
            "frozen": list(self.frozen),
            "bins": self.bins,
            "enrich_values": self.enrich_values,
        }
