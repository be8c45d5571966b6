"""The page on parts of one's own is followed in a copy of the clone."""

from __future__ import annotations

import json
import re
import shutil

import pytest

from tests.pages.page import ROOT, Reader


@pytest.mark.e2e
def test_an_interest_an_interaction_and_a_feature_kind_are_added(reader: Reader) -> None:
    for part in ("tfctr", "tests", "configs"):
        shutil.copytree(ROOT / part, reader.directory / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", reader.directory)
    reader.packages = reader.directory

    told = reader.reads("docs/extend.md")

    (passed,) = re.findall(r"(\d+) passed", told)
    assert int(passed) > 5, "its own test, and those of the room"
    assert "squares: false" in told, "the default of the interaction's option"
    assert "mlp with interests recency, interaction fwfm: " in told
    trained = json.loads((reader.directory / "RUN" / "run.json").read_text())["experiment"]
    assert trained["model"]["interaction"] == {"type": "fwfm", "squares": True}
    for name in ("recency", "fwfm", "wind"):
        assert re.search(rf"^.*\b{name}\b", told, re.MULTILINE)
