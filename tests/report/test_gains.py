"""Which rows and columns are shuffled, and what that costs a model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.workbench import Workbench
from tfctr.data.sources import Rows, split_files
from tfctr.export.saved_model import export_model
from tfctr.features import load_feature_file
from tfctr.features.columns import Column
from tfctr.report.gains import _column_groups, feature_gains
from tfctr.report.sampling import SAMPLE, counted, spread, taken
from tfctr.training.experiment import Experiment
from tfctr.training.workspace import finished_run, train_in_workspace


@pytest.mark.parametrize("flat", [np.arange(6), pa.array(list("abcdef"))])
def test_rows_keep_all_of_their_values(flat: object) -> None:
    column = Column(flat, np.array([2, 0, 3, 1]))

    found = taken(column, np.array([2, 1, 0, 2]))

    assert found.lengths.tolist() == [3, 0, 2, 3]
    assert np.asarray(found.flat).tolist() == np.asarray(flat)[[2, 3, 4, 0, 1, 2, 3, 4]].tolist()


@pytest.mark.parametrize("stride", [1, 2, 3, 7])
def test_a_sample_is_every_so_manieth_row_of_the_split(stride: int) -> None:
    def pieces() -> Iterator[Rows]:
        for first, size in ((0, 4), (4, 1), (5, 6)):
            yield Rows({"a": Column(np.arange(first, first + size), np.ones(size, np.int64))}, str)

    found = [value for rows in spread(pieces(), stride * SAMPLE) for value in rows.columns["a"].values]

    assert found == list(range(0, 11, stride))


def test_rows_of_weight_0_are_not_shuffled_among_those_that_count(tmp_path: Path) -> None:
    file = load_feature_file(_written(tmp_path / "features.yaml", f"weight: importance\n{FEATURES}"))
    weights = pa.array([1.0, 0.0, None, 2.0], pa.float32())
    columns = {"label": [1, 0, 1, 0], "user_id": range(4), "gender": ["f"] * 4, "age": [30] * 4, "item_id": range(4)}
    pq.write_table(pa.table({**columns, "importance": weights}), tmp_path / "part.parquet")

    (rows,) = counted(file, [str(tmp_path / "part.parquet")], "rows")

    assert rows.columns["item_id"].values.tolist() == [0, 2, 3]


def _written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_a_history_is_shuffled_as_a_whole(workbench: Workbench) -> None:
    groups = _column_groups(workbench.file)

    side, columns = groups["history"]
    assert side == "user"
    assert len(columns) > 1
    assert "item_id" in groups
    assert not {*columns} & groups.keys()


FEATURES = """
labels: {click: label}
group: user_id
embedding_dimension: 4
user: {user_id: {dtype: int64}, gender: {dtype: string}, age: {dtype: int64}}
candidate: {item_id: {dtype: int64}}
"""


def test_what_tells_nothing_gains_nothing_and_what_tells_all_gains_all(tmp_path: Path) -> None:
    """A log whose label is a function of `gender`, and in which all users have the same `age`."""
    generator = np.random.default_rng(0)
    for split, size in (("train", 2000), ("valid", 500), ("test", 1000)):
        gender = generator.choice(["f", "m"], size)
        columns = {
            "user_id": generator.integers(0, 50, size),
            "gender": gender,
            "age": np.full(size, 30),
            "item_id": generator.integers(0, 20, size),
            "label": (gender == "f").astype(np.int64),
        }
        (tmp_path / "data" / split).mkdir(parents=True)
        pq.write_table(pa.table(columns), tmp_path / "data" / split / "rows.parquet")
    (tmp_path / "features.yaml").write_text(FEATURES)
    file = load_feature_file(tmp_path / "features.yaml")
    training = {"epochs": 2, "batch_size": 64, "learning_rate": 0.05, "jit_compile": False}
    experiment = Experiment.model_validate({"preset": "lr", "training": training})
    train_in_workspace(file, experiment, tmp_path / "data", tmp_path / "run")
    run = finished_run(tmp_path / "run")
    model = export_model(run.model, run.assets, run.experiment, tmp_path / "models" / "1", None, run.history)

    found = feature_gains(model, file, split_files(tmp_path / "data", "test"), 1000)

    assert {gain.feature: gain.side for gain in found} == {
        "gender": "user",
        "user_id": "user",
        "age": "user",
        "item_id": "candidate",
    }
    by_name = {gain.feature: gain.auc for gain in found}
    assert found[0].feature == "gender"
    assert by_name["age"].value == 0.0
    # An AUC of 1 becomes one of chance, and no user is so small that all of its draws agree.
    assert by_name["gender"].value == pytest.approx(0.5, abs=0.06)
    assert 0.4 < by_name["gender"].low < by_name["gender"].value < by_name["gender"].high < 0.6
