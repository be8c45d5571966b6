"""Masks made from lengths, the masked forms of a few operations, and the heads of an attention."""

from typing import Any

from keras import ops

MASKED_SCORE = -1e9
"""The score of a padded step before a softmax: its weight is exactly zero in float32, and no NaN can come of it."""


def length_mask(length: Any, size: Any) -> Any:
    """True where a step is real: bool `[B, size]` for lengths `[B]`. Histories are padded on the right."""
    steps = ops.arange(size, dtype="int32")
    return steps[None, :] < ops.cast(length, "int32")[:, None]


def zero_padding(x: Any, mask: Any) -> Any:
    """`x` `[B, L]` or `[B, L, d]` with the padded steps replaced by zeros.

    The zeros are put in by `where`: a product with the mask would keep a NaN or an infinity of the padding.
    """
    while len(mask.shape) < len(x.shape):
        mask = mask[..., None]
    return ops.where(mask, x, ops.zeros_like(x))


def masked_softmax(scores: Any, mask: Any) -> Any:
    """Softmax over the last axis, in float32. Masked steps weigh 0, and a row without any real step is zero everywhere.

    Args:
        scores: float `[..., L]`.
        mask: bool, broadcasts to `scores`.
    """
    scores = ops.where(mask, ops.cast(scores, "float32"), MASKED_SCORE)
    real = ops.cast(mask, "float32")
    if scores.shape[-1] == 1:  # The softmax of one number is 1; Keras warns about it.
        return ops.ones_like(scores) * real
    return ops.softmax(scores, axis=-1) * real


def by_head(x: Any, heads: int) -> Any:
    """`[..., heads * dh]` as `[..., heads, dh]`."""
    *leading, width = ops.shape(x)
    return ops.reshape(x, (*leading, heads, width // heads))


def join_heads(x: Any) -> Any:
    """`[..., heads, dh]` as `[..., heads * dh]`, the inverse of `by_head`."""
    *leading, heads, width = ops.shape(x)
    return ops.reshape(x, (*leading, heads * width))


def split_heads(x: Any, heads: int) -> Any:
    """`[..., S, heads * dh]` as `[..., heads, S, dh]`."""
    return ops.swapaxes(by_head(x, heads), -3, -2)


def merge_heads(x: Any) -> Any:
    """`[..., heads, S, dh]` as `[..., S, heads * dh]`, the inverse of `split_heads`."""
    return join_heads(ops.swapaxes(x, -3, -2))
