import pickle

import numpy as np
import pytest

from tfctr.metrics.buffer import ImpressionBuffer


def filled(groups, rows=10, weight=1.0):
    buffer = ImpressionBuffer()
    for row in range(rows):
        buffer.add_row(row % 2, np.float32(row / 10).item(), groups[row % len(groups)], weight)
    return buffer


@pytest.mark.parametrize("groups", [[1, 2**62], [b"a", b"abc"]])
def test_rows_merge_and_pickle(groups, monkeypatch):
    monkeypatch.setattr(ImpressionBuffer, "PACK", 4)
    first, second = filled(groups), filled(groups[::-1], weight=2.0)
    second = pickle.loads(pickle.dumps(second))
    first.merge(second)
    assert first.rows == 20
    labels, scores, names, weights = first.columns()
    np.testing.assert_array_equal(labels, [0, 1] * 10)
    np.testing.assert_array_equal(scores, np.tile(np.arange(10, dtype=np.float32) / np.float32(10), 2))
    np.testing.assert_array_equal(names, np.array((groups * 5) + (groups[::-1] * 5)))
    np.testing.assert_array_equal(weights, [1.0] * 10 + [2.0] * 10)
    first.merge(ImpressionBuffer())
    assert first.rows == first.columns()[0].size == 20
    first.clear()
    assert first.rows == first.columns()[0].size == 0


def test_a_row_of_a_float32_model_costs_thirteen_bytes():
    buffer = filled([7, 8], rows=100_000)
    assert len(pickle.dumps(buffer)) < 13.1 * 100_000
    # float64 scores keep their precision.
    buffer.add_row(1, 0.1, 7, 1.0)
    assert buffer.columns()[1][-1] == 0.1


def test_what_the_caller_does_with_its_array_later_does_not_matter():
    buffer, scores = ImpressionBuffer(), np.array([0.1, 0.2])
    buffer.add_rows(np.array([0, 1]), scores, scores, scores)
    scores[:] = 9
    for column in buffer.columns()[1:]:
        np.testing.assert_array_equal(column, [0.1, 0.2])
