"""Multi-head target attention."""

import math
from typing import Any, ClassVar, Literal, get_args

import keras
from keras import ops
from typing_extensions import override

from tfctr.interests.base import Interest, Tensor, Tensors, interest
from tfctr.layers.arguments import check_attention_dim, check_choice, check_count, check_flag, check_heads, check_rate
from tfctr.layers.dropout import Dropout
from tfctr.layers.masking import length_mask, masked_softmax, merge_heads, split_heads

Activation = Literal["softmax", "sigmoid", "relu"]


@interest("target_attention")
class TargetAttention(Interest):
    """The candidate asks, the history answers.

        q = t W_Q,  K = X W_K,  V = X W_V                              no biases
        output = concat_h(softmax(q_h K_h^T / sqrt(d_h)) V_h) W_O

    K and V are computed in `encode`. The softmax runs in float32. A history without events gives zeros; the reference
    averages the padding there.

    Args:
        num_heads: H.
        attention_dim: the width of q, K and V over all heads; the width of the events when left out.
        projections: false leaves out all four matrices: q = t, K = V = X.
        output_projection: false leaves out W_O; the output is then `attention_dim` wide.
        scale: whether to divide the scores by sqrt(d_h).
        activation: what makes weights of the scores: `softmax`; or `sigmoid` or `relu` of each score by itself. The
            latter need not sum to 1, so that how many events match shows in the size of the output, as in DIN.
        dropout: share of attention weights dropped in training.
        seed: of the dropout.
        kernel_initializer, kernel_regularizer: see `ConfiguredLayer`.

    Shapes, call arguments and conventions: see `Interest`. Output `[B, C, d]`.
    State: `key` and `value` `[B, H, L, d_h]`, `length` `[B]`.

    Raises:
        ValueError: if the heads do not divide the width.

    Example:
        >>> layer = TargetAttention(num_heads=2)
        >>> sequence = {"events": keras.random.normal((1, 50, 8)), "length": ops.array([30])}
        >>> state = layer.encode(sequence)
        >>> tuple(layer.attend(state, {"target": keras.random.normal((1, 3, 8))}, {}).shape)
        (1, 3, 8)

    References:
        The multi-head target attention of FuxiCTR, and the TA baseline of Fan et al., Decoupled Multimodal Fusion
        (2025).
    """

    weight_kinds: ClassVar[tuple[str, ...]] = ("kernel",)

    def __init__(
        self,
        num_heads: int = 4,
        attention_dim: int | None = None,
        projections: bool = True,
        output_projection: bool = True,
        scale: bool = True,
        activation: Activation = "softmax",
        dropout: float = 0.0,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.activation = check_choice("activation", activation, get_args(Activation))
        self.num_heads = check_count("num_heads", num_heads)
        self.attention_dim = check_attention_dim(attention_dim, num_heads)
        self.projections = check_flag("projections", projections)
        self.output_projection = check_flag("output_projection", output_projection)
        self.scale = check_flag("scale", scale)
        check_rate("dropout", dropout)
        self.weights_dropout = Dropout(dropout, seed=seed, dtype=self.dtype_policy, name="dropout")

    @override
    def output_width(self, width: int) -> int:
        return width if self.projections and self.output_projection else self.attention_dim or width

    @override
    def build_width(self, width: int) -> None:
        inner = check_heads(self.attention_dim or width, self.num_heads)
        if not self.projections:
            if inner != width:
                raise ValueError(f"Without projections `attention_dim` must be the width {width}. Received: {inner}")
            return
        self.query = self.make_dense("query", inner, width, use_bias=False)
        self.key = self.make_dense("key", inner, self.key_width(width), use_bias=False)
        self.value = self.make_dense("value", inner, self.key_width(width), use_bias=False)
        if self.output_projection:
            self.output_dense = self.make_dense("output", width, inner, use_bias=False)

    def key_width(self, width: int) -> int:
        """The width of what keys and values are projections of; here the events."""
        return width

    @override
    def encode(self, sequence: Tensors, training: bool | None = None) -> Tensors:
        events, state = self.start(sequence)
        key = self.key(events) if self.projections else events
        value = self.value(events) if self.projections else events
        return {**state, "key": split_heads(key, self.num_heads), "value": split_heads(value, self.num_heads)}

    @override
    def attend(self, state: Tensors, candidate: Tensors, context: Tensors, training: bool | None = None) -> Tensor:
        query = split_heads(self.queries(candidate), self.num_heads)
        scores = ops.matmul(query, ops.swapaxes(self.stored(state, "key"), -1, -2))
        weights = self.attention(scores, state, training)
        return self.project(merge_heads(ops.matmul(weights, self.stored(state, "value"))))

    def stored(self, state: Tensors, name: str) -> Tensor:
        """A float tensor of the state in the compute dtype; a state may have been stored in another one."""
        return ops.cast(state[name], self.compute_dtype)

    def queries(self, candidate: Tensors) -> Tensor:
        """Scaled queries of all heads, `[B, C, H * d_h]`."""
        target = self.target(candidate)
        query = self.query(target) if self.projections else target
        return query / math.sqrt(query.shape[-1] // self.num_heads) if self.scale else query

    def attention(self, scores: Tensor, state: Tensors, training: bool | None) -> Tensor:
        """Weights from scores `[B, H, C, L]`, in the compute dtype."""
        mask = length_mask(state["length"], ops.shape(scores)[-1])[:, None, None, :]
        if self.activation == "softmax":
            weights = masked_softmax(scores, mask)
        else:
            weights = ops.where(mask, keras.activations.get(self.activation)(scores), 0.0)
        weights = ops.cast(weights, self.compute_dtype)
        return self.weights_dropout(weights, training=training)

    def project(self, pooled: Tensor) -> Tensor:
        """The joined heads `[B, C, H * d_h]` brought to the output width."""
        return self.output_dense(pooled) if self.projections and self.output_projection else pooled
