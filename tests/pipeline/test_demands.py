"""An experiment's demands on slices become thresholds in the configuration of the Evaluator."""

import json
from pathlib import Path

import pytest

from pipeline.configs import SOURCES, PipelineConfig
from tests.workbench import ROOT
from tfctr.errors import UserError
from tfctr.features import FeatureFile, load_feature_file
from tfctr.training.experiment import Experiment

pytestmark = pytest.mark.e2e  # importing TFX takes ten seconds


def test_demands_of_the_experiment_reach_the_evaluator(tmp_path: Path) -> None:
    from google.protobuf import json_format
    from tensorflow_model_analysis.proto import config_pb2

    from pipeline.pipeline import create_pipeline

    demand = {"column": "occupation", "value": "3", "metric": "gauc", "minimum": 0.61}
    config = PipelineConfig(
        root=str(tmp_path),
        data=str(tmp_path),
        data_digest="",
        code=dict.fromkeys(SOURCES, ""),
        features=load_feature_file(ROOT / "configs" / "movielens.yaml"),
        experiment=Experiment.model_validate({"evaluation": {"demands": [demand], "weighting": "clicks"}}),
        checkpoints=str(tmp_path),
        pushed=str(tmp_path),
        schema=str(tmp_path / "schema.pbtxt"),
    )
    components = {one.id: one for one in create_pipeline(config).components}
    evaluator = components["Evaluator"]
    # The model's own figures depend on the weighting; its cache key must not depend on demands and slices.
    trained = json.loads(json.loads(components["Trainer"].exec_properties["custom_config"])["experiment"])
    assert trained["evaluation"]["weighting"] == "clicks"
    assert not trained["evaluation"]["demands"]
    found = json_format.Parse(evaluator.exec_properties["eval_config"], config_pb2.EvalConfig())
    assert any(list(spec.feature_keys) == ["occupation"] for spec in found.slicing_specs)
    thresholds = [
        (dict(slicing.feature_values), one.threshold.value_threshold.lower_bound.value)
        for spec in found.metrics_specs
        for metric in spec.metrics
        for one in metric.per_slice_thresholds
        for slicing in one.slicing_specs
        if slicing.feature_values
    ]
    assert ({"occupation": "3"}, 0.61) in thresholds


@pytest.mark.parametrize("column", ["history_time", "label", "nowhere"])
def test_a_column_that_can_not_be_sliced_by_is_refused(tmp_path: Path, column: str) -> None:
    from pipeline.pipeline import create_pipeline

    config = PipelineConfig(
        root=str(tmp_path),
        data=str(tmp_path),
        data_digest="",
        code={},
        features=load_feature_file(ROOT / "configs" / "movielens.yaml"),
        experiment=Experiment.model_validate({"evaluation": {"slices": [column]}}),
        checkpoints=str(tmp_path),
        pushed=str(tmp_path),
    )
    with pytest.raises(UserError, match=f"can't slice by column '{column}'. Allowed: age, "):
        create_pipeline(config)


def test_an_interest_without_a_sequence_is_refused_before_anything_runs(tmp_path: Path) -> None:
    from pipeline.pipeline import create_pipeline

    file = FeatureFile.model_validate({"labels": {"click": "label"}, "candidate": {"item_id": {}}})
    experiment = Experiment.model_validate({"preset": "din"})
    config = PipelineConfig(
        root=str(tmp_path),
        data=str(tmp_path),
        data_digest="",
        code={},
        features=file,
        experiment=experiment,
        checkpoints=str(tmp_path),
        pushed=str(tmp_path),
    )
    with pytest.raises(UserError, match="'din' has no sequence to read: the feature file has no sequences"):
        create_pipeline(config)


def test_a_training_from_an_earlier_run_is_refused_before_anything_runs(tmp_path: Path) -> None:
    from pipeline.pipeline import create_pipeline

    start = {"run": "out", "parts": ["din"]}
    config = PipelineConfig(
        root=str(tmp_path),
        data=str(tmp_path),
        data_digest="",
        code={},
        features=load_feature_file(ROOT / "configs" / "movielens.yaml"),
        experiment=Experiment.model_validate({"preset": "din", "training": {"start_from": start}}),
        checkpoints=str(tmp_path),
        pushed=str(tmp_path),
    )
    with pytest.raises(UserError, match="start_from: a pipeline has no earlier run to start from; use `tfctr train`"):
        create_pipeline(config)
