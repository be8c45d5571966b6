"""Optimizers of tables: equal to dense ones where mathematics says so, to a NumPy trace elsewhere."""

from __future__ import annotations

import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.optimizers.tables import ROWS, WIDTH, batches, random_batches, summed, table, trained
from tfctr.optimizers import LazyAdagrad, LazyAdam, LazyFtrl, LazySGD, RowOptimizer, RowwiseAdagrad
from tfctr.optimizers.rows import summed as summed_rows

LAZY = (LazyAdam, LazyAdagrad, RowwiseAdagrad, LazySGD, LazyFtrl)
jit = pytest.mark.parametrize("jit", [False, True], ids=["graph", "XLA"])


def close(found: object, wanted: object) -> None:
    np.testing.assert_allclose(found, wanted, rtol=2e-5, atol=2e-6)


@jit
@pytest.mark.parametrize(
    ("lazy", "dense"),
    [
        (LazySGD(0.1), keras.optimizers.SGD(0.1)),
        (LazyAdagrad(0.1), keras.optimizers.Adagrad(0.1)),
    ],
    ids=["sgd", "adagrad"],
)
def test_equals_the_dense_one_that_leaves_unread_rows(
    lazy: RowOptimizer, dense: keras.optimizers.Optimizer, jit: bool
) -> None:
    steps = random_batches(5, 30)
    close(trained(lazy, steps, jit), trained(dense, steps, dense=True))


FTRL = {"learning_rate": 0.1, "l1_regularization_strength": 0.3, "l2_regularization_strength": 0.2}


@jit
@pytest.mark.parametrize(
    ("lazy", "dense"),
    [
        (LazyAdam(0.1), keras.optimizers.Adam(0.1, epsilon=1e-8)),
        (LazyFtrl(**FTRL), keras.optimizers.Ftrl(**FTRL)),
    ],
    ids=["adam", "ftrl"],
)
def test_equals_the_dense_one_where_every_batch_reads_every_row(
    lazy: RowOptimizer, dense: keras.optimizers.Optimizer, jit: bool
) -> None:
    steps = batches([[*range(ROWS), *range(0, ROWS, 3)]] * 5)
    close(trained(lazy, steps, jit), trained(dense, steps, dense=True))


@jit
def test_lazy_adam_by_a_trace(jit: bool) -> None:
    """With a penalty and a decay on the rows of the batch, each counted once."""
    steps = random_batches(6, 25)
    weights = table().numpy().astype(np.float64)
    momentum, velocity = np.zeros_like(weights), np.zeros_like(weights)
    for count, (ids, gradient) in enumerate(steps, start=1):
        read = np.unique(ids)
        total = summed(ids, gradient)[read] + 0.3 * weights[read]
        momentum[read] = 0.8 * momentum[read] + 0.2 * total
        velocity[read] = 0.99 * velocity[read] + 0.01 * total**2
        moved = 0.05 * np.sqrt(1 - 0.99**count) / (1 - 0.8**count) * momentum[read] / (np.sqrt(velocity[read]) + 1e-3)
        weights[read] -= moved + 0.05 * 0.2 * weights[read]
    optimizer = LazyAdam(0.05, beta_1=0.8, beta_2=0.99, epsilon=1e-3, weight_decay=0.2, l2=0.3)
    close(trained(optimizer, steps, jit), weights)


@jit
def test_rowwise_adagrad_by_a_trace(jit: bool) -> None:
    steps = random_batches(6, 25)
    weights, accumulator = table().numpy().astype(np.float64), np.full((ROWS, 1), 0.5)
    for ids, gradient in steps:
        total = summed(ids, gradient)
        accumulator += np.mean(total**2, axis=1, keepdims=True)
        weights -= 0.2 * total / np.sqrt(accumulator + 1e-7)
    close(trained(RowwiseAdagrad(0.2, initial_accumulator_value=0.5), steps, jit), weights)


@pytest.mark.parametrize("made", LAZY)
def test_unread_rows_stay_bit_for_bit(made: type[RowOptimizer]) -> None:
    steps = batches([[1, 1, 5], [5, 7]])
    found = trained(made(0.1, weight_decay=0.5, l2=0.5), steps)
    changed = np.flatnonzero((found != table().numpy()).any(axis=1))
    assert changed.tolist() == [1, 5, 7]


@pytest.mark.parametrize("made", LAZY)
def test_dense_gradients_make_the_same_step(made: type[RowOptimizer]) -> None:
    """As on backends whose look-ups have dense gradients."""
    steps = random_batches(4, 25)
    close(trained(made(0.1, l2=0.1), steps, dense=True), trained(made(0.1, l2=0.1), steps))


@settings(max_examples=40, deadline=None)
@given(ids=st.lists(st.integers(0, 6), min_size=1, max_size=30))
def test_sums_equal_rows(ids: list[int]) -> None:
    """What earlier batches left in the places of rows does not count, and a second time changes nothing."""
    places = tf.Variable([5, 0, 3, 99, -7, 1, 2])
    [(rows, values)] = batches([ids])
    found = summed_rows(tf.IndexedSlices(values, rows), places)
    close(tf.math.unsorted_segment_sum(found.values, found.indices, 7), summed(rows, values, 7))
    close(tf.gather(found.values, found.representatives), summed(rows, values, 7)[rows])
    assert np.count_nonzero(np.any(found.values != 0, axis=1)) == len(set(ids))
    assert summed_rows(found, places) is found


@pytest.mark.parametrize(("made", "numbers"), [(LazyAdam, 2 * WIDTH), (RowwiseAdagrad, 1), (LazySGD, 0)])
def test_memory_beside_the_weights(made: type[RowOptimizer], numbers: int) -> None:
    optimizer = made(0.1)
    optimizer.build([table()])
    own = [one for one in optimizer.variables if len(one.shape) == 2]
    assert sum(np.prod(one.shape) for one in own) == numbers * ROWS


@pytest.mark.parametrize("made", LAZY)
def test_config_makes_an_equal_one(made: type[RowOptimizer]) -> None:
    optimizer = made(0.1, weight_decay=0.2, l2=0.3)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(optimizer))
    assert type(again) is made
    assert again.get_config() == optimizer.get_config()
    steps = random_batches(2, 25)
    np.testing.assert_array_equal(trained(again, steps), trained(optimizer, steps))


def test_a_compiled_step_copies_no_array_as_long_as_a_table() -> None:
    optimizer = LazyAdam(0.1)
    tables = [keras.Variable(np.zeros((rows, 2), "float32"), name=f"table{rows}") for rows in (3000, 5000, 4000)]
    optimizer.build(tables)

    @tf.function(jit_compile=True)
    def step(ids: tf.Tensor) -> None:
        gradients = [tf.IndexedSlices(tf.ones((4, 2)), ids) for _ in tables]
        optimizer.apply([optimizer.sum_of(*pair) for pair in zip(gradients, tables, strict=True)])

    program = step.experimental_get_compiler_ir(tf.constant([1, 2, 1, 0]))(stage="optimized_hlo")
    assert "s32[5000]" in program
    assert not re.findall(r"\[[345]000\S* copy\(", program)
