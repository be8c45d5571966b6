"""`tfctr report`: a page about a run, and one about several; what it says, and what a browser makes of it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.browser import look, needs_browser
from tests.cli.conftest import Desk, Ran
from tfctr.data.sources import split_files
from tfctr.features import load_feature_file
from tfctr.metrics import auc, bootstrap_interval, gauc
from tfctr.training.evaluate import predict


@pytest.fixture(scope="module")
def two(desk: Desk, tfctr: Callable[..., Ran], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of the desk's run and of another one, without a history."""
    directory = tmp_path_factory.mktemp("report")
    other = directory / "other"
    tfctr("train", "--features", desk.features, "--experiment", desk.experiment, "--data", desk.data, "--out", other,
          "--preset", "mlp")  # fmt: skip
    out = directory / "two.html"
    assert tfctr("report", desk.run, other, "--out", out, "--slice", "hour").output.endswith(f"{out}\n")
    return out


def test_the_figures_are_those_of_the_scores(two: Path, desk: Desk) -> None:
    rows = predict(desk.model, load_feature_file(desk.features), split_files(desk.data, "test"))
    words = _text(two)

    within = bootstrap_interval(rows.labels, rows.scores, rows.groups, "auc", replicates=400)
    assert f"{auc(rows.labels, rows.scores):.4f} ({within.low:.4f} to {within.high:.4f})" in words
    grouped = gauc(rows.labels, rows.scores, rows.groups, weighting="clicks")
    assert f"{grouped.value:.4f} (" in words
    assert f"{len(rows.labels):,} rows of the test split" in words
    assert "gender=F" in words
    assert "cmm x mlp" in words


def test_it_has_a_section_for_each_thing_that_there_is(two: Path, desk: Desk, tfctr: Callable[..., Ran]) -> None:
    headings = ["Runs", "Learning curves", "By slice", "Probabilities", "Gain of each feature", "Similarity", "Cost"]
    assert _headings(two) == [*headings[:2], "Against run", *headings[2:], "Where the time went"]

    alone = two.with_name("alone.html")
    tfctr("report", desk.model, "--data", desk.data, "--out", alone, "--no-gains")

    assert _headings(alone) == [one for one in headings if not one.startswith("Gain")]


def test_two_pages_of_the_same_runs_are_the_same(two: Path, desk: Desk, tfctr: Callable[..., Ran]) -> None:
    pages = [two.with_name(f"{number}.html") for number in (1, 2)]
    for page in pages:
        tfctr("report", desk.model, "--data", desk.data, "--out", page, "--no-gains")

    assert pages[0].read_text() == pages[1].read_text()


def test_the_page_needs_nothing_else(two: Path) -> None:
    html = two.read_text()

    assert re.findall(r"<(?:script|link|img|iframe)\b", html) == []
    used = re.findall(r'(?:src|href)="([^"]+)"', html) + re.findall(r"url\(([^)]+)\)", html)
    assert used
    named = set(re.findall(r'\bid="([^"]+)"', html))
    assert [one for one in used if not one.startswith("#") or one[1:] not in named] == []
    assert len(named) == len(re.findall(r'\bid="', html))


@needs_browser
@pytest.mark.e2e
def test_a_browser_shows_it_light_dark_and_on_a_phone(two: Path, tmp_path: Path) -> None:
    light = look(two, tmp_path)
    dark = look(two, tmp_path, dark=True)
    phone = look(two, tmp_path, width=500)

    assert [seen.complaints for seen in (light, dark, phone)] == [[], [], []]
    assert light.pictures >= 8
    assert (light.background, dark.background) == ("rgb(255, 255, 255)", "rgb(20, 24, 31)")
    assert phone.width == 500
    assert phone.needed <= phone.width, "the page scrolls sideways on a phone"


def test_mistakes_are_one_line(desk: Desk, tfctr: Callable[..., Ran], tmp_path: Path) -> None:
    out = tmp_path / "report.html"

    assert "name an .html file" in str(tfctr("report", desk.run, "--out", tmp_path / "report.pdf").error)
    assert "make it first" in str(tfctr("report", desk.run, "--out", tmp_path / "no" / "report.html").error)
    assert "name them with --data" in str(tfctr("report", desk.model, "--out", out).error)
    assert "two of the runs are the same" in str(tfctr("report", desk.run, desk.run, "--out", out).error)
    typed = tfctr("report", desk.run, "--out", out, "--no-gains", "--slice", "houer").error
    assert "--slice: no run has a column 'houer' to slice by. Allowed: " in str(typed)
    nothing = tfctr("report", tmp_path, "--data", desk.data, "--out", out).error
    assert nothing is not None
    assert "neither a finished run of `tfctr train` nor a SavedModel" in nothing
    assert not out.exists()


@pytest.mark.parametrize("option", ["--data", "--split", "--slice", "--no-gains"])
def test_options_of_runs_say_nothing_of_a_search(option: str, tfctr: Callable[..., Ran], tmp_path: Path) -> None:
    plan = {"search": {"training.epochs": [1, 2]}}
    (tmp_path / "tune.json").write_text(json.dumps({"plan": plan, "rows": ""}))
    out = tmp_path / "report.html"

    given = [option] if option == "--no-gains" else [option, "valid"]
    told = tfctr("report", tmp_path, "--out", out, *given).error

    assert told == f"{option}: says how runs are scored, and only searches are named; leave it out, or name a run"
    assert tfctr("report", tmp_path, "--out", out).error is None
    assert "no trial has ended yet" in _text(out)


class _Texts(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, str]] = []
        self._open: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self._open.append(tag)

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.found.append((self._open[-1], data.strip()))


def _texts(page: Path) -> list[tuple[str, str]]:
    parser = _Texts()
    parser.feed(page.read_text())
    return parser.found


def _text(page: Path) -> str:
    return "\n".join(words for _, words in _texts(page))


def _headings(page: Path) -> list[str]:
    return [words for tag, words in _texts(page) if tag == "h2"]
