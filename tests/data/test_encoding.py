import os
import struct
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tests.data.helpers import decode
from tfctr.data.examples import example, int64_feature, packed_int64s, text_feature, varint
from tfctr.data.tfrecord import ShardedWriter, masked_crc32c


def test_the_check_value_of_crc32c() -> None:
    plain = 0xE3069283  # Of the published test string.
    masked = ((plain >> 15 | plain << 17) + 0xA282EAD8) & 0xFFFFFFFF
    assert masked_crc32c([b"123456789"]).tolist() == [masked]


def test_sums_equal_those_that_tensorflow_writes(tmp_path: Path) -> None:
    records = [os.urandom(length) for length in [0, 1, 2, 3, 4, 5, 7, 8, 9, 100, 1023, 5000]]
    path = str(tmp_path / "theirs")
    with tf.io.TFRecordWriter(path) as writer:
        for record in records:
            writer.write(record)
    raw, offset, theirs = Path(path).read_bytes(), 0, []
    for record in records:
        offset += 12 + len(record)
        theirs.append(struct.unpack_from("<I", raw, offset)[0])
        offset += 4
    assert masked_crc32c(records).tolist() == theirs


@pytest.mark.parametrize("value", [0, 1, 127, 128, 300, 2**31, 2**63 - 1, -1, -(2**63)])
def test_int64s_survive(value: int) -> None:
    assert decode(example([int64_feature("x", value)])) == {"x": value}


def test_examples_parse_as_they_were_meant() -> None:
    record = example(
        [
            int64_feature("history_a", 1, 2, 300),
            packed_int64s("history_b", b""),
            text_feature("history_c", "Caf\xe9|x", "", "y" * 300),
            text_feature("history_d"),
            int64_feature("label", 1),
        ]
    )
    assert decode(record) == {
        "history_a": [1, 2, 300],
        "history_b": [],
        "history_c": ["Caf\xe9|x", "", "y" * 300],
        "history_d": [],
        "label": 1,
    }


def test_an_empty_list_keeps_its_kind() -> None:
    features = tf.train.Example.FromString(example([packed_int64s("a", b""), text_feature("b")])).features.feature
    assert features["a"].WhichOneof("kind") == "int64_list"
    assert features["b"].WhichOneof("kind") == "bytes_list"


def test_shards_hold_all_records_in_order(tmp_path: Path) -> None:
    records = [varint(number) * (number % 50 + 1) for number in range(5000)]
    with ShardedWriter(tmp_path, rows_per_shard=2100) as writer:
        for record in records:
            writer.write(record)
    paths = sorted(map(str, tmp_path.iterdir()))
    assert [os.path.basename(path) for path in paths] == [f"part-0000{n}.tfrecord.gz" for n in range(3)]
    assert [record.numpy() for record in tf.data.TFRecordDataset(paths, "GZIP")] == records


def test_records_far_larger_than_a_block(tmp_path: Path) -> None:
    records = [np.random.default_rng(number).bytes(3 << 20) for number in range(4)]
    with ShardedWriter(tmp_path) as writer:
        for record in records:
            writer.write(record)
    written = tf.data.TFRecordDataset([str(tmp_path / "part-00000.tfrecord.gz")], "GZIP")
    assert [record.numpy() for record in written] == records
