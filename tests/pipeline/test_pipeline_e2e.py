"""The whole pipeline on 2,000 rows.

Most tests share the Transform of one run. They check the artifacts and not only the exit codes.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from pipeline.evaluation import load_slices
from pipeline.local_runner import OutputLayout
from pipeline.schema import CuratedSchema
from pipeline.store import Store, text_property
from tests.pipeline.logs import (
    ROOT,
    in_another_format,
    pipeline_command,
    rewrite_log,
    run_pipeline,
    turn_training_labels,
    write_experiment,
    write_features,
    write_log,
)
from tfctr.features.assets import FeatureAssets
from tfctr.features.inputs import model_inputs
from tfctr.features.parsing import outcomes, parse_examples
from tfctr.features.spec import load_feature_file
from tfctr.features.transform import FileLookups, RawFunction
from tfctr.training.dataset import RankingData

pytestmark = pytest.mark.e2e

CACHED = ("ExampleGen", "StatisticsGen", "ImportSchemaGen", "ExampleValidator", "AnomalyGate", "Transform")


@dataclass(frozen=True)
class Run:
    """A first run that pushed a model."""

    data: Path
    features: Path
    experiment: Path
    out: Path
    output: str

    @property
    def layout(self) -> OutputLayout:
        return OutputLayout(self.out)

    def again(self, **changes: Path) -> subprocess.CompletedProcess[str]:
        paths = {"data": self.data, "features": self.features, "experiment": self.experiment, "out": self.out}
        return run_pipeline(**{**paths, **changes})

    def artifact(self, node: str, key: str) -> Any:
        latest = Store(self.layout.metadata).latest(node)
        assert latest is not None
        return latest[key]

    def versions(self) -> list[str]:
        return sorted(path.name for path in self.layout.serving.iterdir())


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Run:
    directory = tmp_path_factory.mktemp("pipeline")
    data = write_log(directory / "data")
    features, experiment = write_features(directory / "features.yaml"), write_experiment(directory / "experiment.yaml")
    done = run_pipeline(data, features, experiment, directory / "out")
    assert done.returncode == 0, done.stdout + done.stderr
    return Run(data, features, experiment, directory / "out", done.stdout)


def states(output: str) -> dict[str, str]:
    """The outcome of each component, `done` or `cached`, as printed."""
    rows = [line.split() for line in output.splitlines() if line.endswith(" s")]
    return {row[0]: row[1] for row in rows if len(row) == 4}


def test_a_person_sees_a_line_per_component_and_no_noise(first: Run) -> None:
    told = states(first.output)

    assert list(told) == [
        "ExampleGen",
        "StatisticsGen",
        "SchemaGen",
        "ImportSchemaGen",
        "ExampleValidator",
        "AnomalyGate",
        "Transform",
        "Trainer",
        "Baseline",
        "ModelCheck",
        "Evaluator",
        "Pusher",
        "Report",
    ]
    assert set(told.values()) == {"done"}
    assert "validation AUC" in first.output
    assert "where the time went" in first.output
    noise = "MetadataStore with DB connection initialized"
    assert noise not in first.output
    assert "INFO" not in first.output
    [log] = first.layout.logs.glob("2*.log")
    assert noise in log.read_text(errors="replace")


def test_it_ends_with_the_metrics_and_names_what_there_is_to_look_at(first: Run) -> None:
    overall = load_slices(first.artifact("Evaluator", "evaluation").uri)[0].metrics
    assert f"test split: AUC {overall['auc']:.4f}, GAUC {overall['gauc']:.4f}, logloss" in first.output
    assert "no blessed model to compare it with" in first.output
    assert f"Evaluator's result, for TFMA: {first.artifact('Evaluator', 'evaluation').uri}\n" in first.output

    page = (first.out / "report.html").read_text()

    assert f"report: {first.out.resolve() / 'report.html'}\n" in first.output
    assert f"{overall['auc']:.4f} (" in page, "the report and the Evaluator measure differently"
    assert "new model" in page
    assert "Where the time went" in page


def test_the_pushed_model_answers(first: Run) -> None:
    version = first.layout.serving / first.versions()[0]
    served = tf.saved_model.load(str(version))
    [path] = (first.data / "test").glob("*.gz")
    examples = list(tf.data.TFRecordDataset(str(path), "GZIP").take(50).as_numpy_iterator())

    scores = served.signatures["serving_default"](examples=tf.constant(examples))["probabilities"].numpy()

    assert sorted(served.signatures) == ["score", "serving_default", "user_tower"]
    assert scores.shape == (50,)
    assert np.isfinite(scores).all()
    assert scores.std() > 0.01
    assert (version / "assets.extra" / "tf_serving_warmup_requests").stat().st_size > 0


def test_transformed_examples_are_what_the_raw_function_makes(first: Run, tmp_path: Path) -> None:
    file = load_feature_file(first.features)
    [assets] = first.layout.checkpoints.glob("*/assets")
    raw_function = RawFunction(file, FileLookups(FeatureAssets(assets)))
    transformed = Path(first.artifact("Transform", "transformed_examples").uri)
    pairs = {"Split-train": "Split-train", "Split-eval": "Split-eval"}
    raw_root = Path(first.artifact("ExampleGen", "examples").uri)
    rows = 0
    for raw_split, transformed_split in pairs.items():
        raw_paths = sorted(str(path) for path in (raw_root / raw_split).glob("*.gz"))
        paths = sorted(str(path) for path in (transformed / transformed_split).glob("*.gz"))
        serialized = next(iter(tf.data.TFRecordDataset(raw_paths, "GZIP").batch(10_000)))
        expected = raw_function.all_sides(parse_examples(serialized, file, outcomes(file)))
        copy = tmp_path / transformed_split
        [(inputs, labels, _)] = RankingData.of_transformed(file, paths, copy).batches(10_000)
        rows += len(labels)
        assert len(labels) == len(serialized)
        # Transform may write rows in another order, so both are sorted by all their columns.
        left, right = sorted_rows(expected, file), sorted_rows(inputs, file)
        np.testing.assert_array_equal(left, right)
    assert rows > 1500


def sorted_rows(columns: dict[str, Any], file: Any) -> np.ndarray:
    parts = []
    for spec in model_inputs(file):
        values = np.asarray(columns[spec.name])
        parts.append(values.reshape(len(values), -1).astype(np.float64))
    table = np.concatenate(parts, axis=1)
    return table[np.lexsort(table.T)]


def test_the_assets_hold_what_analyzers_learned(first: Run) -> None:
    [directory] = first.layout.checkpoints.glob("*/assets")
    assets = FeatureAssets(directory)
    [path] = (first.data / "train").glob("*.gz")
    examples = [tf.train.Example.FromString(r) for r in tf.data.TFRecordDataset(str(path), "GZIP").as_numpy_iterator()]
    years = [e.features.feature["year"].int64_list.value[0] for e in examples]
    ages = [e.features.feature["age"].int64_list.value[0] for e in examples]
    counts: dict[str, int] = {}
    for entry in examples:
        for column in ("item_id", "history_item_id"):
            for value in entry.features.feature[column].int64_list.value:
                counts[str(value)] = counts.get(str(value), 0) + 1

    assert assets.statistics["year"]["mean"] == pytest.approx(np.mean(years), rel=1e-6)
    assert assets.statistics["year"]["deviation"] == pytest.approx(np.std(years), rel=1e-4)
    assert assets.statistics["age"]["boundaries"] == pytest.approx(np.quantile(ages, [0.25, 0.5, 0.75]), abs=1)
    assert set(assets.tokens("item_id")) == {token.encode() for token, count in counts.items() if count >= 2}
    ordered = [counts[token.decode()] for token in assets.tokens("item_id")]
    assert ordered == sorted(ordered, reverse=True)


def test_the_schema_became_the_users(first: Run) -> None:
    schema = CuratedSchema(first.out).read()
    label = next(feature for feature in schema.feature if feature.name == "label")

    assert (label.int_domain.min, label.int_domain.max) == (0, 1)
    assert not [feature.name for feature in schema.feature if feature.HasField("shape")]


def test_show_prints_the_slices(first: Run) -> None:
    command = [pipeline_command(first.data, first.features, first.experiment, first.out)[0], "-m", "pipeline.show"]
    done = subprocess.run([*command, str(first.out)], capture_output=True, text=True, cwd=ROOT, check=True)

    assert "overall" in done.stdout
    assert "user_activity=" in done.stdout
    assert "gender=F" in done.stdout
    assert done.stderr == ""


def test_the_second_run_is_served_from_cache(first: Run) -> None:
    versions, checkpoints = first.versions(), sorted(first.layout.checkpoints.rglob("*"))
    second = first.again()
    third = first.again()

    assert second.returncode == 0, second.stdout + second.stderr
    unchanged = (*CACHED, "Trainer", "ModelCheck")
    assert {name: states(second.stdout)[name] for name in unchanged} == dict.fromkeys(unchanged, "cached")
    # The baseline of the second run is the model of the first run, so that its Evaluator runs once more. Nothing is new
    # in the third run.
    assert states(third.stdout)["Evaluator"] == "cached"
    assert states(third.stdout)["Pusher"] == "cached"
    assert first.versions() == versions
    assert sorted(first.layout.checkpoints.rglob("*")) == checkpoints
    assert "this very model already stands at" in third.stdout


@pytest.mark.night
def test_a_worse_model_is_refused_in_words_on_a_shared_transform(first: Run, tmp_path: Path) -> None:
    versions = first.versions()
    worse = write_experiment(tmp_path / "worse.yaml", epochs=1, learning_rate=1e-6, fall=0.001, batch_of="users")

    done = first.again(experiment=worse)

    assert {name: states(done.stdout)[name] for name in CACHED} == dict.fromkeys(CACHED, "cached")
    assert states(done.stdout)["Trainer"] == "done"
    assert "candidates in each; batches of" in done.stdout
    assert done.returncode == 3, done.stdout + done.stderr
    assert "not pushed: overall: auc" in done.stdout
    assert first.versions() == versions
    assert first.artifact("Pusher", "pushed_model").custom_properties["pushed"].int_value == 0


def test_a_killed_run_resumes(first: Run, tmp_path: Path) -> None:
    long = write_experiment(tmp_path / "long.yaml", epochs=20, patience=20)
    command = pipeline_command(first.data, first.features, long, first.out)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, start_new_session=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "epoch 3:" in line:
                break
        os.killpg(process.pid, signal.SIGKILL)
    killed = progress_of_unfinished(first)
    assert 2 <= killed["epoch"] < 20

    done = first.again(experiment=long)

    assert "resumes in epoch" in done.stdout, done.stdout + done.stderr
    assert "epoch 1:" not in done.stdout
    assert "epoch 20:" in done.stdout
    history = json.loads(newest_progress(first).read_text())["history"]
    assert len(history) == 20
    assert history[: killed["epoch"]] == killed["history"]


def newest_progress(first: Run) -> Path:
    return max(first.layout.checkpoints.glob("*/*/progress.json"), key=lambda path: path.stat().st_mtime)


def progress_of_unfinished(first: Run) -> dict[str, Any]:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        found: dict[str, Any] = json.loads(newest_progress(first).read_text())
        if not found["finished"]:
            return found
    raise AssertionError("the run had ended before it was killed")


@pytest.mark.night
def test_a_model_of_turned_labels_is_refused(first: Run, tmp_path: Path) -> None:
    versions = first.versions()
    # On 200 rows of test an AUC may be good by chance; a model that takes clicks for the rule is not calibrated.
    experiment = tmp_path / "calibrated.yaml"
    text = first.experiment.read_text(encoding="utf-8")
    experiment.write_text(text.replace("evaluation: {", "evaluation: {demands: [{metric: ece, maximum: 0.3}], "))
    turned = rewrite_log(first.data, tmp_path / "turned", turn_training_labels)
    in_another_format(turned, first.features, "part.csv.gz")

    done = first.again(data=turned, experiment=experiment)

    assert done.returncode == 3, done.stdout + done.stderr
    # By chance the AUC is refused too, and stands before it.
    [refused] = [line for line in done.stdout.splitlines() if line.startswith("not pushed: ")]
    assert "overall: ece is" in refused
    assert states(done.stdout)["Transform"] == "done"
    assert first.versions() == versions


def spoil(split: str, examples: list[tf.train.Example]) -> None:
    for index, example in enumerate(examples):
        columns = example.features.feature
        if index % 2:
            del columns["year"]
        columns["gender"].bytes_list.value[:] = [b"unheard of"]


def test_what_the_check_refuses_stops_the_run_before_it_starts(first: Run, tmp_path: Path) -> None:
    def change(split: str, examples: list[tf.train.Example]) -> None:
        if split == "valid":
            examples[2].features.feature["label"].int64_list.value[0] = 7

    done = first.again(data=rewrite_log(first.data, tmp_path / "bad", change))

    assert done.returncode == 2
    assert "ExampleGen" not in done.stdout
    assert done.stderr.count("\n") == 1
    assert "valid/part-0.tfrecord.gz, record 3: label must be 0 or 1. Received: 7" in done.stderr


def test_anomalous_data_stops_the_run_in_words(first: Run, tmp_path: Path) -> None:
    spoiled = rewrite_log(first.data, tmp_path / "spoiled", spoil)

    done = first.again(data=in_another_format(spoiled, first.features, "part.parquet"))

    assert done.returncode == 1
    assert "AnomalyGate        FAILED" in done.stdout
    assert "Transform" not in done.stdout
    words = done.stderr.splitlines()
    assert words[0] == "error: the data does not fit the schema:"
    assert any(line.startswith("  train/year: ") for line in words)
    assert any(line.startswith("  test/gender: ") and "unheard of" in line for line in words)
    assert "Traceback" not in done.stderr


def test_an_edit_of_the_schema_is_not_served_from_cache(first: Run) -> None:
    curated = CuratedSchema(first.out)
    before = curated.path.read_text()
    schema = curated.read()
    next(feature for feature in schema.feature if feature.name == "label").int_domain.max = 0
    curated.adopt(schema)
    try:
        done = first.again()
    finally:
        curated.path.write_text(before)

    assert done.returncode == 1
    assert "train/label: " in done.stderr


def test_two_runs_on_one_directory_do_not_meet(first: Run) -> None:
    with (first.out / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = first.again()

    assert done.returncode == 2
    assert "another run is under way" in done.stderr


def test_the_message_of_a_push_is_in_the_metadata(first: Run) -> None:
    assert text_property(first.artifact("Pusher", "pushed_model"), "message")
