"""A whole run with weights and groups that are missing here and there: Trainer, served model and Evaluator agree."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from pipeline.evaluation import load_slices
from pipeline.local_runner import OutputLayout
from pipeline.store import Store
from tests.pipeline.logs import FEATURES, rewrite_log, run_pipeline, write_experiment, write_log
from tfctr.data.sources import split_files
from tfctr.features.spec import load_feature_file
from tfctr.metrics.report import report
from tfctr.training.evaluate import predict

pytestmark = pytest.mark.e2e


def lose_some(_: str, examples: list[tf.train.Example]) -> None:
    """Gives each row its user as a string and a weight, and takes from some rows a column, or the one value in it."""
    generator = np.random.default_rng(0)
    for example in examples:
        columns = example.features.feature
        columns["session"].bytes_list.value.append(b"s%d" % columns["user_id"].int64_list.value[0])
        columns["importance"].float_list.value.append(float(generator.choice([0.0, 1.0, 3.0])))
        for name, kind, share in (
            ("session", "bytes_list", 0.2),
            ("importance", "float_list", 0.3),
            ("user_activity", "bytes_list", 0.1),
            ("item_id", "int64_list", 0.05),
        ):
            if generator.random() < share:
                if generator.random() < 0.5:
                    del columns[name]
                else:
                    getattr(columns[name], kind).ClearField("value")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("weighted")
    return rewrite_log(write_log(directory / "whole"), directory / "data", lose_some)


def write_features(path: Path, group: str) -> Path:
    text = FEATURES.replace("group: user_id\n", group).replace("meta: [", "weight: importance\nmeta: [session, ")
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("group", ["group: session\n", pytest.param("", marks=pytest.mark.night)])
def test_every_part_says_the_same(data: Path, group: str, tmp_path: Path) -> None:
    features = write_features(tmp_path / "features.yaml", group)
    experiment = write_experiment(tmp_path / "experiment.yaml", epochs=1)
    text = experiment.read_text(encoding="utf-8").replace("min_auc: 0.5, min_gauc: 0.45", "min_auc: 0.1, min_gauc: 0.1")
    text = text.replace("evaluation: {", "evaluation: {weighting: clicks, ")
    experiment.write_text(text, encoding="utf-8")
    if not group:
        refused = run_pipeline(data, features, experiment, tmp_path / "out")
        assert (refused.returncode, refused.stdout.count("done")) == (2, 0)
        assert "a demand on gauc needs a `group` in the feature file, which has none" in refused.stderr
        text = text.replace("min_gauc: 0.1, ", "").replace(", max_gauc_fall: 1.0", "")
        experiment.write_text(text, encoding="utf-8")
    done = run_pipeline(data, features, experiment, tmp_path / "out")
    assert done.returncode == 0, done.stdout + done.stderr
    layout = OutputLayout(tmp_path / "out")
    [version] = layout.serving.iterdir()
    file = load_feature_file(features)
    metrics = {}
    for split in ("valid", "test"):
        rows = predict(version, file, split_files(data, split))
        table = report(rows.labels, rows.scores, rows.groups, rows.weights, rows.slices, weighting="clicks")
        metrics[split] = vars(table[0])
    [epoch] = json.loads((version / "assets.extra" / "tfctr.json").read_text(encoding="utf-8"))["validation"]
    latest = Store(layout.metadata).latest("Evaluator")
    assert latest is not None
    found = {row.key: row.metrics for row in load_slices(latest["evaluation"].uri)}
    overall = found[()]
    # The table is that of the test split. A row without a value is in no slice, and one of weight 0 does not count.
    assert {row.slice for row in table} > {"overall", "user_activity"}
    for row in table[1:]:
        assert found[((row.slice, row.value),)]["examples"] == row.examples
        assert found[((row.slice, row.value),)]["auc"] == pytest.approx(row.auc, abs=1e-6, nan_ok=True)
    activity = {key[0][1] for key in found if key and key[0][0] == "user_activity"}
    assert activity == {row.value for row in table if row.slice == "user_activity"}
    assert overall["examples"] == metrics["test"]["examples"] < len(rows.labels)
    for name in ("auc", "gauc", "logloss") if group else ("auc", "logloss"):
        assert overall[name] == pytest.approx(metrics["test"][name], abs=1e-6), name
        assert epoch[name] == pytest.approx(metrics["valid"][name], abs=1e-4), name
    if group:
        assert overall["gauc_ungrouped"] == metrics["test"]["ungrouped"] > 0
        assert f"{metrics['valid']['ungrouped']} rows have no group and are left out of GAUC" in done.stdout
    else:
        assert "gauc" not in (done.stdout + str(overall) + str(epoch)).lower()
