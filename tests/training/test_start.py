"""MAKE's two stages: content is trained alone for several epochs, then its interest is kept beside one over ids."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.training.test_loop import Killed, kill_after
from tests.workbench import Workbench
from tfctr.data.analyze import analyze
from tfctr.data.sources import split_files
from tfctr.errors import UserError
from tfctr.features import FeatureFile
from tfctr.training.experiment import Experiment
from tfctr.training.run import TrainingResult, run_training
from tfctr.training.workspace import finished_run, train_in_workspace

pytestmark = pytest.mark.slow

MAKE = {"type": "make", "content_dim": 4, "unit_hidden": [4], "hidden_units": [4]}
DIN = {"type": "din", "hidden": [4]}
FILE = FeatureFile.model_validate(
    {
        "labels": {"click": "label"},
        "embedding_dimension": 4,
        "candidate": {
            "item_id": {"dtype": "int64"},
            "item_vector": {"kind": "frozen", "key": "item_id", "vectors": "item_vectors.npz"},
        },
        "sequences": {"history": {"max_length": 4, "fields": {"history_item_id": {"share": "item_id"}}}},
    }
)


def experiment(interests: list[dict[str, Any]], **training: Any) -> Experiment:
    settings = {"epochs": 1, "batch_size": 320, "learning_rate": 0.01, "jit_compile": False, "checkpoint_steps": 1}
    model = {"interests": interests, "interaction": {"type": "mlp", "hidden": [4]}}
    return Experiment.model_validate({"model": model, "training": {**settings, **training}})


def stage_two(run: Path, freeze: bool = True, parts: tuple[str, ...] = ("make",), **change: Any) -> Experiment:
    start = {"run": str(run), "parts": parts, "freeze": freeze}
    return experiment([DIN, {**MAKE, **change}], start_from=start)


def weights(result: TrainingResult, name: str) -> list[np.ndarray]:
    return [np.array(weight) for weight in result.model.scorer.interests[name].weights]


@pytest.fixture(scope="module")
def first(workbench: Workbench, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TrainingResult]:
    """The workspace of the first stage, and its result."""
    out = tmp_path_factory.mktemp("stages") / "content"
    return out, train_in_workspace(FILE, experiment([MAKE], epochs=2), workbench.data, out)


def test_frozen_parts_stay_and_the_rest_is_trained(
    workbench: Workbench, first: tuple[Path, TrainingResult], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, content = first
    result = train_in_workspace(FILE, stage_two(out), workbench.data, tmp_path / "run")
    assert f"interest make of sequence 'history' starts from {out}, frozen" in capsys.readouterr().out
    given = weights(content, "history")
    assert any(array.std() > 0 for array in given)
    for own, other in zip(weights(result, "history_make"), given, strict=True):
        np.testing.assert_array_equal(own, other)
    trained = {weight.path for weight in result.model.trainable_weights}
    frozen = {weight.path for weight in result.model.scorer.interests["history_make"].weights}
    assert trained
    assert not trained & frozen
    assert result.model.auxiliary_weights == {}
    # What the workspace holds is the whole model, which needs the first run no longer.
    again = finished_run(tmp_path / "run").model
    for own, other in zip(again.weights, result.model.weights, strict=True):
        np.testing.assert_array_equal(own, other)


def test_a_frozen_interest_acts_in_training_as_it_is_served(
    workbench: Workbench, first: tuple[Path, TrainingResult], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The moving statistics of its Dice are used and stay, and its logit is not part of the loss."""
    result = train_in_workspace(FILE, stage_two(first[0]), workbench.data, tmp_path / "run")
    layer = result.model.scorer.interests["history_make"]
    statistics = [np.array(weight) for weight in layer.weights if "moving" in weight.path]
    assert statistics
    assert any(np.ptp(array) > 0 for array in statistics)
    file, data = result.model.file, workbench.data
    bench = Workbench(data, file, analyze(file, split_files(data, "train"), tmp_path / "assets", data))
    inputs, labels, _ = next(iter(bench.split("train").batches(64)))
    seen = []
    original = layer.attend

    def watched(state: Any, candidate: Any, context: Any, training: Any = None) -> Any:
        seen.append(training)
        return original(state, candidate, context, training=training)

    monkeypatch.setattr(layer, "attend", watched)
    logits = result.model(inputs, training=True)
    assert seen == [False]
    loss = result.model.compute_loss(inputs, labels, logits)
    plain = result.model.loss_function(*result.model._pairs(inputs, labels, logits, None))
    np.testing.assert_allclose(loss, plain, rtol=1e-6)


def test_parts_that_are_not_frozen_are_trained_on(
    workbench: Workbench, first: tuple[Path, TrainingResult], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, content = first
    starts = []
    original = run_training.__globals__["train"]

    def watched(model: Any, *rest: Any) -> Any:
        starts.append([np.array(weight) for weight in model.scorer.interests["history_make"].weights])
        return original(model, *rest)

    monkeypatch.setitem(run_training.__globals__, "train", watched)
    result = train_in_workspace(FILE, stage_two(out, freeze=False), workbench.data, tmp_path / "run")
    for own, other in zip(starts[0], weights(content, "history"), strict=True):
        np.testing.assert_array_equal(own, other)
    moved = [
        not np.array_equal(own, other) for own, other in zip(weights(result, "history_make"), starts[0], strict=True)
    ]
    assert any(moved)
    assert list(result.model.auxiliary_weights) == ["history_make/content"]


def test_a_killed_second_stage_goes_on(
    workbench: Workbench, first: tuple[Path, TrainingResult], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    two = stage_two(first[0])
    whole = train_in_workspace(FILE, two, workbench.data, tmp_path / "whole")
    with monkeypatch.context() as patch:
        kill_after(patch, 2)
        with pytest.raises(Killed):
            train_in_workspace(FILE, two, workbench.data, tmp_path / "killed")
    resumed = train_in_workspace(FILE, two, workbench.data, tmp_path / "killed")
    for own, other in zip(resumed.model.weights, whole.model.weights, strict=True):
        np.testing.assert_allclose(own, other, rtol=1e-5, atol=1e-7)


def test_another_first_stage_makes_another_run(workbench: Workbench, tmp_path: Path) -> None:
    """The place is the same, what lies there is not: the second stage is trained again."""
    content, out = tmp_path / "content", tmp_path / "run"
    found = []
    for seed in (1, 2):
        train_in_workspace(FILE, experiment([MAKE], seed=seed), workbench.data, content)
        result = train_in_workspace(FILE, stage_two(content), workbench.data, out)
        found.append(weights(result, "history_make"))
    assert any(not np.array_equal(one, other) for one, other in zip(*found, strict=True))
    assert stage_two(content).fingerprint() != stage_two(out).fingerprint() != experiment([DIN, MAKE]).fingerprint()


def test_errors(workbench: Workbench, first: tuple[Path, TrainingResult], tmp_path: Path) -> None:
    out = first[0]
    for chosen, message in [
        (stage_two(tmp_path / "none"), "none: holds no finished run; train one with `tfctr train"),
        (stage_two(tmp_path / "run"), "run is where this run goes; train into another directory"),
        (stage_two(out, parts=("din",)), f"{out} has no interest of type 'din'. Allowed: make"),
        (stage_two(out, parts=("cmm",)), "this experiment has no interest of type 'cmm'. Allowed: din, make"),
        (stage_two(out, units=5), f"interest make has `units: 5` here and `units: None` in {out}; give it the same"),
    ]:
        with pytest.raises(UserError, match=message):
            train_in_workspace(FILE, chosen, workbench.data, tmp_path / "run")


def test_a_source_is_needed_where_an_experiment_asks_for_one(workbench: Workbench, tmp_path: Path) -> None:
    rows = workbench.split("valid")
    with pytest.raises(ValueError, match="`source` must be given where the experiment has"):
        run_training(workbench.assets, stage_two(tmp_path), rows, rows, tmp_path)


def test_a_module_of_another_form_is_refused(
    workbench: Workbench, first: tuple[Path, TrainingResult], tmp_path: Path
) -> None:
    other = stage_two(first[0], activation="relu")
    with pytest.raises(UserError, match="interest make has `activation: relu` here and `activation: dice` in "):
        train_in_workspace(FILE, other, workbench.data, tmp_path / "run")


def test_frozen_weights_for_embeddings_that_start_anew_are_refused(workbench: Workbench, tmp_path: Path) -> None:
    train_in_workspace(FILE, experiment([DIN]), workbench.data, tmp_path / "ids")
    start = {"run": str(tmp_path / "ids"), "parts": ("din",)}
    with pytest.raises(UserError, match="interest din reads item_id, whose embeddings start anew here"):
        train_in_workspace(
            FILE, experiment([DIN], start_from={**start, "freeze": True}), workbench.data, tmp_path / "run"
        )
    train_in_workspace(FILE, experiment([DIN], start_from=start), workbench.data, tmp_path / "run")


def test_features_in_another_order_are_refused(workbench: Workbench, tmp_path: Path) -> None:
    content = FILE.model_dump(mode="json", exclude_unset=True)
    candidate, fields = content["candidate"], content["sequences"]["history"]["fields"]
    candidate["genres"] = {"dtype": "string", "max_values": 4}
    fields["history_genres"] = {"share": "genres", "max_values": 2}
    one = FeatureFile.model_validate(content)
    turned = {**content, "candidate": dict(reversed(candidate.items()))}
    turned["sequences"] = {"history": {"max_length": 4, "fields": dict(reversed(fields.items()))}}
    run = tmp_path / "one"
    train_in_workspace(one, experiment([DIN]), workbench.data, run)
    with pytest.raises(UserError, match="interest din has `features: "):
        train_in_workspace(
            FeatureFile.model_validate(turned),
            experiment([DIN], start_from={"run": str(run), "parts": ("din",)}),
            workbench.data,
            tmp_path / "other",
        )


def test_weights_without_a_gradient_are_no_warning(workbench: Workbench, tmp_path: Path) -> None:
    """`make` alone reads no embedding of the events' own features, so their tables get no gradient."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        train_in_workspace(workbench.file, experiment([MAKE]), workbench.data, tmp_path / "run")


def test_the_same_part_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="the same type twice"):
        stage_two(Path("run"), parts=("make", "make"))
