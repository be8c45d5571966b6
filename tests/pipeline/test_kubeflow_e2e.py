"""The compiled pipeline on a store, every container command in order, in both forms of Kubeflow's executor input."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2
from typer.testing import CliRunner

from pipeline.kubeflow_v2_runner import app
from pipeline.schema import curate
from tests.pipeline.launcher import Ended, Form, Launcher
from tests.pipeline.logs import write_experiment, write_features, write_log
from tests.storage.stores import BUCKET, new_place, s3_store
from tfctr.export.describe import describe
from tfctr.features.spec import load_feature_file
from tfctr.storage import exists, join, local_copy, names
from tfctr.storage.places import files as files_in
from tfctr.storage.places import send

pytestmark = pytest.mark.e2e

TASKS = {
    "ExampleGen",
    "StatisticsGen",
    "CuratedSchema",
    "ExampleValidator",
    "AnomalyGate",
    "Transform",
    "Trainer",
    "ModelCheck",
    "Baseline",
    "Evaluator",
    "Pusher",
    "Report",
}


@dataclass(frozen=True)
class Cluster:
    """A launcher, what was compiled for it, and where models are pushed."""

    launcher: Launcher
    directory: Path
    data: str
    pushed: str
    checkpoints: str
    root: str

    def compiled(
        self,
        data: str,
        version: str,
        schema: Path | None = None,
        experiment: Path | None = None,
        plan: Path | None = None,
    ) -> Path:
        target = self.directory / f"pipeline-{version}.yaml"
        options = {
            "--platform": "kubeflow",
            "--data": data,
            "--data-version": version,
            "--features": self.directory / "features.yaml",
            "--experiment" if plan is None else "--plan": plan or experiment or self.directory / "experiment.yaml",
            "--schema": schema or self.directory / "schema.pbtxt",
            "--root": self.root,
            "--image": f"registry/tfctr@sha256:{'0' * 64}",
            "--pushed": self.pushed,
            "--checkpoints": self.checkpoints,
            "--target": target,
        }
        done = CliRunner().invoke(app, [str(part) for pair in options.items() for part in pair], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return target


@pytest.fixture(scope="module")
def environment() -> Iterator[dict[str, str]]:
    with s3_store() as environment:
        yield environment


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log with its feature file, experiment and schema."""
    directory = tmp_path_factory.mktemp("kubeflow")
    write_log(directory / "data")
    file = load_feature_file(write_features(directory / "features.yaml"))
    write_experiment(directory / "experiment.yaml")
    schema = curate(schema_pb2.Schema(), file)
    (directory / "schema.pbtxt").write_text(text_format.MessageToString(schema), "utf-8")
    return directory


# A model of the contents learns from a log as small as this one; no bound but the fall against the baseline is asked.
EXPERIMENT = """
preset: dmf
training: {{epochs: {epochs}, batch_size: 128, learning_rate: {learning_rate}, checkpoint_steps: 2}}
evaluation: {{min_auc: 0.0, min_gauc: 0.0, max_auc_fall: 0.02, max_gauc_fall: 1.0}}
export: {{warmup_candidates: [1]}}
"""


def experiment(path: Path, epochs: int, learning_rate: float) -> Path:
    path.write_text(EXPERIMENT.format(epochs=epochs, learning_rate=learning_rate), "utf-8")
    return path


def cluster(files: Path, tmp_path: Path, environment: dict[str, str], form: Form) -> Cluster:
    data = new_place("s3")
    send(files / "data", data)
    launcher = Launcher(tmp_path, environment, form)
    return Cluster(launcher, files, data, new_place("s3"), new_place("s3"), f"minio://{BUCKET}/root-{form}")


def states(ended: dict[str, Ended]) -> dict[str, str]:
    return {name: one.state for name, one in ended.items()}


def told(ended: dict[str, Ended]) -> str:
    name, last = list(ended.items())[-1]
    return f"{name}: {last.printed}"


def models_of(report: Ended) -> set[str]:
    """Which models the page of a run is about."""
    artifact = report.outputs["report"]
    assert artifact["type"] == {"schemaTitle": "system.HTML", "schemaVersion": "0.0.1"}
    with local_copy(artifact["uri"]) as path:
        page = path.read_text("utf-8")
    return {name for name in ("blessed model", "new model") if f"<th>{name}" in page or f">{name}<" in page}


def has_checkpoint(place: str, of_search: bool) -> bool:
    """The place itself is there before: a task has tried whether it can be written."""
    found = [path for path in files_in(place) if path.endswith("progress.json")] if exists(place) else []
    return any(("tuning/" in path) == of_search for path in found)


@pytest.mark.night
def test_without_ml_metadata_and_with_a_stopped_search_and_training(
    files: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    """Both pods are stopped when they have left a checkpoint; a retry goes on from there, on another disk."""
    made = cluster(files, tmp_path, environment, "without_mlmd")
    long = yaml.safe_load(write_experiment(tmp_path / "long.yaml", epochs=30, patience=30).read_text())
    search = {"training.learning_rate": [1e-5, long["training"]["learning_rate"]]}
    plan = tmp_path / "plan.yaml"
    plan.write_text(yaml.safe_dump({"experiment": long, "search": search, "method": "grid"}), "utf-8")
    stopped = {
        "Tuner": lambda: has_checkpoint(made.checkpoints, of_search=True),
        "Trainer": lambda: has_checkpoint(made.checkpoints, of_search=False),
    }
    ended = made.launcher.run(made.compiled(made.data, "1", plan=plan), stopped=stopped)
    assert states(ended) == dict.fromkeys(ended, "done"), told(ended)
    assert set(ended) == TASKS | {"Tuner"}
    for name in stopped:
        assert "stopped; a retry goes on from what is saved" in ended[name].printed
        assert "training: resumes in epoch" in ended[name].printed
    assert ended["Tuner"].printed.count("trial 2: ") == 1
    [version] = names(made.pushed)
    assert ended["Pusher"].outputs["pushed_model"]["metadata"]["pushed_version"] == version
    with local_copy(join(made.pushed, version)) as model:
        assert describe(model).made["experiment"]["training"]["learning_rate"] == long["training"]["learning_rate"]


@pytest.mark.parametrize("form", ["with_mlmd", pytest.param("without_mlmd", marks=pytest.mark.night)])
def test_first_run_second_run_worse_model_and_a_schema_that_stops(
    form: Form, files: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    made = cluster(files, tmp_path, environment, form)
    good = experiment(tmp_path / "good.yaml", epochs=3, learning_rate=0.01)
    first = made.launcher.run(made.compiled(made.data, "1", experiment=good))
    assert states(first) == dict.fromkeys(first, "done"), told(first)
    assert set(first) == TASKS
    assert first["Baseline"].outputs["model"]["metadata"]["absent"] == 1
    assert first["Evaluator"].outputs["blessing"]["metadata"]["blessed"] == 1
    [version] = names(made.pushed)
    assert "saved_model.pb" in names(join(made.pushed, version))
    assert first["Pusher"].outputs["pushed_model"]["metadata"]["pushed_destination"] == join(made.pushed, version)
    assert models_of(first["Report"]) == {"new model"}, first["Report"].printed

    # The same again: only what may not be cached runs, and finds the model that stands there.
    again = made.launcher.run(made.compiled(made.data, "1", experiment=good))
    assert {name for name, state in states(again).items() if state == "done"} == {
        *("Baseline", "Evaluator", "Pusher", "Report")
    }
    assert states(again)["Trainer"] == "cached"
    assert again["Baseline"].outputs["model"]["metadata"]["pushed_version"] == version
    assert models_of(again["Report"]) == {"blessed model", "new model"}, again["Report"].printed
    assert names(made.pushed) == [version]

    # One that has hardly been trained is worse than the baseline, and nothing else is asked of it.
    worse = experiment(tmp_path / "worse.yaml", epochs=1, learning_rate=1e-6)
    refused = made.launcher.run(made.compiled(made.data, "1", experiment=worse))
    assert {name: state for name, state in states(refused).items() if state != "cached"} == dict.fromkeys(
        ("Trainer", "ModelCheck", "Baseline", "Evaluator", "Pusher", "Report"), "done"
    ), told(refused)
    assert refused["Baseline"].outputs["model"]["metadata"]["pushed_version"] == version
    assert refused["Evaluator"].outputs["blessing"]["metadata"]["blessed"] == 0
    pushed = refused["Pusher"].outputs["pushed_model"]["metadata"]
    assert pushed["pushed"] == 0
    assert pushed["message"].startswith("not pushed: overall: auc ")
    assert names(made.pushed) == [version]

    # A schema by which no label is 0 stops at the gate, in words.
    schema = text_format.Parse((files / "schema.pbtxt").read_text(), schema_pb2.Schema())
    for feature in schema.feature:
        if feature.name == "label":
            feature.int_domain.min = 1
    strict = tmp_path / "strict.pbtxt"
    strict.write_text(text_format.MessageToString(schema), "utf-8")
    stopped = made.launcher.run(made.compiled(made.data, "1", strict, good))
    assert list(stopped)[-1] == "AnomalyGate"
    assert states(stopped)["AnomalyGate"] == "failed"
    assert "error: the data does not fit the schema:" in stopped["AnomalyGate"].printed
    assert "train/label: " in stopped["AnomalyGate"].printed
    assert "Traceback" not in stopped["AnomalyGate"].printed
