"""`tfctr data check` names the record and the fault."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tests.data.helpers import write_vectors
from tfctr.data.check import check_dataset
from tfctr.data.sources import tfrecord
from tfctr.data.sources.records import Example
from tfctr.data.synthesize import synthesize
from tfctr.data.synthetic_world import Settings
from tfctr.errors import UserError
from tfctr.features import load_feature_file

FILE = load_feature_file(Path(__file__).parents[2] / "configs/synthetic.yaml")


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("check") / "data"
    synthesize(out, Settings(rows=600, users=20, items=60, history_length=10))
    return out


def change_third_record(directory: Path, change: Callable[[tf.train.Example], object]) -> None:
    path = str(directory / "valid" / "part-00000.tfrecord.gz")
    records = [record.numpy() for record in tf.data.TFRecordDataset(path, "GZIP")]
    example = tf.train.Example.FromString(records[2])
    change(example)
    records[2] = example.SerializeToString()
    with tf.io.TFRecordWriter(path, "GZIP") as writer:
        for record in records:
            writer.write(record)


def put(name: str, *values: int) -> Callable[[tf.train.Example], object]:
    def change(example: tf.train.Example) -> None:
        example.features.feature[name].int64_list.value[:] = values

    return change


def test_sound_data_passes(sound: Path) -> None:
    assert sum(check_dataset(sound, FILE)[0].values()) == 600
    assert set(check_dataset(sound, FILE, limit=7)[0].values()) == {7}


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (put("label", 2), "label must be 0 or 1. Received: 2"),
        (put("label", -1), "label must be 0 or 1. Received: -1"),
        (put("label"), "label must be 0 or 1. Received: nothing"),
        (put("gender", 1), "gender is int64; the feature file says string"),
        (put("age", 1, 2), "age has 2 values"),
        (put("history_rating", *[1] * 77), "the columns of a history must have one length"),
        (put("timestamp", 5), "is not before timestamp 5"),
    ],
)
def test_a_bad_record(sound: Path, tmp_path: Path, change: Callable[[tf.train.Example], object], match: str) -> None:
    directory = tmp_path / "data"
    shutil.copytree(sound, directory)
    change_third_record(directory, change)
    with pytest.raises(UserError, match=rf"valid/part-00000.tfrecord.gz, record 3: .*{match}"):
        check_dataset(directory, FILE)


def test_a_column_that_the_feature_file_does_not_name_is_listed(sound: Path, tmp_path: Path) -> None:
    directory = tmp_path / "data"
    shutil.copytree(sound, directory)
    change_third_record(directory, put("colour", 1))
    assert check_dataset(directory, FILE)[1] == ["colour"]


def test_a_record_is_parsed_once(sound: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[bytes] = []

    class Counted:
        @staticmethod
        def FromString(record: bytes) -> Any:  # noqa: N802  as protobuf calls it
            parsed.append(record)
            return Example.FromString(record)

    monkeypatch.setattr(tfrecord, "Example", Counted)
    monkeypatch.delitem(sys.modules, "tensorflow")  # as in `tfctr data check`
    check_dataset(sound, FILE)
    assert len(parsed) == 600


def test_equal_seconds_are_a_leak(sound: Path, tmp_path: Path) -> None:
    directory = tmp_path / "data"
    shutil.copytree(sound, directory)

    def leak(example: tf.train.Example) -> None:
        feature = example.features.feature
        feature["history_time"].int64_list.value[:] = feature["timestamp"].int64_list.value
        for name in ("history_item_id", "history_rating"):
            feature[name].int64_list.value[:] = [1]
        feature["history_genres"].bytes_list.value[:] = [b"Drama"]

    change_third_record(directory, leak)
    with pytest.raises(UserError, match=r"record 3: history_time .* is not before timestamp"):
        check_dataset(directory, FILE)


def test_damaged_files_items_and_vectors(sound: Path, tmp_path: Path) -> None:
    directory = tmp_path / "data"
    shutil.copytree(sound, directory)
    write_vectors(directory / "item_vectors.npz", [1, 1], np.ones((2, 3)))
    with pytest.raises(UserError, match=r"item_vectors.npz: id 1 stands twice"):
        check_dataset(directory, FILE)
    shutil.copy(sound / "item_vectors.npz", directory)
    items = directory / "items.csv"
    items.write_text(items.read_text() + "7,Again,Drama,1990\n")
    with pytest.raises(UserError, match=r"items.csv, line 62: item 7 is there twice, first in line 8"):
        check_dataset(directory, FILE)
    items.write_bytes("item_id,title\n1,Amélie\n".encode("latin-1"))
    with pytest.raises(UserError, match=r"items.csv: not a CSV file in UTF-8: 'utf-8' codec can't decode byte 0xe9"):
        check_dataset(directory, FILE)
    shutil.copy(sound / "items.csv", directory)
    shard = directory / "test" / "part-00000.tfrecord.gz"
    shard.write_bytes(shard.read_bytes()[:-500])
    with pytest.raises(UserError, match=r"test/part-00000.tfrecord.gz is damaged or cut off after record \d+"):
        check_dataset(directory, FILE)
    shard.unlink()
    with pytest.raises(UserError, match="test: no file of a log"):
        check_dataset(directory, FILE)
