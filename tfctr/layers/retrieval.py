"""Choosing the best steps of a history for every candidate, and fetching them; signs of projections as hash codes."""

from typing import Any

from keras import ops

CODE_BITS = 16
"""Bits in one code: a sum of 16 powers of two is exact in float32."""


def top_steps(scores: Any, mask: Any, count: int) -> tuple[Any, Any, Any]:
    """The steps with the highest scores, best first; of equal ones those that come first.

    Args:
        scores: float32 `[..., L]`.
        mask: bool, broadcasts to `scores`; true for steps that may be chosen.
        count: K, the number of steps to choose.

    Returns:
        The scores `[..., K]`, the steps, int32 and below L, and whether they may be chosen, bool. There are always K:
        where fewer may be chosen, the rest are 0, 0 and false. The gradient passes through the scores.
    """
    steps = scores.shape[-1]
    scores = ops.where(mask, scores, -float("inf"))
    if steps is None or steps < count:
        # Padded, so that there are at least K columns even if the number of steps is known only when the graph runs.
        scores = ops.pad(scores, [(0, 0)] * (len(scores.shape) - 1) + [(0, count)], constant_values=-float("inf"))
    best, indices = ops.top_k(scores, count)
    found = best > -float("inf")
    return ops.where(found, best, 0.0), ops.where(found, ops.cast(indices, "int32"), 0), found


def gather_steps(rows: Any, indices: Any) -> Any:
    """`rows[b, indices[b, ...]]`, `[B, ..., K, w]`, for rows `[B, L, w]` and int32 indices `[B, ..., K]` below L."""
    # One gather of whole rows. `take_along_axis` would first repeat the indices for each column.
    batch, steps, width = ops.shape(rows)
    offsets = ops.reshape(ops.arange(batch, dtype="int32") * steps, (batch,) + (1,) * (len(indices.shape) - 1))
    return ops.take(ops.reshape(rows, (batch * steps, width)), indices + offsets, axis=0)


def sign_codes(x: Any, rotation: Any) -> Any:
    """Signs of projections, as numbers.

        code_g = sum_j 2^j [x . rotation[:, g, j] > 0]

    Args:
        x: float32 `[..., d]`.
        rotation: float32 `[d, groups, bits]`, at most `CODE_BITS` bits.

    Returns:
        int32 `[..., groups]`, values below 2^bits. No gradient passes.
    """
    width, groups, bits = rotation.shape
    signs = ops.cast(ops.matmul(x, ops.reshape(rotation, (width, groups * bits))) > 0.0, "float32")
    signs = ops.reshape(signs, (*ops.shape(x)[:-1], groups, bits))
    return ops.cast(ops.sum(signs * ops.convert_to_tensor([2.0**j for j in range(bits)], "float32"), axis=-1), "int32")


def code_signs(codes: Any) -> Any:
    """Codes `[..., groups]` as float32 signs `[..., groups * CODE_BITS]`: 1 for a set bit, -1 for any other.

    The inner product of two such rows is their length minus twice the Hamming distance of the codes.
    """
    bits = ops.bitwise_and(ops.right_shift(codes[..., None], ops.arange(CODE_BITS, dtype="int32")), 1)
    *leading, groups, _ = ops.shape(bits)
    return ops.reshape(ops.cast(bits, "float32") * 2.0 - 1.0, (*leading, groups * CODE_BITS))
