"""The composed model: user tower and scoring together equal the whole model, and each reads only its own inputs."""

import re
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.workbench import PRESETS, Workbench
from tfctr.errors import UserError
from tfctr.features import FeatureFile, model_inputs
from tfctr.features.assets import write_assets
from tfctr.layers.dropout import Dropout
from tfctr.models import ModelConfig, RankingModel, build_model, preset

pytestmark = pytest.mark.slow


def batch(workbench: Workbench, rows: int = 6, candidates: int = 1) -> dict[str, Any]:
    """Model inputs of real rows, each with `candidates` candidates of the following rows."""
    inputs = next(iter(workbench.split("test").batches(rows)))[0]
    out = {}
    for spec in model_inputs(workbench.file):
        value = inputs[spec.name].numpy()
        if spec.side in ("candidate", "bias"):
            value = np.concatenate([np.roll(value, -shift, axis=0) for shift in range(candidates)], axis=1)
        out[spec.name] = value
    return out


def poison(workbench: Workbench, inputs: dict[str, Any], *sides: str) -> dict[str, Any]:
    changed = dict(inputs)
    for spec in model_inputs(workbench.file):
        if spec.side in sides:
            value = inputs[spec.name]
            changed[spec.name] = np.full_like(value, np.nan) if spec.dtype == "float32" else np.ones_like(value)
    return changed


@pytest.mark.parametrize("name", PRESETS)
def test_split_equals_call(workbench: Workbench, name: str) -> None:
    model = workbench.model(name)
    inputs = batch(workbench, candidates=3)
    whole = model(inputs).numpy()
    state = model.user_tower({s.name: inputs[s.name] for s in model_inputs(workbench.file) if s.side == "user"})
    split = model.score(state, inputs, inputs).numpy()
    assert whole.shape == (6, 3)
    assert whole.std() > 1e-3
    np.testing.assert_array_equal(whole, split)


@pytest.mark.parametrize("name", PRESETS)
def test_state_reads_nothing_of_candidate_or_context(workbench: Workbench, name: str) -> None:
    model = workbench.model(name)
    clean = batch(workbench)
    poisoned = poison(workbench, clean, "candidate", "context", "bias")
    users = [s.name for s in model_inputs(workbench.file) if s.side == "user"]
    whole_clean, whole_poisoned = (model._pick("user", inputs) for inputs in (clean, poisoned))
    states = [model.user_tower(inputs) for inputs in (whole_clean, whole_poisoned)]
    assert set(users) == set(whole_clean)
    for key in states[0]:
        np.testing.assert_array_equal(states[0][key].numpy(), states[1][key].numpy())


@pytest.mark.parametrize("name", PRESETS)
def test_candidates_are_independent(workbench: Workbench, name: str) -> None:
    """The logit of a candidate is the same alone, among others, and beside padding candidates."""
    model = workbench.model(name)
    many = model(batch(workbench, candidates=4)).numpy()
    one = model(batch(workbench, candidates=1)).numpy()
    np.testing.assert_allclose(many[:, :1], one, rtol=0, atol=1e-5)
    inputs = batch(workbench, candidates=4)
    mask = np.array([[True, True, False, False]] * 6)
    padded = poison(workbench, inputs, "candidate")
    for spec in model_inputs(workbench.file):
        if spec.side == "candidate":
            real = mask.reshape(mask.shape + (1,) * (inputs[spec.name].ndim - 2))
            inputs[spec.name] = np.where(real, inputs[spec.name], padded[spec.name])
    np.testing.assert_allclose(model(inputs).numpy()[:, :2], many[:, :2], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["din", "qnn-alpha"])
def test_masked_candidates_weigh_nothing_in_loss_and_statistics(workbench: Workbench, name: str) -> None:
    """A training step on padded requests moves the weights as the step without the padding does."""
    labels = np.array([[1.0, 0.0, 1.0]] * 6, np.float32)
    mask = np.array([[True, True, False]] * 6)
    results = []
    for padded in (False, True):
        model = workbench.model(name)
        model.compile(optimizer=keras.optimizers.SGD(0.1), jit_compile=False)
        inputs = batch(workbench, candidates=3)
        for dropout in [layer for layer in model._flatten_layers() if isinstance(layer, Dropout)]:
            dropout.rate = 0.0
        if padded:
            inputs["candidate_mask"] = mask
            model.train_on_batch(inputs, labels)
        else:
            for spec in model_inputs(workbench.file):
                if spec.side in ("candidate", "bias"):
                    inputs[spec.name] = inputs[spec.name][:, :2]
            model.train_on_batch(inputs, labels[:, :2])
        results.append([(weight.path, np.asarray(weight)) for weight in model.weights])
    for (path, value), (_, again) in zip(*results, strict=True):
        np.testing.assert_allclose(again, value, atol=2e-5, err_msg=path)


def test_loss_is_weighted_by_pair(workbench: Workbench) -> None:
    """`compute_loss` divides by the sum of the weights of all (b, c) pairs; NumPy gives the expected value."""
    model = workbench.model("mlp")
    logits = np.array([[0.3, -1.2], [2.0, 0.1]], np.float32)
    labels = np.array([[1, 0], [0, 1]], np.float32)
    weights = np.array([[1.0, 2.0], [0.5, 0.0]], np.float32)
    loss = float(model.compute_loss(x=None, y=labels, y_pred=tf.constant(logits), sample_weight=weights))
    p = 1 / (1 + np.exp(-logits.astype(np.float64)))
    expected = -(weights * (labels * np.log(p) + (1 - labels) * np.log(1 - p))).sum() / weights.sum()
    assert loss == pytest.approx(expected, rel=1e-6)


def test_position_acts_in_training_only(workbench: Workbench) -> None:
    model = workbench.model("mlp")
    inputs = batch(workbench)
    moved = {**inputs, "position": inputs["position"] % 7 + 1}
    np.testing.assert_array_equal(model(inputs).numpy(), model(moved).numpy())
    assert np.abs(model(inputs, training=True).numpy() - model(moved, training=True).numpy()).max() > 1e-3
    default = {**inputs, "position": np.ones_like(inputs["position"])}
    np.testing.assert_allclose(model(default, training=True).numpy(), model(inputs).numpy(), atol=1e-6)


@pytest.mark.parametrize("name", PRESETS)
def test_state_survives_time(workbench: Workbench, name: str) -> None:
    """The request time reaches the logit through the recency, which is a context feature and not part of the state."""
    model = workbench.model(name)
    inputs = batch(workbench)
    later = {**inputs, "timestamp": inputs["timestamp"] + 10**9}
    assert not np.array_equal(model(inputs).numpy(), model(later).numpy())


@pytest.mark.parametrize("name", PRESETS)
def test_mixed_precision_trains_and_stays_finite(workbench: Workbench, name: str) -> None:
    model = workbench.model(name, dtype="mixed_bfloat16")
    model.compile(optimizer="adam", jit_compile=False)
    inputs = batch(workbench, rows=32)
    labels = np.random.default_rng(0).integers(0, 2, (32, 1)).astype(np.float32)
    assert np.isfinite(model.train_on_batch(inputs, labels)).all()
    logits = model(inputs).numpy()
    assert logits.dtype == np.float32
    assert np.isfinite(logits).all()
    state = model.user_tower(model._pick("user", inputs))
    np.testing.assert_array_equal(model.score(state, inputs, inputs).numpy(), logits)


@pytest.mark.parametrize("name", PRESETS)
def test_save_and_reload(workbench: Workbench, name: str, tmp_path: Path) -> None:
    model = workbench.model(name)
    inputs = batch(workbench, candidates=2)
    model.save(tmp_path / "model.keras")
    again: RankingModel = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again(inputs).numpy(), model(inputs).numpy())


@pytest.mark.parametrize("name", PRESETS)
def test_compiled_equals_eager(workbench: Workbench, name: str) -> None:
    model = workbench.model(name)
    inputs = {key: tf.constant(value) for key, value in batch(workbench, candidates=2).items()}
    eager = model(inputs).numpy()
    for jit in (False, True):
        compiled = tf.function(lambda x: model(x), jit_compile=jit)
        np.testing.assert_allclose(compiled(inputs).numpy(), eager, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("candidates", [0, 1, 500])
def test_all_padding_history_and_any_number_of_candidates(workbench: Workbench, name: str, candidates: int) -> None:
    model = workbench.model(name)
    inputs = batch(workbench, rows=2, candidates=1)
    for spec in model_inputs(workbench.file):
        value = inputs[spec.name]
        if spec.name.startswith("history"):
            inputs[spec.name] = np.zeros_like(value)
        elif spec.side in ("candidate", "bias"):
            inputs[spec.name] = np.repeat(value, candidates, axis=1)
    logits = model(inputs).numpy()
    assert logits.shape == (2, candidates)
    assert np.isfinite(logits).all()


def test_a_half_precision_table_takes_half_the_room(workbench: Workbench, tmp_path: Path) -> None:
    content = workbench.file.model_dump(mode="json", exclude_unset=True)
    content["candidate"]["item_vector"]["dtype"] = "float16"
    file = FeatureFile.model_validate(content)
    tokens = {name: workbench.assets.tokens(name) for name in ("user_id", "item_id", "genres")}
    assets = write_assets(tmp_path / "assets", file, tokens, workbench.assets.statistics, workbench.data)
    keras.utils.set_random_seed(1)
    model = build_model(assets, preset("dmf"))
    table = model.embeddings.frozen_tables["item_vector"]
    assert table.dtype == "float16"
    vectors = model.embeddings.vectors("item_vector", np.array([1, 2], np.int32)).numpy()
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, workbench.assets.frozen_vectors("item_vector")[1:3], atol=1e-3)
    assert np.isfinite(model(batch(workbench)).numpy()).all()


def test_unknown_names_are_told(workbench: Workbench) -> None:
    with pytest.raises(UserError, match=r"no preset 'dinn'\. Allowed: mlp, "):
        preset("dinn")
    with pytest.raises(UserError, match=r"no sequence 'clicks'\. Allowed: \['history'\]"):
        build_model(workbench.assets, ModelConfig(interests=({"type": "din", "sequence": "clicks"},)))
    with pytest.raises(UserError, match="unknown type"):
        build_model(workbench.assets, ModelConfig(interaction={"type": "mpl"}))


@pytest.mark.parametrize(
    ("interest", "interaction", "message"),
    [
        (
            {"num_heads": 3},
            {"type": "mlp"},
            r"interest target_attention of sequence .history.: `num_heads` must divide the width of .* Received: \d+",
        ),
        (
            {"kernel_initializer": {"class_name": "Orthogonal", "config": {"gain": "much"}}},
            {"type": "mlp"},
            "interest target_attention of sequence 'history': .*",
        ),
        ({}, {"type": "qnn_alpha", "heads": 7}, r"interaction qnn_alpha: `heads` must divide .* Received: 7"),
        ({}, {"type": "dlf_released", "attention": True, "heads": 7}, "interaction dlf_released: `heads` must .*: 7"),
        ({}, {"type": "deepfm", "deep": {"type": "qnn_alpha", "heads": 7}}, "interaction deepfm: `heads` must .*: 7"),
    ],
)
def test_arguments_that_only_the_widths_of_the_model_show_to_be_wrong(
    workbench: Workbench, interest: dict[str, Any], interaction: dict[str, Any], message: str
) -> None:
    config = ModelConfig(interests=({"type": "target_attention", **interest},), interaction=interaction)
    with pytest.raises(UserError) as error:
        build_model(workbench.assets, config)
    # Keras would add a line for each argument of the call.
    assert re.fullmatch(message, str(error.value))


@pytest.mark.parametrize(("of_backbone", "of_interest", "wanted"), [(1, 1, 1), (1, 0, 0), (0, 1, 0)])
def test_backbone_and_interests_say_whether_a_compiled_step_is_faster(
    workbench: Workbench, monkeypatch: pytest.MonkeyPatch, of_backbone: bool, of_interest: bool, wanted: bool
) -> None:
    model = workbench.model("din")
    (interest,) = model.scorer.interests.values()
    monkeypatch.setattr(type(model.scorer.interaction), "jit_compile", bool(of_backbone))
    monkeypatch.setattr(type(interest), "jit_compile", bool(of_interest))
    assert model.faster_compiled == wanted
