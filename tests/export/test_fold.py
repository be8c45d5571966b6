"""The folded backbone in a SavedModel, and the cost of a model before and after folding."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops
from typer.testing import CliRunner

from tests.export.test_served_parity import run
from tests.workbench import Workbench
from tfctr.cli import app
from tfctr.export.cost import _of, _operations, _traced, model_cost
from tfctr.export.describe import describe
from tfctr.export.fold import served_scorer, served_weights
from tfctr.export.saved_model import export_model
from tfctr.features import FeatureFile
from tfctr.models import ModelConfig, RankingModel, build_model
from tfctr.models.presets import PRESETS
from tfctr.training.experiment import Experiment

pytestmark = pytest.mark.slow

QIN = ModelConfig(interests=({"type": "asta"},), interaction={"type": "qin"})
ALPHA = ModelConfig(interaction={"type": "qnn_alpha", "layers": 2, "rows": 3, "heads": 2, "activation": None})
CONFIGS = {"qin": QIN, "qnn_alpha": ALPHA}
FIELDS, WIDTH = 13, 8
D = FIELDS * WIDTH


def trained(workbench: Workbench, config: ModelConfig) -> RankingModel:
    """A model with larger embeddings than at initialization, and with moving statistics of the data."""
    keras.utils.set_random_seed(1)
    model = build_model(workbench.assets, config)
    generator = np.random.default_rng(1)
    for weight in model.embeddings.trainable_weights:
        weight.assign(generator.normal(0.0, 0.3, weight.shape))
    inputs = next(iter(workbench.split("train").batches(256)))[0]
    for _ in range(20):
        model(inputs, training=True)
    return model


@pytest.fixture(scope="module")
def models(workbench: Workbench) -> dict[str, RankingModel]:
    return {name: trained(workbench, config) for name, config in CONFIGS.items()}


@pytest.fixture(scope="module")
def exported(models: dict[str, RankingModel], workbench: Workbench, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The SavedModels by their name and by whether they are folded."""
    directory, found = tmp_path_factory.mktemp("fold"), {}
    for name, model in models.items():
        before = [ops.convert_to_numpy(weight).copy() for weight in model.weights]
        backbone = model.scorer.interaction
        for fold in (True, False):
            made = Experiment(export={"fold": fold, "warmup_candidates": [1]})
            found[name, fold] = export_model(model, workbench.assets, made, directory / name / str(fold) / "1")
        assert model.scorer.interaction is backbone
        for one, other in zip(before, model.weights, strict=True):
            np.testing.assert_array_equal(one, other)
    return found


@pytest.mark.e2e
def test_served_with_and_without_fold(models: dict[str, RankingModel], exported: Any, rows: Path) -> None:
    answer = run(rows, *exported.values())
    for name, model in models.items():
        folded, plain = (answer["results"][str(exported[name, fold])] for fold in (True, False))
        for result in (folded, plain):
            assert result["spread"] > 1e-2
            assert max(result["difference"], result["difference_among_others"]) <= 1e-6
        assert np.abs(np.subtract(folded["probabilities"], plain["probabilities"])).max() <= 1e-6
        # Each SavedModel stores only its own form of the backbone.
        backbone = model.scorer.interaction
        saved = backbone.count_params() - backbone.fold().count_params()
        small, large = (describe(exported[name, fold]).bytes_by_part["variables"] for fold in (True, False))
        assert saved > 0
        assert large - small == pytest.approx(4 * saved, rel=0.05)


@pytest.mark.e2e
def test_inspect_shows_both_forms(models: dict[str, RankingModel], exported: Any) -> None:
    runner, model = CliRunner(env={"COLUMNS": "160"}), models["qin"]
    before, after = model_cost(model), model_cost(model, served_scorer(model))
    printed = {fold: runner.invoke(app, ["inspect", str(exported["qin", fold])]).output for fold in (True, False)}
    for fold, costs in ((True, (before, after)), (False, (before,))):
        for cost in costs:
            for number in (cost.parameters, cost.backbone_parameters, cost.flops_per_candidate, cost.flops_per_user):
                assert f" {number:,} " in printed[fold]
    assert "as served, folded" in printed[True]
    assert "as trained and served" in printed[False]
    found = json.loads(runner.invoke(app, ["inspect", str(exported["qin", True]), "--json"]).output)
    expected = {form: {**asdict(cost), "uncounted": []} for form, cost in (("trained", before), ("served", after))}
    assert found["made"]["cost"] == expected


@pytest.mark.parametrize("name", CONFIGS)
def test_the_served_scorer_shares_all_but_the_backbone(models: dict[str, RankingModel], name: str) -> None:
    model = models[name]
    scorer = served_scorer(model)
    backbone, folded = model.scorer.interaction, scorer.interaction
    ours = {id(weight) for weight in served_weights(model, scorer)}
    theirs = {id(weight) for weight in model.weights}
    assert theirs - ours == {id(weight) for weight in backbone.weights}
    assert ours - theirs == {id(weight) for weight in folded.weights}


def test_a_model_with_nothing_to_fold_keeps_its_scorer(workbench: Workbench) -> None:
    model = build_model(workbench.assets, PRESETS["din"][1])
    assert served_scorer(model) is model.scorer
    assert {id(weight) for weight in served_weights(model, model.scorer)} == {id(weight) for weight in model.weights}


# --- costs


def flops(function: Any, *inputs: Any) -> int:
    uncounted: set[str] = set()
    found = _operations(_traced(lambda fed: function(*fed), inputs)[0], uncounted)
    assert not uncounted
    return found


def test_operations_by_hand() -> None:
    x, y = tf.ones((2, 3, 5)), tf.ones((2, 5, 7))
    assert flops(lambda a, b: tf.matmul(a, b), x, y) == 2 * 2 * 3 * 5 * 7
    assert flops(lambda a, b: tf.matmul(b, a, transpose_a=True, transpose_b=True), x, y) == 2 * 2 * 3 * 5 * 7
    assert flops(lambda a, b: tf.einsum("bij,bjk->bik", a, b), x, y) == 2 * 2 * 3 * 5 * 7
    assert flops(lambda a: tf.einsum("...ij,j->...i", a, tf.ones(5)), x) == 2 * 2 * 3 * 5
    assert flops(lambda a: tf.matmul(a[0], a[1], transpose_b=True), x) == 2 * 3 * 5 * 3
    assert flops(lambda a: tf.nn.relu(a) * a + 1.0, x) == 3 * 30
    assert flops(lambda a: tf.reduce_sum(a, axis=1), x) == 30
    assert flops(lambda a: tf.nn.softmax(a), x) == 5 * 30
    assert flops(lambda a: tf.gather(tf.reshape(a, (6, 5)), [1, 2]), x) == 0
    assert flops(lambda a: tf.cast(a, tf.int32) * 2, x) == 0
    inner = tf.function(lambda a: a * a)
    assert flops(lambda a: inner(inner(a)), x) == 2 * 30


def test_an_unknown_op_is_named() -> None:
    uncounted: set[str] = set()
    assert _operations(_traced(lambda a: tf.linalg.inv(a) + a, tf.ones((3, 3)))[0], uncounted) == 9
    assert uncounted == {"MatrixInverse"}
    unknown = tf.function(lambda a: a + a).get_concrete_function(tf.TensorSpec([None])).graph
    assert [_of(op) for op in unknown.get_operations() if op.type == "AddV2"] == [None]


def test_a_model_by_hand() -> None:
    """One item embedding of width 4 and its history of 6, mean pooling, one layer of QIN with 3 rows."""
    file = FeatureFile.model_validate(
        {
            "labels": {"click": "label"},
            "meta": ["user_id"],
            "group": "user_id",
            "embedding_dimension": 4,
            "candidate": {"item_id": {"dtype": "int64"}},
            "sequences": {"history": {"max_length": 6, "fields": {"history_item_id": {"share": "item_id"}}}},
        }
    )
    config = ModelConfig(interaction={"type": "qin", "layers": 1, "rows": 3})
    model = RankingModel(file, {"item_id": 10}, {}, config)
    model.build()
    before, after = model_cost(model), model_cost(model, served_scorer(model))
    assert before.uncounted == after.uncounted == ()
    table, projection, head = 10 * 4, 4 * 4 + 4, 8 + 1
    # Item and interest are two fields, so D = 8. The trained layer has W, b, gamma, beta, moving mean, moving variance
    # and slope. The folded layer has W, b, shift and slope.
    backbone, folded = 3 * 64 + 3 * 8 + 4 * 8 + 1 + head, 64 + 8 + 8 + 1 + head
    assert (before.backbone_parameters, after.backbone_parameters) == (backbone, folded)
    assert (before.parameters, after.parameters) == (table + projection + backbone, table + projection + folded)
    # The projection of the interest, the linear head, and the logit of the position, which is absent here.
    around = (2 * 16 + 4) + (2 * 8 + 1) + 1
    # The terms: x W, + b, sum of rows, times x, (minus mean, times scale, plus beta), slope times x, residual.
    assert before.flops_per_candidate == around + 2 * 3 * 64 + 3 * 8 + 3 * 8 + 8 + 3 * 8 + 8 + 8
    # The first term is x W. The five others are + b, times x, plus shift, slope times x, and residual.
    assert after.flops_per_candidate == around + 2 * 64 + 5 * 8
    # Per user: the sum over the history and its division. Per request: variance + epsilon, its root, times gamma.
    assert before.flops_per_user == after.flops_per_user == 6 * 4 + 4
    assert before.flops_per_request == 3 * 8
    assert after.flops_per_request == 0


def test_fold_of_the_released_size(workbench: Workbench) -> None:
    """With the released R = 4 and L = 4, folding leaves a quarter of the matrices, which take nearly all operations."""
    model = build_model(workbench.assets, QIN)
    before, after = model_cost(model), model_cost(model, served_scorer(model))
    rest = before.flops_per_candidate - 4 * (8 * D * D + 14 * D)
    assert after.flops_per_candidate == 4 * (2 * D * D + 5 * D) + rest
    assert 0 < rest < 6000
    assert after.backbone_parameters == 4 * (D * D + 2 * D + 1) + D + 1
    assert before.backbone_parameters == 4 * (4 * D * D + 8 * D + 1) + D + 1
    assert before.parameters - after.parameters == before.backbone_parameters - after.backbone_parameters
    assert before.flops_per_user == after.flops_per_user


def covering() -> list[str]:
    """Presets that together have every interest and every interaction of all presets."""
    seen: set[tuple[str, str]] = set()
    chosen = []
    for name, (_, config) in PRESETS.items():
        parts = {("interest", entry["type"]) for entry in config.interests or ({"type": "mean"},)}
        parts.add(("interaction", config.interaction["type"]))
        if not parts <= seen:
            chosen.append(name)
            seen |= parts
    return chosen


@pytest.mark.e2e
@pytest.mark.parametrize("name", covering())
def test_every_op_of_a_preset_is_counted(workbench: Workbench, name: str) -> None:
    model = build_model(workbench.assets, PRESETS[name][1])
    cost = model_cost(model, served_scorer(model))
    assert cost.uncounted == ()
    assert cost.flops_per_candidate > 0
    assert cost.flops_per_user > 0
