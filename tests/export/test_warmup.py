"""No user's record is in what a run leaves or in a SavedModel, unless the experiment asks for one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2
from typer.testing import CliRunner

from tests.training.runs import small_experiment
from tests.workbench import Workbench
from tfctr.cli import app
from tfctr.export.saved_model import export_model
from tfctr.export.warmup import WARMUP_FILE, made_example
from tfctr.features import FeatureFile
from tfctr.features.parsing import parse_examples
from tfctr.training.experiment import Experiment, changed
from tfctr.training.workspace import train_in_workspace

FILE = FeatureFile.model_validate(
    {
        "labels": {"click": "label"},
        "embedding_dimension": 4,
        "user": {"who": {"dtype": "string"}, "age": {"kind": "numeric", "transform": "zscore", "default": 40}},
        "candidate": {"item": {"dtype": "string"}, "tags": {"dtype": "string", "max_values": 2}},
        "context": {"query": {"dtype": "string"}},
        "sequences": {"past": {"max_length": 3, "fields": {"past_item": {"share": "item"}}}},
    }
)
SECRETS = (b"person-", b"query-")


@dataclass(frozen=True)
class Desk:
    """A log, and the workspace of a run on it."""

    data: Path
    run: Path


def _table(rows: int, seed: int) -> pa.Table:
    generator = np.random.default_rng(seed)
    items = [f"item-{number}" for number in generator.integers(0, 9, rows)]
    return pa.table(
        {
            "label": generator.integers(0, 2, rows),
            "who": [f"person-{number}" for number in generator.integers(0, 9, rows)],
            "age": generator.uniform(18, 80, rows).astype("float32"),
            "query": [f"query-{number}" for number in generator.integers(0, 9, rows)],
            "item": items,
            "tags": ["red|blue"] * rows,
            "past_item": [items[:2]] * rows,
        }
    )


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    directory = tmp_path_factory.mktemp("desk")
    for seed, split in enumerate(("train", "valid")):
        (directory / "data" / split).mkdir(parents=True)
        pq.write_table(_table(300, seed), directory / "data" / split / "a.parquet")
    train_in_workspace(FILE, small_experiment(epochs=1), directory / "data", directory / "run")
    return Desk(directory / "data", directory / "run")


def _holds(directory: Path) -> set[str]:
    """The files that hold a user's name or a query, as they are or in hexadecimal digits."""
    found = set()
    for path in (one for one in directory.rglob("*") if one.is_file()):
        content = path.read_bytes()
        if any(secret in content or secret.hex().encode() in content for secret in SECRETS):
            found.add(str(path.relative_to(directory)))
    return found


def _export(run: Path, to: Path) -> Path:
    ran = CliRunner().invoke(app, ["export", "--run", str(run), "--to", str(to), "--version", "1"])
    assert ran.exit_code == 0, ran.output
    return to / "1"


def _requests(directory: Path) -> list[tuple[str, dict[str, Any]]]:
    requests = []
    for record in tf.data.TFRecordDataset(str(directory / WARMUP_FILE)):
        request = prediction_log_pb2.PredictionLog.FromString(record.numpy()).predict_log.request
        inputs = {name: tf.make_ndarray(tensor) for name, tensor in request.inputs.items()}
        requests.append((request.model_spec.signature_name, inputs))
    return requests


@pytest.mark.slow
def test_a_run_and_its_export_hold_no_record_of_a_user(desk: Desk, tmp_path: Path) -> None:
    # The vocabularies, and the copy of the rows that training reads, are what they are.
    assert {path.split("/")[0].split("-")[0] for path in _holds(desk.run)} <= {"assets", "rows"}
    directory = _export(desk.run, tmp_path)
    assert all(path.startswith("assets/") for path in _holds(directory))
    (name, inputs), (tower, user), *_ = _requests(directory)
    assert (name, tower) == ("serving_default", "user_tower")
    assert inputs["examples"].shape == (1,)
    assert user["past_item"].shape == (1, 3)
    assert user["past_item"][0, 0].startswith(b"item-")
    assert user["past_length"] == 3


@pytest.mark.slow
def test_a_real_row_is_there_for_the_asking(desk: Desk, tmp_path: Path) -> None:
    experiment = changed(small_experiment(epochs=1), ["export.warmup_row=logged"])
    train_in_workspace(FILE, experiment, desk.data, desk.run)
    directory = _export(desk.run, tmp_path)
    assert WARMUP_FILE in _holds(directory)
    train_in_workspace(FILE, small_experiment(epochs=1), desk.data, desk.run)


@pytest.mark.slow
def test_a_made_row_has_what_the_feature_file_says(workbench: Workbench) -> None:
    row = {name: value.numpy()[0] for name, value in _parsed(workbench).items()}
    tokens = workbench.assets.tokens("item_id")
    assert row["item_id"] == int(tokens[0])
    assert row["year"] == 1995
    assert row["genres"].count(b"|") <= 3
    assert row["history_length"] == len(row["history_item_id"]) == 12
    assert set(row["history_item_id"]) == {int(tokens[0])}
    assert row["user_id"] == row["age"] == row["timestamp"] == 0
    assert row["gender"] == b""


def _parsed(workbench: Workbench) -> dict[str, Any]:
    return parse_examples(tf.constant([made_example(workbench.assets)]), workbench.file)


@pytest.mark.slow
def test_every_signature_answers_the_made_requests(workbench: Workbench, tmp_path: Path) -> None:
    directory = Path(export_model(workbench.model("dmf"), workbench.assets, Experiment(preset="dmf"), tmp_path / "1"))
    loaded = tf.saved_model.load(str(directory))
    for name, inputs in _requests(directory):
        answer = loaded.signatures[name](**{key: tf.constant(value) for key, value in inputs.items()})
        assert np.isfinite(answer.get("probabilities", tf.zeros(1)).numpy()).all()
