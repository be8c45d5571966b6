"""Every interest with every interaction, taken from the registries, so that new ones are tested too."""

import itertools
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.composition import covering_pairs, model_batch, small_model, with_history
from tests.workbench import HISTORY, Workbench, small_features
from tfctr.data.analyze import analyze
from tfctr.data.sources import split_files
from tfctr.errors import UserError
from tfctr.features import FeatureFile
from tfctr.interactions import INTERACTIONS
from tfctr.interests import INTERESTS
from tfctr.models import PRESETS, ModelConfig, RankingModel

pytestmark = pytest.mark.slow

LABELS = np.array([[1, 0], [0, 1], [1, 1], [0, 0]], "float32")


@pytest.fixture(scope="module")
def inputs(workbench: Workbench) -> dict[str, Any]:
    return model_batch(workbench, rows=4, candidates=2)


def train_one_step(model: RankingModel, inputs: dict[str, Any]) -> None:
    """Take a step of gradient descent; loss and gradients must be finite, and the loss must reach every part."""
    with tf.GradientTape() as tape:
        loss = model.compute_loss(inputs, LABELS, model(inputs, training=True))
    variables = model.trainable_variables
    found = tape.gradient(loss, [variable.value for variable in variables])
    assert np.isfinite(loss)
    moved = set()
    for variable, gradient in zip(variables, found, strict=True):
        if gradient is None:
            continue
        gradient = tf.convert_to_tensor(gradient)
        assert np.isfinite(gradient).all(), variable.path
        if np.any(gradient):
            moved.add(variable.path)
        variable.assign(variable - 0.01 * tf.cast(gradient, variable.dtype))
    for part in (model.scorer.interaction, *model.scorer.interests.values()):
        paths = {weight.path for weight in part.trainable_weights}
        assert paths & moved or not paths, f"the loss does not reach {part.name}"


def assert_split_is_call(model: RankingModel, inputs: dict[str, Any]) -> np.ndarray:
    whole = model(inputs).numpy()
    state = model.user_tower(model._pick("user", inputs))
    np.testing.assert_array_equal(model.score(state, inputs, inputs).numpy(), whole)
    assert whole.dtype == np.float32
    assert np.isfinite(whole).all()
    return whole


def several(*types: str) -> ModelConfig:
    return ModelConfig.model_validate({"interests": types, "interaction": {"type": "mlp", "hidden": [8]}})


@pytest.mark.parametrize("types", [("cmm", "make"), ("din", "din", "mean")])
def test_several_interests_read_one_history(
    workbench: Workbench, inputs: dict[str, Any], types: tuple[str, ...]
) -> None:
    model, alone = workbench.model(several(*types)), workbench.model(several(types[0]))
    train_one_step(model, inputs)
    assert_split_is_call(model, inputs)
    names = list(model.scorer.interests)
    assert names == [f"history_{kind}" + "_2" * (kind in types[:i]) for i, kind in enumerate(types)]
    state = model.user_tower(model._pick("user", inputs))
    assert {name.partition("/")[0] for name in state} == {*names, "history", "user"}
    fields = [one.scorer.interaction.block.dense[0].kernel.shape[0] for one in (model, alone)]
    added = sum(model.scorer.entries[name].fields for name in names[1:])
    assert fields[0] - fields[1] == added * workbench.file.embedding_dimension


def test_an_interest_reads_the_sequences_that_no_other_entry_names(workbench: Workbench) -> None:
    content = workbench.file.model_dump(mode="json", exclude_unset=True)
    content["sequences"]["views"] = {"max_length": 3, "fields": {"viewed": {"share": "item_id"}}}
    file = FeatureFile.model_validate(content)
    config = ModelConfig.model_validate({"interests": ["din", {"type": "dmqn", "sequence": "views"}]})
    assert config.interests_of(file) == {"history": ("history", {"type": "din"}), "views": ("views", {"type": "dmqn"})}
    none = FeatureFile.model_validate({**content, "sequences": {}})
    assert ModelConfig().interests_of(none) == {}
    for interests, message in [
        ([{"type": "din", "sequence": "views"}], r"no entry for the sequences \['history'\]"),
        ([{"type": "din", "sequence": "cart"}], r"no sequence 'cart'. Allowed: \['history', 'views'\]"),
        (
            ["mean", {"type": "din", "sequence": "views"}, {"type": "din", "sequence": "history"}],
            "'mean' has no sequence to read: every sequence is named by another entry",
        ),
    ]:
        with pytest.raises(UserError, match=message):
            ModelConfig.model_validate({"interests": interests}).interests_of(file)
    with pytest.raises(UserError, match="'din' has no sequence to read: the feature file has no sequences"):
        ModelConfig.model_validate({"interests": ["din"]}).interests_of(none)


@pytest.mark.parametrize(
    ("interest", "interaction"),
    [
        pytest.param(*pair, marks=() if pair in covering_pairs() else pytest.mark.night)
        for pair in itertools.product(INTERESTS, INTERACTIONS)
    ],
)
def test_every_pair_trains_and_splits(
    workbench: Workbench, inputs: dict[str, Any], interest: str, interaction: str
) -> None:
    model = workbench.model(small_model(interest, interaction))
    before = model(inputs).numpy()
    assert before.shape == LABELS.shape
    assert before.std() > 1e-4
    train_one_step(model, inputs)
    assert not np.array_equal(assert_split_is_call(model, inputs), before)


@pytest.mark.parametrize(("interest", "interaction"), covering_pairs())
def test_mixed_precision_trains_and_stays_finite(
    workbench: Workbench, inputs: dict[str, Any], interest: str, interaction: str
) -> None:
    model = workbench.model(small_model(interest, interaction), dtype="mixed_bfloat16")
    train_one_step(model, inputs)
    assert_split_is_call(model, inputs)
    assert {weight.dtype for weight in model.trainable_weights} == {"float32"}


@pytest.mark.parametrize("interest", INTERESTS)
def test_histories_and_candidates_of_any_size(workbench: Workbench, inputs: dict[str, Any], interest: str) -> None:
    model = workbench.model(small_model(interest, "mlp"))
    seen = {}
    for length in (0, 1, HISTORY):
        seen[length] = assert_split_is_call(model, with_history(workbench, inputs, length))
    assert not np.array_equal(seen[0], seen[HISTORY])
    # This history is longer than the model was built for. Only a direct call can pass one, as the next test shows.
    try:
        assert_split_is_call(model, with_history(workbench, inputs, HISTORY + 5))
    except ValueError as error:
        if f"at most {HISTORY} events" not in str(error):
            raise
    first = model(inputs).numpy()[:, :1]
    sides = {"candidate": model._pick("candidate", inputs), "bias": model._pick("bias", inputs)}
    for count in (0, 1, 500):
        many = {name: np.repeat(value[:, :1], count, axis=1) for side in sides.values() for name, value in side.items()}
        logits = assert_split_is_call(model, {**inputs, **many})
        assert logits.shape == (4, count)
        np.testing.assert_allclose(logits, np.repeat(first, count, axis=1), atol=1e-5)


def test_a_history_longer_than_configured_is_cut_to_its_newest_events(workbench: Workbench, tmp_path: Path) -> None:
    """The function that parses raw examples cuts it, so training and every signature get the cut history."""
    file = small_features(history=5)
    short = Workbench(
        workbench.data, file, analyze(file, split_files(workbench.data, "train"), tmp_path / "assets", workbench.data)
    )
    whole, cut = (next(iter(one.split("test").batches(64)))[0] for one in (workbench, short))
    assert (whole["history_length"].numpy() > 5).any()
    np.testing.assert_array_equal(cut["history_length"], np.minimum(whole["history_length"], 5))
    for name in ("history_item_id", "history_genres", "history_rating", "history_time"):
        np.testing.assert_array_equal(cut[name], whole[name].numpy()[:, :5], err_msg=name)
    np.testing.assert_array_equal(cut["history_newest_time"], whole["history_newest_time"])


def moved_by_rounding(model: RankingModel, inputs: dict[str, Any], logits: Any) -> float:
    """How far the logits move when each weight moves by its last digit: no two ways to compute them can be closer.

    For most models that is 1e-6. A deep DLF whose norms divide by small numbers may reach 2e-5.
    """
    generator, kept, moved = np.random.default_rng(0), model.get_weights(), 0.0
    for _ in range(3):
        digits = [(one * (1 + 6e-8 * generator.choice([-1, 1], one.shape))).astype(one.dtype) for one in kept]
        model.set_weights([new if old.dtype == np.float32 else old for old, new in zip(kept, digits, strict=True)])
        moved = max(moved, float(np.abs(model(inputs) - logits).max()))
    model.set_weights(kept)
    return moved


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_in_every_form(workbench: Workbench, inputs: dict[str, Any], name: str, tmp_path: Path) -> None:
    model = workbench.model(name)
    eager = assert_split_is_call(model, inputs)
    tensors = {key: tf.constant(value) for key, value in inputs.items()}
    for jit in (False, True):
        compiled = tf.function(lambda fed: model(fed), jit_compile=jit)(tensors)
        if not np.allclose(compiled, eager, rtol=1e-5, atol=1e-5):
            bound = 1e-5 + moved_by_rounding(model, tensors, eager)
            np.testing.assert_allclose(compiled, eager, rtol=1e-5, atol=bound, err_msg=f"XLA: {jit}")
    model.save(tmp_path / "model.keras")
    again: RankingModel = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again(inputs).numpy(), eager)
