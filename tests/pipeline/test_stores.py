"""Trainer, export, gate and Pusher with data, checkpoints and models in a store."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tensorflow as tf
from tensorflow_metadata.proto.v0 import anomalies_pb2

from pipeline import anomalies, trainer
from pipeline import push as pushing
from pipeline.servable import check_model
from tests.features.beam import run_transform
from tests.pipeline.logs import FEATURES, write_experiment, write_log
from tests.storage.stores import new_place, s3_store
from tfctr.data.check import check_dataset
from tfctr.data.sources import split_files
from tfctr.errors import UserError
from tfctr.features.spec import load_feature_file
from tfctr.storage import digest, join, local_copy, names, places
from tfctr.storage.places import send, send_file
from tfctr.training import checkpoints
from tfctr.training.experiment import load_experiment

pytestmark = pytest.mark.e2e


class Killed(BaseException):
    """Stands for a kill: nothing catches it."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log, and below it what Transform makes of it."""
    directory = tmp_path_factory.mktemp("stores")
    data = write_log(directory / "data", rows=1500)
    features = directory / "features.yaml"
    features.write_text("".join(line for line in FEATURES.splitlines(True) if not line.startswith("meta:")), "utf-8")
    file = load_feature_file(features)
    write_experiment(directory / "experiment.yaml")
    paths = {}
    for split in ("train", "valid"):
        paths[split] = directory / f"{split}.tfrecord"
        with tf.io.TFRecordWriter(str(paths[split])) as writer:
            for record in tf.data.TFRecordDataset(split_files(data, split), "GZIP").as_numpy_iterator():
                writer.write(record)
    shutil.copy(data / "item_vectors.npz", directory)
    run_transform(file, directory, paths)
    return directory


@pytest.fixture(scope="module", autouse=True)
def store() -> Iterator[None]:
    with s3_store():
        yield


@pytest.fixture(params=["ram", "s3", pytest.param("minio", marks=pytest.mark.night)])
def scheme(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.chdir(tmp_path)
    yield request.param
    assert not [path for path in tmp_path.rglob("*") if ":" in path.name]


def sent(directory: Path, scheme: str) -> str:
    place = new_place(scheme)
    send(directory, place)
    return place


def arguments(made: Path, scheme: str) -> SimpleNamespace:
    """The Trainer's arguments: artifacts in the store where TensorFlow opens it, else local, as Kubeflow gives them."""
    file, data = load_feature_file(made / "features.yaml"), made / "data"
    graph = str(made / "graph")
    files = {split: str(made / f"transformed-{split}.tfrecord") for split in ("train", "valid")}
    if scheme == "ram":
        graph = sent(made / "graph", scheme)
        for split, path in files.items():
            files[split] = join(new_place(scheme), "examples")
            send_file(Path(path), files[split])
    return SimpleNamespace(
        custom_config={
            "features": file.model_dump_json(exclude_unset=True),
            "experiment": load_experiment(made / "experiment.yaml").model_dump_json(),
            "data": sent(data, scheme),
            "checkpoints": new_place(scheme),
        },
        train_files=[files["train"]],
        eval_files=[files["valid"]],
        transform_graph_path=graph,
        serving_model_dir=join(new_place(scheme), "Format-Serving"),
        hyperparameters=None,
    )


def test_a_model_is_trained_killed_resumed_exported_and_pushed(
    made: Path, scheme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = arguments(made, scheme)
    save = checkpoints.Checkpoints.save

    def killing(self: Any, progress: Any) -> None:
        save(self, progress)
        if progress.epoch == 1 and progress.step:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints.Checkpoints, "save", killing)
        with pytest.raises(Killed):
            trainer.run_fn(given)
    assert names(parent_of(given.serving_model_dir)) == []
    trainer.run_fn(given)
    assert "training: resumes in epoch 2 after step 2" in capsys.readouterr().out

    served = new_place(scheme)
    version, is_new = pushing.push(given.serving_model_dir, served)
    assert is_new
    assert names(served) == [version.rpartition("/")[2]]
    with local_copy(version) as copy, local_copy(given.serving_model_dir) as model:
        assert digest(copy) == digest(model)
        records = tf.data.TFRecordDataset(split_files(made / "data", "test"), "GZIP").take(3)
        answered = tf.saved_model.load(str(copy)).signatures["serving_default"](examples=tf.stack(list(records)))
        assert answered["probabilities"].shape == [3]
    assert pushing.push(given.serving_model_dir, served) == (version, False)


def test_a_trainer_that_is_tried_again_exports_anew(
    made: Path, scheme: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = arguments(made, scheme)
    with monkeypatch.context() as patch:
        # A kill in the middle of sending, which removes nothing.
        patch.setattr(places, "discard", lambda place: None)
        patch.setattr(places, "send_file", killed_at("variables", places.send_file))
        with pytest.raises(Killed):
            trainer.run_fn(given)
    assert "saved_model.pb" not in names(given.serving_model_dir)
    assert names(given.serving_model_dir)
    for _ in range(2):  # the second time as after a kill before the output was told
        trainer.run_fn(given)
        assert "training: already finished" in capsys.readouterr().out
        assert "saved_model.pb" in names(given.serving_model_dir)


def killed_at(part: str, send_one: Any) -> Any:
    def killing(path: Path, place: str) -> None:
        if part in place and "Format-Serving" in place:
            raise Killed
        send_one(path, place)

    return killing


def test_a_model_in_a_store_is_asked_and_a_bad_one_refused(made: Path, tmp_path: Path) -> None:
    place = new_place("s3")
    model = tmp_path / "model"
    tf.saved_model.save(tf.Module(), str(model))
    send(model, place)
    with pytest.raises(UserError, match=f"the model can't be served: {place}: "):
        check_model(place)


def parent_of(place: str) -> str:
    return place.rpartition("/")[0]


def test_a_log_in_a_store_is_checked_and_a_fault_is_told_of_the_store(made: Path, scheme: str, tmp_path: Path) -> None:
    file = load_feature_file(made / "features.yaml")
    place = sent(made / "data", scheme)
    counts, _ = check_dataset(place, file)
    assert counts["train"] > 1000
    torn = tmp_path / "torn"
    (torn / "train").mkdir(parents=True)
    for split in ("train", "valid", "test"):
        (torn / split).mkdir(exist_ok=True)
        whole = Path(split_files(made / "data", split)[0])
        (torn / split / whole.name).write_bytes(whole.read_bytes()[: 1000 if split == "train" else None])
    (torn / "item_vectors.npz").write_bytes((made / "data" / "item_vectors.npz").read_bytes())
    place = sent(torn, scheme)
    with pytest.raises(UserError, match=rf"^{place}/train/\S+ is damaged or cut off after record"):
        check_dataset(place, file)


def test_the_gate_reads_anomalies(scheme: str, tmp_path: Path) -> None:
    found = anomalies_pb2.Anomalies()
    found.anomaly_info["label"].reason.add(
        type=anomalies_pb2.AnomalyInfo.ENUM_TYPE_UNEXPECTED_STRING_VALUES, short_description="Unexpected value"
    )
    directory = tmp_path / "anomalies" / "Split-train"
    directory.mkdir(parents=True)
    (directory / "SchemaDiff.pb").write_bytes(found.SerializeToString())
    assert anomalies.describe(sent(directory.parent, scheme), ["train"]) == ["train/label: Unexpected value"]


def test_an_unknown_store_is_refused_before_training(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = arguments(made, "ram")
    monkeypatch.setattr(trainer, "run_training", lambda *_: pytest.fail("trained"))
    given.serving_model_dir = "gss://bucket/model"
    with pytest.raises(UserError, match=r"gss://: no store has this scheme\. Allowed: a local path, gs://"):
        trainer.run_fn(given)
    with pytest.raises(UserError, match="gss://: no store has this scheme"):
        pushing.push(made / "data", "gss://bucket/served")
