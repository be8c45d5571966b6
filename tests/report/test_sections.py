"""What the sections make of scores: weights, groups that are missing, slices of one class."""

from __future__ import annotations

import html
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tfctr.export.describe import ModelDescription
from tfctr.metrics import gauc
from tfctr.report import page as page_module
from tfctr.report.content import Content, Section
from tfctr.report.figures import curves, drawing, histogram
from tfctr.report.runs import Run, counted_rows
from tfctr.report.sections import differences, probabilities, similarities, slices, times
from tfctr.training.evaluate import Predictions

FILE = {"labels": {"click": "label"}, "user": {"user_id": {"dtype": "int64"}}, "candidate": {"item_id": {}}}
MADE = {"features": {**FILE, "group": "user_id"}, "experiment": {"evaluation": {"weighting": "impressions"}}}


def a_run(name: str = "run", better: float = 1.0, weighted: bool = False, grouped: bool = True) -> Run:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 2, 400)
    scores = 1 / (1 + np.exp(-(generator.normal(size=400) + better * labels)))
    predictions = Predictions(
        labels,
        scores,
        np.arange(400) % 20 if grouped else None,
        np.where(np.arange(400) < 300, 2.0, 0.0) if weighted else None,
        {"hour": np.arange(400) % 3, "click": labels},
    )
    return Run(name, name, ModelDescription(Path(name), {}, {}, {}, MADE), predictions, [])


def cut(run: Run, count: int) -> Run:
    rows = run.predictions
    first = {name: values[:count] for name, values in rows.slices.items()}
    kept = Predictions(rows.labels[:count], rows.scores[:count], rows.groups[:count], rows.weights[:count], first)
    return Run(run.name, run.place, run.description, kept, [])


def drawn(section: Section | None) -> list[str]:
    assert section is not None
    with drawing():
        return [picture.svg(number) for number, picture in enumerate(section.pictures)]


def test_a_text_of_a_picture_stays_whatever_it_is_like() -> None:
    name = 'of #010203 style="fill: #010210" url(#a) id="b"'
    (picture,) = drawn(Section("one", "", [histogram(name, *(np.array([0.1, 0.9]), np.array([0, 1]), np.ones(2)), 0)]))
    texts = "".join(re.findall(r">([^<>]*)<", picture))
    assert name in html.unescape(texts)
    tags = picture.replace(name, "").replace(html.escape(name), "")
    assert re.findall(r"#0102\w\w", tags) == []
    assert "stroke: currentColor" in tags
    assert "var(--run-0)" in tags


@pytest.mark.parametrize("count", [1, 4, 5, 9])
def test_the_calibration_of_many_runs_is_a_picture_each(count: int) -> None:
    runs = [a_run(f"run {number}", number / 4) for number in range(count)]
    section = probabilities(Content(runs, "test"))

    of_all = [f"calibration of run {number}" for number in range(count)] if count > 4 else ["calibration"]
    assert [picture.title for picture in section.pictures] == [*of_all, *(run.name for run in runs)]
    assert ("one picture a run" in section.words) == (count > 4)
    first, *others = drawn(section)[: len(of_all)]
    # The line of a run and its points are in its colour, those of the other runs behind it in that of the text.
    assert {int(one) for one in re.findall(r"var\(--run-(\d)", first)} == (set(range(count)) if count <= 4 else {0})
    assert all(f"var(--run-{number % 8})" in one for number, one in enumerate(others, start=1))


def test_a_picture_alone_is_drawn_wide_and_narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    def some(count: int) -> Section:
        return Section(f"{count} pictures", "", [curves(f"picture {n}", [(0, [0.1, 0.2], 1)]) for n in range(count)])

    monkeypatch.setattr(page_module, "OF_SEARCHES", [lambda content: some(1), lambda content: some(2)])
    alone, beside = re.findall(r'<div class="pictures.*?</div>', page_module.page(Content([], "test"), "t"), re.DOTALL)

    widths = [int(width) for width in re.findall(r"max-width:(\d+)px", alone)]
    assert alone.count('class="narrow"') == alone.count('class="wide"') == 1
    assert widths == [403, 806]
    assert re.findall(r"max-width:(\d+)px", beside) == ["403", "403"]
    identifiers = re.findall(r'\bid="([^"]+)"', alone + beside)
    assert len(identifiers) == len(set(identifiers))


def test_rows_without_weight_change_no_picture() -> None:
    run = a_run(weighted=True)
    run = replace(run, predictions=counted_rows(run.predictions))

    assert len(run.predictions.labels) == 300
    assert drawn(probabilities(Content([run], "test"))) == drawn(probabilities(Content([cut(run, 300)], "test")))
    assert drawn(probabilities(Content([run], "test"))) != drawn(probabilities(Content([a_run()], "test")))


def test_a_difference_is_the_second_less_the_first() -> None:
    section = differences(Content([a_run("worse", 0.2), a_run("better", 2.0)], "test"))

    assert section is not None
    (of_auc, of_gauc) = section.tables[0].rows
    assert of_auc[0] == "better"
    expected = [gauc(rows.labels, rows.scores, rows.groups).value for rows in (
        a_run("worse", 0.2).predictions, a_run("better", 2.0).predictions)]  # fmt: skip
    assert float(of_gauc[2]) == pytest.approx(expected[1] - expected[0], abs=1e-4)
    assert (of_auc[-1], of_gauc[-1]) == ("yes", "yes")
    assert differences(Content([a_run()], "test")) is None


def test_a_bootstrap_says_what_it_draws() -> None:
    for grouped, what in ((True, "users"), (False, "rows")):
        section = differences(Content([a_run("one", grouped=grouped), a_run("two", grouped=grouped)], "test"))
        assert section is not None
        assert f"a paired bootstrap over {what}, drawn for both runs alike" in section.words
        assert f"the {what}, drawn anew" in section.words


def test_a_ninth_run_has_another_line_than_the_first() -> None:
    figure = curves("AUC", [(run, [0.5, 0.6 + 0.01 * run], 0) for run in (0, 8)]).axes
    first, ninth = figure.get_lines()
    assert first.get_color() == ninth.get_color()
    assert (first.get_linestyle(), ninth.get_linestyle()) == ("-", "--")


def test_a_slice_of_one_class_has_no_auc_and_no_groups_no_gauc() -> None:
    section = slices(Content([a_run(grouped=False)], "test"))

    assert section is not None
    assert section.tables[0].headings == ["slice", "rows", "AUC run"]
    cells = {row[0]: row[1:] for row in section.tables[0].rows}
    assert cells["click=1"][1] == "none"
    assert cells["hour=1"][0] == "133"
    assert " to " in cells["hour=1"][1]
    assert len(drawn(section)) == 1


def test_values_of_slices_are_text_whatever_they_hold() -> None:
    run = a_run()
    run.predictions.slices["price"] = np.where(np.arange(400) % 2, "$1_000$", "<b>&")

    with drawing():
        section = slices(Content([run], "test"))
    pictures = "".join(drawn(section))

    assert ">price=$1_000$</text>" in pictures
    assert "price=&lt;b&gt;&amp;" in pictures
    assert "<b>" not in pictures


def test_times_are_of_each_training_or_of_the_pipeline() -> None:
    trained = replace(a_run("a"), seconds={"reading": 1.0, "steps": 3.0})
    model = a_run("b")

    (table,) = times(Content([trained, model], "test")).tables
    assert table.headings == ["stage", "a"]
    assert table.rows == [["reading", "1.0 (25%)"], ["steps", "3.0 (75%)"]]
    (table,) = times(Content([trained], "test", {"Transform": 2.0})).tables
    assert table.rows == [["Transform", "2.0 (100%)"]]
    assert times(Content([model], "test")) is None


def test_similarities_that_could_not_be_counted_say_so_on_the_page() -> None:
    section = similarities(Content([replace(a_run("a"), uncounted="text.npz: no such file"), a_run("b")], "test"))

    assert section is not None
    assert "Not counted: a (text.npz: no such file)." in section.words
    assert similarities(Content([a_run("b")], "test")) is None
