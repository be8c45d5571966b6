"""The benchmark of changed histories: which events are gone, and which are another row's."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import typer
from typer.testing import CliRunner

from benchmarks.changed_histories import main, with_wrong_events, without_newest
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
def test_wrong_events_are_whole_events_of_any_row(raw: dict[str, Any], share: float) -> None:
    found = with_wrong_events(FILE, share)(raw)
    seen, before = found["seen"].numpy(), raw["seen"].numpy()
    real = np.arange(4) < np.array(LENGTHS)[:, None]
    np.testing.assert_array_equal(seen[~real], before[~real])
    assert np.all(np.array(LENGTHS)[seen // 10][real] > (seen % 10)[real])  # no padding of another row
    np.testing.assert_array_equal(found["seen_genres"], tf.strings.as_string(tf.stack([seen, -seen], -1)))
    np.testing.assert_array_equal(found["seen_time"], raw["seen_time"])
    # The event itself may be drawn, one of 450.
    assert np.mean(seen[real] != before[real]) == pytest.approx(share, abs=0.05 if 0 < share < 1 else 0.01)


def test_no_wrong_event_where_there_is_none(raw: dict[str, Any]) -> None:
    empty = {**raw, "history_length": tf.zeros_like(raw["history_length"])}
    np.testing.assert_array_equal(with_wrong_events(FILE, 1.0)(empty)["seen"], raw["seen"])


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--missing=-3"], "--missing: needs counts of events, comma-separated. Received: -3"),
        (["--missing", "1.5"], "--missing: needs counts of events, comma-separated. Received: 1.5"),
        (["--missing", "a"], "--missing: needs counts of events, comma-separated. Received: a"),
        (["--noise", "0.1,2"], "--noise: needs shares from 0 to 1, comma-separated. Received: 0.1,2"),
        (["--missing", "", "--noise", ""], "nowhere: holds no finished run"),
    ],
)
def test_options_that_are_refused(options: list[str], told: str, tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(main)
    refused = CliRunner().invoke(app, ["nowhere", "--data", str(tmp_path), *options])
    assert refused.exit_code == 2
    assert told in re.sub(r"[│\s]+", " ", refused.output)
