"""Models over every interest and every interaction, as small as they come; the registries say which there are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from tfctr.features import model_inputs
from tfctr.interactions import INTERACTIONS
from tfctr.interests import INTERESTS
from tfctr.models import ModelConfig, RankingModel

if TYPE_CHECKING:
    from tests.workbench import Workbench

# Only to be quick: a type that is not here gets its defaults, and is covered all the same.
NARROW: dict[str, dict[str, Any]] = {
    "mlp": {"hidden": [4]},
    "qnn_alpha": {"layers": 1, "rows": 2},
    "qnn_alpha_released": {"layers": 1, "rows": 2},
    "neuron": {"layers": 1},
    "qin": {"layers": 1, "rows": 2},
    "cross_net": {"layers": 1},
    "cin": {"maps": [3]},
    "wide_deep": {"deep": {"type": "mlp", "hidden": [4]}},
    "deepfm": {"deep": {"type": "mlp", "hidden": [4]}},
    "xdeepfm": {"deep": {"type": "mlp", "hidden": [4]}, "maps": [3]},
    "dcn": {"deep": {"type": "mlp", "hidden": [4]}},
    "dcnv2": {"deep": {"type": "mlp", "hidden": [4]}},
    "gdcn": {"deep": {"type": "mlp", "hidden": [4]}},
    "afm": {"attention_units": 4},
    "pnn": {"hidden": [4]},
    "autoint": {"layers": 1, "units": 4},
    "afn": {"neurons": 3, "hidden": [4]},
    "dlf": {"layers": 1, "tokens": 2, "rank": 2},
    "dlf_released": {
        "layers": 1,
        "product_tokens": 2,
        "linear_tokens": 2,
        "rank": 2,
        "hidden": [4],
        "head_hidden": [16],
    },
    "final": {"block1": {"hidden": [4]}, "block2": {"hidden": [4]}, "field_gate": True},
    "finalmlp": {"mlp1": {"hidden": [4]}, "mlp2": {"hidden": [6]}, "heads": 2, "selection_hidden": [3]},
    "ecn": {"layers": 1},
    "fcn": {"exponential": {"layers": 1}, "linear": {"layers": 1}},
    "edcn": {"layers": 1},
    "masknet": {"hidden": [4]},
    "eulernet": {"neurons": [3]},
    "rfm": {"layers": 1, "units": 8, "hidden": [4]},
    "wukong": {"layers": 1, "product_tokens": 2, "linear_tokens": 2, "rank": 2, "hidden": [4], "head_hidden": [4]},
    "dlrm": {"bottom": [4], "hidden": [4]},
    "din": {"hidden": [4]},
    "dta": {"bins": 5},
    "simtier": {"bins": 5},
    "cmm": {"bins": 5},
    "ta_early": {"bins": 5},
    "ta_late": {"bins": 5},
    "make": {"unit_hidden": [4], "content_dim": 4, "hidden_units": [4]},
    "hstu": {"blocks": 1},
    "dmqn": {"codebooks": 2, "codewords": 4},
    "sasrec": {"num_blocks": 1},
    "sim": {"search": "hard", "top_k": 4, "auxiliary_units": [4]},
    "eta": {"top_k": 4},
    # With few buckets, so that a candidate surely meets an event in one.
    "sdim": {"num_hashes": 8, "hash_bits": 1},
    "twin": {"top_k": 4},
}


def small_model(interest: str, interaction: str) -> ModelConfig:
    """A model of two registry types."""
    return ModelConfig(
        interests=({"type": interest, **NARROW.get(interest, {})},),
        interaction={"type": interaction, **NARROW.get(interaction, {})},
    )


def covering_pairs() -> list[tuple[str, str]]:
    """Every interest and every interaction at least once."""
    interests, interactions = list(INTERESTS), list(INTERACTIONS)
    count = max(len(interests), len(interactions))
    return [(interests[i % len(interests)], interactions[i % len(interactions)]) for i in range(count)]


def model_batch(workbench: Workbench, rows: int = 4, candidates: int = 1) -> dict[str, Any]:
    """Model inputs of real rows, each with the candidates of the following rows; never an empty history."""
    inputs = next(iter(workbench.split("test").batches(64)))[0]
    chosen = np.argsort(-inputs["history_length"].numpy(), kind="stable")[:rows]
    out = {}
    for spec in model_inputs(workbench.file):
        value = inputs[spec.name].numpy()[chosen]
        if spec.side in ("candidate", "bias"):
            value = np.concatenate([np.roll(value, -shift, axis=0) for shift in range(candidates)], axis=1)
        out[spec.name] = value
    return out


def with_history(workbench: Workbench, inputs: dict[str, Any], length: int) -> dict[str, Any]:
    """The inputs with histories of another length: cut, or repeated where there is too little."""
    changed = dict(inputs)
    for spec in model_inputs(workbench.file):
        value = inputs[spec.name]
        if spec.name == "history_length":
            changed[spec.name] = np.full_like(value, length)
        elif spec.side == "user" and spec.name.startswith("history") and value.ndim > 1:
            width = max(value.shape[1], length)
            repeated = np.concatenate([value] * -(-width // value.shape[1]), axis=1)[:, :width]
            real = (np.arange(width) < length).reshape(1, width, *(1,) * (value.ndim - 2))
            changed[spec.name] = np.where(real, repeated, np.zeros_like(repeated))
    return changed


def assert_trains_and_reloads(model: RankingModel, weight: Any, inputs: dict[str, Any], directory: Path) -> None:
    """A step of training lowers the loss and moves the weight; the saved model has the same weights and config."""
    labels, before = np.array([[1.0], [0.0], [1.0], [0.0]], "float32"), np.array(weight)
    model.compile(optimizer=keras.optimizers.SGD(0.01))
    first, last = (model.train_on_batch(inputs, labels, return_dict=True)["loss"] for _ in range(2))
    assert last < first
    assert not np.array_equal(before, weight)
    model.save(directory / "model.keras")
    loaded = keras.models.load_model(directory / "model.keras")
    np.testing.assert_array_equal(loaded(inputs), model(inputs))
    assert loaded.get_config() == model.get_config()
