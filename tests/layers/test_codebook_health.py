"""The figures of codebooks, by hand."""

import numpy as np
import pytest
from keras import ops

from tfctr.layers.codebook_health import CodebookHealth


def test_figures_are_means_over_the_events_of_all_batches() -> None:
    health = CodebookHealth(1, 2)
    for events, word, agreement, fit in ((3, 0, 1.0, 0.5), (1, 1, 0.6, 0.9)):
        one_hot = np.zeros((1, 1, 4, 2), "float32")
        one_hot[0, 0, :events, word] = 1.0
        figure = np.ones((1, 1, 4), "float32")
        health(100.0 * ops.convert_to_tensor(one_hot), word=one_hot, agreement=agreement * figure, fit=fit * figure)
    # The first batch is one step older: 3 * 0.99 events of the first word, and 1 of the second.
    first = 2.97 / 3.97
    figures = health.figures()
    assert figures["agreement"] == pytest.approx(first + 0.6 * (1 - first), rel=1e-5)
    assert figures["fit"] == pytest.approx(0.5 * first + 0.9 * (1 - first), rel=1e-5)
    entropy = -first * np.log(first) - (1 - first) * np.log(1 - first)
    assert figures["effective_words"] == pytest.approx(np.exp(entropy), rel=1e-4)
    assert figures["used_words"] == 2.0


def test_equal_shares_of_blurred_events_are_one_effective_word() -> None:
    """Balanced usage alone is no health: scores that are all alike tell nothing apart."""
    word = np.eye(2, dtype="float32")[None, None]
    ones = np.ones((1, 1, 2), "float32")
    health = CodebookHealth(1, 2)
    health(1e-3 * ops.convert_to_tensor(word), word=word, agreement=ones, fit=ones)
    assert health.figures()["effective_words"] == pytest.approx(1.0, abs=1e-4)
    assert health.figures()["used_words"] == 2.0


def test_before_any_event_there_are_zeros() -> None:
    health = CodebookHealth(2, 3)
    nothing = np.zeros((2, 1, 4, 3), "float32")
    health(nothing, word=nothing, agreement=nothing[..., 0], fit=nothing[..., 0])
    assert health.figures() == {"agreement": 0.0, "effective_words": 0.0, "fit": 0.0, "used_words": 0.0}
