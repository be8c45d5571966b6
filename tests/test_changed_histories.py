"""The benchmark of changed histories: which events are gone, and which are another row's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from benchmarks.changed_histories import with_wrong_events, without_newest
from tfctr.features import FeatureFile

FILE = FeatureFile.model_validate(
    {
        "labels": {"click": "label"},
        "timestamp": "now",
        "candidate": {"item": {}, "genres": {"dtype": "string", "max_values": 2}},
        "sequences": {
            "history": {
                "max_length": 4,
                "fields": {
                    "seen": {"share": "item"},
                    "seen_genres": {"share": "genres", "max_values": 2},
                    "seen_time": {"kind": "event_time"},
                },
            }
        },
    }
)
LENGTHS = [4, 2, 0, 3] * 50


@pytest.fixture
def raw() -> dict[str, Any]:
    """Rows whose events say which row and place they are of."""
    seen = 10 * np.arange(len(LENGTHS))[:, None] + np.arange(4)
    return {
        "history_length": tf.constant(LENGTHS, tf.int64),
        "seen": tf.constant(seen),
        "seen_genres": tf.strings.as_string(tf.stack([seen, -seen], -1)),
        "seen_time": tf.constant(seen + 5),
        "item": tf.range(len(LENGTHS)),
    }


def test_the_newest_events_are_gone(raw: dict[str, Any]) -> None:
    found = without_newest(FILE, 3)(raw)
    np.testing.assert_array_equal(found["history_length"], np.maximum(np.array(LENGTHS) - 3, 0))
    np.testing.assert_array_equal(found["seen"][:, 0], raw["seen"][:, 3])
    np.testing.assert_array_equal(found["seen_genres"][:, 0], raw["seen_genres"][:, 3])
    np.testing.assert_array_equal(found["seen_time"][:, 0], raw["seen_time"][:, 3])
    assert found["item"] is raw["item"]
    assert not np.any(without_newest(FILE, 9)(raw)["history_length"])


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_wrong_events_are_whole_events_of_others(raw: dict[str, Any], share: float) -> None:
    found = with_wrong_events(FILE, share)(raw)
    seen, before = found["seen"].numpy(), raw["seen"].numpy()
    real = np.arange(4) < np.array(LENGTHS)[:, None]
    np.testing.assert_array_equal(seen % 10, before % 10)  # the same place
    np.testing.assert_array_equal(seen[~real], before[~real])
    assert np.all(np.array(LENGTHS)[seen // 10][real] > (seen % 10)[real])  # no padding of another row
    np.testing.assert_array_equal(found["seen_genres"], tf.strings.as_string(tf.stack([seen, -seen], -1)))
    np.testing.assert_array_equal(found["seen_time"], raw["seen_time"])
    possible = np.mean(seen[:, 0][real[:, 0]] != before[:, 0][real[:, 0]])
    # A quarter of the others has no event at all, and the own row may be drawn.
    assert possible == pytest.approx(0.75 * share, abs=0.12)
