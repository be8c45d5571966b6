"""Decoupled target attention as its paper writes it, with large tensors and one-hot products, to compare with."""

import math
from typing import Any

from keras import ops

from tfctr.interests import DecoupledTargetAttention


def bucket_shares(layer: Any, inputs: dict[str, dict[str, Any]], name: str) -> Any:
    """The share of each bucket by candidate and step, `[B, C, L, bins + 1]`: one-hot or between two neighbours."""
    sequence, candidate = inputs["sequence"], inputs["candidate"]
    cosine = ops.einsum("bcm,blm->bcl", candidate[f"vectors/{name}"], sequence[f"vectors/{name}"])
    place = (ops.clip(cosine, -1, 1) + 1) / 2 * layer.bins
    if layer.soft_buckets:
        centres = ops.arange(layer.bins, dtype="float32") + 0.5
        inner = ops.clip(place, 0.5, layer.bins - 0.5)
        shares = ops.maximum(1.0 - ops.abs(inner[..., None] - centres), 0.0)
    else:
        shares = ops.one_hot(ops.cast(ops.clip(ops.floor(place), 0, layer.bins - 1), "int32"), layer.bins)
    missing = (candidate[f"rows/{name}"] == 0)[:, :, None] | (sequence[f"rows/{name}"] == 0)[:, None, :]
    known = ops.cast(ops.logical_not(missing), "float32")[..., None]
    return ops.concatenate([shares * known, 1.0 - known], axis=-1)


def direct_dta(layer: DecoupledTargetAttention, inputs: dict[str, dict[str, Any]]) -> Any:
    """Decoupled target attention that really builds K and V, `[B, C, L, D]`."""
    sequence, candidate = inputs["sequence"], inputs["candidate"]
    steps = sequence["events"].shape[1]
    mask = ops.arange(steps) < sequence["length"][:, None]
    events = ops.where(mask[..., None], sequence["events"], 0.0)
    query = ops.matmul(candidate["target"], layer.query.kernel)
    key = ops.matmul(events, layer.key.kernel)[:, None]
    value = ops.matmul(events, layer.value.kernel)[:, None]
    for name in layer.frozen_names:
        shares = bucket_shares(layer, inputs, name)
        key = key + ops.einsum("bcln,nd->bcld", shares, layer.key_tables[name])
        if layer.enrich_values:
            value = value + ops.einsum("bcln,nd->bcld", shares, layer.value_tables[name])
        else:
            value = value + ops.zeros_like(key)
    outputs = []
    for q, k, v in zip(*(ops.split(x, layer.num_heads, axis=-1) for x in (query, key, value)), strict=True):
        scores = ops.einsum("bcd,bcld->bcl", q, k)
        if layer.scale:
            scores = scores / math.sqrt(q.shape[-1])
        if layer.activation == "softmax":
            scores = ops.where(mask[:, None], scores, -1e9)
            weights = ops.exp(scores - ops.max(scores, axis=-1, keepdims=True))
            weights = ops.where(mask[:, None], weights, 0.0)
            weights = weights / ops.maximum(ops.sum(weights, axis=-1, keepdims=True), 1e-30)
        else:
            weights = getattr(ops, layer.activation)(scores)
        weights = ops.where(mask[:, None], weights, 0.0)
        outputs.append(ops.einsum("bcl,bcld->bcd", weights, v))
    joined = ops.concatenate(outputs, axis=-1)
    return ops.matmul(joined, layer.output_dense.kernel) if layer.output_projection else joined
