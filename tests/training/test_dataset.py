"""Training input: raw and transformed reading agree, the order follows the seed, batches are skipped exactly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tests.workbench import Workbench
from tfctr.data.sources import split_files
from tfctr.errors import UserError
from tfctr.features import FeatureFile
from tfctr.features.columns import GROUP
from tfctr.features.inputs import model_inputs
from tfctr.features.parsing import outcomes, parse_examples
from tfctr.training.dataset import RankingData, transformed_parsing_spec

ROWS = 96


def rows_of(batches: Any) -> list[tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]]:
    return [({k: v.numpy() for k, v in x.items()}, y.numpy(), w.numpy()) for x, y, w in batches]


def write(path: Path, records: list[bytes]) -> str:
    options = "GZIP" if path.name.endswith(".gz") else None
    with tf.io.TFRecordWriter(str(path), options) as writer:
        for record in records:
            writer.write(record)
    return str(path)


def with_column(record: bytes, **columns: float) -> bytes:
    example = tf.train.Example.FromString(record)
    for name, value in columns.items():
        example.features.feature[name].float_list.value[:] = [value]
    return example.SerializeToString()


def transformed(workbench: Workbench, records: list[bytes], file: FeatureFile) -> list[bytes]:
    """Examples as the pipeline's Transform writes them: the outputs of the raw function, with integers as int64."""
    raw = parse_examples(tf.constant(records), file, outcomes(file))
    inputs = {name: tensor.numpy() for name, tensor in workbench.function.all_sides(raw).items()}
    written = []
    for row in range(len(records)):
        example = tf.train.Example()
        for spec in model_inputs(file):
            value = inputs[spec.name][row].ravel()
            feature = example.features.feature[spec.name]
            kind = feature.float_list if spec.dtype == "float32" else feature.int64_list
            kind.value.extend(value.tolist())
        example.features.feature[file.labels.evaluated].int64_list.value.append(int(raw[file.labels.evaluated][row]))
        example.features.feature[GROUP].int64_list.value.append(int(raw[file.group or ""][row]))
        if file.weight is not None:
            example.features.feature[file.weight].float_list.value.append(float(raw[file.weight][row]))
        written.append(example.SerializeToString())
    return written


@pytest.fixture(scope="module")
def records(workbench: Workbench) -> list[bytes]:
    return list(workbench.serialized("train", ROWS))


@pytest.fixture
def data(workbench: Workbench, records: list[bytes], tmp_path: Path) -> RankingData:
    path = write(tmp_path / "rows.tfrecord.gz", records)
    return RankingData.of_log(workbench.file, [path], workbench.function, tmp_path / "rows")


def test_raw_and_transformed_reading_agree(
    workbench: Workbench, records: list[bytes], data: RankingData, tmp_path: Path
) -> None:
    path = write(tmp_path / "transformed.tfrecord", transformed(workbench, records, workbench.file))
    other = RankingData.of_transformed(workbench.file, [path], tmp_path / "transformed")
    for (left, labels, weights), (right, labels2, weights2) in zip(
        rows_of(data.batches(40)), rows_of(other.batches(40)), strict=True
    ):
        assert left.keys() == right.keys()
        for name in left:
            assert left[name].dtype == right[name].dtype, name
            np.testing.assert_array_equal(left[name], right[name], err_msg=name)
        np.testing.assert_array_equal(labels, labels2)
        np.testing.assert_array_equal(weights, weights2)


def test_shapes_have_a_candidate_axis_of_one(workbench: Workbench, data: RankingData) -> None:
    ((inputs, labels, weights),) = rows_of(data.batches(ROWS))
    specs = {spec.name: spec for spec in model_inputs(workbench.file)}
    assert inputs.keys() == specs.keys()
    for name, spec in specs.items():
        lead = (ROWS, 1) if spec.side in ("candidate", "bias") else (ROWS,)
        assert inputs[name].shape == (*lead, *spec.shape), name
    assert labels.shape == weights.shape == (ROWS, 1)


def test_labels_are_those_of_the_log(records: list[bytes], data: RankingData) -> None:
    expected = [tf.train.Example.FromString(r).features.feature["label"].int64_list.value[0] for r in records]
    assert 0 < sum(expected) < ROWS
    ((_, labels, _),) = rows_of(data.batches(ROWS))
    np.testing.assert_array_equal(labels[:, 0], expected)


def test_weights(workbench: Workbench, records: list[bytes], tmp_path: Path) -> None:
    content = workbench.file.model_dump(mode="json", exclude_unset=True)
    file = FeatureFile.model_validate({**content, "weight": "importance"})
    # The second row has no weight column, so its weight is 1.
    features = [tf.train.Example.FromString(record).features.feature for record in records]
    click = next(r for r, one in zip(records, features, strict=True) if one["label"].int64_list.value == [1])
    weighted = [with_column(records[0], importance=2.5), click, with_column(records[2], importance=0.0)]
    raw = RankingData.of_log(file, [write(tmp_path / "raw.tfrecord", weighted)], workbench.function, tmp_path / "raw")
    path = write(tmp_path / "t.tfrecord", transformed(workbench, weighted, file))
    again = RankingData.of_transformed(file, [path], tmp_path / "again")
    for source in (raw, again):
        ((inputs, _, weights),) = rows_of(source.batches(3))
        np.testing.assert_array_equal(weights, [[2.5], [1.0], [0.0]])
        assert "importance" not in inputs
    assert "importance" in transformed_parsing_spec(file)


class TestOrder:
    def order(self, data: RankingData, size: int = 16, **arguments: Any) -> list[bytes]:
        """A fingerprint of every row, in order."""
        found = []
        for inputs, _, _ in rows_of(data.batches(size, **arguments)):
            for row in range(len(inputs["item_id"])):
                found.append(b"".join(inputs[name][row].tobytes() for name in sorted(inputs)))
        return found

    @pytest.mark.slow
    def test_follows_the_seed(self, data: RankingData) -> None:
        plain = self.order(data)
        seven = self.order(data, shuffle_seed=7)
        assert self.order(data) == plain
        assert self.order(data, shuffle_seed=7) == seven
        assert self.order(data, shuffle_seed=8) != seven != plain
        assert sorted(seven) == sorted(plain)

    @pytest.mark.slow
    def test_is_fixed_over_several_files(self, workbench: Workbench, records: list[bytes], tmp_path: Path) -> None:
        paths = [write(tmp_path / f"{i}.tfrecord", records[i::5]) for i in range(5)]
        data = RankingData.of_log(workbench.file, paths, workbench.function, tmp_path / "rows")
        orders = [self.order(data, shuffle_seed=3) for _ in range(3)]
        assert orders[0] == orders[1] == orders[2]
        assert len(orders[0]) == ROWS == len(data)

    @pytest.mark.slow
    def test_skip_goes_on_exactly_where_it_was(self, data: RankingData) -> None:
        whole = self.order(data, shuffle_seed=7)
        assert self.order(data, shuffle_seed=7, skip=2) == whole[32:]
        assert self.order(data, shuffle_seed=7, skip=6) == []

    def test_the_last_batch_may_be_short(self, data: RankingData) -> None:
        assert [len(y) for _, y, _ in rows_of(data.batches(40))] == [40, 40, 16]
        assert [len(y) for _, y, _ in rows_of(data.batches(400))] == [ROWS]


def test_no_records(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    with pytest.raises(UserError, match=r"train: no file of a log \(\*\.csv"):
        split_files(tmp_path, "train")
