import gzip
import os
import struct
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tests.data.helpers import decode
from tfctr.data.examples import example, int64_feature, packed_int64s, text_feature, varint
from tfctr.data.sources.records import masked_crc32c
from tfctr.data.tfrecord import ShardedWriter


# "123456789" is the usual check string of CRCs; the other examples are in RFC 3720, appendix B.4.
@pytest.mark.parametrize(
    ("content", "plain"),
    [
        (b"123456789", 0xE3069283),
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(range(31, -1, -1)), 0x113FDB5C),
    ],
)
def test_published_sums(content: bytes, plain: int) -> None:
    masked = ((plain >> 15 | plain << 17) + 0xA282EAD8) & 0xFFFFFFFF
    assert masked_crc32c(content) == struct.pack("<I", masked)


def test_files_are_those_that_tensorflow_writes(tmp_path: Path) -> None:
    records = [os.urandom(length) for length in [0, 1, 2, 3, 4, 5, 7, 8, 9, 100, 1023, 5000]]
    with tf.io.TFRecordWriter(str(tmp_path / "theirs")) as theirs, ShardedWriter(tmp_path) as ours:
        for record in records:
            theirs.write(record)
            ours.write(record)
    assert gzip.decompress((tmp_path / "part-00000.tfrecord.gz").read_bytes()) == (tmp_path / "theirs").read_bytes()


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


@pytest.mark.slow
def test_shards_hold_all_records_in_order(tmp_path: Path) -> None:
    records = [varint(number) * (number % 50 + 1) for number in range(5000)]
    with ShardedWriter(tmp_path, rows_per_shard=2100) as writer:
        for record in records:
            writer.write(record)
    paths = sorted(map(str, tmp_path.iterdir()))
    assert [os.path.basename(path) for path in paths] == [f"part-0000{n}.tfrecord.gz" for n in range(3)]
    assert [record.numpy() for record in tf.data.TFRecordDataset(paths, "GZIP")] == records


def test_records_far_larger_than_the_buffer(tmp_path: Path) -> None:
    records = [np.random.default_rng(number).bytes(3 << 20) for number in range(4)]
    with ShardedWriter(tmp_path) as writer:
        for record in records:
            writer.write(record)
    written = tf.data.TFRecordDataset([str(tmp_path / "part-00000.tfrecord.gz")], "GZIP")
    assert [record.numpy() for record in written] == records
