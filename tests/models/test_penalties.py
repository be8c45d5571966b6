"""What a model's weights cost: each is penalized once, by the lambda of the features or by that of the network."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import pytest
from keras import ops

from tfctr.features import FeatureFile
from tfctr.models import ModelConfig, RankingModel, build_model

if TYPE_CHECKING:
    from tests.workbench import Workbench

FILE = FeatureFile.model_validate(
    {
        "labels": {"click": "label"},
        "embedding_dimension": 2,
        "candidate": {"item": {}, "price": {"kind": "numeric", "transform": "none"}},
        "bias": {"position": {"vocabulary": {"type": "identity", "size": 3}, "default": 0}},
    }
)
ROWS = {"item": 3}
INPUTS = {
    "item": np.array([[1], [2]], "int32"),
    "price": np.array([[0.5], [1.0]], "float32"),
    "position": np.array([[1], [2]], "int32"),
}
LABELS = np.array([[1.0], [0.0]], "float32")


def model(**penalties: float) -> RankingModel:
    """A wide model whose every trained weight is 1 or 2: item 6, price 4, first order 3 + 1, position 5, deep 5."""
    deep = {"type": "mlp", "hidden": [1], "batch_norm": True}
    made = RankingModel(FILE, ROWS, {}, ModelConfig(interaction={"type": "wide_deep", "deep": deep}, **penalties))
    made.build()
    for weight in made.trainable_weights:
        of_feature = any(name in weight.path for name in ("embeddings/", "first_order/", "position_bias"))
        weight.assign(np.full(weight.shape, 2.0 if of_feature else 1.0))
    return made


def penalty(**penalties: float) -> float:
    """What is added to the loss."""
    losses = []
    for made in (model(**penalties), model()):
        losses.append(float(made.compute_loss(INPUTS, LABELS, made(INPUTS))))
    return losses[0] - losses[1]


# Weights of the features: a table [3, 2], a map 1 -> 2 with its bias, first-order weights 3 and 1, a position's [5, 1].
FEATURES = 6 + 4 + 3 + 1 + 5
# Of the network: a linear map 4 -> 1, gamma and beta, the head 1 -> 1, each map with its bias.
NETWORK = (4 + 1) + 2 + (1 + 1)


def test_every_trained_weight_is_of_one_kind() -> None:
    assert sum(weight.shape.num_elements() for weight in model().trainable_weights) == FEATURES + NETWORK


@pytest.mark.parametrize(
    ("penalties", "expected"),
    [
        ({"embedding_l2": 0.5}, 0.25 * 4 * FEATURES),
        ({"network_l2": 0.5}, 0.25 * NETWORK),
        ({"embedding_l2": 0.5, "network_l2": 3.0}, 0.25 * 4 * FEATURES + 1.5 * NETWORK),
    ],
)
def test_the_penalty_by_hand(penalties: dict[str, float], expected: float) -> None:
    assert penalty(**penalties) == pytest.approx(expected, rel=1e-5)


def test_the_gradient_of_the_penalty_is_lambda_times_the_weight() -> None:
    import tensorflow as tf

    gradients = []
    for made in (model(embedding_l2=0.5, network_l2=3.0), model()):
        with tf.GradientTape() as tape:
            loss = made.compute_loss(INPUTS, LABELS, made(INPUTS))
        found = tape.gradient(loss, [weight.value for weight in made.trainable_weights])
        gradients.append([0.0 if one is None else np.asarray(tf.convert_to_tensor(one)) for one in found])
    for weight, with_penalty, without in zip(made.trainable_weights, *gradients, strict=True):
        value = float(np.ravel(weight)[0])
        assert np.asarray(with_penalty - without) == pytest.approx(value * {2.0: 0.5, 1.0: 3.0}[value], abs=1e-5)


def test_a_step_of_training_shrinks_rows_that_no_example_has() -> None:
    made = model(embedding_l2=0.5)
    made.compile(optimizer=keras.optimizers.SGD(0.1), jit_compile=True)
    made.train_on_batch(INPUTS, LABELS)
    np.testing.assert_allclose(made.embeddings.tables["item"].embeddings[0], [2 - 0.1 * 0.5 * 2] * 2, rtol=1e-6)


def test_a_regularizer_of_a_part_is_added_to_it() -> None:
    kernel = {"class_name": "L2", "config": {"l2": 0.5}}
    deep: dict[str, Any] = {"type": "mlp", "hidden": [], "kernel_regularizer": kernel}
    losses = []
    for config in ({"interaction": deep, "network_l2": 2.0}, {"interaction": {"type": "mlp", "hidden": []}}):
        made = RankingModel(FILE, ROWS, {}, ModelConfig.model_validate(config))
        made.build()
        for weight in made.trainable_weights:
            weight.assign(ops.ones(weight.shape))
        losses.append(float(made.compute_loss(INPUTS, LABELS, made(INPUTS))))
    assert losses[0] - losses[1] == pytest.approx(0.5 * 4 + 5, rel=1e-5)


@pytest.mark.parametrize("start", [None, 1e-4])
def test_tables_and_numbers_start_as_small_as_is_asked(workbench: Workbench, start: float | None) -> None:
    keras.utils.set_random_seed(1)
    made = build_model(workbench.assets, ModelConfig(**{} if start is None else {"embedding_start": start}))
    tables = np.concatenate([np.ravel(table.embeddings) for table in made.embeddings.tables.values()])
    assert tables.std() == pytest.approx(start or 0.01, rel=0.05)
    assert 0 < np.abs(made.embeddings.projections["year"].kernel).max() < 5 * (start or 0.01)


def test_a_model_that_was_saved_without_these_keys_loads(tmp_path: Path) -> None:
    made = model(embedding_start=0.5)
    config = made.get_config()
    assert RankingModel.from_config(config).embeddings.start == 0.5
    for key in ("embedding_start", "network_l2"):
        del config["config"][key]
    older = RankingModel.from_config(config)
    assert (older.model_config.embedding_start, older.model_config.network_l2) == (0.01, 0.0)


def test_left_to_an_optimizer_that_knows_the_rows_of_the_batch() -> None:
    """The tables' part of the penalty is in the loss no more; the map of the number stays there."""
    left = model(embedding_l2=0.5)
    left.leave_penalties(weight for _, weight in left.trained_tables())
    added = float(left.compute_loss(INPUTS, LABELS, left(INPUTS))) - float(
        model().compute_loss(INPUTS, LABELS, left(INPUTS))
    )
    # The map 1 -> 2 with its bias, and the first-order weight of the number.
    np.testing.assert_allclose(added, 0.25 * 4 * (4 + 1), rtol=1e-5)
