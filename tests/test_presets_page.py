"""docs/presets.md is what `python -m benchmarks.presets` writes."""

from __future__ import annotations

import re

import pytest

from benchmarks.presets import PAGE, described, figures, page
from tfctr.interactions import INTERACTIONS
from tfctr.interests import INTERESTS
from tfctr.models.presets import PRESETS


def _figures_of_page() -> dict[str, tuple[int, int, int]]:
    rows = re.findall(r"^\| `(\S+)` \|.*\| ([\d,]+) \| ([\d,]+) \| ([\d,]+) \|$", PAGE.read_text("utf-8"), re.MULTILINE)
    numbers = {name: [int(cell.replace(",", "")) for cell in cells] for name, *cells in rows}
    return {name: (parameters, state, operations) for name, (parameters, state, operations) in numbers.items()}


def test_every_preset_has_its_row_and_every_architecture_its_section() -> None:
    assert list(_figures_of_page()) == list(PRESETS)
    assert PAGE.read_text("utf-8") == page(_figures_of_page())


@pytest.mark.parametrize("name", ["mlp", "dmf", "dlf-no-gate", "deepfm"])
def test_figures_of_a_preset(name: str) -> None:
    assert figures(name) == _figures_of_page()[name]


@pytest.mark.night
@pytest.mark.parametrize("name", PRESETS)
def test_figures_of_any_preset(name: str) -> None:
    assert figures(name) == _figures_of_page()[name]


@pytest.mark.parametrize("kind", sorted({*INTERESTS, *INTERACTIONS} - {"mean", "mlp"}))
def test_every_architecture_names_its_paper(kind: str) -> None:
    made = INTERESTS.get(kind) or INTERACTIONS[kind]
    first, _, references = described(made)
    assert first.endswith(".")
    assert re.search(r"\(\w*.*\d{4}\)|released code|Hadamard", references), references
