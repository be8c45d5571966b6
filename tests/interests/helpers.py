"""Inputs for interests, and one or more configurations of each."""

from typing import Any

import numpy as np

from tests.backends import tensors as tensors

CONFIGS: dict[str, dict[str, Any]] = {
    "mean": {"type": "mean"},
    "din": {"type": "din", "hidden": [6, 4]},
    "din_relu_softmax": {"type": "din", "hidden": [5], "activation": "relu", "softmax": True, "scale": True},
    "target_attention": {"type": "target_attention", "num_heads": 2},
    "target_attention_wide": {"type": "target_attention", "num_heads": 3, "attention_dim": 12, "scale": False},
    "target_attention_bare": {"type": "target_attention", "num_heads": 2, "projections": False},
    "asta": {"type": "asta"},
    "asta_two": {"type": "asta", "activation": "softmax", "sequences": 2, "attention_dim": 6, "residual": False},
    "asta_mean": {"type": "asta", "activation": "mean", "residual": False},
    "dta": {"type": "dta", "frozen": "text", "num_heads": 2, "bins": 5},
    "dta_two": {"type": "dta", "frozen": ["text", "image"], "num_heads": 4, "bins": 9, "enrich_values": False},
    "simtier": {"type": "simtier", "frozen": "text", "bins": 5},
    "simtier_two": {"type": "simtier", "frozen": ["text", "image"], "bins": 4, "counts": "fraction", "hidden_units": 6},
    "simtier_released": {"type": "simtier_released", "frozen": ["text", "image"], "max_length": 7, "tiers": 1},
    "linear_attention": {"type": "linear_attention", "num_heads": 2},
    "dta_soft": {"type": "dta", "frozen": "text", "num_heads": 2, "bins": 5, "soft_buckets": True},
    "dta_relu": {"type": "dta", "frozen": "text", "num_heads": 2, "bins": 5, "activation": "relu"},
    "cmm": {"type": "cmm", "frozen": "text", "num_heads": 2, "bins": 5, "mixing": "learned", "alpha": 0.3},
    "cmm_gated": {"type": "cmm", "frozen": "text", "num_heads": 2, "bins": 5, "mixing": "gated", "gate_units": 4},
    "ta_early": {"type": "ta_early", "frozen": "text", "num_heads": 2, "bins": 5},
    "ta_early_scalar": {"type": "ta_early", "frozen": ["text", "image"], "num_heads": 2, "similarity": "scalar"},
    "ta_late": {"type": "ta_late", "frozen": ["text", "image"], "num_heads": 2, "bins": 5},
    "ta_late_histogram": {"type": "ta_late", "frozen": "text", "num_heads": 2, "bins": 5, "branch": "histogram"},
    "bfs_mf": {"type": "bfs_mf", "frozen": ["text", "image"], "num_heads": 2},
    "make": {"type": "make", "frozen": "text", "content_dim": 4, "unit_hidden": [5], "hidden_units": [6]},
    "make_joint": {
        "type": "make",
        "frozen": ["text", "image"],
        "content_dim": None,
        "unit_hidden": [4],
        "hidden_units": [],
        "detach": False,
    },
    "cmm_two_bins": {"type": "cmm", "frozen": ["text", "image"], "bins": 5, "histogram_bins": 7, "alpha": 0.75},
    "sasrec": {"type": "sasrec", "num_heads": 2, "max_length": 6},
    "sim_soft": {"type": "sim", "top_k": 3, "num_heads": 2, "auxiliary_units": [5]},
    "sim_hard": {"type": "sim", "search": "hard", "category": ["genres", "brand"], "top_k": 2, "age_dim": 3},
    "eta": {"type": "eta", "hash_bits": 20, "top_k": 3, "num_heads": 2, "seed": 1},
    "sdim": {"type": "sdim", "num_hashes": 3, "hash_bits": 2, "seed": 1},
    "twin": {"type": "twin", "top_k": 3, "num_heads": 2, "age_bias": True},
    "hstu": {"type": "hstu", "max_length": 32, "blocks": 1, "relative_bias": "time"},
    "hstu_last": {"type": "hstu", "max_length": 30, "variant": "stu", "pooling": "last"},
    "dmqn": {"type": "dmqn", "codebooks": 2, "codewords": 3, "seed": 3},
    "dmqn_published": {
        "type": "dmqn",
        "codebooks": 2,
        "codewords": 3,
        "similarity": "dot",
        "noise": "unit",
        "learning": "gradient",
        "seed": 3,
    },
    "dmqn_soft": {"type": "dmqn", "codebooks": 2, "codewords": 3, "assignment": "soft", "slot_bias": True, "seed": 3},
}

WIDTH = 8
Inputs = dict[str, dict[str, Any]]


def make_inputs(
    batch: int = 3,
    candidates: int = 5,
    length: int = 7,
    width: int = WIDTH,
    vector: int = 6,
    lengths: list[int] | None = None,
    seed: int = 0,
) -> Inputs:
    """Random inputs with frozen tables, ids and ages; the second history is empty unless `lengths` is given.

    Padded steps hold ordinary numbers, so that a forgotten mask shows.
    """
    generator = np.random.default_rng(seed)
    if lengths is None:
        lengths = [length, 0, *generator.integers(1, length + 1, batch).tolist()][:batch]

    def normal(*shape: int) -> np.ndarray:
        return generator.normal(size=shape).astype("float32")

    inputs: Inputs = {
        "sequence": {"events": normal(batch, length, width), "length": np.array(lengths, "int32")},
        "candidate": {"target": normal(batch, candidates, width)},
        "context": {},
    }
    for name, size in (("text", vector), ("image", vector + 3)):
        table = normal(20, size)
        table /= np.linalg.norm(table, axis=-1, keepdims=True)
        table[0] = 0.0
        for side, shape in (("sequence", (batch, length)), ("candidate", (batch, candidates))):
            rows = generator.integers(0, 20, shape).astype("int32")
            inputs[side][f"rows/{name}"] = rows
            inputs[side][f"vectors/{name}"] = table[rows]
    for side, shape in (("sequence", (batch, length)), ("candidate", (batch, candidates))):
        inputs[side]["ids/genres"] = generator.integers(0, 5, (*shape, 2)).astype("int32")
        inputs[side]["ids/brand"] = generator.integers(0, 4, shape).astype("int32")
    inputs["sequence"]["ages"] = np.sort(generator.integers(1, 34, (batch, length)), axis=1).astype("int32")
    return inputs


def randomize(layer: Any, seed: int = 0) -> Any:
    """Give every weight a random value, since weights that start at zero (bucket tables, Dice slopes) hide mistakes."""
    generator = np.random.default_rng(seed)
    for weight in layer.weights:
        if weight.dtype.startswith("float"):
            value = generator.normal(0.0, 0.4, weight.shape)
            weight.assign(np.abs(value) + 0.5 if "variance" in weight.path else value)
    return layer
