"""Tests on two logical CPUs, which `test_devices` runs in a process of its own: TensorFlow takes them at its start."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.training.runs import BATCH, SMALL, run, small_experiment
from tests.training.test_loop import Killed, kill_after, same_ending
from tests.workbench import Workbench
from tfctr.errors import UserError
from tfctr.layers.dropout import Dropout
from tfctr.layers.normalization import BatchNormalization
from tfctr.models import build_model
from tfctr.models.model import dummy_inputs
from tfctr.training.devices import strategy_of
from tfctr.training.experiment import Experiment, Training
from tfctr.training.loop import compile_model
from tfctr.training.run import BATCH_OF

tf.config.set_visible_devices([], "GPU")
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)

# A loss that is no mean over rows, without what differs between the parts of a batch.
_CROSS = {"layers": 2, "dropout": 0.0, "batch_norm": False}
TRI_BCE = {
    "interaction": {"type": "fcn", "exponential": _CROSS, "linear": _CROSS},
    "loss": {"type": "tri_bce", "over": "branches", "mean": "logit"},
}
# A step of plain gradients shows every factor that is wrong; those of Adam hide it.
PLAIN = {"optimizer": "sgd", "learning_rate": 1.0, "clip_norm": None}
PENALTIES = {"embedding_l2": 0.1, "network_l2": 0.1}


def weighted(inputs: Any, labels: Any, weights: Any) -> tuple[Any, Any, Any]:
    """Rows with weights from 0 to 4, of which the two halves of a batch have different sums."""
    return inputs, labels, weights * tf.cast(inputs["item_id"] % 5, tf.float32)


def steps(
    tiny: Workbench, devices: int, model: dict[str, Any], training: dict[str, Any], skip: int = 0, count: int = 1
) -> tuple[float, list[np.ndarray]]:
    """The loss that is shown after some steps, and the weights."""
    settings = {"batch_size": BATCH, "jit_compile": False, **training, "devices": devices}
    experiment = Experiment.model_validate(
        {"preset": "mlp", "model": {"interaction": SMALL, **model}, "training": settings}
    )
    keras.utils.set_random_seed(3)
    with strategy_of(Training(devices=devices)).scope():
        built = build_model(tiny.assets, experiment.model_config_of())
    compile_model(built, experiment.training)
    split = tiny.split("train")
    data = BATCH_OF[experiment.training.batch_of](split.copy, split.file)
    batches = data.batches(experiment.training.batch_size, 5, skip).map(weighted)
    shown = built.fit(batches, steps_per_epoch=count, verbose=0, shuffle=False).history
    return shown["loss"][0], [np.asarray(weight) for weight in built.weights]


def rows(tiny: Workbench) -> int:
    return len(tiny.split("train"))


@pytest.mark.parametrize(
    ("model", "training", "count"),
    [
        ({}, PLAIN, 1),
        (PENALTIES, PLAIN, 1),
        ({}, {**PLAIN, "batch_size": 7}, 1),
        ({}, {**PLAIN, "batch_of": "requests"}, 1),
        ({}, {**PLAIN, "batch_of": "users"}, 1),
        ({}, {**PLAIN, "clip_norm": 0.1}, 1),
        (TRI_BCE, PLAIN, 1),
        ({}, {"optimizer": "adam"}, 3),
        ({}, {**PLAIN, "embedding_optimizer": "lazy_sgd", "clip_norm": 0.1}, 1),
        (PENALTIES, {"embedding_optimizer": "lazy_adam"}, 3),
        ({}, {"embedding_optimizer": "rowwise_adagrad", "batch_size": 129}, 3),
    ],
    ids=[
        "weights",
        "penalties",
        "uneven",
        "requests",
        "users",
        "clipped",
        "tri_bce",
        "adam",
        "clipped rows",
        "lazy_adam",
        "rowwise_adagrad",
    ],
)
def test_a_step_is_that_of_one_device(
    tiny: Workbench, model: dict[str, Any], training: dict[str, Any], count: int
) -> None:
    one, two = (steps(tiny, devices, model, training, count=count) for devices in (1, 2))
    assert two[0] == pytest.approx(one[0], rel=1e-6)
    for left, right in zip(two[1], one[1], strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-6, atol=1e-6 * np.abs(right).max())


@pytest.mark.parametrize("last", [1, 3])
def test_a_last_batch_of_few_rows(tiny: Workbench, last: int) -> None:
    training = {**PLAIN, "batch_size": rows(tiny) - last}
    one, two = (steps(tiny, devices, {}, training, skip=1) for devices in (1, 2))
    assert two[0] == pytest.approx(one[0], rel=1e-6)
    for left, right in zip(two[1], one[1], strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-6, atol=1e-7)


@pytest.fixture(scope="module")
def whole(tiny: Workbench, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return run(tiny, small_experiment(devices=2, checkpoint_steps=4), tmp_path_factory.mktemp("whole"))


def test_a_run_ends_as_on_one_device(tiny: Workbench, tmp_path: Path, whole: Any) -> None:
    # Rounding grows from step to step; scores of two devices joined would have an AUC of other rows.
    same_ending(whole, run(tiny, small_experiment(), tmp_path), tolerance=1e-5)
    assert whole.model.distribute_strategy.num_replicas_in_sync == 1


@pytest.mark.parametrize("devices", ["all", 1])
def test_a_killed_run_resumes(
    tiny: Workbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: Any, devices: Any
) -> None:
    with monkeypatch.context() as patch:
        kill_after(patch, 6)
        with pytest.raises(Killed):
            run(tiny, small_experiment(devices=2, checkpoint_steps=4), tmp_path)
    same_ending(run(tiny, small_experiment(devices=devices, checkpoint_steps=4), tmp_path), whole, tolerance=1e-5)


def test_devices_drop_out_different_elements() -> None:
    alone = Dropout(0.5, seed=1)(np.ones((8, 8), "float32"), training=True)
    strategy = strategy_of(Training(devices=2))
    with strategy.scope():
        layer = Dropout(0.5, seed=1)
    run_once = tf.function(lambda: strategy.run(lambda: layer(tf.ones((8, 8)), training=True)))
    first, second = strategy.experimental_local_results(run_once())
    np.testing.assert_array_equal(first, alone)
    assert np.mean(np.asarray(first) == np.asarray(second)) < 0.75


def test_moving_statistics_are_the_means_of_those_of_the_devices() -> None:
    strategy = strategy_of(Training(devices=2))
    with strategy.scope():
        layer = BatchNormalization(momentum=0.0)
        layer.build((None, 1))
    parts = strategy.experimental_distribute_values_from_function(
        lambda context: tf.constant([[0.0], [2.0]]) + 4.0 * context.replica_id_in_sync_group
    )
    tf.function(lambda: strategy.run(lambda part: layer(part, training=True), args=(parts,)))()
    for copy in layer.moving_mean.value.values:
        np.testing.assert_allclose(copy, [3.0])


def test_xla_is_refused(tiny: Workbench, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"training.jit_compile: XLA compiles a step for one device"):
        run(tiny, small_experiment(devices=2, jit_compile=True), tmp_path)


def test_xla_is_left_out_by_default(tiny: Workbench) -> None:
    training = small_experiment(devices=2, jit_compile=None).training
    with strategy_of(Training(devices=2)).scope():
        model = build_model(tiny.assets, small_experiment().model_config_of())
    compile_model(model, training)
    assert not model.jit_compile


def test_rows_are_scored_once(tiny: Workbench) -> None:
    experiment = small_experiment(devices=2)
    with strategy_of(Training(devices=2)).scope():
        model = build_model(tiny.assets, experiment.model_config_of())
    compile_model(model, experiment.training)
    assert model.predict_on_batch(dummy_inputs(tiny.file, batch=3)).shape[0] == 3


def test_a_model_for_another_number_of_devices(tiny: Workbench) -> None:
    model = build_model(tiny.assets, small_experiment().model_config_of())
    with pytest.raises(ValueError, match=r"Received: a model for 1, and a training for 2"):
        compile_model(model, small_experiment(devices=2).training)


def test_more_devices_than_there_are() -> None:
    with pytest.raises(UserError, match=r"devices: 3 are asked for, and there are: 2 logical CPU, .* at most 2,"):
        strategy_of(Training(devices=3))
