import csv
import json
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.data.helpers import content, read_split
from tfctr.data.rows import COLUMNS
from tfctr.data.splits import SPLITS
from tfctr.data.synthesize import synthesize
from tfctr.data.synthetic_world import POSITION_BIAS, Settings, World
from tfctr.metrics.reference import auc, gauc

pytestmark = pytest.mark.slow

SMALL = Settings(rows=3000, users=80, items=200, history_length=20, vector_width=24)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("synthetic") / "out"
    synthesize(out, SMALL)
    return out


@pytest.fixture(scope="module")
def rows(made: Path) -> dict[str, list[dict[str, Any]]]:
    return {split: read_split(made, split) for split in SPLITS}


def truth(settings: Settings) -> dict[str, np.ndarray]:
    """What the generator knew about each row, in the order of the records."""
    columns: dict[str, list[np.ndarray]] = {}
    for block in World(settings).blocks():
        per_row = {
            "user": block.user[block.request],
            "relevance": block.relevance,
            "probability": block.probability,
            "label": block.label,
            "position": block.position,
        }
        for name, values in per_row.items():
            columns.setdefault(name, []).append(values)
    return {name: np.concatenate(values) for name, values in columns.items()}


def test_columns_are_those_of_the_real_data_plus_position(rows: dict[str, list[dict[str, Any]]]) -> None:
    for split in SPLITS:
        for row in rows[split]:
            assert set(row) == {*COLUMNS, "position"}
            assert row["label"] in (0, 1)
            assert row["gender"] in ("F", "M")
            lengths = {len(row[name]) for name in row if name.startswith("history_")}
            assert len(lengths) == 1
            assert lengths.pop() <= SMALL.history_length
            assert all(1 <= rating <= 5 for rating in row["history_rating"])
    assert sum(map(len, rows.values())) == SMALL.rows


def test_histories_are_in_the_past_newest_first_and_hold_the_clicks(rows: dict[str, list[dict[str, Any]]]) -> None:
    clicks: dict[int, list[tuple[int, int]]] = {}
    for row in (row for split in SPLITS for row in rows[split]):
        assert all(time < row["timestamp"] for time in row["history_time"])
        assert row["history_time"] == sorted(row["history_time"], reverse=True)
        past = [event for event in clicks.get(row["user_id"], []) if event[0] < row["timestamp"]]
        shown = list(zip(row["history_time"], row["history_item_id"], strict=True))
        newest = past[::-1][: SMALL.history_length]
        assert shown[: len(newest)] == newest
        if row["label"]:
            clicks.setdefault(row["user_id"], []).append((row["timestamp"], row["item_id"]))
    assert max(map(len, clicks.values())) > SMALL.history_length  # The ring buffers have wrapped around.


def test_requests_are_groups_in_order_of_time(rows: dict[str, list[dict[str, Any]]]) -> None:
    everything = [row for split in SPLITS for row in rows[split]]
    times = [row["timestamp"] for row in everything]
    assert times == sorted(times)
    requests: dict[str, list[dict[str, Any]]] = {}
    for row in everything:
        requests.setdefault(row["request_id"], []).append(row)
    assert len({row["timestamp"] for row in everything}) == len(requests)
    for members in requests.values():
        assert [row["position"] for row in members] == list(range(len(members)))
        assert len({row["item_id"] for row in members}) == len(members)
        assert len({tuple(row["history_item_id"]) for row in members}) == 1
    assert np.mean([len(members) for members in requests.values()]) > 5
    names = [{row["request_id"] for row in rows[split]} for split in SPLITS]
    assert names[0].isdisjoint(names[1])
    assert names[1].isdisjoint(names[2])
    np.testing.assert_allclose([len(rows[split]) / SMALL.rows for split in SPLITS], [0.8, 0.1, 0.1], atol=0.01)


def test_slices_are_counted_on_train(rows: dict[str, list[dict[str, Any]]]) -> None:
    for column, key in (("user_activity", "user_id"), ("item_popularity", "item_id")):
        counts: dict[int, int] = {}
        for row in rows["train"]:
            counts[row[key]] = counts.get(row[key], 0) + 1
        order = ["new", "low", "medium", "high"]
        levels = {row[key]: order.index(row[column]) for split in SPLITS for row in rows[split]}
        assert all((level == 0) == (name not in counts) for name, level in levels.items())
        by_count = sorted((counts.get(name, 0), level) for name, level in levels.items())
        assert [level for _, level in by_count] == sorted(levels.values())


def test_ids_genres_and_vectors_agree_over_the_files(made: Path, rows: dict[str, list[dict[str, Any]]]) -> None:
    with (made / "items.csv").open(encoding="utf-8") as file:
        items = {int(row["item_id"]): row for row in csv.DictReader(file)}
    assert sorted(items) == list(range(1, SMALL.items + 1))
    with np.load(made / "item_vectors.npz") as vectors:
        assert sorted(vectors["ids"].tolist()) == sorted(items)
        assert vectors["vectors"].shape == (SMALL.items, SMALL.vector_width)
        np.testing.assert_allclose(np.linalg.norm(vectors["vectors"].astype(np.float32), axis=1), 1, atol=2e-3)
    for row in rows["test"]:
        assert (row["genres"], str(row["year"])) == (items[row["item_id"]]["genres"], items[row["item_id"]]["year"])
        assert row["history_genres"] == [items[item]["genres"] for item in row["history_item_id"]]


def test_the_reported_ceiling_is_that_of_the_true_probabilities(
    made: Path, rows: dict[str, list[dict[str, Any]]]
) -> None:
    known = truth(SMALL)
    test = slice(SMALL.rows - len(rows["test"]), None)
    assert known["label"][test].tolist() == [row["label"] for row in rows["test"]]
    assert (known["user"][test] + 1).tolist() == [row["user_id"] for row in rows["test"]]
    ceilings = json.loads((made / "dataset.json").read_text())["ceilings"]
    label, user = known["label"][test], known["user"][test]
    for name, column in (("position_known", "probability"), ("position_unknown", "relevance")):
        scores = known[column][test]
        assert ceilings[name]["auc"]["drawn_labels"] == pytest.approx(auc(label, scores), abs=1e-6)
        assert ceilings[name]["gauc"]["drawn_labels"] == pytest.approx(gauc(label, scores, user).value, abs=1e-6)
        for metric in ("auc", "gauc"):
            value = ceilings[name][metric]
            assert abs(value["drawn_labels"] - value["expected"]) < 4 * value["standard_deviation"]
    assert ceilings["position_known"]["auc"]["expected"] > ceilings["position_unknown"]["auc"]["expected"]


def expected_auc(probability: np.ndarray, scores: np.ndarray) -> float:
    """The expected AUC over random labels: all pairs, weighted by the probability of a click and a non-click.

    It is an approximation, since the numbers of clicks and non-clicks are random too.
    """
    wins = np.sign(scores[:, None] - scores[None, :]) * 0.5 + 0.5
    weights = probability[:, None] * (1 - probability[None, :])
    np.fill_diagonal(weights, 0)
    return float((wins * weights).sum() / weights.sum())


def test_nothing_ranks_better_than_the_ceiling() -> None:
    known = truth(SMALL)
    probability, rng = known["probability"][-800:], np.random.default_rng(0)
    best = expected_auc(probability, probability)
    assert expected_auc(probability, 3 * probability - 1) == best
    rivals = {
        "relevance without position": known["relevance"][-800:],
        "position": -known["position"][-800:].astype(float),
        **{f"noise {number}": probability + rng.normal(0, 0.02, 800) for number in range(20)},
    }
    for name, scores in rivals.items():
        assert expected_auc(probability, scores) < best, name
    assert expected_auc(probability, rivals["position"]) < 0.65  # The position is not the planted signal.


def test_the_position_bias_is_the_documented_one() -> None:
    known = truth(replace(SMALL, rows=200_000))
    logit = np.log(known["probability"] / (1 - known["probability"]))
    np.testing.assert_allclose(known["relevance"] - logit, POSITION_BIAS * np.log1p(known["position"]), atol=1e-9)
    first, fifth = known["position"] == 0, known["position"] == 4
    assert known["relevance"][first].mean() == pytest.approx(known["relevance"][fifth].mean(), abs=0.03)
    assert known["label"][first].mean() > known["label"][fifth].mean() + 0.1
    assert known["label"].mean() == pytest.approx(known["probability"].mean(), abs=0.005)


def test_vectors_tell_an_interest_from_the_rest_of_its_genre() -> None:
    settings = Settings(rows=8000)
    world = World(settings)
    vectors = world.vectors.astype(np.float32)
    users, items, _, _ = world.past(0, settings.users)
    histories = [vectors[items[users == user]] for user in range(settings.users)]
    similarity, same_genre, label = [], [], []
    for block in world.blocks():
        for user, item, clicked in zip(block.user[block.request], block.item, block.label, strict=True):
            close = histories[user] @ vectors[item] > 0.45
            similarity.append(close.mean() if len(close) else 0.0)
            genres = world.genre[items[users == user]]
            same_genre.append((genres == world.genre[item]).mean() if len(genres) else 0.0)
            label.append(clicked)
    by_vector, by_genre = auc(label, similarity), auc(label, same_genre)
    assert by_vector > 0.72
    assert by_genre < by_vector - 0.1
    assert by_genre > 0.55


def test_items_tell_their_planted_topic(made: Path) -> None:
    world = World(SMALL)
    with (made / "items.csv").open(encoding="utf-8") as file:
        told = {int(row["item_id"]): int(row["topic"]) for row in csv.DictReader(file)}
    assert told == dict(zip(world.item_id.tolist(), world.topic.tolist(), strict=True))
    assert len(set(told.values())) == SMALL.topics == 48


def test_there_are_as_many_topics_as_asked() -> None:
    world = World(replace(SMALL, topics_of_genre=2))
    assert sorted(set(world.topic.tolist())) == list(range(24))
    np.testing.assert_array_equal(world.genre, world.topic // 2)
    assert world.interests.max() < 24


def test_unseen_users_are_in_no_other_split(tmp_path: Path) -> None:
    synthesize(tmp_path / "out", replace(SMALL, unseen_users=True))
    users = {split: {row["user_id"] for row in read_split(tmp_path / "out", split)} for split in SPLITS}
    assert users["train"].isdisjoint(users["valid"] | users["test"])
    assert users["valid"].isdisjoint(users["test"])
    assert (max(users["train"]), max(users["valid"]), max(users["test"])) <= (64, 72, 80)
    counts = json.loads((tmp_path / "out/dataset.json").read_text())["splits"]
    assert sum(count["rows"] for count in counts.values()) == SMALL.rows
    assert {split: count["users"] for split, count in counts.items()} == {key: len(one) for key, one in users.items()}


def test_the_seed_decides_every_byte(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        synthesize(tmp_path / name, replace(SMALL, seed=seed))
    assert content(tmp_path / "a") == content(tmp_path / "b")
    with np.load(tmp_path / "a/item_vectors.npz") as a, np.load(tmp_path / "b/item_vectors.npz") as b:
        np.testing.assert_array_equal(a["vectors"], b["vectors"])
    different = content(tmp_path / "c")
    assert all(different[name] != value for name, value in content(tmp_path / "a").items())


def test_a_history_of_a_thousand(tmp_path: Path) -> None:
    synthesize(tmp_path / "out", replace(SMALL, users=20, rows=400, history_length=1000))
    longest = max(len(row["history_time"]) for row in read_split(tmp_path / "out", "test"))
    assert 500 < longest <= 1000


def test_memory_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    synthesize(tmp_path / "warm-up", replace(SMALL, rows=1000))
    peaks = []
    for rows in (6_000, 24_000):
        tracemalloc.start()
        synthesize(tmp_path / str(rows), replace(SMALL, rows=rows))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # Keeping the records would take 12 MB more. The ceilings keep 32 bytes for each of the first million test rows.
    assert peaks[1] - peaks[0] < 1_000_000, peaks


def test_an_old_interest_shows_only_in_old_events() -> None:
    settings = Settings(rows=3000, users=200, items=400, history_length=200, old_interest_after=50)
    world = World(settings)
    user, item, _, _ = world.past(0, settings.users)
    newer = np.concatenate([np.arange(count)[::-1] for count in np.bincount(user, minlength=settings.users)])
    only = (world.interests[:, :1] != world.interests[:, 1:]) | (np.arange(1, 4) >= world.interest_count[:, None])
    told = only.all(axis=1)[user]
    of_first = world.topic[item] == world.interests[user, 0]
    # Draws by popularity alone give the first interest a share of a few per cent everywhere.
    assert of_first[told & (newer < 50)].mean() < 0.05
    assert of_first[told & (newer >= 50)].mean() > 0.2
    # Hiding the interest in the histories changes neither the candidates nor their labels.
    for hidden, plain in zip(world.blocks(), World(replace(settings, old_interest_after=0)).blocks(), strict=True):
        np.testing.assert_array_equal(hidden.item, plain.item)
        np.testing.assert_array_equal(hidden.label, plain.label)


@pytest.mark.parametrize("candidates", [1, 3, 8, 16])
def test_requests_have_as_many_candidates_as_asked_for(candidates: int) -> None:
    settings = Settings(rows=3000, users=50, items=200, history_length=4, candidates=candidates)
    # The last request is cut to the rows that are left.
    sizes = np.concatenate([np.bincount(block.request) for block in World(settings).blocks()])[:-1]
    fewest, most = (candidates + 1) // 2, 2 * candidates - (candidates + 1) // 2
    assert (sizes.min(), sizes.max()) == (fewest, most)
    assert sizes.mean() == pytest.approx(candidates, rel=0.1)
