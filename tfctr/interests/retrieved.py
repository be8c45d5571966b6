"""What the two-stage interests share: search a few events for each candidate, then attend to those."""

import math
from typing import Any

from keras import ops
from typing_extensions import override

from tfctr.interests.base import AGE_BUCKETS, Interest, Tensor, Tensors
from tfctr.layers.arguments import check_attention_dim, check_count, check_heads, check_optional_count, check_rate
from tfctr.layers.dropout import Dropout
from tfctr.layers.masking import by_head, join_heads, length_mask, masked_softmax, zero_padding
from tfctr.layers.retrieval import gather_steps


class RetrievedAttention(Interest):
    """Multi-head target attention over the K events that a search has found for the candidate.

        q = t W_Q,  K = X W_K,  V = X W_V                              no biases
        output = concat_h(softmax_{i found}(q_h k_hi / sqrt(d_h)) v_hi) W_O

    A subclass gives `search`. Keys and values of all events are computed once a user, in `encode`; for each candidate
    K rows of them are gathered, so the cost is that of the search plus B C K d, and the gathered rows are the largest
    tensor: `[B, C, K, 2 d]`. Where the search finds nothing, and for an empty history, the output is zero.

    Args:
        top_k: K, the most events that are found.
        num_heads: H.
        attention_dim: the width of q, K and V over all heads; the width of the events when left out.
        age_dim: the width of an embedding of the event's age that is joined to the event before W_K and W_V; none when
            left out. The ages of a history without times count as unknown.
        dropout: share of attention weights dropped in training.
        seed: of the dropout.
        kernel_initializer, kernel_regularizer, embeddings_initializer, embeddings_regularizer: see `ConfiguredLayer`.

    Shapes, call arguments and conventions: see `Interest`. Output `[B, C, d]`.
    State: `key_value` `[B, L, 2 H d_h]`, `length` `[B]`, and what the search needs.
    """

    score_dtype: str | None = None
    """The dtype of W_Q and W_K, where it is not the layer's."""

    weight_kinds = ("kernel", "embeddings")

    def __init__(
        self,
        top_k: int = 50,
        num_heads: int = 4,
        attention_dim: int | None = None,
        age_dim: int | None = None,
        dropout: float = 0.0,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.top_k = check_count("top_k", top_k)
        self.num_heads = check_count("num_heads", num_heads)
        self.attention_dim = check_attention_dim(attention_dim, num_heads)
        self.age_dim = check_optional_count("age_dim", age_dim)
        check_rate("dropout", dropout)
        self.seed = seed
        self.weights_dropout = Dropout(dropout, seed=seed, dtype=self.dtype_policy, name="dropout")

    @override
    def build_width(self, width: int) -> None:
        self.inner = check_heads(self.attention_dim or width, self.num_heads)
        joined, scores = width + (self.age_dim or 0), self.score_dtype or self.dtype_policy
        self.query = self.make_dense("query", self.inner, width, use_bias=False, dtype=scores)
        self.key = self.make_dense("key", self.inner, joined, use_bias=False, dtype=scores)
        self.value = self.make_dense("value", self.inner, joined, use_bias=False)
        self.output_dense = self.make_dense("output", width, self.inner, use_bias=False)
        if self.age_dim is not None:
            shape = (AGE_BUCKETS, self.age_dim)
            self.age_table = self.make_weight("age_table", shape, "random_uniform", kind="embeddings")

    @override
    def encode(self, sequence: Tensors, training: bool | None = None) -> Tensors:
        events, state = self.start(sequence)
        if self.age_dim is not None:
            table = ops.cast(ops.convert_to_tensor(self.age_table), self.compute_dtype)
            ages = ops.take(table, known_ages(sequence, state["length"]), axis=0)
            events = ops.concatenate([events, ages], axis=-1)
        return {**state, "key_value": ops.concatenate([self.key(events), self.value(events)], axis=-1)}

    def search(self, state: Tensors, candidate: Tensors) -> tuple[Tensor, Tensor]:
        """The steps for each candidate, int32 `[B, C, K]`, and which of them are found, bool `[B, C, K]`."""
        raise NotImplementedError

    @override
    def attend(self, state: Tensors, candidate: Tensors, context: Tensors, training: bool | None = None) -> Tensor:
        indices, found = self.search(state, candidate)
        rows = gather_steps(ops.cast(state["key_value"], self.compute_dtype), indices)
        key, value = (by_head(part, self.num_heads) for part in ops.split(rows, 2, axis=-1))
        query = by_head(self.query(self.target(candidate)), self.num_heads)
        scores = ops.einsum("bchd,bckhd->bchk", query / math.sqrt(query.shape[-1]), key)
        weights = ops.cast(masked_softmax(scores, found[:, :, None, :]), self.compute_dtype)
        weights = self.weights_dropout(weights, training=training)
        return self.output_dense(join_heads(ops.einsum("bchk,bckhd->bchd", weights, value)))


def exact_events(sequence: Tensors, length: Tensor) -> Tensor:
    """The events in float32, zero at padded steps: what a search reads.

    A search runs in float32 under mixed precision too: rounding would exchange events near the K-th place.
    """
    events = ops.cast(sequence["events"], "float32")
    return zero_padding(events, length_mask(length, ops.shape(events)[1]))


def known_ages(sequence: Tensors, length: Tensor) -> Tensor:
    """Ages `[B, L]`, 0 at padded steps and for a history without times."""
    steps = ops.shape(sequence["events"])[1]
    mask = length_mask(length, steps)
    if "ages" not in sequence:
        return ops.zeros_like(mask, dtype="int32")
    return zero_padding(ops.clip(ops.cast(sequence["ages"], "int32"), 0, AGE_BUCKETS - 1), mask)
