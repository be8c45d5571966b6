"""SASRec: causal self-attention over the history, the newest event's state as the user."""

import math
from typing import Any

import keras
from keras import ops
from typing_extensions import override

from tfctr.interests.base import Interest, SequenceFacts, Tensor, Tensors, interest, with_max_length
from tfctr.layers.arguments import check_count, check_heads, check_rate
from tfctr.layers.dropout import Dropout
from tfctr.layers.initializers import xavier_normal
from tfctr.layers.masking import length_mask, masked_softmax, merge_heads, split_heads, zero_padding


@interest("sasrec")
class SasRec(Interest):
    """Self-attentive sequential interest: the same user vector for every candidate.

        x = sqrt(d) events + position
        each block:  q = LN(x),  y = q + MHA(q, x, x; an event sees itself and older ones),
                     z = LN(y),  x = z + W_2 drop(relu(W_1 z + b_1)) + b_2
        output = x of the newest event

    Queries are normalised, keys and values are not, and the residual starts from the normalised query. Positions are
    counted from the newest event, so neither padding nor the configured maximum moves them. Of the last block only the
    newest event is computed, since the others are not used.

    Args:
        num_blocks: the blocks.
        num_heads: H; it divides the width of the events.
        max_length: positions with a vector of their own; older events share the last one.
        dropout: in training, of the input, the attention weights, the hidden layer and its output.
        seed: of the dropout.
        kernel_initializer, kernel_regularizer, embeddings_initializer, embeddings_regularizer: see `ConfiguredLayer`.

    Shapes, call arguments and conventions: see `Interest`. Output `[B, C, d]`; zeros for an empty history.
    State: `user` `[B, d]`.
    Cost: `L^2 d` a user and block, nothing but a copy a candidate.

    Example:
        >>> layer = SasRec(num_blocks=2)
        >>> state = layer.encode({"events": keras.random.normal((3, 5, 4)), "length": ops.array([5, 2, 0])})
        >>> tuple(state["user"].shape)
        (3, 4)

    References:
        Kang and McAuley, Self-Attentive Sequential Recommendation (ICDM 2018), in the form of Meta's generative
        recommenders: 2 blocks, 1 head and dropout 0.2 on MovieLens-1M, normalisations without weights, eps 1e-8. The
        paper has no normalised residual there: x = x + drop(f(LN(x))). Here it is an interest of a CTR model, trained
        by the click, not by the next item.
    """

    weight_kinds = ("kernel", "embeddings")

    def __init__(
        self,
        num_blocks: int = 2,
        num_heads: int = 1,
        max_length: int = 200,
        dropout: float = 0.0,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.num_blocks = check_count("num_blocks", num_blocks)
        self.num_heads = check_count("num_heads", num_heads)
        self.max_length = check_count("max_length", max_length)
        check_rate("dropout", dropout)
        policy = self.dtype_policy
        self.norm = keras.layers.LayerNormalization(epsilon=1e-8, center=False, scale=False, dtype=policy, name="norm")
        self.drop = Dropout(dropout, seed=seed, dtype=policy, name="dropout")

    @classmethod
    @override
    def complete(cls, options: dict[str, Any], sequence: SequenceFacts) -> dict[str, Any]:
        return with_max_length(options, sequence)

    @override
    def build_width(self, width: int) -> None:
        check_heads(width, self.num_heads)
        start = keras.initializers.TruncatedNormal(stddev=1.0 / math.sqrt(width))
        self.positions = self.make_weight("positions", (self.max_length, width), start, kind="embeddings")
        self.norm.build((None, None, width))
        self.dense = {}
        for i in range(self.num_blocks):
            for part in ("query", "key", "value", "output", "hidden", "feed"):
                # The reference draws query, key and value as one matrix of three times the width.
                fans = (width, 3 * width) if part in ("query", "key", "value") else (width, width)
                self.dense[f"block_{i}_{part}"] = self.make_dense(
                    f"block_{i}_{part}",
                    width,
                    width,
                    xavier_normal(fans),
                    activation="relu" if part == "hidden" else None,
                    # A bias of the keys adds the same to every score of a query: the softmax takes it away.
                    use_bias=part != "key",
                )

    @override
    def encode(self, sequence: Tensors, training: bool | None = None) -> Tensors:
        events, state = self.start(sequence)
        steps = ops.shape(events)[1]
        order = ops.arange(steps, dtype="int32")
        mask = length_mask(state["length"], steps)
        # Newest first: what is older has a larger index.
        seen = ops.logical_and(order[None, :] >= order[:, None], mask[:, None, :])[:, None]
        table = ops.cast(ops.convert_to_tensor(self.positions), self.compute_dtype)
        x = events * math.sqrt(events.shape[-1]) + ops.take(table, ops.minimum(order, self.max_length - 1), axis=0)
        x = zero_padding(self.drop(x, training=training), mask)
        for i in range(self.num_blocks):
            queries = 1 if i == self.num_blocks - 1 else steps
            x = self._block(i, x, seen[:, :, :queries], training)
            x = zero_padding(x, mask[:, :queries])
        return {"user": x[:, 0]}

    def _block(self, index: int, x: Tensor, seen: Tensor, training: bool | None) -> Tensor:
        def dense(part: str, x: Tensor) -> Tensor:
            return self.dense[f"block_{index}_{part}"](x)

        query = self.norm(x[:, : ops.shape(seen)[2]])
        q = split_heads(dense("query", query), self.num_heads)
        k, v = (split_heads(dense(part, x), self.num_heads) for part in ("key", "value"))
        scores = ops.matmul(q / math.sqrt(q.shape[-1]), ops.swapaxes(k, -1, -2))
        weights = self.drop(ops.cast(masked_softmax(scores, seen), self.compute_dtype), training=training)
        y = self.norm(query + dense("output", merge_heads(ops.matmul(weights, v))))
        hidden = self.drop(dense("hidden", y), training=training)
        return y + self.drop(dense("feed", hidden), training=training)

    @override
    def attend(self, state: Tensors, candidate: Tensors, context: Tensors, training: bool | None = None) -> Tensor:
        user = ops.cast(state["user"], self.compute_dtype)
        batch, width = ops.shape(user)
        return ops.broadcast_to(user[:, None, :], (batch, ops.shape(candidate["target"])[1], width))
