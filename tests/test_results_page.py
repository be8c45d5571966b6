"""docs/results.md is what `python -m benchmarks.reproduce` writes of its plans and results."""

from __future__ import annotations

import json
import math
import re
import shutil
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner
from typer.testing import Result as Done

from benchmarks.reproduce import PAGE, RESULTS, app
from benchmarks.table_plans import Result, Row, Table, read_results, read_tables, results_page
from tests.workbench import ROOT, Workbench, make_workbench
from tfctr.features import load_feature_file
from tfctr.training import loop
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


class TestPage:
    """The table of two rows, of made results."""

    TABLE = Table(
        name="small",
        title="Small",
        about="",
        prepare="",
        seeds=(1, 2),
        rows=tuple(
            Row(name=name, model={"preset": name, "training": {}}, features="configs/frappe.yaml")
            for name in ("lr", "fm")
        ),
    )

    def result(self, row: int, seed: int, **test: float) -> Result:
        return Result(
            table="small",
            row=self.TABLE.rows[row].name,
            plan=self.TABLE.rows[row].digest,
            seed=seed,
            data="0",
            test=test,
            valid=test,
            best_epoch=1,
            epochs=1,
            parameters=9,
            seconds=1.0,
            rows_per_second=1.0,
            machine="one",
            day="2026-01-01",
        )

    def lines(self, *results: Result) -> list[str]:
        return [line for line in results_page([self.TABLE], results).splitlines() if line.startswith(("| lr", "| fm"))]

    def test_a_row_without_a_metric_that_another_has(self) -> None:
        made = self.lines(self.result(0, 1, auc=0.5, gauc=0.6), self.result(1, 1, auc=0.7))
        assert [line.split(" | ")[:3] for line in made] == [["| lr", "1", "0.5000"], ["| fm", "1", "0.7000"]]
        assert "| 0.6000 |" in made[0]
        assert "0.6000" not in self.lines(self.result(0, 1, auc=0.5, gauc=0.6), self.result(0, 2, auc=0.5))[0]

    def test_a_seed_counts_once_and_only_if_the_plan_has_it(self) -> None:
        [line] = self.lines(self.result(0, 1, auc=0.5), self.result(0, 1, auc=0.6), self.result(0, 3, auc=0.9))
        assert line.startswith("| lr | 1 | 0.6000 |")


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

    def call(self, bench: Workbench, plans: Path, *options: str) -> Done:
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

        other = bench.data.with_name("other")
        shutil.copytree(bench.data, other)
        manifest = other / "dataset.json"
        manifest.write_text(manifest.read_text("utf-8").replace('"seed": ', '"seed": 1'), "utf-8")
        refused = self.call(bench, plans, "--data", str(other))
        assert refused.exit_code == 2
        assert "LR, seed 1 was trained on other data than" in refused.output
        manifest.unlink()
        refused = self.call(bench, plans, "--data", str(other))
        assert refused.exit_code == 2
        assert "dataset.json: no such file; --data is a directory that" in refused.output

        path = plans / "small.yaml"
        path.write_text(path.read_text("utf-8").replace("preset: lr", "preset: mlp"), "utf-8")
        self.call(bench, plans, "--seeds", "1", "--rows", "LR")
        assert read_results(results)[:2] == first
        assert json.loads(results.read_text("utf-8").splitlines()[-1])["row"] == "LR"

    def test_a_gauc_that_is_no_number_is_left_out(
        self, bench: Workbench, plans: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        original = loop.validate
        monkeypatch.setattr(loop, "validate", lambda *given, **named: original(*given, **named) | {"gauc": math.nan})
        done = self.call(bench, plans, "--seeds", "1", "--rows", "LR")
        assert done.exit_code == 0, done.output
        [found] = read_results(plans.parent / "results.jsonl")
        assert {"auc", "logloss"} == found.test.keys()

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
            ("preset: lr", "preset: nosuch", "small.yaml: rows.LR: preset: no preset 'nosuch'. Allowed: "),
            ("preset: lr", "preset: lr\n    model: {layers: 2}", "small.yaml: rows.LR: layers: unknown key"),
            ("  LR:", "  LR, FM:", "small.yaml: rows.LR, FM: name: "),
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
        refused = self.call(bench, plans, "--table", "huge")
        assert refused.exit_code == 2
        assert "huge: no such table. Allowed: small" in " ".join(refused.output.split())
        refused = self.call(bench, plans, "--seeds", "3")
        assert refused.exit_code == 2
        assert "small has 2 seeds. Received: 3" in " ".join(refused.output.split())

    def test_own_plans_do_not_replace_the_page_of_the_project(self, plans: Path) -> None:
        before = PAGE.read_text("utf-8")
        refused = CliRunner().invoke(app, ["--plans", str(plans)])
        assert refused.exit_code == 2
        assert "needs --results and --page" in refused.output
        page = plans.parent / "page.md"
        options = ["--plans", str(plans.parent / "nope"), "--results", str(page), "--page", str(page)]
        refused = CliRunner().invoke(app, options)
        assert refused.exit_code == 2
        assert "nope: a directory with plans, NAME.yaml, is wanted here" in refused.output
        assert PAGE.read_text("utf-8") == before
        assert not page.exists()

    def test_a_line_that_is_no_result(self, plans: Path) -> None:
        results, page = plans.parent / "results.jsonl", plans.parent / "page.md"
        results.write_text('{"table": "small", "ro', "utf-8")
        refused = CliRunner().invoke(
            app, ["--plans", str(plans), "--results", str(results), "--page", str(page)], catch_exceptions=False
        )
        assert refused.exit_code == 2
        assert "results.jsonl, line 1: Invalid JSON" in refused.output
        assert "Delete the line, and its row is trained again." in refused.output


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks" / "searches").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_plan_of_a_search_is_accepted(path: Path) -> None:
    plan = load_plan(path)
    [features] = re.findall(r"--features (\S+)", path.read_text("utf-8"))
    check_plan(plan, load_feature_file(ROOT / features), path)
