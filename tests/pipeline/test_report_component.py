"""The page that a component writes where nobody has the artifacts at hand."""

import inspect
from pathlib import Path

import pytest

from pipeline.configs import SOURCES
from pipeline.plain import PlainArtifact, report_models
from tests.workbench import ROOT


def test_a_page_that_fails_says_why_and_fails_nothing_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = PlainArtifact(str(tmp_path / "report"))

    report_models(PlainArtifact(str(tmp_path / "model")), report, "<no such data>", "[]")

    page = (tmp_path / "report").read_text("utf-8")
    assert page.startswith("<!doctype html><title>No report</title><p>no report: ")
    assert "<no such" not in page
    printed = capsys.readouterr()
    assert "no report: " in printed.out
    assert "Traceback" in printed.err  # for the log of the task


def test_a_change_of_what_writes_it_makes_the_page_anew() -> None:
    assert Path(inspect.getfile(report_models)).relative_to(ROOT).as_posix() in SOURCES["Report"]
