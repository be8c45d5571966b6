"""train, export, evaluate and inspect on a small data set: what they write, print, and refuse."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tests.cli.conftest import Desk, Ran
from tfctr.metrics import reference
from tfctr.models.presets import PRESETS

pytestmark = pytest.mark.slow

Call = Callable[..., Ran]


def contents(directory: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in directory.rglob("*") if path.is_file()}


def train(tfctr: Call, desk: Desk, out: Path, *more: object, **paths: Path) -> Ran:
    chosen = {"features": desk.features, "experiment": desk.experiment, "data": desk.data, **paths}
    options = [part for name, path in chosen.items() for part in (f"--{name}", path)]
    return tfctr("train", *options, "--out", out, *more)


class TestTrain:
    def test_again_does_nothing_twice(self, tfctr: Call, desk: Desk, tmp_path: Path) -> None:
        shutil.copytree(desk.run, tmp_path / "run")
        before = {p: s for p, s in contents(tmp_path / "run").items() if "runs" in p.parts or "assets" in str(p)}
        note = json.loads((tmp_path / "run" / "run.json").read_text())
        ran = train(tfctr, desk, tmp_path / "run")
        assert "analyzed before, nothing has changed" in ran.output
        assert "already finished after 1 epochs; nothing to do" in ran.output
        after = {p: s for p, s in contents(tmp_path / "run").items() if "runs" in p.parts or "assets" in str(p)}
        assert after == before
        assert json.loads((tmp_path / "run" / "run.json").read_text()) == note

    def test_leaves_one_finished_run(self, desk: Desk) -> None:
        note = json.loads((desk.run / "run.json").read_text())
        assert [path.name for path in desk.run.glob("*.weights.h5")] == [note["weights"]]
        assert not list(desk.run.rglob("*.partial"))

    def test_options_change_the_experiment(self, tfctr: Call, desk: Desk, tmp_path: Path) -> None:
        ran = train(tfctr, desk, tmp_path, "--preset", "mlp", "--seed", "5", "--epochs", "2")
        assert "mlp: " in ran.output
        assert "seed 5" in ran.output
        assert "epoch 2: validation AUC" in ran.output
        note = json.loads((tmp_path / "run.json").read_text())
        assert note["experiment"]["preset"] == "mlp"
        assert len(note["history"]) == 2

    def test_settings_change_it_last(self, tfctr: Call, desk: Desk, tmp_path: Path) -> None:
        settings = ("--set", "training.learning_rate=0.003", "--set", "model.interaction.hidden=[8, 4]")
        train(tfctr, desk, tmp_path, "--batch-size", "512", "--seed", "5", *settings, "--set", "training.seed=6")
        found = json.loads((tmp_path / "run.json").read_text())["experiment"]
        assert found["model"] == {"interaction": {"hidden": [8, 4]}}
        training = {name: found["training"][name] for name in ("batch_size", "seed", "learning_rate", "epochs")}
        assert training == {"batch_size": 512, "seed": 6, "learning_rate": 0.003, "epochs": 1}

    def test_a_changed_preset_is_called_by_what_it_is(self, tfctr: Call, desk: Desk, tmp_path: Path) -> None:
        run = tmp_path / "run"
        ran = train(tfctr, desk, run, "--preset", "mlp", "--set", "model.interaction=lr")
        assert re.search(r"^mlp with interaction lr: [\d,]+ trainable parameters, seed 2$", ran.output, re.MULTILINE)
        exported = tfctr("export", "--run", run, "--to", tmp_path / "models", "--version", 1)
        assert "ended there last, mlp with interaction lr, seed 2, 1 epochs" in exported.output.replace("\n", " ")
        report = tmp_path / "report.html"
        tfctr("report", run, "--out", report, "--no-gains")
        assert '<td class="text">mlp with interaction lr</td>' in report.read_text()

    def test_a_wrong_setting(self, tfctr: Call, desk: Desk, tmp_path: Path) -> None:
        ran = train(tfctr, desk, tmp_path / "run", "--set", "training.rate=0.003")
        assert ran.error is not None
        assert ran.error.startswith("--set: training.rate: unknown key. Allowed: batch_of, batch_size, ")
        assert not (tmp_path / "run").exists()

    @pytest.mark.parametrize(
        ("wrong", "told"),
        [
            ("features", "nowhere.yaml: can't be read"),
            ("experiment", "nowhere.yaml: can't be read"),
            ("data", "no file of a log (*.csv, "),
        ],
    )
    def test_missing_input(self, tfctr: Call, desk: Desk, tmp_path: Path, wrong: str, told: str) -> None:
        ran = train(tfctr, desk, tmp_path / "run", **{wrong: tmp_path / "nowhere.yaml"})
        assert ran.error is not None
        assert told in ran.error
        assert not (tmp_path / "run").exists()

    def test_unknown_preset(self, tfctr: Call, desk: Desk, tmp_path: Path) -> None:
        ran = train(tfctr, desk, tmp_path / "run", "--preset", "nope")
        assert ran.error == f"preset: no preset 'nope'. Allowed: {', '.join(PRESETS)}"
        assert not (tmp_path / "run").exists()

    def test_out_is_a_file(self, tfctr: Call, desk: Desk, tmp_path: Path) -> None:
        (tmp_path / "run").write_text("mine")
        ran = train(tfctr, desk, tmp_path / "run")
        assert ran.error == f"{tmp_path / 'run'}: is a file; --out names a directory"
        assert (tmp_path / "run").read_text() == "mine"

    def test_damaged_data_leaves_no_assets(self, tfctr: Call, desk: Desk, tmp_path: Path) -> None:
        shutil.copytree(desk.data, tmp_path / "data")
        for path in (tmp_path / "data" / "train").iterdir():
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        ran = train(tfctr, desk, tmp_path / "run", data=tmp_path / "data")
        assert ran.error is not None
        assert "damaged or cut off" in ran.error
        assert not [path for path in (tmp_path / "run").rglob("*") if path.is_file()]


class TestExport:
    def test_version_exists(self, tfctr: Call, desk: Desk) -> None:
        before = contents(desk.model)
        ran = tfctr("export", "--run", desk.run, "--to", desk.model.parent, "--version", "7")
        assert ran.error == f"{desk.model}: exists already; name a directory that doesn't, or remove it"
        assert contents(desk.model) == before
        assert [path.name for path in desk.model.parent.iterdir()] == ["7"]

    def test_no_run(self, tfctr: Call, tmp_path: Path) -> None:
        ran = tfctr("export", "--run", tmp_path / "run", "--to", tmp_path / "models")
        assert ran.error is not None
        assert "holds no finished run; train one with `tfctr train" in ran.error
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize("damage", ["note", "weights", "key"])
    def test_damaged_run(self, tfctr: Call, desk: Desk, tmp_path: Path, damage: str) -> None:
        shutil.copytree(desk.run, tmp_path / "run")
        note = tmp_path / "run" / "run.json"
        if damage == "note":
            note.write_text(note.read_text()[:50])
        elif damage == "key":
            note.write_text("{}")
        else:
            weights = tmp_path / "run" / json.loads(note.read_text())["weights"]
            weights.write_bytes(weights.read_bytes()[:2000])
        ran = tfctr("export", "--run", tmp_path / "run", "--to", tmp_path / "models")
        assert ran.error is not None
        assert "the finished run can't be read" in ran.error
        assert "\n" not in ran.error
        assert not (tmp_path / "models").exists()

    @pytest.mark.e2e
    def test_training_again_mends_a_damaged_run(self, tfctr: Call, desk: Desk, tmp_path: Path) -> None:
        shutil.copytree(desk.run, tmp_path / "run")
        (weights,) = (tmp_path / "run").glob("*.weights.h5")
        weights.write_bytes(weights.read_bytes()[:2000])
        train(tfctr, desk, tmp_path / "run")
        tfctr("export", "--run", tmp_path / "run", "--to", tmp_path / "models", "--version", "1")
        # The tag is a hash of the weights, so equal tags mean equal weights.
        tags = [
            json.loads(tfctr("inspect", model, "--json").output)["made"]["model_tag"]
            for model in (desk.model, tmp_path / "models" / "1")
        ]
        assert tags[0] == tags[1]


class TestEvaluate:
    def test_numbers_are_the_reference_on_the_saved_rows(self, tfctr: Call, desk: Desk, tmp_path: Path) -> None:
        saved = tmp_path / "rows.npz"
        options = ("--slice", "age", "--json", "--predictions", saved)
        rows = json.loads(tfctr("evaluate", "--model", desk.model, "--data", desk.data, *options).output)
        with np.load(saved) as file:
            arrays = {name: file[name] for name in file.files}
        # The experiment asks for gender, the option for age.
        assert {row["slice"] for row in rows} >= {"gender", "age", "user_activity", "item_popularity", "hour"}
        checked = 0
        for row in rows:
            if f"slice/{row['slice']}" in arrays:
                column = arrays[f"slice/{row['slice']}"]
                chosen = column.astype(str) == row["value"]
            else:
                chosen = np.ones(len(arrays["labels"]), bool)
                assert row["examples"] == len(arrays["labels"])
            labels, scores, groups = (arrays[name][chosen] for name in ("labels", "scores", "groups"))
            grouped = reference.gauc(labels, scores, groups, "clicks")  # the weighting of the experiment
            expected = {
                "examples": len(labels),
                "clicks": int(labels.sum()),
                "auc": reference.auc(labels, scores),
                "gauc": grouped.value,
                "groups_used": grouped.groups_used,
                "groups_skipped": grouped.groups_skipped,
                "logloss": reference.logloss(labels, scores),
                "copc": reference.copc(labels, scores),
            }
            assert {name: row[name] for name in expected} == pytest.approx(expected, abs=1e-12, nan_ok=True)
            checked += 1
        assert checked == len(rows) > 8

    def test_table(self, tfctr: Call, desk: Desk) -> None:
        printed = tfctr("evaluate", "--model", desk.model, "--data", desk.data, "--split", "valid").output
        assert "groups used / skipped" in printed
        assert "user_activity" in printed

    @pytest.mark.parametrize(
        ("arguments", "told"),
        [
            (("--slice", "colour"), "there is no column to slice by of that name. Allowed: ['age', 'gender', "),
            (("--slice", "item_vector"), "Received: 'item_vector'"),
            (("--split", "nope"), "nope: no file of a log"),
            (("--predictions", "/nowhere/rows.npz"), "/nowhere doesn't exist; make it first"),
        ],
    )
    def test_refuses(self, tfctr: Call, desk: Desk, arguments: tuple[str, ...], told: str) -> None:
        ran = tfctr("evaluate", "--model", desk.model, "--data", desk.data, *arguments)
        assert ran.error is not None
        assert told in ran.error

    def test_model_directory_without_a_version(self, tfctr: Call, desk: Desk) -> None:
        ran = tfctr("evaluate", "--model", desk.model.parent, "--data", desk.data)
        assert ran.error is not None
        assert "name one of its versions: 7" in ran.error

    @pytest.mark.parametrize("damage", ["cut", "label", "type"])
    def test_bad_rows(self, tfctr: Call, desk: Desk, tmp_path: Path, damage: str) -> None:
        (tmp_path / "test").mkdir()
        source = sorted((desk.data / "test").iterdir())[0]
        records = [r.numpy() for r in tf.data.TFRecordDataset(str(source), compression_type="GZIP").take(20)]
        example = tf.train.Example.FromString(records[3])
        if damage == "label":
            example.features.feature["label"].int64_list.value[:] = [2]
        elif damage == "type":
            example.features.feature["item_id"].bytes_list.value[:] = [b"seven"]
        records[3] = example.SerializeToString()
        path = tmp_path / "test" / "part.tfrecord"
        with tf.io.TFRecordWriter(str(path)) as writer:
            for record in records:
                writer.write(record)
        if damage == "cut":
            path.write_bytes(path.read_bytes()[:-50])
        saved = tmp_path / "rows.npz"
        ran = tfctr("evaluate", "--model", desk.model, "--data", tmp_path, "--predictions", saved)
        assert ran.error is not None
        told = {
            "cut": "damaged or cut off",
            "label": "part.tfrecord, record 4: label must be 0 or 1. Received: 2",
            "type": "part.tfrecord, record 4: item_id is string; the feature file says int64",
        }
        assert told[damage] in ran.error
        assert not saved.exists()


class TestInspect:
    def test_json(self, tfctr: Call, desk: Desk) -> None:
        found = json.loads(tfctr("inspect", desk.model, "--json").output)
        assert set(found["inputs"]) == {"serving_default", "user_tower", "score"}
        assert found["made"]["experiment"]["preset"] == "dmf"
        assert found["state_bytes"] > 0
        state = {tensor["name"] for tensor in found["outputs"]["user_tower"]}
        assert state <= {tensor["name"] for tensor in found["inputs"]["score"]}
        (epoch,) = found["made"]["validation"]
        assert 0 < epoch["auc"] < 1

    def test_table(self, tfctr: Call, desk: Desk) -> None:
        printed = tfctr("inspect", desk.model).output
        for word in ("user_tower", "score", "serving_default", "state of a user", "model_tag", "variables: "):
            assert word in printed

    def test_nothing_there(self, tfctr: Call, tmp_path: Path) -> None:
        assert tfctr("inspect", tmp_path).error == f"{tmp_path}: holds no SavedModel (saved_model.pb is missing)"


@pytest.mark.parametrize(
    "arguments",
    [
        ("train", "--features", "f.yaml", "--data", "d"),
        ("predict", "--model", "m", "--data", "d"),
        ("init", "--data", "d"),
        ("data", "synthesize"),
        ("data", "prepare", "frappe", "--source", "s"),
        ("data", "build", "b.yaml"),
    ],
)
def test_an_address_for_out_makes_no_folder_of_its_scheme(
    tfctr: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    error = tfctr(*arguments, "--out", "gs://bucket/x").error
    assert error == "--out: must be a local directory. Received: gs://bucket/x"
    assert not list(tmp_path.iterdir())
