"""Cosine similarity of frozen vectors, its buckets, and look-ups and sums by bucket.

No function here builds a one-hot tensor: with C candidates, L steps and N buckets nothing is larger than
`[B, H, C, max(L, N)]`.
"""

from typing import Any

from keras import ops


def cosine_similarity(candidate: Any, history: Any) -> Any:
    """Inner products `[B, C, L]` of L2-normalised vectors `[B, C, dm]` and `[B, L, dm]`, always in float32.

    Raises:
        ValueError: if the vectors are not float32. Half-precision vectors would move similarities over bucket edges,
            so that training and serving disagree; an autocasting layer between table and here is the usual cause.
    """
    for name, vectors in (("candidate", candidate), ("history", history)):
        dtype = str(getattr(vectors.dtype, "name", vectors.dtype))
        if dtype != "float32":
            raise ValueError(f"Frozen {name} vectors must be float32, also under mixed precision. Received: {dtype}")
    return ops.matmul(candidate, ops.swapaxes(history, -1, -2))


def similarity_buckets(similarity: Any, bins: int, missing: Any = None) -> Any:
    """The bucket of each similarity: `bins` uniform ones over [-1, 1], then one more for missing.

        bucket = min(floor((clip(s, -1, 1) + 1) / 2 * bins), bins - 1),   or `bins` where s is NaN or missing

    Args:
        similarity: float32.
        bins: how many buckets; -1 falls into bucket 0 and 1 into bucket `bins - 1`.
        missing: bool, broadcasts to `similarity`; true where one of the two vectors does not exist.

    Returns:
        int32, the shape of `similarity`, values 0 to `bins`. No gradient passes.
    """
    absent = ops.isnan(similarity)
    if missing is not None:
        absent = ops.logical_or(absent, missing)
    position = ops.floor((ops.clip(similarity, -1.0, 1.0) + 1.0) * (bins / 2.0))
    # The choice comes before the cast: a NaN as an integer is undefined.
    position = ops.where(absent, float(bins), ops.minimum(position, bins - 1.0))
    return ops.cast(position, "int32")


def bucket_lookup(values: Any, buckets: Any) -> Any:
    """`values[b, c, buckets[b, c, l], h]`: one number per head, candidate and step.

    Args:
        values: float `[B, C, N, H]`.
        buckets: int32 `[B, C, L]`, values below N.

    Returns:
        float `[B, H, C, L]`.
    """
    # One gather of rows of H numbers. `take_along_axis` would spread 64-bit indices over the heads: three times slower.
    batch, candidates, size, heads = ops.shape(values)
    rows = ops.reshape(values, (batch * candidates * size, heads))
    offsets = ops.reshape(ops.arange(batch * candidates, dtype="int32") * size, (batch, candidates, 1))
    found = ops.take(rows, buckets + offsets, axis=0)
    # JAX forgets the shape of the indices where there is nothing to take from, as for no candidates.
    found = ops.reshape(found, (batch, candidates, ops.shape(buckets)[2], heads))
    return ops.transpose(found, (0, 3, 1, 2))


def bucket_sum(weights: Any, buckets: Any, size: int) -> Any:
    """Weighted histogram: `out[b, c, h, n]` is the sum of `weights[b, h, c, l]` over the steps in bucket n.

    Args:
        weights: float32 `[B, H, C, L]`.
        buckets: int32 `[B, C, L]`, values below `size`.
        size: the number of buckets N.

    Returns:
        float32 `[B, C, H, N]`.
    """
    batch, heads, candidates, _ = ops.shape(weights)
    rows = batch * candidates * heads
    order = ops.reshape(ops.arange(rows, dtype="int32") * size, (batch, candidates, heads, 1))
    segments = ops.reshape(buckets[:, None] + ops.transpose(order, (0, 2, 1, 3)), (-1,))
    sums = ops.segment_sum(ops.reshape(weights, (-1,)), segments, num_segments=rows * size)
    return ops.reshape(sums, (batch, candidates, heads, size))


def block_diagonal(table: Any, heads: int) -> Any:
    """A table `[N, heads * dh]` as a matrix that multiplies each head by its own columns.

        out[h, e, n, g] = table[n, h * dh + e] where g = h, else 0

    One product with this matrix, some `heads` times larger than need be, is cheaper than one small product a head, and
    needs no broadcasting over batch axes: TensorFlow 2.21 corrupts memory where the operands of a matmul are
    `[B, 1, ...]` and `[1, 1, ...]` (oneDNN, tensorflow/tensorflow#117700).

    Returns:
        `[heads, dh, N, heads]`.
    """
    size, width = table.shape
    by_head = ops.transpose(ops.reshape(table, (size, heads, width // heads)), (1, 2, 0))
    return by_head[..., None] * ops.eye(heads, dtype=table.dtype)[:, None, None, :]
