"""Initializers and regularizers reach every kernel and every table of every interest."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from tests.composition import model_batch
from tests.interests.helpers import CONFIGS, WIDTH
from tests.workbench import Workbench
from tfctr.interests import INTERESTS, Interest, create_interest
from tfctr.layers.configured import ConfiguredLayer
from tfctr.models import ModelConfig

WEIGHTED = [
    name for name, one in CONFIGS.items() if INTERESTS[one["type"]].weight_kinds and one.get("projections", True)
]
VALUES = {"kernel": 0.25, "embeddings": 0.5}
SHAPES = {
    "sequence": {
        "events": (None, None, WIDTH),
        "vectors/text": (None, None, 6),
        "vectors/image": (None, None, 9),
    },
    "context": {"fields": (None, None, 3, WIDTH)},
}


def build(config: dict[str, Any]) -> Interest:
    layer = create_interest(config)
    layer.build(SHAPES)
    return layer


def tables_and_kernels(layer: Interest) -> dict[str, Any]:
    """The trainable weights with two axes or more, and the one-dimensional tables of HSTU's relative bias.

    Weights of parts that take no initializers are left out.
    """
    ours = [part for part in layer._flatten_layers() if type(part).__module__.startswith("tfctr.")]
    without = [part for part in ours if not (isinstance(part, ConfiguredLayer) and part.weight_kinds)]
    apart = {id(weight) for part in without for weight in part.weights}
    tables = [w for w in layer.trainable_weights if len(w.shape) > 1 or w.name in ("position_bias", "time_bias")]
    return {w.path: w for w in tables if id(w) not in apart}


@pytest.mark.slow
@pytest.mark.parametrize("name", WEIGHTED)
def test_each_weight_takes_what_is_asked_for(name: str) -> None:
    kinds = INTERESTS[CONFIGS[name]["type"]].weight_kinds
    chosen: dict[str, Any] = {}
    for kind in kinds:
        chosen[f"{kind}_initializer"] = {"class_name": "Constant", "config": {"value": VALUES[kind]}}
        chosen[f"{kind}_regularizer"] = {"class_name": "L1", "config": {"l1": 1.0}}
    layer = build({**CONFIGS[name], **chosen})
    weights = tables_and_kernels(layer)
    assert weights
    found = {path: set(np.asarray(weight).ravel().tolist()) for path, weight in weights.items()}
    allowed = [{VALUES[kind]} for kind in kinds]
    assert all(values in allowed for values in found.values()), found
    expected = [np.sum(np.abs(weight)) for weight in weights.values()]
    assert sorted(float(loss) for loss in layer.losses) == pytest.approx(sorted(expected))
    config = layer.get_config()
    assert {key: config[key] for key in chosen} == chosen
    assert type(layer).from_config(config).get_config() == config


@pytest.mark.slow
@pytest.mark.parametrize("name", WEIGHTED)
def test_no_two_weights_start_equal(name: str) -> None:
    """This holds for the published initial values and for an initializer with a seed."""
    kind = INTERESTS[CONFIGS[name]["type"]].weight_kinds[0]
    seeded = {f"{kind}_initializer": keras.initializers.HeNormal(seed=1)}
    for chosen in ({}, seeded):
        drawn = [np.asarray(weight) for weight in tables_and_kernels(build({**CONFIGS[name], **chosen})).values()]
        drawn = [array for array in drawn if array.std() > 0]
        for i, array in enumerate(drawn):
            assert not any(np.array_equal(array, other) for other in drawn[:i])


@pytest.mark.slow
def test_a_configuration_reaches_the_saved_model(workbench: Workbench, tmp_path: Path) -> None:
    entry = {
        "type": "cmm",
        "bins": 5,
        "kernel_initializer": "he_normal",
        "kernel_regularizer": {"class_name": "L2", "config": {"l2": 0.01}},
        "embeddings_initializer": {"class_name": "RandomNormal", "config": {"stddev": 0.5, "seed": 3}},
    }
    model = workbench.model(ModelConfig(interests=(entry,)))
    interest = model.scorer.interests["history"]
    assert isinstance(interest.kernel_initializer, keras.initializers.HeNormal)
    assert len(interest.losses) == len(model.losses) == 6
    inputs = model_batch(workbench)
    expected = model(inputs)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(inputs), expected)
    again = loaded.scorer.interests["history"].get_config()
    assert again == {**interest.get_config(), "name": again["name"]}
    assert [float(loss) for loss in loaded.losses] == pytest.approx([float(loss) for loss in model.losses])
