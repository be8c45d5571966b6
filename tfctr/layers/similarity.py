"""Cosine similarity of frozen vectors, its buckets, and look-ups and sums by bucket.

Every function here takes hard or soft buckets. A hard bucket is its number, int32. A soft bucket is a float32 position
between the centres of two neighbouring buckets: 3.25 stands for bucket 3 with weight 0.75 and bucket 4 with 0.25. In
both forms the number of bins stands for a missing similarity.

No function here builds a one-hot tensor: with C candidates, L steps and N buckets no tensor is larger than
`[B, H, C, max(L, N)]`, except for the result of `embed_buckets`.
"""

from typing import Any

import keras
from keras import ops


def cosine_similarity(candidate: Any, history: Any) -> Any:
    """Inner products `[B, C, L]` of L2-normalised vectors `[B, C, dm]` and `[B, L, dm]`, always in float32.

    Raises:
        ValueError: if the vectors are not float32. Half-precision vectors would move similarities over the edges of
            buckets, so that training and serving would disagree. The usual cause is a layer with autocast between the
            table and this function.
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
        bins: the number of buckets. A similarity of -1 falls into bucket 0, and one of 1 into bucket `bins - 1`.
        missing: bool, broadcasts to `similarity`; true if one of the two vectors does not exist.

    Returns:
        int32, the shape of `similarity`, values 0 to `bins`. No gradient passes.
    """
    absent = ops.isnan(similarity)
    if missing is not None:
        absent = ops.logical_or(absent, missing)
    position = ops.floor((ops.clip(similarity, -1.0, 1.0) + 1.0) * (bins / 2.0))
    # Chosen before the cast, since a NaN as an integer is undefined.
    position = ops.where(absent, float(bins), ops.minimum(position, bins - 1.0))
    return ops.cast(position, "int32")


def soft_similarity_buckets(similarity: Any, bins: int, missing: Any = None) -> Any:
    """The position of each similarity between the centres of `bins` uniform buckets over [-1, 1].

        position = clip((clip(s, -1, 1) + 1) / 2 * bins - 1/2, 0, bins - 1),   or `bins` where s is NaN or missing

    Bucket n has its centre at position n, where soft and hard buckets are the same. Beyond the outermost centres the
    position is that of the centre. A look-up by position is continuous in s, so that a rounding error changes it only a
    little; a look-up by hard bucket jumps at the edges.

    Args:
        similarity: float32.
        bins: the number of buckets.
        missing: bool, broadcasts to `similarity`; true if one of the two vectors does not exist.

    Returns:
        float32, the shape of `similarity`. No gradient passes.
    """
    absent = ops.isnan(similarity)
    if missing is not None:
        absent = ops.logical_or(absent, missing)
    position = (ops.clip(similarity, -1.0, 1.0) + 1.0) * (bins / 2.0) - 0.5
    return ops.stop_gradient(ops.where(absent, float(bins), ops.clip(position, 0.0, bins - 1.0)))


def _neighbours(buckets: Any) -> list[tuple[Any, Any]]:
    """The buckets that each bucket stands for: pairs of an int32 bucket and its share, None for a share of 1."""
    if keras.backend.standardize_dtype(buckets.dtype) == "int32":
        return [(buckets, None)]
    lower = ops.floor(buckets)
    share = buckets - lower
    # A whole position has no second neighbour: there is no bucket above the last one or above that of missing vectors.
    upper = ops.where(share > 0.0, lower + 1.0, lower)
    return [(ops.cast(lower, "int32"), 1.0 - share), (ops.cast(upper, "int32"), share)]


def bucket_lookup(values: Any, buckets: Any) -> Any:
    """`values[b, c, buckets[b, c, l], h]` for each head, candidate and step; for soft buckets a mean of two values.

    Values are `[B, C, N, H]`, buckets `[B, C, L]`, below N, and the result `[B, H, C, L]`.
    """
    found = None
    for index, share in _neighbours(buckets):
        one = _lookup(values, index)
        one = one if share is None else one * ops.cast(share, one.dtype)[:, None]
        found = one if found is None else found + one
    return found


def _lookup(values: Any, buckets: Any) -> Any:
    # One gather of rows of H numbers. `take_along_axis` is three times slower, as it repeats the indices for each head.
    batch, candidates, size, heads = ops.shape(values)
    rows = ops.reshape(values, (batch * candidates * size, heads))
    offsets = ops.reshape(ops.arange(batch * candidates, dtype="int32") * size, (batch, candidates, 1))
    found = ops.take(rows, buckets + offsets, axis=0)
    # JAX loses the shape of the indices if there is nothing to take from, as with no candidates.
    found = ops.reshape(found, (batch, candidates, ops.shape(buckets)[2], heads))
    return ops.transpose(found, (0, 3, 1, 2))


def bucket_sum(weights: Any, buckets: Any, size: int) -> Any:
    """Weighted histogram: `out[b, c, h, n]` is the sum of `weights[b, h, c, l]` over the steps in bucket n.

    A step in a soft bucket counts in both neighbours, by its shares.

    Args:
        weights: float32 `[B, H, C, L]`.
        buckets: `[B, C, L]`, below `size`: int32, or float32 for soft ones.
        size: the number of buckets N.

    Returns:
        float32 `[B, C, H, N]`.
    """
    sums = None
    for index, share in _neighbours(buckets):
        one = _sum(weights if share is None else weights * share[:, None], index, size)
        sums = one if sums is None else sums + one
    return sums


def _sum(weights: Any, buckets: Any, size: int) -> Any:
    batch, heads, candidates, _ = ops.shape(weights)
    rows = batch * candidates * heads
    order = ops.reshape(ops.arange(rows, dtype="int32") * size, (batch, candidates, heads, 1))
    segments = ops.reshape(buckets[:, None] + ops.transpose(order, (0, 2, 1, 3)), (-1,))
    sums = ops.segment_sum(ops.reshape(weights, (-1,)), segments, num_segments=rows * size)
    return ops.reshape(sums, (batch, candidates, heads, size))


def block_diagonal(table: Any, heads: int) -> Any:
    """A table `[N, heads * dh]` as a matrix that multiplies each head by its own columns.

        out[h, e, n, g] = table[n, h * dh + e] where g = h, else 0

    One product with this matrix, which is `heads` times larger than the table, is cheaper than one small product per
    head. It also needs no broadcasting over batch axes, with which TensorFlow 2.21 corrupts memory if the operands of a
    matmul are `[B, 1, ...]` and `[1, 1, ...]` (oneDNN, tensorflow/tensorflow#117700).

    Returns:
        `[heads, dh, N, heads]`.
    """
    size, width = table.shape
    by_head = ops.transpose(ops.reshape(table, (size, heads, width // heads)), (1, 2, 0))
    return by_head[..., None] * ops.eye(heads, dtype=table.dtype)[:, None, None, :]


def score_buckets(query: Any, table: Any, heads: int) -> Any:
    """The part of each head's score that a bucket adds: q_h E_h^T.

    The query is `[B, C, heads * dh]`, the table E, of the same dtype, `[N, heads * dh]`, the result `[B, C, N, heads]`.
    """
    batch, candidates, width = ops.shape(query)
    size = table.shape[0]
    blocks = ops.reshape(block_diagonal(table, heads), (width, size * heads))
    return ops.reshape(ops.matmul(query, blocks), (batch, candidates, size, heads))


def pool_buckets(histogram: Any, table: Any) -> Any:
    """Weighted histograms times the rows of their buckets, h_h E_h, with the heads joined.

    The histogram is `[B, C, heads, N]`, the table E, of the same dtype, `[N, heads * dh]`, the result
    `[B, C, heads * dh]`.
    """
    batch, candidates, heads, size = ops.shape(histogram)
    blocks = ops.transpose(block_diagonal(table, heads), (3, 2, 0, 1))
    flat = ops.reshape(histogram, (batch, candidates, heads * size))
    return ops.matmul(flat, ops.reshape(blocks, (heads * size, table.shape[-1])))


def embed_buckets(table: Any, buckets: Any) -> Any:
    """The row of each bucket, `[B, C, L, e]`, of a table `[N, e]`; for soft buckets a weighted mean of two rows."""
    found = None
    for index, share in _neighbours(buckets):
        one = ops.take(table, index, axis=0)
        one = one if share is None else one * ops.cast(share, one.dtype)[..., None]
        found = one if found is None else found + one
    return found
