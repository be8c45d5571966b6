"""A search inside the pipeline: the Trainer trains its best experiment, and one without a result is an error."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.configs import SOURCES, PipelineConfig
from pipeline.local_runner import OutputLayout, run
from pipeline.store import Store
from tests.pipeline.logs import ROOT, write_experiment, write_features, write_log
from tfctr.errors import UserError
from tfctr.export.describe import describe
from tfctr.features import load_feature_file
from tfctr.tuning import Plan, read_search

pytestmark = pytest.mark.e2e


def run_plan(directory: Path, search: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    experiment = yaml.safe_load(write_experiment(directory / "experiment.yaml", epochs=1).read_text())
    experiment["evaluation"] = {"min_auc": 0, "min_gauc": 0, "max_auc_fall": 1, "max_gauc_fall": 1}
    plan = {"experiment": experiment, "search": search, "method": "grid"}
    (directory / "plan.yaml").write_text(yaml.safe_dump(plan), encoding="utf-8")
    names = {"data": "data", "features": "features.yaml", "plan": "plan.yaml", "out": "out"}
    options = [part for option, name in names.items() for part in (f"--{option}", str(directory / name))]
    command = [sys.executable, "-m", "pipeline.local_runner", *options, "--no-report"]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)


def test_the_best_experiment_is_trained(tmp_path: Path) -> None:
    write_log(tmp_path / "data")
    write_features(tmp_path / "features.yaml")
    layout = OutputLayout(tmp_path / "out")

    done = run_plan(tmp_path, {"training.learning_rate": [0.00001, 0.02]})

    assert done.returncode == 0, done.stdout + done.stderr
    (place,) = (layout.checkpoints / "tuning").iterdir()
    best = read_search(place).best
    assert best is not None
    rates = [trial.values["training.learning_rate"] for trial in read_search(place).ranked()]
    assert sorted(rates) == [0.00001, 0.02]
    assert "trial 2 of 2: training.learning_rate 0.02" in done.stdout
    tuned = Store(layout.metadata).latest("Tuner")
    assert tuned is not None
    results = json.loads((Path(tuned["tuner_results"].uri) / "tuner_results.json").read_text())
    assert [row["training.learning_rate"] for row in results] == rates
    (version,) = layout.serving.iterdir()
    made = describe(version).made
    assert made["experiment"]["training"]["learning_rate"] == rates[0]
    assert made["validation"][0]["auc"] == pytest.approx(best.metrics["auc"], abs=1e-6)

    # A Tuner of TFX whose trials all failed ends as if it had found something.
    failed = run_plan(tmp_path, {"model.interaction": ["qnn_alpha"], "model.interaction.hidden": [[8]]})
    assert failed.returncode == 1, failed.stdout + failed.stderr
    assert "each of the 1 trials failed; the first of them: these values: interaction qnn_alpha: " in failed.stderr
    assert "Traceback" not in failed.stderr
    assert len(list(layout.serving.iterdir())) == 1


def test_an_experiment_or_a_plan(tmp_path: Path) -> None:
    for one in (None, tmp_path / "file.yaml"):
        with pytest.raises(UserError, match="one of --experiment and --plan must be given, and not both"):
            run(tmp_path, tmp_path / "features.yaml", one, tmp_path / "out", plan=one)


START = {"run": "out", "parts": ["din"]}


def config_of(directory: Path, search: dict[str, Any], **experiment: Any) -> PipelineConfig:
    tuning = Plan.model_validate({"experiment": {"preset": "din", **experiment}, "search": search, "method": "grid"})
    return PipelineConfig(
        root=str(directory),
        data=str(directory),
        data_digest="",
        code=dict.fromkeys(SOURCES, ""),
        features=load_feature_file(ROOT / "configs" / "movielens.yaml"),
        experiment=tuning.experiment,
        checkpoints=str(directory),
        pushed=str(directory),
        schema=str(directory / "schema.pbtxt"),
        tuning=tuning,
    )


@pytest.mark.parametrize(
    ("search", "told"),
    [
        ({"training.start_from": [None, START]}, "search.training.start_from: a pipeline has no earlier run to start"),
        ({"training": [{"epochs": 1}, {"start_from": START}]}, "search.training: a pipeline has no earlier run to"),
        ({"evaluation.weighting": ["impressions", "clicks"]}, "search.evaluation.weighting: a pipeline judges every"),
        (
            {"a": {"type": "together", "choices": [{"evaluation": {"weighting": "clicks"}, "training.epochs": 1}]}},
            "search.a: a pipeline judges every",
        ),
    ],
)
def test_what_the_trainer_can_not_honour_is_not_searched(tmp_path: Path, search: dict[str, Any], told: str) -> None:
    from pipeline.pipeline import create_pipeline

    with pytest.raises(UserError, match=told):
        create_pipeline(config_of(tmp_path, search))


def test_a_demand_changes_no_search(tmp_path: Path) -> None:
    from pipeline.pipeline import create_pipeline

    def told(**evaluation: Any) -> str:
        config = config_of(tmp_path, {"training.epochs": [1, 2]}, evaluation=evaluation)
        components = {one.id: one for one in create_pipeline(config).components}
        return str(components["Tuner"].exec_properties["custom_config"])

    assert told(min_auc=0.6) == told(min_auc=0.7)
    assert told(weighting="clicks") != told(weighting="impressions")
