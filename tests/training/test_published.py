"""The experiments of published runs, which come with the package."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import pytest

from tfctr.errors import UserError
from tfctr.models import build_model
from tfctr.training.experiment import load_experiment
from tfctr.training.published import published_experiments

if TYPE_CHECKING:
    from tests.workbench import Workbench

NAMES = published_experiments()

# As facts of the released logs: batch, lambda of the embeddings, layers, rows, heads, batch normalization.
QNN_ALPHA: dict[str, tuple[Any, ...]] = {
    "qnn-alpha-frappe": (4096, 0.1, 2, 13, 1, True),
    "qnn-alpha-movielens-1m": (4096, 0.01, 1, 4, 4, True),
    "qnn-alpha-criteo": (10000, 1e-5, 4, 5, 1, False),
    "qnn-alpha-kkbox": (10000, 5e-4, 3, 3, 2, True),
    "qnn-alpha-ipinyou": (4096, 1e-3, 4, 2, 4, True),
    "qnn-alpha-tenrec": (10000, 1e-5, 2, 10, 1, True),
}


def test_there_is_one_for_each_published_table() -> None:
    assert set(NAMES) == {*QNN_ALPHA, "qin-microlens", "qin-microlens-modules"}


@pytest.mark.parametrize("name", QNN_ALPHA)
def test_qnn_alpha_is_trained_as_in_the_logs(name: str) -> None:
    experiment = load_experiment(name)
    config, training = experiment.model_config_of(), experiment.training
    layers = tuple(config.interaction[key] for key in ("layers", "rows", "heads", "batch_norm"))
    assert (training.batch_size, config.embedding_l2, *layers) == QNN_ALPHA[name]
    assert (config.loss["type"], config.embedding_start, config.network_l2) == ("self_ensemble", 1e-4, 0.0)
    assert (training.learning_rate, training.patience, training.plateau_factor, training.monitor) == (
        1e-3,
        2,
        0.1,
        "auc",
    )


def test_qin_is_trained_as_in_the_log_of_its_best_run() -> None:
    experiment = load_experiment("qin-microlens")
    config, training = experiment.model_config_of(), experiment.training
    assert (training.batch_size, training.learning_rate, training.patience) == (8192, 2e-3, 8)
    assert (training.plateau_factor, training.min_learning_rate, training.seed) == (0.5, 1e-6, 20242025)
    assert (config.embedding_l2, config.interaction["rows"], config.interaction["layers"]) == (2e-4, 4, 4)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["qnn-alpha-movielens-1m", "qin-microlens-modules"])
def test_they_train_a_step(workbench: Workbench, name: str) -> None:
    keras.utils.set_random_seed(1)
    model = build_model(workbench.assets, load_experiment(name).model_config_of())
    inputs, labels, *_ = next(iter(workbench.split("train").batches(16)))
    before = np.asarray(model.scorer.interaction.head.kernel)
    model.compile(optimizer="adam", jit_compile=False)
    assert np.isfinite(model.train_on_batch(inputs, labels)).all()
    assert not np.array_equal(before, model.scorer.interaction.head.kernel)


def test_a_file_comes_before_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "qin-microlens").write_text("preset: mlp")
    assert load_experiment("qin-microlens").preset == "mlp"


def test_a_name_that_is_none_is_told_with_those_there_are() -> None:
    with pytest.raises(UserError, match=r"qnn-alpha-avazu: can't be read .*published runs: qin-microlens, .*frappe"):
        load_experiment("qnn-alpha-avazu")
