"""The raw function, against numbers worked out by hand."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tests.records import example, write_records
from tests.workbench import Workbench
from tfctr.data.analyze import analyze
from tfctr.errors import UserError
from tfctr.features import INT64_MISSING, FeatureFile
from tfctr.features.assets import FeatureAssets
from tfctr.features.parsing import parse_examples
from tfctr.features.transform import FileLookups, RawFunction

FEATURES: dict[str, Any] = {
    "labels": {"click": "label"},
    "group": "user_id",
    "timestamp": "timestamp",
    "meta": ["device"],
    "user": {
        "user_id": {"dtype": "int64"},
        "gender": {"dtype": "string", "vocabulary": {"type": "hash", "buckets": 3}},
        "age": {"dtype": "int64", "vocabulary": {"type": "identity", "size": 3}, "default": 1},
    },
    "candidate": {
        "item_id": {"dtype": "int64", "vocabulary": {"type": "learned", "min_count": 2}},
        "genres": {"dtype": "string", "max_values": 2},
        "city": {"dtype": "string", "vocabulary": {"type": "file", "path": "cities.txt"}},
        "price": {"kind": "numeric", "transform": "log1p", "default": 3.0},
        "year": {"kind": "numeric", "dtype": "int64", "transform": "zscore"},
        "clicks": {"kind": "numeric", "transform": "bucketize", "buckets": 2},
        "vector": {"kind": "frozen", "key": "item_id", "vectors": "vectors.npz"},
    },
    "sequences": {
        "history": {
            "max_length": 3,
            "fields": {"seen": {"share": "item_id"}, "seen_time": {"kind": "event_time"}},
        }
    },
}
ROWS: list[dict[str, Any]] = [
    {
        "user_id": [7], "gender": [b"F"], "age": [2], "item_id": [10], "genres": [b"a|b|c"], "city": [b"Rome"],
        "price": [0.5], "year": [1990], "clicks": [1.0], "timestamp": [1_000_000], "label": [1],
        "device": [b"tv"], "seen": [10, 20, 10, 30], "seen_time": [999_000, 998_999, 998_996, 5],
    },
    {
        "user_id": [8], "gender": [b"M"], "age": [3], "item_id": [20], "genres": [b"b"], "city": [b"Bonn"],
        "year": [2010], "clicks": [3.0], "timestamp": [1_003_600], "label": [0],
    },
]  # fmt: skip


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "cities.txt").write_text("Rome\nOslo\n")
    np.savez(tmp_path / "vectors.npz", ids=np.array([20, 10]), vectors=np.array([[3.0, 4.0], [0.0, 2.0]]))
    write_records(tmp_path / "train.tfrecord", ROWS)
    return tmp_path


@pytest.fixture
def file() -> FeatureFile:
    return FeatureFile.model_validate(FEATURES)


@pytest.fixture
def assets(data: Path, file: FeatureFile) -> FeatureAssets:
    return analyze(file, [data / "train.tfrecord"], data / "assets", data)


def test_analysis_learns_tokens_and_statistics(assets: FeatureAssets) -> None:
    # 10 is seen three times and 20 twice, candidates and histories together; 30 only once.
    assert assets.tokens("item_id") == [b"10", b"20"]
    assert assets.tokens("genres") == [b"b", b"a", b"c"]
    assert assets.tokens("city") == [b"Rome", b"Oslo"]
    assert assets.statistics["year"] == {
        "mean": 2000.0, "deviation": 10.0, "minimum": 1990.0, "maximum": 2010.0
    }  # fmt: skip
    assert assets.statistics["clicks"] == {"boundaries": [2.0]}
    assert [assets.table_rows(name) for name in ("item_id", "gender", "age", "seen", "clicks")] == [4, 4, 5, 4, 3]
    np.testing.assert_allclose(assets.frozen_vectors("vector"), [[0, 0], [0.6, 0.8], [0, 1]])


def test_every_kind(assets: FeatureAssets, file: FeatureFile) -> None:
    raw = parse_examples(tf.constant([example(row) for row in ROWS]), file)
    function = RawFunction(file, FileLookups(assets))
    out = {name: tensor.numpy() for name, tensor in function.all_sides(raw).items()}
    assert out["user_id"].tolist() == [1, 2]
    assert out["age"].tolist() == [3, 4]  # 2 -> 3; 3 is outside [0, 3): out of vocabulary
    assert out["item_id"].tolist() == [1, 2]
    assert out["genres"].tolist() == [[2, 1], [1, 0]]  # cut to two values
    assert out["city"].tolist() == [1, 3]
    np.testing.assert_allclose(out["price"], np.log1p([0.5, 3.0]), rtol=1e-6)  # missing: the default
    np.testing.assert_allclose(out["year"], [-1.0, 1.0])
    assert out["clicks"].tolist() == [1, 2]
    assert out["vector"].tolist() == [2, 1]
    assert out["seen"].tolist() == [[1, 2, 1], [0, 0, 0]]
    assert out["history_vector"].tolist() == [[2, 1, 2], [0, 0, 0]]
    assert out["history_length"].tolist() == [3, 0]
    assert out["seen_time"].tolist() == [[1, 2, 3], [0, 0, 0]]  # ages 0, 1 and 4 s: 1 + floor(log2(1 + age))
    assert out["history_newest_time"].tolist() == [999_000, INT64_MISSING]
    assert out["timestamp_hour"].tolist() == [1 + 13, 1 + 14]  # 1970-01-12 13:46:40 UTC, a Monday
    assert out["timestamp_weekday"].tolist() == [1, 1]
    assert all(tensor.dtype != np.int64 or "time" in name for name, tensor in out.items())


def test_missing_is_not_out_of_vocabulary(assets: FeatureAssets, file: FeatureFile) -> None:
    function = RawFunction(file, FileLookups(assets))
    raw = parse_examples(tf.constant([example({"label": [0]})]), file)
    out = function.all_sides(raw)
    assert out["item_id"].numpy().tolist() == [0]
    assert out["age"].numpy().tolist() == [2]  # the default 1
    assert out["city"].numpy().tolist() == [0]
    assert out["vector"].numpy().tolist() == [0]
    unknown = {**raw, "item_id": tf.constant([999], tf.int64), "city": tf.constant(["Paris"])}
    assert function.candidate(unknown)["item_id"].numpy().tolist() == [3]
    assert function.candidate(unknown)["city"].numpy().tolist() == [3]


def test_candidate_axis(assets: FeatureAssets, file: FeatureFile) -> None:
    """[B, C] gives what the rows give one by one."""
    function = RawFunction(file, FileLookups(assets))
    raw = parse_examples(tf.constant([example(row) for row in ROWS]), file)
    rows = function.candidate(raw)
    together = function.candidate({name: tensor[None] for name, tensor in raw.items()})
    for name, tensor in rows.items():
        np.testing.assert_array_equal(together[name].numpy()[0], tensor.numpy())


def test_what_stands_in_the_padding_is_ignored(assets: FeatureAssets, file: FeatureFile) -> None:
    function = RawFunction(file, FileLookups(assets))
    raw = dict(parse_examples(tf.constant([example(ROWS[0])]), file))
    raw["history_length"] = tf.constant([1], tf.int64)
    clean = function.user({**raw, "seen": tf.constant([[10, INT64_MISSING, INT64_MISSING]], tf.int64)})
    poisoned = function.user({**raw, "seen": tf.constant([[10, 20, -3]], tf.int64)})
    for name in clean:
        np.testing.assert_array_equal(clean[name].numpy(), poisoned[name].numpy())


def test_infinite_number_marks_its_row(assets: FeatureAssets, file: FeatureFile) -> None:
    function = RawFunction(file, FileLookups(assets))
    raw = dict(parse_examples(tf.constant([example(row) for row in ROWS]), file))
    raw["price"] = tf.constant([float("inf"), 1.0])
    price = function.candidate(raw)["price"].numpy()
    assert np.isnan(price[0])
    assert np.isfinite(price[1])


def test_vectors_are_checked(data: Path, file: FeatureFile) -> None:
    cases = {
        "stands twice": {"ids": np.array([1, 1]), "vectors": np.ones((2, 2))},
        "not finite": {"ids": np.array([1, 2]), "vectors": np.array([[1, np.nan], [1, 1]])},
        "must be": {"ids": np.array([1, 2]), "vectors": np.ones(2)},
        r"Received: \(2, 0\)": {"ids": np.array([1, 2]), "vectors": np.ones((2, 0))},
        "holds complex128": {"ids": np.array([1, 2]), "vectors": np.ones((2, 2), complex)},
        "`ids`": {"keys": np.array([1])},
    }
    for message, arrays in cases.items():
        np.savez(data / "vectors.npz", **arrays)
        with pytest.raises(UserError, match=message):
            analyze(file, [data / "train.tfrecord"], data / "other", data)
    (data / "vectors.npz").unlink()
    with pytest.raises(UserError, match="no such file"):
        analyze(file, [data / "train.tfrecord"], data / "other", data)
    assert not (data / "other").exists()


def test_a_column_of_another_type_is_told(data: Path, file: FeatureFile) -> None:
    with tf.io.TFRecordWriter(str(data / "bad.tfrecord")) as writer:
        writer.write(example({**ROWS[0], "item_id": [b"ten"]}))
    with pytest.raises(UserError, match="item_id"):
        analyze(file, [data / "bad.tfrecord"], data / "other", data)


def test_data_without_rows_or_without_numbers_is_told(data: Path, file: FeatureFile) -> None:
    timeless = {name: values for name, values in ROWS[0].items() if name != "year"}
    for rows, message in (([], "holds no example"), ([timeless], "column 'year' has no value")):
        with tf.io.TFRecordWriter(str(data / "bad.tfrecord")) as writer:
            for row in rows:
                writer.write(example(row))
        with pytest.raises(UserError, match=message):
            analyze(file, [data / "bad.tfrecord"], data / "other", data)
    assert not (data / "other").exists()


def test_real_rows_are_in_range(workbench: Workbench) -> None:
    """Every id of a real batch lies inside its table."""
    batch = next(iter(workbench.split("train").batches(256)))[0]
    for name in ("user_id", "item_id", "genres", "history_item_id", "history_genres", "history_rating", "position"):
        ids = batch[name].numpy()
        assert ids.min() >= 0
        assert ids.max() < workbench.assets.table_rows(name)


def test_ages_beside_an_event_without_a_time_are_unknown(assets: FeatureAssets) -> None:
    """An age is relative to the newest event: where that has no time, no event has an age."""
    unknown = INT64_MISSING
    times = [[unknown, 1000, 900], [1000, unknown, 900], [1000, 900, unknown], [unknown, unknown, 5]]
    raw = {"seen": tf.ones((4, 3), tf.int64), "seen_time": tf.constant(times, tf.int64)}
    raw |= {"user_id": tf.ones(4, tf.int64), "age": tf.ones(4, tf.int64), "gender": tf.fill(4, "F")}
    out = RawFunction(assets.file, FileLookups(assets)).user(
        {**raw, "history_length": tf.fill(4, tf.constant(3, tf.int64))}
    )
    assert out["seen_time"].numpy().tolist() == [[0, 0, 0], [1, 0, 7], [1, 7, 0], [0, 0, 0]]
    assert out["history_newest_time"].numpy().tolist() == [unknown, 1000, 1000, unknown]
