"""Initializers and regularizers reach every weight of every backbone, and no two weights start equal."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import pytest
import yaml

from tests.composition import NARROW, model_batch
from tests.layer_checks import check_layer
from tfctr.interactions import INTERACTIONS, Interaction, create_interaction
from tfctr.interactions.base import Eats
from tfctr.interactions.neuron import FORMATS
from tfctr.models import ModelConfig

if TYPE_CHECKING:
    from tests.workbench import Workbench

CONFIGS: dict[str, dict[str, Any]] = {
    **{name: {"type": name, **NARROW.get(name, {})} for name in INTERACTIONS},
    **{f"neuron_{name}": {"type": "neuron", "format": name, "layers": 2, "compressed_dim": 16} for name in FORMATS},
    "mlp_dice": {"type": "mlp", "hidden": [4, 4], "activation": "dice", "batch_norm": True},
    "qnn_alpha_heads": {"type": "qnn_alpha", "heads": 4},
    "cross_v1": {"type": "cross_net", "version": "v1"},
    "lr": {"type": "lr", "fields": [["history", "history", "interest"]]},
    "cross_gated": {"type": "cross_net", "version": "gated"},
    "afn_plus": {"type": "afn", "neurons": 3, "hidden": [4], "deep": {"type": "mlp", "hidden": [4]}},
    "opnn": {"type": "pnn", "products": "outer", "hidden": [4]},
    "sam_2a": {"type": "sam", "form": "2A"},
    "cross_mix": {"type": "cross_net", "version": "mix", "experts": 2, "rank": 8},
    "xdeepfm_cin": {"type": "xdeepfm", "deep": None},
    "dcn_both": {"type": "dcn", "structure": "stacked_parallel", "deep": {"type": "mlp", "hidden": [8]}},
    **{f"dlf_{name}": {"type": "dlf", "fusion": name} for name in ("mlp", "gate_pooling", "attention_pooling", "late")},
    "dlf_released_attention": {**NARROW["dlf_released"], "type": "dlf_released", "attention": True},
}
WITH_KERNELS = [name for name, config in CONFIGS.items() if "kernel" in INTERACTIONS[config["type"]].weight_kinds]
SHAPES: dict[Eats, tuple[int | None, ...]] = {"fields": (None, 4, 8), "flat": (None, 32)}


def built(config: dict[str, Any], **options: Any) -> Interaction:
    layer = create_interaction({**config, **options})
    layer.build(SHAPES[layer.eats])
    return layer


def same_draw(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two weights start with the same random numbers, up to a factor."""
    size = min(one.size, other.size)
    return size > 7 and abs(np.corrcoef(one.ravel()[:size], other.ravel()[:size])[0, 1]) > 0.999


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
def test_no_two_random_weights_start_equal(name: str) -> None:
    """This holds for the published initial values and for an initializer with a seed."""
    seeded = {"kernel_initializer": keras.initializers.HeNormal(seed=1)}
    for chosen in ({}, seeded) if name in WITH_KERNELS else ({},):
        arrays = {weight.path: np.asarray(weight) for weight in built(CONFIGS[name], **chosen).trainable_weights}
        drawn = {path: array for path, array in arrays.items() if array.std() > 0}
        assert drawn or name in ("fm", "lr", "sam_2a")
        equal = [(a, b) for a in drawn for b in drawn if a < b and same_draw(drawn[a], drawn[b])]
        assert not equal


@pytest.mark.slow
@pytest.mark.parametrize("name", WITH_KERNELS)
def test_each_kernel_takes_what_is_asked_for(name: str) -> None:
    chosen = {
        "kernel_initializer": {"class_name": "Constant", "config": {"value": 0.25}},
        "kernel_regularizer": {"class_name": "L1", "config": {"l1": 1.0}},
    }
    layer, published = built(CONFIGS[name], **chosen), built(CONFIGS[name])
    kernels = [np.asarray(weight) for weight in layer.trainable_weights if len(weight.shape) > 1]
    assert kernels
    assert all(np.all(kernel == 0.25) for kernel in kernels)
    expected = sorted(0.25 * kernel.size for kernel in kernels)
    assert sorted(float(loss) for loss in layer.losses) == pytest.approx(expected)
    assert not published.losses
    config = layer.get_config()
    assert {key: config[key] for key in chosen} == chosen
    assert type(layer).from_config(config).get_config() == config


def test_the_bias_of_a_factorization_machine() -> None:
    layer = built({"type": "fm", "bias_initializer": "ones", "bias_regularizer": keras.regularizers.L2(0.5)})
    assert float(layer.bias[0]) == 1.0
    assert [float(loss) for loss in layer.losses] == [0.5]


def test_a_part_may_choose_for_itself() -> None:
    deep = {"type": "mlp", "hidden": [4], "kernel_initializer": "ones", "kernel_regularizer": None}
    layer = built({"type": "dcnv2", "deep": deep, "kernel_initializer": "zeros", "kernel_regularizer": "l2"})
    assert np.all(np.asarray(layer.deep.block.dense[0].kernel) == 1.0)
    assert all(not np.any(cross.kernel) for cross in layer.cross.crosses)
    assert len(layer.losses) == len(layer.cross.crosses) + 1


@pytest.mark.slow
@pytest.mark.parametrize("initializer", ["he_normal", keras.initializers.HeNormal(seed=4)], ids=["name", "object"])
def test_layer(initializer: Any) -> None:
    layer = create_interaction(
        {
            "type": "dcnv2",
            "deep": {"type": "mlp", "hidden": [8], "kernel_initializer": initializer},
            "kernel_initializer": initializer,
            "kernel_regularizer": keras.regularizers.L2(0.1),
        }
    )
    x = np.random.default_rng(3).normal(size=(6, 4, 10)).astype("float32")
    check_layer(layer, x, output_shape=(6, 4))


EXPERIMENT = """
type: dcnv2
deep: {type: qnn_alpha, layers: 1, kernel_initializer: {class_name: RandomNormal, config: {stddev: 0.5, seed: 3}}}
cross: {layers: 1}
kernel_initializer: he_normal
kernel_regularizer: {class_name: L2, config: {l2: 0.01}}
"""


@pytest.mark.slow
@pytest.mark.tensorflow
def test_a_yaml_configuration_reaches_loss_and_saved_model(workbench: Workbench, tmp_path: Path) -> None:
    interaction = yaml.safe_load(EXPERIMENT)
    model = workbench.model(ModelConfig(interaction=interaction))
    backbone = model.scorer.interaction
    assert isinstance(backbone.deep.products[0].kernel_initializer, keras.initializers.RandomNormal)
    kernels = [backbone.cross.crosses[0].kernel, backbone.deep.products[0].kernel, backbone.head.kernel]
    assert len(backbone.losses) == len(kernels)
    inputs, labels = model_batch(workbench), np.array([[1.0], [0.0], [1.0], [0.0]], "float32")
    outputs = model(inputs)
    penalty = sum(0.01 * np.sum(np.square(kernel)) for kernel in kernels)
    without = float(model.loss_function(labels.ravel(), np.ravel(outputs)[None], np.ones(4, "float32")))
    assert float(model.compute_loss(x=inputs, y=labels, y_pred=outputs)) == pytest.approx(without + penalty, rel=1e-5)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(inputs), outputs)
    assert loaded.get_config() == model.get_config()
    assert sum(float(loss) for loss in loaded.scorer.interaction.losses) == pytest.approx(penalty, rel=1e-5)
