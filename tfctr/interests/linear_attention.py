"""Linear attention: target attention whose state does not grow with the history."""

from typing import Any

import keras
from keras import ops
from typing_extensions import override

from tfctr.interests.base import Tensor, Tensors, interest
from tfctr.interests.target_attention import TargetAttention
from tfctr.layers.masking import length_mask, merge_heads, split_heads, zero_padding


@interest("linear_attention")
class LinearAttention(TargetAttention):
    """Target attention with a product of features in the place of the softmax, so that the history can be summed first.

        phi(x) = elu(x) + 1
        M_h = sum_i phi(x_i W_K)_h^T (x_i W_V)_h / n,  z_h = sum_i phi(x_i W_K)_h / n           over the n events
        output = concat_h(phi(t W_Q)_h M_h / (phi(t W_Q)_h z_h)) W_O

    It is the weighted mean of the values with weights phi(q) phi(k_i)^T, which are positive. M and z know nothing of
    the candidate and are the whole state; a candidate costs d d_h, however long the history is. The mean over n events
    cancels out and keeps the state small enough for half precision. A history without events gives zeros.

    Args:
        num_heads: H.
        attention_dim: the width of q, K and V over all heads; the width of the events when left out.
        output_projection: false leaves out W_O; the output is then `attention_dim` wide.
        kernel_initializer, kernel_regularizer: see `ConfiguredLayer`.

    Shapes, call arguments and conventions: see `Interest`. Output `[B, C, d]`.
    State: `memory` `[B, H, d_h, d_h]`, `mass` `[B, H, d_h]`.

    Raises:
        ValueError: if the heads do not divide the width.

    Example:
        >>> layer = LinearAttention(num_heads=2)
        >>> sequence = {"events": keras.random.normal((1, 500, 8)), "length": ops.array([300])}
        >>> state = layer.encode(sequence)
        >>> tuple(state["memory"].shape)
        (1, 2, 4, 4)
        >>> tuple(layer.attend(state, {"target": keras.random.normal((1, 3, 8))}, {}).shape)
        (1, 3, 8)

    References:
        Katharopoulos et al., Transformers are RNNs: Fast Autoregressive Transformers with Linear Attention (ICML 2020),
        equations 4 to 7, not causal. As a target attention over a history it is a baseline of ours.
    """

    fixed_arguments = ("projections", "scale", "activation", "dropout", "seed")

    def __init__(self, num_heads: int = 4, **kwargs: Any) -> None:
        super().__init__(num_heads, scale=False, **kwargs)

    @override
    def encode(self, sequence: Tensors, training: bool | None = None) -> Tensors:
        state = super().encode(sequence, training=training)
        key, value, length = (state[name] for name in ("key", "value", "length"))
        # Sums over thousands of events: float32, whatever the precision of the rest.
        features = zero_padding(_features(key), length_mask(length, ops.shape(key)[2])[:, None])
        share = 1.0 / ops.cast(ops.maximum(length, 1), "float32")[:, None, None]
        mass = share * ops.sum(features, axis=2)
        memory = share[..., None] * ops.matmul(ops.swapaxes(features, -1, -2), ops.cast(value, "float32"))
        return {"memory": ops.cast(memory, self.compute_dtype), "mass": ops.cast(mass, self.compute_dtype)}

    @override
    def attend(self, state: Tensors, candidate: Tensors, context: Tensors, training: bool | None = None) -> Tensor:
        query = _features(split_heads(self.queries(candidate), self.num_heads))
        memory, mass = (ops.cast(state[name], "float32") for name in ("memory", "mass"))
        total = ops.matmul(query, mass[..., None])
        # Where there are events, the total is positive.
        pooled = ops.matmul(query, memory) / ops.where(total > 0.0, total, 1.0)
        return self.project(merge_heads(ops.cast(pooled, self.compute_dtype)))


def _features(x: Tensor) -> Tensor:
    """phi: positive features, in float32."""
    return keras.activations.elu(ops.cast(x, "float32")) + 1.0
