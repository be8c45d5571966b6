"""docs/results.md is what `python -m benchmarks.reproduce` writes of its plans and results."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from benchmarks.reproduce import PAGE, RESULTS, app
from benchmarks.table_plans import read_results, read_tables, results_page
from tests.workbench import ROOT, Workbench, make_workbench
from tfctr.features import load_feature_file
from tfctr.tuning.plan import check_plan, load_plan

TABLES = read_tables()


def test_the_page_is_of_the_plans_and_results() -> None:
    assert PAGE.read_text("utf-8") == results_page(list(TABLES.values()), read_results(RESULTS))


def test_no_result_is_of_a_table_that_is_gone_and_none_stands_twice() -> None:
    found = read_results(RESULTS)
    assert {one.table for one in found} <= TABLES.keys()
    assert len({(one.table, one.plan, one.seed) for one in found}) == len(found)


@pytest.mark.parametrize("name", TABLES)
def test_every_row_of_a_plan_can_be_trained(name: str) -> None:
    for row in TABLES[name].rows:
        file = row.feature_file()
        row.experiment(1).model_config_of().interests_of(file)
        assert bool(row.published) == bool(row.source), f"{row.name}: a published figure needs its source"


class TestTraining:
    @pytest.fixture(scope="class")
    def bench(self, tmp_path_factory: pytest.TempPathFactory) -> Workbench:
        return make_workbench(tmp_path_factory.mktemp("results"))

    @pytest.fixture
    def plans(self, bench: Workbench, tmp_path: Path) -> Path:
        features = tmp_path / "features.yaml"
        features.write_text(yaml.safe_dump(bench.file.model_dump(mode="json", exclude_unset=True)), "utf-8")
        plan = {
            "about": "A small table.",
            "data": {"small": {"title": "Small", "prepare": "tfctr data synthesize --out DATA", "every": {}}},
            "seeds": [1, 2],
            "every": {"features": str(features), "training": {"epochs": 1, "batch_size": 256, "jit_compile": False}},
            "rows": {
                "LR": {"preset": "lr", "published": {"auc": 0.6}, "source": "nowhere"},
                "FM": {"preset": "fm"},
                "the same FM": {"preset": "fm"},
            },
        }
        directory = tmp_path / "plans"
        directory.mkdir()
        (directory / "small.yaml").write_text(yaml.safe_dump(plan, sort_keys=False), "utf-8")
        return directory

    def call(self, bench: Workbench, plans: Path, *options: str) -> Result:
        places = {"--data": bench.data, "--plans": plans, "--work": plans.parent / "work"}
        places |= {"--results": plans.parent / "results.jsonl", "--page": plans.parent / "page.md"}
        given = [str(part) for pair in places.items() for part in pair]
        return CliRunner().invoke(app, ["--table", "small", *given, *options], catch_exceptions=False)

    def test_rows_are_trained_once_and_again_when_their_plan_changes(self, bench: Workbench, plans: Path) -> None:
        results, page = plans.parent / "results.jsonl", plans.parent / "page.md"
        done = self.call(bench, plans, "--seeds", "1")
        assert done.exit_code == 0, done.output
        first = read_results(results)
        assert [(one.row, one.seed) for one in first] == [("LR", 1), ("FM", 1)]  # the third is the second
        for one in first:
            assert one.epochs == one.best_epoch == 1
            assert {"auc", "logloss", "gauc"} == one.test.keys()
        text = page.read_text("utf-8")
        assert f"| LR | 1 | {first[0].test['auc']:.4f} | 0.6000 | {first[0].test['auc'] - 0.6:+.4f} |" in text
        assert f"| the same FM | 1 | {first[1].test['auc']:.4f} |" in text
        assert "Open rows: none." in text
        assert "With fewer than 2 seeds: LR, FM, the same FM." in text

        self.call(bench, plans, "--seeds", "1")
        assert read_results(results) == first

        path = plans / "small.yaml"
        path.write_text(path.read_text("utf-8").replace("preset: lr", "preset: mlp"), "utf-8")
        self.call(bench, plans, "--seeds", "1", "--rows", "LR")
        assert read_results(results)[:2] == first
        assert json.loads(results.read_text("utf-8").splitlines()[-1])["row"] == "LR"

    def test_a_row_that_cannot_be_trained_keeps_no_other_from_it(self, bench: Workbench, plans: Path) -> None:
        path = plans / "small.yaml"
        path.write_text(path.read_text("utf-8").replace("preset: lr", "preset: lr\n    model: {loss: hinge}"), "utf-8")
        done = self.call(bench, plans, "--seeds", "1")
        assert done.exit_code == 1
        assert "rows that could not be trained:" in done.output
        assert "LR, seed 1: LR: " in done.output
        assert [one.row for one in read_results(plans.parent / "results.jsonl")] == ["FM"]
        assert "Open rows: LR." in (plans.parent / "page.md").read_text("utf-8")

    @pytest.mark.parametrize(
        ("written", "instead", "told"),
        [
            (
                "about: A small table.",
                "abuot: A small table.",
                "small.yaml: abuot: unknown key. Allowed: about, ",
            ),
            ("seeds:", "seeds: []\nevery_seed:", "small.yaml: every_seed: unknown key"),
            ("source: nowhere", "sauce: nowhere", "small.yaml: rows.LR: sauce: unknown key. Allowed: dimension, "),
        ],
    )
    def test_a_plan_with_a_fault(self, bench: Workbench, plans: Path, written: str, instead: str, told: str) -> None:
        path = plans / "small.yaml"
        assert written in path.read_text("utf-8")
        path.write_text(path.read_text("utf-8").replace(written, instead), "utf-8")
        refused = self.call(bench, plans)
        assert refused.exit_code == 2
        assert told in refused.output

    def test_names_that_are_none(self, bench: Workbench, plans: Path) -> None:
        refused = self.call(bench, plans, "--rows", "LR,GRU")
        assert refused.exit_code == 2
        assert "GRU: no row of small. Allowed: LR, FM, the same FM" in " ".join(refused.output.split())
        refused = CliRunner().invoke(app, ["--table", "huge", "--plans", str(plans)])
        assert refused.exit_code == 2
        assert "huge: no such table. Allowed: small" in " ".join(refused.output.split())


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks" / "searches").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_plan_of_a_search_is_accepted(path: Path) -> None:
    plan = load_plan(path)
    [features] = re.findall(r"--features (\S+)", path.read_text("utf-8"))
    check_plan(plan, load_feature_file(ROOT / features), path)
