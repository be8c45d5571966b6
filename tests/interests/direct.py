"""The interests as their papers write them: large tensors, one-hot products, no shortcuts. Only for comparison."""

import math
from typing import Any

from keras import ops

from tfctr.interests import DecoupledTargetAttention


def direct_dta(layer: DecoupledTargetAttention, inputs: dict[str, dict[str, Any]]) -> Any:
    """Decoupled target attention with K and V `[B, C, L, D]` really built."""
    sequence, candidate = inputs["sequence"], inputs["candidate"]
    steps = sequence["events"].shape[1]
    mask = ops.arange(steps) < sequence["length"][:, None]
    events = ops.where(mask[..., None], sequence["events"], 0.0)
    query = ops.matmul(candidate["target"], layer.query.kernel)
    key = ops.matmul(events, layer.key.kernel)[:, None]
    value = ops.matmul(events, layer.value.kernel)[:, None]
    for name in layer.frozen:
        cosine = ops.einsum("bcm,blm->bcl", candidate[f"vectors/{name}"], sequence[f"vectors/{name}"])
        bucket = ops.clip(ops.floor((ops.clip(cosine, -1, 1) + 1) / 2 * layer.bins), 0, layer.bins - 1)
        missing = (candidate[f"rows/{name}"] == 0)[:, :, None] | (sequence[f"rows/{name}"] == 0)[:, None, :]
        one_hot = ops.one_hot(ops.where(missing, layer.bins, ops.cast(bucket, "int32")), layer.bins + 1)
        key = key + ops.einsum("bcln,nd->bcld", one_hot, layer.key_tables[name])
        if layer.enrich_values:
            value = value + ops.einsum("bcln,nd->bcld", one_hot, layer.value_tables[name])
        else:
            value = value + ops.zeros_like(key)
    outputs = []
    for q, k, v in zip(*(ops.split(x, layer.num_heads, axis=-1) for x in (query, key, value)), strict=True):
        scores = ops.einsum("bcd,bcld->bcl", q, k)
        if layer.scale:
            scores = scores / math.sqrt(q.shape[-1])
        weights = ops.softmax(ops.where(mask[:, None], scores, -1e9), axis=-1)
        weights = ops.where(mask[:, None], weights, 0.0)
        outputs.append(ops.einsum("bcl,bcld->bcd", weights, v))
    joined = ops.concatenate(outputs, axis=-1)
    return ops.matmul(joined, layer.output_dense.kernel) if layer.output_projection else joined
