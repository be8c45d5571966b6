"""A new metric needs a function and one entry of the table, where report, command line and pipeline find it."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from typer.testing import CliRunner

from tfctr.metrics.reference import check_rows, gauc
from tfctr.metrics.report import report
from tfctr.metrics.table import METRICS, Direction, Metric, measurable, metric_named


def brier(labels, probabilities, weights=None, power: float = 2.0) -> float:
    """Weighted mean of `|y - p| ^ power`."""
    rows = check_rows(labels, probabilities, weights=weights)
    if rows.scores.size == 0:
        return float("nan")
    return float(np.average(np.abs(rows.labels - rows.scores) ** power, weights=rows.weights))


@pytest.fixture
def demonstration(monkeypatch: pytest.MonkeyPatch) -> None:
    """Add the one entry that a new metric needs."""
    monkeypatch.setitem(METRICS, "brier", Metric("brier", "Brier score", brier, Direction.FALLING))


@pytest.mark.usefixtures("demonstration")
class TestANewMetric:
    def test_is_in_the_report(self) -> None:
        (row,) = report([0, 1, 1], [0.5, 0.5, 1.0], None)
        assert row.brier == pytest.approx((0.25 + 0.25 + 0) / 3)

    def test_is_in_the_table_of_the_command_line(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from tests.workbench import ROOT
        from tfctr.cli import app
        from tfctr.data import sources
        from tfctr.export import describe
        from tfctr.features import load_feature_file
        from tfctr.training import evaluate

        features = load_feature_file(ROOT / "configs" / "synthetic.yaml").model_dump(mode="json", exclude_unset=True)
        evaluation = {"slices": [], "demands": [], "weighting": "impressions"}
        made = {"experiment": {"evaluation": evaluation}, "features": features}
        described = describe.ModelDescription(tmp_path, {}, {}, {}, made)
        rows = evaluate.Predictions(np.array([0, 1, 1]), np.array([0.5, 0.5, 1.0]), np.array([1, 1, 2]), None, {})
        monkeypatch.setattr(describe, "describe", lambda directory: described)
        monkeypatch.setattr(sources, "split_files", lambda data, split: [])
        monkeypatch.setattr(evaluate, "predict", lambda *arguments: rows)
        monkeypatch.setenv("COLUMNS", "200")
        ran = CliRunner().invoke(app, ["evaluate", "--model", str(tmp_path), "--data", str(tmp_path)])
        assert ran.exit_code == 0, ran.output
        heading, overall = (line for line in ran.stdout.splitlines() if "slice" in line or "overall" in line)
        titles = [title.strip() for title in heading.strip("┃").split("┃")]
        cells = [cell.strip() for cell in overall.strip("│").split("│")]
        assert titles[-2:] == ["Brier score", "groups used / skipped / coverage / ungrouped"]
        assert cells[-2:] == ["0.1667", "1 / 1 / 0.6667 / 0"]

    @pytest.mark.e2e
    def test_is_measured_demanded_and_shown_by_the_pipeline(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from pipeline import store
        from pipeline.evaluation import blessing_reasons, eval_config, load_slices
        from pipeline.show import slice_table
        from tests.pipeline.evaluator_run import evaluate, make_data
        from tfctr.training.experiment import load_experiment

        file = tmp_path / "experiment.yaml"
        file.write_text(
            "evaluation:\n"
            "  min_gauc: 0.0\n"
            "  demands:\n"
            "  - {metric: brier, maximum: 0.01}\n"
            "  - {metric: brier, column: gender, value: F, maximum: 1.0}\n"
        )
        config = eval_config(load_experiment(file).evaluation, slices=["hour"])
        assert '"brier"' in str(config).replace("\\", "")
        outcome = evaluate(tmp_path, make_data(), config, scale=1.0)
        assert not outcome.blessed
        rows = load_slices(outcome.evaluation)
        overall = rows[0].metrics
        assert 0.01 < overall["brier"] < 1.0
        assert all("brier" in row.metrics for row in rows)
        assert blessing_reasons(outcome.evaluation) == [
            f"overall: brier is {overall['brier']:.4f}; at most 0.0100 is allowed"
        ]
        (tmp_path / "metadata.sqlite").touch()
        latest = {"evaluation": SimpleNamespace(uri=outcome.evaluation)}
        monkeypatch.setattr(store, "Store", lambda path: SimpleNamespace(latest=lambda component: latest))
        shown = {column.header: list(column.cells) for column in slice_table(tmp_path).columns}
        assert shown["brier"] == [f"{row.metrics['brier']:.4f}" for row in rows]


def test_an_entry_knows_its_options_and_checks_them() -> None:
    assert {name: metric.options for name, metric in METRICS.items()} == {
        "auc": (),
        "gauc": ("weighting",),
        "examples": (),
        "logloss": ("clip",),
        "copc": (),
        "ece": ("bins",),
        "calibration": (),
    }
    assert METRICS["gauc"].accepted({"weighting": "clicks", "bins": 3}) == {"weighting": "clicks"}
    METRICS["gauc"].check({"weighting": "uniform"})
    with pytest.raises(ValueError, match="`weighting` must be one of"):
        METRICS["gauc"].check({"weighting": "sessions"})
    with pytest.raises(ValueError, match=r"auc has no such option\. Allowed: none\. Received: bins, clip\."):
        METRICS["auc"].check({"bins": 3, "clip": 0.1})
    with pytest.raises(ValueError, match=r"no such metric\. Allowed: auc, gauc, .* Received: 'ndcg'\."):
        metric_named("ndcg")


def test_a_metric_gives_its_value_and_its_columns() -> None:
    rows = [0, 1, 1, 0], [0.1, 0.5, 0.7, 0.7], [1, 1, 2, 2]
    expected = gauc(*rows, "clicks", [1, 2, 3, 4])
    assert METRICS["gauc"].measure(*rows, weights=[1, 2, 3, 4], weighting="clicks") == (
        expected.value,
        expected.groups_used,
        expected.groups_skipped,
        expected.coverage,
        expected.ungrouped,
    )
    assert len(METRICS["auc"].measure(*rows[:2])) == 1
    with pytest.raises(ValueError, match="`groups` must have one value per label"):
        METRICS["gauc"].measure(*rows[:2])


def test_without_groups_what_needs_them_is_not_measurable() -> None:
    assert [metric.name for metric in measurable(grouped=True)] == list(METRICS)
    assert {metric.name for metric in measurable(grouped=False)} == set(METRICS) - {"gauc"}
