"""Validation and `tfctr evaluate` honour weights and groups, and say the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner
from typing_extensions import override

from tests.training.runs import small_experiment
from tests.weighted_rows import (
    MISSING_GROUPS,
    MISSING_WEIGHTS,
    ROWS,
    Scorer,
    feature_file,
    ranking_data,
    saved_model,
    write,
)
from tfctr.cli import app
from tfctr.features.assets import FeatureAssets
from tfctr.metrics.reference import auc, gauc
from tfctr.metrics.report import report
from tfctr.training.demands import Evaluation
from tfctr.training.evaluate import predict
from tfctr.training.loop import validate
from tfctr.training.run import run_training


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved_model(tmp_path_factory.mktemp("scorer"))


@pytest.fixture(params=["validate", "evaluate"])
def measure(request: pytest.FixtureRequest, model: Path, tmp_path: Path) -> Any:
    """The metrics of rows after an epoch of training, or of a SavedModel."""

    def validated(rows: Any, group: str | None) -> dict[str, float]:
        return validate(Scorer(), ranking_data(tmp_path, rows, feature_file(group)), 3)

    def evaluated(rows: Any, group: str | None) -> dict[str, float]:
        found = predict(model, feature_file(group), [write(tmp_path / "test.tfrecord", rows)])
        return vars(report(found.labels, found.scores, found.groups, found.weights)[0])

    return {"validate": validated, "evaluate": evaluated}[request.param]


@pytest.mark.parametrize("group", ["user_id", "session"])
@pytest.mark.parametrize("rows", [ROWS, MISSING_WEIGHTS, MISSING_GROUPS], ids=["rows", "no weight", "no group"])
def test_weights_and_groups(measure: Any, rows: Any, group: str) -> None:
    """Also of users whom training never saw: they are not one user."""
    found = measure(rows, group)
    labels, scores = [row[2] for row in rows], [row[1] for row in rows]
    weights = [1 if row[3] is None else row[3] for row in rows]
    assert found["auc"] == pytest.approx(auc(labels, scores, weights))
    if rows is not MISSING_GROUPS:
        assert found["auc"] == 0.75
    assert found["gauc"] == 1.0


@pytest.mark.parametrize("size", [1, 2, 3, 4, 100])
def test_every_batch_has_one_size_and_every_row_counts_once(tmp_path: Path, size: int) -> None:
    seen: list[int] = []

    class Watched(Scorer):
        @override
        def predict_on_batch(self, inputs: Any) -> Any:
            seen.append(len(next(iter(inputs.values()))))
            return super().predict_on_batch(inputs)

    rows = (*ROWS, *MISSING_WEIGHTS, ROWS[0])
    data = ranking_data(tmp_path, rows, feature_file("user_id"))
    expected = validate(Scorer(), data, len(rows))
    assert validate(Watched(), data, size) == pytest.approx(expected, abs=1e-6)
    assert set(seen) == {min(size, len(rows))}


def test_without_a_group_nothing_is_called_gauc(measure: Any) -> None:
    found = measure(ROWS, None)
    assert found["auc"] == 0.75
    assert "gauc" not in found


def test_rows_without_a_group_are_counted(measure: Any) -> None:
    assert measure((*MISSING_GROUPS, (None, 9, 1, 0)), "user_id")["ungrouped"] == 2


@pytest.mark.slow
@pytest.mark.parametrize("group", ["session", None])
def test_an_epoch_is_told_by_its_weights(
    group: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A whole run: what it prints, what it keeps as the best, and what the model says afterwards."""
    monkeypatch.setenv("COLUMNS", "200")
    generator = np.random.default_rng(0)
    rows = [
        (int(user) if user else None, float(score), int(generator.random() < score / 10), float(weight))
        for user, score, weight in zip(
            generator.integers(0, 6, 200), generator.uniform(0, 10, 200), generator.choice([0, 1, 3], 200), strict=True
        )
    ]
    file = feature_file(group)
    data = ranking_data(tmp_path, rows, file)
    experiment = small_experiment(batch_size=50).model_copy(update={"evaluation": Evaluation(weighting="clicks")})
    result = run_training(FeatureAssets(tmp_path / "assets"), experiment, data, data, tmp_path / "runs")
    [(inputs, labels, weights)] = data.batches(200)
    scores = result.model.predict_on_batch(inputs)
    columns = labels.numpy().ravel(), scores.ravel()
    assert result.progress.best == pytest.approx(auc(*columns, weights.numpy().ravel()), abs=1e-6)
    assert abs(result.progress.best - auc(*columns)) > 1e-3
    printed = capsys.readouterr().out
    entry = result.progress.history[result.progress.best_epoch - 1]
    if group is None:
        assert "GAUC" not in printed
        assert "gauc" not in entry
    else:
        by_clicks: Any = {"weights": weights.numpy().ravel(), "weighting": "clicks"}
        users = np.array(["" if row[0] is None else row[0] for row in rows], "U")
        assert entry["gauc"] == pytest.approx(gauc(*columns, users, **by_clicks).value, abs=1e-6)
        left_out = sum(row[0] is None and row[3] > 0 for row in rows)
        assert printed.count(f"the validation split: {left_out} rows have no group and are left out of GAUC") == 1


@pytest.mark.parametrize("group", ["session", None])
def test_the_commands_tell_of_groups_where_there_are_any(
    group: str | None, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    features = feature_file(group).model_dump(mode="json", exclude_unset=True)
    (tmp_path / "features.yaml").write_text(yaml.safe_dump(features), encoding="utf-8")
    made = {
        "features": features,
        "experiment": {"evaluation": {"slices": [], "demands": [], "weighting": "impressions"}},
    }
    (model / "assets.extra").mkdir(exist_ok=True)
    (model / "assets.extra" / "tfctr.json").write_text(json.dumps(made), encoding="utf-8")
    (tmp_path / "test").mkdir()
    write(tmp_path / "test" / "part.tfrecord", MISSING_GROUPS)
    saved = tmp_path / "rows.npz"
    arguments = ["evaluate", "--model", model, "--data", tmp_path, "--predictions", saved]
    evaluated = CliRunner().invoke(app, [str(argument) for argument in arguments])
    shown = CliRunner().invoke(app, ["features", "show", str(tmp_path / "features.yaml")])
    assert (evaluated.exit_code, shown.exit_code) == (0, 0), evaluated.output + shown.output
    with np.load(saved) as rows:
        assert ("groups" in rows) == (group is not None)
    if group is None:
        assert "GAUC" not in evaluated.output
        assert "no group, so no GAUC" in shown.output
    else:
        assert "2 rows have no group and are left out of GAUC" in evaluated.output
        assert "GAUC by session" in shown.output
