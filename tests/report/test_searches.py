"""The section about searches: figures that are known beforehand."""

from __future__ import annotations

from typing import Any

import pytest

from tfctr.features.yaml_file import checked
from tfctr.report.content import Content, Section
from tfctr.report.figures import drawing
from tfctr.report.page import page
from tfctr.report.searches import search
from tfctr.tuning import Search, Seed, Trial
from tfctr.tuning.plan import Plan

RANGE = {"type": "float", "low": 0.001, "high": 0.1, "scale": "log"}
VALUES: list[tuple[float, Any]] = [(0.001, "mlp"), (0.03, {"type": "dlf", "layers": 2}), (0.1, "mlp")]


def a_search(objectives: list[float | None], objective: str = "auc") -> Search:
    """Trials that reached these objectives, or failed."""
    spaces = {"training.learning_rate": RANGE, "model.interaction": ["mlp", {"type": "dlf"}]}
    plan = checked(Plan, {"search": spaces, "method": "random", "objective": objective}, "plan.yaml")
    trials = []
    for number, (value, (rate, backbone)) in enumerate(zip(objectives, VALUES, strict=True), start=1):
        values = {"training.learning_rate": rate, "model.interaction": backbone}
        if value is None:
            trials.append(Trial(number, values, "failed", reason="no numbers"))
            continue
        metrics = {"auc": value, "logloss": 0.5, "learning_rate": rate}
        seeds = [Seed(1, metrics, 2, 4, 1.5)]
        trials.append(Trial(number, values, "finished", value, None, metrics, seeds, 1.5))
    return Search(plan, trials)


def section_of(**searches: Search) -> Section:
    made = search(Content([], "test", searches=searches))
    assert made is not None
    return made


def test_the_table_has_the_best_first_and_says_why_others_failed() -> None:
    section = section_of(rates=a_search([0.7, None, 0.8]))
    best, failed = section.tables
    assert list(best.headings) == [
        "search", "training.learning_rate", "model.interaction", "trial", "AUC", "logloss", "best epoch", "seconds"
    ]  # fmt: skip
    assert [list(row) for row in best.rows] == [
        ["rates", "0.1", "mlp", "3", "0.80000", "0.5", "2 of 4", "1.5"],
        ["rates", "0.001", "mlp", "1", "0.70000", "0.5", "2 of 4", "1.5"],
    ]
    assert [list(row) for row in failed.rows] == [["rates", "no numbers", "2"]]
    assert section.words.startswith("rates: 3 trials by random, 2 of them finished, 3 seconds of training. ")


@pytest.mark.parametrize(("objective", "line"), [("auc", [0.7, 0.8, 0.8]), ("logloss", [0.7, 0.7, 0.6])])
def test_the_line_is_the_best_so_far(objective: str, line: list[float]) -> None:
    with drawing():
        progress, rates, backbones = section_of(rates=a_search([0.7, 0.8, 0.6], objective)).pictures
    drawn = [list(map(float, one.get_ydata())) for one in progress.axes.get_lines()]
    assert drawn == [line, [0.7, 0.8, 0.6]]
    assert rates.axes.get_xscale() == "log"
    assert list(map(float, rates.axes.get_lines()[0].get_xdata())) == [0.001, 0.03, 0.1]
    assert [tick.get_text() for tick in backbones.axes.get_yticklabels()] == ["mlp", '{"type": "dlf", "layers": 2}']
    assert list(map(int, backbones.axes.get_lines()[0].get_ydata())) == [0, 1, 0]


def test_a_page_may_be_about_searches_alone() -> None:
    html = page(Content([], "test", searches={"one": a_search([0.7, 0.8, 0.6]), "two": a_search([None] * 3)}), "both")
    assert html.count("<svg") == 3
    assert html.count("<h2>") == 1
    assert "<h2>Search</h2>" in html
    assert "0.003" in html
    assert "mathdefault" not in html
    assert "two: 3 trials by random, 0 of them finished" in html


def test_a_search_without_trials_is_a_sentence() -> None:
    empty = Search(a_search([None] * 3).plan, [])
    section = section_of(one=empty)
    assert section.words == "one: no trial has ended yet."
    assert (list(section.tables), list(section.pictures)) == ([], [])
    html = page(Content([], "test", searches={"one": empty, "two": a_search([0.7, 0.8, 0.6])}), "both")
    assert "one: no trial has ended yet. two: 3 trials by random" in html
    assert search(Content([], "test")) is None
