"""What the interests over frozen vectors share: similarities, and their buckets."""

from collections.abc import Sequence

from keras import ops

from tfctr.interests.base import Tensor, Tensors, frozen_pair
from tfctr.layers.similarity import cosine_similarity, similarity_buckets, soft_similarity_buckets


def known_similarity(state: Tensors, candidate: Tensors, name: str) -> Tensor:
    """The cosine of each candidate's and each event's vector, float32 `[B, C, L]`; 0 where one of them is missing."""
    target, history, missing = frozen_pair(state, candidate, name)
    similarity = cosine_similarity(target, history)
    absent = ops.logical_or(missing, ops.isnan(similarity))
    return ops.stop_gradient(ops.where(absent, 0.0, ops.clip(similarity, -1.0, 1.0)))


def frozen_buckets(state: Tensors, candidate: Tensors, names: Sequence[str], bins: int, soft: bool) -> Tensors:
    """The bucket of every candidate and step, `[B, C, L]`, by frozen table: int32, or float32 for soft ones."""
    form = soft_similarity_buckets if soft else similarity_buckets
    result = {}
    for name in names:
        target, history, missing = frozen_pair(state, candidate, name)
        result[name] = form(cosine_similarity(target, history), bins, missing)
    return result
