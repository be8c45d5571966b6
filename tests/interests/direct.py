"""The interests as their papers write them: large tensors, one-hot products, no shortcuts. Only for comparison."""

import math
from typing import Any

import tensorflow as tf

from tfctr.interests import DecoupledTargetAttention


def direct_dta(layer: DecoupledTargetAttention, inputs: dict[str, dict[str, Any]]) -> tf.Tensor:
    """Decoupled target attention with K and V `[B, C, L, D]` really built."""
    sequence, candidate = inputs["sequence"], inputs["candidate"]
    steps = sequence["events"].shape[1]
    mask = tf.sequence_mask(sequence["length"], steps)
    events = tf.where(mask[..., None], sequence["events"], 0.0)
    query = tf.matmul(candidate["target"], layer.query.kernel)
    key = tf.matmul(events, layer.key.kernel)[:, None]
    value = tf.matmul(events, layer.value.kernel)[:, None]
    for name in layer.frozen:
        cosine = tf.einsum("bcm,blm->bcl", candidate[f"vectors/{name}"], sequence[f"vectors/{name}"])
        bucket = tf.clip_by_value(tf.floor((tf.clip_by_value(cosine, -1, 1) + 1) / 2 * layer.bins), 0, layer.bins - 1)
        missing = (candidate[f"rows/{name}"] == 0)[:, :, None] | (sequence[f"rows/{name}"] == 0)[:, None, :]
        one_hot = tf.one_hot(tf.where(missing, layer.bins, tf.cast(bucket, tf.int32)), layer.bins + 1)
        key = key + tf.einsum("bcln,nd->bcld", one_hot, layer.key_tables[name])
        if layer.enrich_values:
            value = value + tf.einsum("bcln,nd->bcld", one_hot, layer.value_tables[name])
        else:
            value = value + tf.zeros_like(key)
    outputs = []
    for q, k, v in zip(*(tf.split(x, layer.num_heads, axis=-1) for x in (query, key, value)), strict=True):
        scores = tf.einsum("bcd,bcld->bcl", q, k)
        if layer.scale:
            scores = scores / math.sqrt(q.shape[-1])
        weights = tf.nn.softmax(tf.where(mask[:, None], scores, -1e9), axis=-1)
        weights = tf.where(mask[:, None], weights, 0.0)
        outputs.append(tf.einsum("bcl,bcld->bcd", weights, v))
    joined = tf.concat(outputs, axis=-1)
    return tf.matmul(joined, layer.output_dense.kernel) if layer.output_projection else joined
