"""Models that read nothing of a user, or only one half of one: fields without a history, a history without fields."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import yaml
from tensorflow_serving.apis import prediction_log_pb2
from typer.testing import CliRunner

from serving.server import Server
from tests.client.connect import CLIENTS, Connect
from tests.export.conftest import save_rows
from tests.export.test_served_parity import run
from tests.records import write_records
from tests.workbench import Workbench
from tfctr.cli import app
from tfctr.data.analyze import analyze
from tfctr.export.describe import describe
from tfctr.export.saved_model import export_model
from tfctr.export.warmup import WARMUP_FILE
from tfctr.features import FeatureFile, raw_inputs
from tfctr.training.experiment import Experiment

ROWS = 96
CANDIDATE = {"item_id": {"dtype": "int64"}, "price": {"kind": "numeric", "transform": "zscore"}}
CONTEXT = {"site": {"dtype": "string"}}
USER = {"user_id": {"dtype": "int64"}}
HISTORY = {"history": {"max_length": 3, "fields": {"history_item_id": {"share": "item_id"}}}}
FILES: dict[str, dict[str, Any]] = {
    "candidate": {},
    "candidate and context": {"context": CONTEXT},
    "user fields": {"context": CONTEXT, "user": USER},
    "history": {"context": CONTEXT, "sequences": HISTORY},
}
Exports = dict[str, tuple[Workbench, Path]]
WITHOUT_USER = ["candidate", "candidate and context"]


def a_row(row: int, generator: np.random.Generator) -> dict[str, Any]:
    """A row with every column that one of the files reads."""
    item, user, site = (int(generator.integers(10)) for _ in range(3))
    history = [int(one) for one in generator.integers(10, size=row % 4)]
    price = float(item) + float(generator.normal())

    return {
        "click": int(generator.random() < (item + site) / 20),
        "visitor": f"v{user}",
        "item_id": item,
        "user_id": user,
        "site": f"s{site}",
        "history_item_id": history,
        "price": price,
    }


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory, generator = tmp_path_factory.mktemp("data"), np.random.default_rng(3)
    for split in ("train", "valid", "test"):
        write_records(directory / split / "rows.tfrecord", [a_row(row, generator) for row in range(ROWS)])
    return directory


def content(name: str) -> dict[str, Any]:
    """A feature file."""
    return {
        "labels": {"click": "click"},
        "group": "visitor",
        "meta": ["visitor"],
        "embedding_dimension": 4,
        "candidate": CANDIDATE,
        **FILES[name],
    }


def bench(name: str, data: Path, directory: Path) -> Workbench:
    file = FeatureFile.model_validate(content(name))
    return Workbench(data, file, analyze(file, [str(data / "train" / "rows.tfrecord")], directory / "assets", data))


@pytest.fixture(scope="module")
def exports(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Exports:
    """A wide model of each file, which has weights of its own for the user's fields, exported."""
    found = {}
    for name in FILES:
        directory = tmp_path_factory.mktemp("served")
        made = bench(name, data, directory)
        interests = [{"type": "mean"}] if made.file.sequences else []
        experiment = Experiment(model={"interests": interests, "interaction": {"type": "deepfm"}})
        model = made.model(experiment.model_config_of())
        found[name] = made, export_model(model, made.assets, experiment, directory / "1")
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_the_signatures_are_those_that_the_file_has_inputs_for(exports: Exports, name: str) -> None:
    made, directory = exports[name]
    described = describe(directory)
    raw = {spec.name: spec.side for spec in raw_inputs(made.file)}
    state = [tensor.name for tensor in described.state]
    scored = [tensor.name for tensor in described.inputs["score"]]
    assert sorted(scored) == sorted([*state, *(column for column, side in raw.items() if side != "user")])
    assert [tensor.name for tensor in described.outputs["score"]] == ["probabilities"]
    towers = {"user_tower"} if "user" in raw.values() else set()
    assert set(described.inputs) == {"serving_default", "score"} | towers
    assert bool(state) == ("model_tag" in state) == (name not in WITHOUT_USER)
    assert described.made["model_tag"] > 0
    assert (described.made["cost"]["trained"]["flops_per_user"] > 0) == (name == "history")


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_the_warm_up_requests_run(exports: Exports, name: str) -> None:
    _, directory = exports[name]
    loaded = tf.saved_model.load(str(directory))
    signatures = []
    for record in tf.data.TFRecordDataset(str(directory / WARMUP_FILE)):
        request = prediction_log_pb2.PredictionLog.FromString(record.numpy()).predict_log.request
        signatures.append(request.model_spec.signature_name)
        inputs = {key: tf.constant(tf.make_ndarray(tensor)) for key, tensor in request.inputs.items()}
        probabilities = loaded.signatures[signatures[-1]](**inputs).get("probabilities", tf.zeros(1))
        assert np.isfinite(probabilities).all()
    towers = [] if name in WITHOUT_USER else ["user_tower"]
    assert signatures == ["serving_default", *towers, "score", "score"]


@pytest.mark.slow
@pytest.mark.parametrize("name", WITHOUT_USER)
def test_a_bad_candidate_is_a_bad_candidate_alone(exports: Exports, name: str) -> None:
    made, directory = exports[name]
    raw = made.raw("test", 6)
    inputs = {one.name: raw[one.name] for one in raw_inputs(made.file) if one.side == "context"}
    inputs = {key: value[:2] for key, value in inputs.items()}
    inputs |= {key: raw[key].reshape(2, 3) for key in CANDIDATE}
    score = tf.saved_model.load(str(directory)).signatures["score"]

    def scores() -> np.ndarray:
        return score(**{key: tf.constant(value) for key, value in inputs.items()})["probabilities"].numpy()

    clean = scores()
    assert clean.shape == (2, 3)
    assert np.isfinite(clean).all()
    inputs["price"][1, 2] = np.inf
    bad = scores()
    assert np.isnan(bad[1, 2])
    bad[1, 2] = clean[1, 2]
    np.testing.assert_array_equal(bad, clean)
    none = {key: value[:, :0] if value.ndim == 2 else value for key, value in inputs.items()}
    inputs = none
    assert scores().shape == (2, 0)


@pytest.mark.e2e
@pytest.mark.parametrize("name", WITHOUT_USER)
def test_the_command_line_trains_exports_and_evaluates(data: Path, tmp_path: Path, name: str) -> None:
    features, experiment = tmp_path / "features.yaml", tmp_path / "experiment.yaml"
    features.write_text(yaml.safe_dump(content(name)))
    training = {"epochs": 1, "batch_size": 32, "jit_compile": False, "dtype": "mixed_bfloat16"}
    experiment.write_text(yaml.safe_dump({"preset": "dcnv2", "model": {"interests": []}, "training": training}))

    def call(*arguments: object) -> str:
        ran = CliRunner().invoke(app, [str(argument) for argument in arguments])
        assert ran.exit_code == 0, (ran.output, ran.exception)
        return ran.stdout

    files = ["--features", features, "--data", data]
    call("train", *files, "--experiment", experiment, "--out", tmp_path / "run")
    call("export", "--run", tmp_path / "run", "--to", tmp_path / "model", "--version", 1)
    printed = json.loads(call("inspect", tmp_path / "model" / "1", "--json"))
    assert set(printed["inputs"]) == {"serving_default", "score"}
    assert "state of a user" not in call("inspect", tmp_path / "model" / "1")
    assert "auc" in call("evaluate", "--model", tmp_path / "model" / "1", "--data", data).lower()


@pytest.mark.e2e
@pytest.mark.parametrize("connect", CLIENTS.values(), ids=CLIENTS)
@pytest.mark.parametrize("name", WITHOUT_USER)
def test_the_clients_rank_over_the_server(exports: Exports, tmp_path: Path, connect: Connect, name: str) -> None:
    made, directory = exports[name]
    shutil.copytree(directory, tmp_path / "ranking" / "1")
    raw = made.raw("test", 3)
    whole = tf.saved_model.load(str(directory)).signatures["serving_default"]
    context = {"site": raw["site"][0].decode()} if "site" in raw else {}
    expected = [
        float(whole(examples=tf.constant([serialized]))["probabilities"][0])
        for serialized in made.serialized("test", 1)
    ]
    candidates = {column: raw[column] for column in CANDIDATE}
    with (
        Server(tmp_path / "ranking", "ranking") as server,
        connect(server.address, timeout_seconds=60) as client,
    ):
        scores = client.score(None, candidates, context)
        ranked = client.rank(None, candidates, context)
        asked = ["client", "rank", "--target", server.address, "--model", "ranking", "--timeout", "60", "--json"]
        columns = {column: values.tolist() for column, values in candidates.items()}
        asked += ["--candidates", json.dumps(columns), "--context", json.dumps(context)]
        printed = CliRunner().invoke(app, asked)
    assert scores[0] == pytest.approx(expected[0], abs=1e-6)
    assert sorted((one.probability for one in ranked), reverse=True) == [one.probability for one in ranked]
    assert [json.loads(line)["index"] for line in printed.stdout.splitlines()] == [one.index for one in ranked]


@pytest.mark.e2e
def test_served_parity_in_a_bare_process(exports: Exports, tmp_path: Path) -> None:
    raw: dict[str, Any] = {}
    for made, _ in exports.values():
        raw |= made.raw("test", ROWS)
    rows = save_rows(tmp_path / "rows.npz", {"examples": made.serialized("test", ROWS), **raw})
    answer = run(rows, *(directory for _, directory in exports.values()))
    assert answer["import_attempts"] == []
    for name, (_, directory) in exports.items():
        result = answer["results"][str(directory)]
        assert result["rows"] == ROWS
        assert result["spread"] > 1e-3, name
        assert max(result["difference"], result["difference_among_others"]) <= 1e-6, name
