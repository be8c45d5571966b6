"""Several optimizers as one: whose weights are whose, one norm for all, rates that are lowered together."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.optimizers.tables import batches, summed, table, trained
from tfctr.optimizers import GroupedOptimizer, LazyAdam, LazySGD, Rate

SGD = keras.optimizers.SGD


def named(name: str, values: list[float]) -> keras.Variable:
    return keras.Variable(np.array(values, np.float32), name=name)


def test_each_weight_has_its_own() -> None:
    kernel, rows = named("kernel", [1.0, 1.0]), named("rows", [1.0, 1.0])
    grouped = GroupedOptimizer(SGD(0.1), {"rows": SGD(0.5)})
    grouped.build([kernel, rows])
    grouped.apply([tf.constant([1.0, 2.0]), tf.constant([1.0, 2.0])])
    np.testing.assert_allclose(kernel.numpy(), [0.9, 0.8])
    np.testing.assert_allclose(rows.numpy(), [0.5, 0.0])
    assert int(grouped.iterations) == 1


@pytest.mark.parametrize("jit", [False, True])
def test_clips_by_the_norm_of_the_summed_gradients(jit: bool) -> None:
    """A row that is read three times has one gradient, the sum; that of its parts is another norm."""
    [step] = batches([[3, 3, 3, 4]])
    total = summed(*step)
    norm = np.sqrt(np.sum(total**2))
    assert abs(np.sqrt(np.sum(step[1] ** 2)) - norm) > 0.1
    wanted = table().numpy() - 0.1 * total * 0.5 / norm
    for optimizer in (LazySGD(0.1), SGD(0.1)):
        found = trained(GroupedOptimizer(optimizer, clip_norm=0.5), [step], jit)
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
    below = trained(GroupedOptimizer(LazySGD(0.1), clip_norm=100.0), [step], jit)
    np.testing.assert_allclose(below, table().numpy() - 0.1 * total, rtol=1e-5, atol=1e-6)


def test_the_norm_is_that_of_all_groups() -> None:
    kernel, rows = named("kernel", [0.0]), named("rows", [0.0])
    grouped = GroupedOptimizer(SGD(1.0), {"rows": SGD(1.0)}, clip_norm=1.0)
    grouped.build([kernel, rows])
    grouped.apply([tf.constant([3.0]), tf.constant([4.0])])
    np.testing.assert_allclose([kernel.numpy()[0], rows.numpy()[0]], [-0.6, -0.8], rtol=1e-6)


def test_a_weight_without_a_gradient_stays() -> None:
    kernel, rows = named("kernel", [1.0]), named("rows", [1.0])
    grouped = GroupedOptimizer(SGD(1.0), {"rows": LazyAdam(1.0)}, clip_norm=1.0)
    grouped.build([kernel, rows])
    grouped.apply([tf.constant([0.5]), None])
    assert (kernel.numpy()[0], rows.numpy()[0]) == (0.5, 1.0)


def test_lowers_numbers_and_not_schedules() -> None:
    schedule = keras.optimizers.schedules.CosineDecay(1.0, 10)
    grouped = GroupedOptimizer(SGD(Rate(0.5, minimum=0.1)), {"rows": SGD(Rate(schedule))})
    grouped.lower(0.5)
    rates = [float(one.learning_rate) for one in grouped.optimizers]
    assert sorted(rates) == [0.25, 1.0]
    assert float(grouped.learning_rate) == 0.25
    grouped.lower(0.01)
    assert float(grouped.learning_rate) == pytest.approx(0.1)


def test_a_rate_that_a_callback_sets_is_refused_in_words() -> None:
    grouped = GroupedOptimizer(SGD(0.5), {"rows": SGD(0.1)})
    with pytest.raises(ValueError, match=r"that of several optimizers. Lower all of them .*plateau_factor"):
        grouped.learning_rate = 0.1
    assert float(grouped.learning_rate) == 0.5


def test_is_read_back_with_its_groups() -> None:
    shared = LazyAdam(Rate(0.1, warmup_steps=3))
    grouped = GroupedOptimizer(SGD(0.2), {"a": shared, "b": shared, "c": LazySGD(0.3)}, 2.0)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(grouped))
    assert again.tables["a"] is again.tables["b"]
    assert [type(again.tables[name]).__name__ for name in "abc"] == ["LazyAdam", "LazyAdam", "LazySGD"]
    assert again.clip_norm == 2.0
    assert again.get_config() == grouped.get_config()
    assert grouped.leaves_rows("a")
    assert not grouped.leaves_rows("kernel")
