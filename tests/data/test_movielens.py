import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.data.helpers import RATINGS, content, read_split, write_movielens, write_vectors
from tfctr.data.prepare import Options, prepare_movielens
from tfctr.data.splits import SPLITS


def prepared(tmp_path: Path, options: Options | None = None, **changed: str) -> dict[str, dict[tuple[int, int], Any]]:
    """Rows by split and by (user, item)."""
    out = tmp_path / "out"
    prepare_movielens(write_movielens(tmp_path / "source", **changed), out, options or Options(), force=True)
    return {split: {(row["user_id"], row["item_id"]): row for row in read_split(out, split)} for split in SPLITS}


def test_every_column_of_a_row_worked_out_by_hand(tmp_path: Path) -> None:
    rows = prepared(tmp_path)
    assert rows["test"] == {
        (1, 11): {
            "user_id": 1,
            "gender": "F",
            "age": 25,
            "occupation": 7,
            "item_id": 11,
            "genres": "Comedy|Drama",
            "year": 1999,
            "timestamp": 900,
            "history_item_id": [10, 9, 8, 7, 6, 5, 4, 3, 1, 2],
            "history_genres": ["Drama"] * 10,
            "history_rating": [2, 4, 4, 5, 5, 2, 4, 1, 5, 3],
            "history_time": [800, 700, 600, 500, 400, 300, 300, 200, 100, 100],
            "label": 1,
            "request_id": "1-900",
            "user_activity": "medium",
            "item_popularity": "new",
            "hour": "00",
        }
    }
    assert set(rows["valid"]) == {(1, 10)}
    assert set(rows["train"]) == {(1, item) for item in (1, 3, 4, 5, 6, 7, 8, 9)} | {(2, 1)}


def test_labels_neutral_rows_and_history_of_train_rows(tmp_path: Path) -> None:
    train = prepared(tmp_path)["train"]
    assert {item: row["label"] for (user, item), row in train.items() if user == 1} == {
        1: 1, 3: 0, 4: 1, 5: 0, 6: 1, 7: 1, 8: 1, 9: 1,
    }  # fmt: skip
    assert train[1, 1]["history_item_id"] == []  # Item 2 was rated in the same second, a line earlier.
    assert train[1, 3]["history_item_id"] == [1, 2]  # The neutral rating is in the history.
    assert train[1, 4]["history_item_id"] == train[1, 5]["history_item_id"] == [3, 1, 2]  # Neither holds the other.
    assert train[1, 4]["request_id"] == train[1, 5]["request_id"] == "1-300"
    assert train[2, 1]["history_item_id"] == []  # The events of user 1 are not in it.
    assert train[2, 1]["hour"] == "01"
    assert train[2, 1]["user_activity"] == "low"  # 1 of 9 train rows; user 1 has the other 8.


def test_neutral_rows_as_negatives(tmp_path: Path) -> None:
    rows = prepared(tmp_path, Options(neutral="negative"))
    together = {**rows["train"], **rows["valid"], **rows["test"]}
    assert len(together) == 13
    assert together[1, 2]["label"] == together[1, 12]["label"] == 0
    assert "year" not in together[1, 12]  # The title "Undated" names no year.


@pytest.mark.parametrize(("length", "expected"), [(1, 1), (3, 3), (1000, 10)])
def test_history_length_cuts_the_oldest(tmp_path: Path, length: int, expected: int) -> None:
    row = prepared(tmp_path, Options(history_length=length))["test"][1, 11]
    assert row["history_item_id"] == [10, 9, 8, 7, 6, 5, 4, 3, 1, 2][:expected]
    assert row["history_rating"] == [2, 4, 4, 5, 5, 2, 4, 1, 5, 3][:expected]
    assert len(row["history_time"]) == len(row["history_genres"]) == expected


def test_the_histories_may_be_those_of_the_first_row_in_some_seconds(tmp_path: Path) -> None:
    splits = prepared(tmp_path, Options(history_ttl_seconds=10**9))
    mine = [row for rows in splits.values() for (user, _), row in rows.items() if user == 1]
    assert len(mine) > 5
    assert [row for row in mine if row.get("history_item_id")] == []


@pytest.mark.slow
def test_a_history_of_a_thousand_events(tmp_path: Path) -> None:
    movies = "".join(f"{item}::Film {item} (2000)::Drama|War\n" for item in range(1, 1301))
    ratings = "".join(f"1::{item}::{4 + item % 2}::{item * 10}\n" for item in range(1, 1301))
    row = prepared(tmp_path, Options(history_length=1000), movies=movies, ratings=ratings)["test"][1, 1300]
    assert row["history_item_id"] == list(range(1299, 299, -1))
    assert row["history_time"] == [item * 10 for item in range(1299, 299, -1)]
    assert row["history_genres"] == ["Drama|War"] * 1000


def test_gzip_and_plain_files_give_the_same(tmp_path: Path) -> None:
    plain, packed = write_movielens(tmp_path / "plain"), write_movielens(tmp_path / "packed", compress=True)
    for source in (plain, packed):
        prepare_movielens(source, tmp_path / "out" / source.name, Options())
    assert [(tmp_path / "out" / "plain" / split / "part-00000.parquet").read_bytes() for split in SPLITS] == [
        (tmp_path / "out" / "packed" / split / "part-00000.parquet").read_bytes() for split in SPLITS
    ]


def test_windows_line_ends_and_a_missing_last_line_end(tmp_path: Path) -> None:
    rows = prepared(tmp_path, ratings=RATINGS.replace("\n", "\r\n").rstrip())
    assert set(rows["test"]) == {(1, 11)}


def test_the_slices_come_from_train_alone(tmp_path: Path) -> None:
    movies = "".join(f"{item}::Film {item} (2000)::Drama\n" for item in range(1, 60))
    ratings = "".join(f"1::{item}::5::{item * 10}\n" for item in range(1, 41)) + "2::1::5::7\n2::2::5::8\n"
    honest = prepared(tmp_path, movies=movies, ratings=ratings)
    poisoned_lines = ratings
    for item in (
        37,
        38,
        39,
        40,
    ):  # The test rows of user 1 get another item and another label.
        poisoned_lines = poisoned_lines.replace(f"1::{item}::5::", f"1::{item + 19}::1::")
    poisoned = prepared(tmp_path, movies=movies, ratings=poisoned_lines)
    assert {key[1] for key in honest["test"]} == {37, 38, 39, 40}
    assert {key[1] for key in poisoned["test"]} == {56, 57, 58, 59}
    assert honest["train"] == poisoned["train"]
    assert {row["item_popularity"] for row in poisoned["test"].values()} == {"new"}


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    source = write_movielens(tmp_path / "source")
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        prepare_movielens(source, tmp_path / name, Options(split="random", neutral="negative", seed=seed))
    assert content(tmp_path / "a") == content(tmp_path / "b")
    assert content(tmp_path / "a")["train/part-00000.parquet"] != (content(tmp_path / "c")["train/part-00000.parquet"])


def test_limits(tmp_path: Path) -> None:
    ratings = "".join(f"{user}::{item}::5::{item * 10}\n" for user in (1, 2) for item in range(1, 13))
    rows = prepared(tmp_path, Options(users=1), ratings=ratings)
    assert sum(map(len, rows.values())) == 12
    assert len({user for split in rows.values() for user, _ in split}) == 1
    rows = prepared(tmp_path, Options(rows=22), ratings=ratings)
    items = {user: {item for split in rows.values() for key, item in split if key == user} for user in (1, 2)}
    assert sorted(map(len, items.values())) == [10, 12]
    assert {11, 12}.isdisjoint(min(items.values(), key=len))  # The earliest rows are kept.


def test_items_manifest_and_vectors(tmp_path: Path) -> None:
    source = write_movielens(tmp_path / "source")
    vectors = np.arange(26, dtype=np.float16).reshape(13, 2)
    np.savez(source / "text_vectors.npz", movie_id=np.arange(3, 16, dtype=np.int32), vector=vectors)
    out = tmp_path / "out"
    prepare_movielens(source, out, Options())
    with (out / "items.csv").open(encoding="utf-8") as file:
        items = list(csv.DictReader(file))
    assert items[10] == {"item_id": "11", "title": "Caf\xe9, The (1999)", "genres": "Comedy|Drama", "year": "1999"}
    assert items[11] == {"item_id": "12", "title": "Undated", "genres": "Horror", "year": ""}
    with np.load(out / "item_vectors.npz") as written:
        assert set(written.files) == {"ids", "vectors"}
        assert written["ids"].dtype == np.int64
        assert written["ids"].tolist() == list(range(3, 16))
        np.testing.assert_array_equal(written["vectors"], vectors)
    manifest = json.loads((out / "dataset.json").read_text())
    assert manifest["splits"]["train"] == {"rows": 9, "positives": 7, "requests": 8, "users": 2}
    assert manifest["item_vectors"] == {"width": 2, "items": 13, "share_of_items_covered": round(10 / 12, 6)}
    assert [source["file"] for source in manifest["source"]] == ["ratings.dat", "users.dat", "movies.dat"]


@pytest.mark.parametrize("kind", ["npz", "npy", "txt"])
def test_layouts_of_item_vectors(tmp_path: Path, kind: str) -> None:
    source, path = write_movielens(tmp_path / "source"), tmp_path / "mine.npy"
    vectors = np.eye(12, 5, dtype=np.float64)
    ids = np.arange(12, 0, -1)
    if kind == "npz":
        path = write_vectors(tmp_path / "mine.npz", ids, vectors)
    else:
        np.save(path, vectors)
        if kind == "npy":
            np.save(tmp_path / "mine.ids.npy", ids)
        else:
            (tmp_path / "mine.ids.txt").write_text("".join(f"{item}\n" for item in ids))
    prepare_movielens(source, tmp_path / "out", Options(), item_vectors=path)
    with np.load(tmp_path / "out" / "item_vectors.npz") as written:
        assert written["vectors"].dtype == np.float32
        np.testing.assert_array_equal(written["vectors"], vectors)
        np.testing.assert_array_equal(written["ids"], ids)
