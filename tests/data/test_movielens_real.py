"""Tests on the publisher's data, where a copy lies beside the checkout."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.data.helpers import read_split
from tfctr.data.build.counts import DrawCounts, SecondCounts
from tfctr.data.movielens import read_movielens
from tfctr.data.prepare import Options, prepare, prepare_movielens
from tfctr.data.splits import SPLITS, by_time

SOURCE = Path(__file__).parents[3] / "shared/data/movielens-1m"

pytestmark = pytest.mark.skipif(not SOURCE.is_dir(), reason=f"MovieLens-1M is not at {SOURCE}")


@pytest.mark.slow
def test_no_event_of_a_history_is_at_or_after_the_second_of_its_row(tmp_path: Path) -> None:
    out = tmp_path / "out"
    prepare_movielens(SOURCE, out, Options(users=40))
    data = read_movielens(SOURCE)
    events: dict[int, list[tuple[int, int, int]]] = {}
    for user, item, rating, time in zip(
        *(c.tolist() for c in (data.user, data.item, data.rating, data.time)), strict=True
    ):
        events.setdefault(user, []).append((time, item, rating))
    shared = rows = 0
    last_of_split: dict[int, int] = {}
    for split in SPLITS:
        latest: dict[int, int] = {}
        for row in read_split(out, split):
            user, second = row["user_id"], row["timestamp"]
            earlier = [event for event in events[user] if event[0] < second]
            shown = list(zip(row["history_time"], row["history_item_id"], row["history_rating"], strict=True))
            assert all(time < second for time, _, _ in shown)
            assert [time for time, _, _ in shown] == [time for time, _, _ in earlier[::-1][:50]]
            assert not set(shown) - set(earlier)
            assert row["item_id"] not in row["history_item_id"]  # Nobody rates a film twice here.
            assert row["history_genres"] == [data.movies[item].genres for item in row["history_item_id"]]
            assert (second, row["item_id"], row["label"]) in {(t, i, int(r > 3)) for t, i, r in events[user] if r != 3}
            assert second > last_of_split.get(user, -1)
            latest[user] = max(latest.get(user, 0), second)
            shared += sum(event[0] == second for event in events[user]) > 1
            rows += 1
        last_of_split |= latest
    assert shared / rows > 0.5  # Most rows share their second with another event, so the checks are not vacuous.


@pytest.mark.slow
def test_rows_and_splits_of_the_whole() -> None:
    data = read_movielens(SOURCE)
    rows = data.rating != 3
    assert len(data.user) == 1_000_209
    assert rows.sum() == 739_012
    assert round(float((data.rating[rows] > 3).mean()), 4) == 0.7784
    user, time = data.user[rows], data.time[rows]
    seconds, draws = SecondCounts(*np.unique(time, return_counts=True)), np.random.default_rng(17).random(len(user))
    cuts = {"global-time": (seconds.cut(), time), "random": (DrawCounts(len(draws), draws=draws).cut(), draws)}
    sizes = {"user-time": np.bincount(by_time(user, time))}
    for name, (cut, values) in cuts.items():
        sizes[name] = np.bincount(np.select([values >= cut.test, values >= cut.valid], [2, 1], 0))
    assert sizes["random"].tolist() == [591_209, 73_901, 73_902]
    np.testing.assert_allclose(sizes["global-time"] / 739_012, [0.8, 0.1, 0.1], atol=0.001)
    # These shares are less exact, since a second is never split and many users rated dozens of films in one second.
    np.testing.assert_allclose(sizes["user-time"] / 739_012, [0.8, 0.1, 0.1], atol=0.02)


@pytest.mark.e2e
def test_all_of_it_is_written(tmp_path: Path) -> None:
    out = tmp_path / "out"
    prepare_movielens(SOURCE, out, Options())
    counts = json.loads((out / "dataset.json").read_text())["splits"]
    assert sum(count["rows"] for count in counts.values()) == 739_012
    assert sum(count["positives"] for count in counts.values()) == 575_281
    test = read_split(out, "test")
    assert len(test) == counts["test"]["rows"]
    assert all(time < row["timestamp"] for row in test for time in row["history_time"][:1])
    assert {row["user_activity"] for row in test} == {"low", "medium", "high"}


@pytest.mark.slow
def test_the_table_of_fields_has_the_rows_that_are_published(tmp_path: Path) -> None:
    manifest = prepare("movielens-1m-ctr", SOURCE, tmp_path / "out")
    counts = manifest["splits"]
    assert [counts[split]["rows"] for split in SPLITS] == [591_209, 73_901, 73_902]
    assert sum(count["positives"] for count in counts.values()) == 575_281
    train = read_split(tmp_path / "out", "train")
    # What is published counts padding and unknown values too: 6042, 4, 9, 23 and, by another split, 3643 films.
    for column, values in {"user_id": 6040, "gender": 2, "age": 7, "occupation": 21, "item_id": 3647}.items():
        assert len({row[column] for row in train}) == values
    assert len({genre for row in train for genre in row["genres"].split("|")}) == 18
