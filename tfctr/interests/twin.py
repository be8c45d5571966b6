"""TWIN: one and the same attention searches and reads."""

import math
from typing import Any

from keras import ops
from typing_extensions import override

from tfctr.interests.base import AGE_BUCKETS, Tensor, Tensors, interest
from tfctr.interests.retrieved import RetrievedAttention, exact_events, known_ages
from tfctr.layers.arguments import check_flag
from tfctr.layers.masking import length_mask, masked_softmax, merge_heads, split_heads
from tfctr.layers.retrieval import gather_steps, top_steps


@interest("twin")
class Twin(RetrievedAttention):
    """Two-stage interest network: target attention whose softmax sees only the K best scores of each head.

        a_hi = (t W_Q)_h (x_i W_K)_h / sqrt(d_h)  [+ b_h(age_i)]
        output = concat_h( sum_{i in top K of a_h} softmax(a_h)_i (x_i W_V)_h ) W_O

    Search and attention share their scores, so they cannot disagree, and the search is trained with the attention.
    Each head finds events of its own. With `top_k` of at least L it is `TargetAttention`.

    Args:
        top_k, num_heads, attention_dim, dropout, seed: see `RetrievedAttention`.
        age_bias: whether the event's age adds a learned number to the scores of each head. TWIN compresses every
            attribute of the interaction to one such number; here it is done for the age, which every history has.
        kernel_initializer, kernel_regularizer, embeddings_initializer, embeddings_regularizer: see `ConfiguredLayer`.

    Shapes, call arguments and conventions: see `Interest`. Output `[B, C, d]`; zeros for an empty history, where the
    reference averages the padding.
    State: `key` float32 and `value` `[B, H, L, d_h]`, `length` `[B]`; with `age_bias` also `bias` float32 `[B, H, L]`.
    Cost of a candidate: the scores, `L * d`, the choice of K of L for each head, and K gathered rows of `d` in all.

    Example:
        >>> sequence = {"events": keras.random.normal((1, 5, 4)), "length": ops.array([3])}
        >>> candidate = {"target": keras.random.normal((1, 2, 4))}
        >>> tuple(Twin(top_k=2, num_heads=2)({"sequence": sequence, "candidate": candidate}).shape)
        (1, 2, 4)

    References:
        Chang et al., TWIN: Two-stage Interest Network for Lifelong User Behavior Modeling (KDD 2023), eq. 4 to 7: four
        heads, K = 100 of 10^4. Top K by head as in the LongCTR benchmark, where K = 50.
    """

    score_dtype = "float32"

    fixed_arguments = ("age_dim",)

    def __init__(self, age_bias: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.age_bias = check_flag("age_bias", age_bias)

    @override
    def build_width(self, width: int) -> None:
        super().build_width(width)
        if self.age_bias:
            shape = (AGE_BUCKETS, self.num_heads)
            self.age_scores = self.make_weight("age_scores", shape, "zeros", kind="embeddings", autocast=False)

    @override
    def encode(self, sequence: Tensors, training: bool | None = None) -> Tensors:
        events, state = self.start(sequence)
        state["key"] = split_heads(self.key(exact_events(sequence, state["length"])), self.num_heads)
        state["value"] = split_heads(self.value(events), self.num_heads)
        if self.age_bias:
            bias = ops.take(ops.convert_to_tensor(self.age_scores), known_ages(sequence, state["length"]), axis=0)
            state["bias"] = ops.transpose(bias, (0, 2, 1))
        return state

    @override
    def attend(self, state: Tensors, candidate: Tensors, context: Tensors, training: bool | None = None) -> Tensor:
        query = split_heads(self.query(ops.cast(candidate["target"], "float32")), self.num_heads)
        key = ops.cast(state["key"], "float32")
        scores = ops.matmul(query / math.sqrt(query.shape[-1]), ops.swapaxes(key, -1, -2))
        if self.age_bias:
            scores = scores + ops.cast(state["bias"], "float32")[:, :, None, :]
        batch, heads, candidates, steps = ops.shape(scores)
        mask = length_mask(state["length"], steps)[:, None, None, :]
        best, indices, found = top_steps(scores, mask, self.top_k)
        weights = ops.cast(masked_softmax(best, found), self.compute_dtype)
        weights = self.weights_dropout(weights, training=training)
        # Every head of every user is a history of its own here.
        head_dim = self.inner // heads
        values = ops.reshape(ops.cast(state["value"], self.compute_dtype), (batch * heads, steps, head_dim))
        values = gather_steps(values, ops.reshape(indices, (batch * heads, candidates, self.top_k)))
        values = ops.reshape(values, (batch, heads, candidates, self.top_k, head_dim))
        return self.output_dense(merge_heads(ops.sum(weights[..., None] * values, axis=-2)))
