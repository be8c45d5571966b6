"""QIN's adaptive sparse target attention."""

import math
from typing import Any, Literal, get_args

from keras import ops
from typing_extensions import override

from tfctr.interests.base import Interest, Tensor, Tensors, interest
from tfctr.layers.arguments import check_choice, check_count, check_flag, check_optional_count, check_rate
from tfctr.layers.dropout import Dropout
from tfctr.layers.initializers import xavier_normal
from tfctr.layers.masking import length_mask, masked_softmax, zero_padding

Activation = Literal["relu", "softmax", "mean"]


@interest("asta")
class SparseTargetAttention(Interest):
    """ASTA: target attention with ReLU in the place of the softmax, and the target added.

        q = t W_Q,  K = X W_K,  V = X W_V                              no biases, one head
        output = relu(q K^T / sqrt(d_a)) V W_O + t

    An event that the candidate's query points away from weighs exactly 0, and the weights need not sum to 1: the more
    events match, the larger the output. K of padded steps is 0, which is the reference's multiplicative mask.

    A history without events gives the target itself; zeros with `residual=False`.

    Args:
        activation: of the scores. `relu`; `softmax`, the paper's ablation, over the real steps in float32; `mean`:
            every real step weighs 1 / n whatever the candidate, so that there is no query and no key.
        attention_dim: d_a, the width of q, K and V of one sequence; by default twice the width of its events, without
            W_O that width itself.
        output_projection: false leaves out W_O, which the paper does not have; d_a is then the width of the events.
        residual: whether to add the target.
        dropout: share of attention weights dropped in training; the paper reports that it hurts.
        sequences: S. Events and target consist of S slices of equal width, one for each behaviour sequence, and each
            slice has an attention with matrices of its own. With 1 there is one attention over the concatenation.
        seed: of the dropout.
        kernel_initializer, kernel_regularizer: see `ConfiguredLayer`.

    Shapes, call arguments and conventions: see `Interest`. Output `[B, C, d]`.
    State: `key` and `value` `[B, S, L, d_a]`, `length` `[B]`; with `mean` only `value`, `[B, S, 1, d_a]`, and `length`.

    Raises:
        ValueError: if S does not divide the width of the events, or d_a is not that of a slice where there is no W_O.

    Example:
        >>> sequence = {"events": keras.random.normal((2, 7, 8)), "length": ops.array([7, 3])}
        >>> candidate = {"target": keras.random.normal((2, 5, 8))}
        >>> tuple(SparseTargetAttention()({"sequence": sequence, "candidate": candidate}).shape)
        (2, 5, 8)

    References:
        Quadratic Interest Network for Multimodal Click-Through Rate Prediction (2025), section 2.1. The released code
        has W_O and d_a = 2d, and one module on the concatenation of the modalities; the paper draws no W_O and several
        modules, that is `output_projection=False` and `sequences`.
    """

    weight_kinds = ("kernel",)

    def __init__(
        self,
        activation: Activation = "relu",
        attention_dim: int | None = None,
        output_projection: bool = True,
        residual: bool = True,
        dropout: float = 0.0,
        sequences: int = 1,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.activation = check_choice("activation", activation, get_args(Activation))
        self.attention_dim = check_optional_count("attention_dim", attention_dim)
        self.output_projection = check_flag("output_projection", output_projection)
        self.residual = check_flag("residual", residual)
        check_rate("dropout", dropout)
        self.sequences = check_count("sequences", sequences)
        self.weights_dropout = Dropout(dropout, seed=seed, dtype=self.dtype_policy, name="dropout")

    @override
    def build_width(self, width: int) -> None:
        if width % self.sequences:
            raise ValueError(f"`sequences` must divide the width {width} of the events. Received: {self.sequences}")
        own = width // self.sequences
        inner = self.attention_dim or (2 * own if self.output_projection else own)
        if inner != own and not self.output_projection:
            wanted = f"{own}, the width of a sequence, if there is no `output_projection`"
            raise ValueError(f"`attention_dim` must be {wanted}. Received: {inner}")
        self.inner = inner
        if self.activation != "mean":
            self.query = self._matrices("query", own, inner)
            self.key = self._matrices("key", own, inner)
        self.value = self._matrices("value", own, inner)
        if self.output_projection:
            self.output_kernel = self._matrices("output", inner, own)

    def _matrices(self, name: str, rows: int, columns: int) -> Any:
        """One matrix a sequence."""
        return self.make_weight(f"{name}_kernel", (self.sequences, rows, columns), xavier_normal((rows, columns)))

    @override
    def encode(self, sequence: Tensors, training: bool | None = None) -> Tensors:
        events, state = self.start(sequence)
        value = self._project(events, self.value)
        if self.activation != "mean":
            return {**state, "key": self._project(events, self.key), "value": value}
        mask = length_mask(state["length"], ops.shape(events)[1])
        weights = zero_padding(ops.ones_like(value[:, 0, :, 0], dtype="float32"), mask)
        weights = weights / ops.maximum(ops.cast(state["length"], "float32"), 1.0)[:, None]
        weights = self.weights_dropout(ops.cast(weights, self.compute_dtype), training=training)
        return {**state, "value": ops.sum(weights[:, None, :, None] * value, axis=2, keepdims=True)}

    @override
    def attend(self, state: Tensors, candidate: Tensors, context: Tensors, training: bool | None = None) -> Tensor:
        target = self.target(candidate)
        batch, count, width = ops.shape(target)
        # A state may have been stored in another dtype.
        pooled = ops.cast(state["value"], self.compute_dtype)
        if self.activation == "mean":
            pooled = ops.repeat(pooled, count, axis=2)
        else:
            pooled = ops.matmul(self._weights(target, state, training), pooled)
        if self.output_projection:
            pooled = ops.einsum("bsca,saw->bscw", pooled, ops.cast(self.output_kernel, self.compute_dtype))
        output = ops.reshape(ops.transpose(pooled, (0, 2, 1, 3)), (batch, count, width))
        return output + target if self.residual else output

    def _weights(self, target: Tensor, state: Tensors, training: bool | None) -> Tensor:
        """Attention weights `[B, S, C, L]`."""
        query = self._project(target, self.query) / math.sqrt(self.inner)
        scores = ops.matmul(query, ops.swapaxes(ops.cast(state["key"], self.compute_dtype), -1, -2))
        if self.activation == "relu":
            weights = ops.relu(scores)
        else:
            mask = length_mask(state["length"], ops.shape(scores)[-1])[:, None, None, :]
            weights = ops.cast(masked_softmax(scores, mask), self.compute_dtype)
        return self.weights_dropout(weights, training=training)

    def _project(self, x: Tensor, kernel: Any) -> Tensor:
        """Each sequence's slice of `[B, N, d]` times its own matrix: `[B, S, N, d_a]`."""
        batch, steps, width = ops.shape(x)
        slices = ops.reshape(x, (batch, steps, self.sequences, width // self.sequences))
        return ops.einsum("bnsw,swa->bsna", slices, ops.cast(kernel, self.compute_dtype))
