"""Columns that tell the label are found, and others are not taken for such."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tfctr.project.codes import Codes
from tfctr.project.leaks import OUTCOME, leak
from tfctr.project.sample import plain

ROWS = 1_000
DRAW = np.random.default_rng(1)
RATING = DRAW.integers(1, 6, ROWS)
LABEL = (RATING >= 4).astype(np.int64)


def why(name: str, values: Any, rows: int = ROWS) -> str | None:
    table = pa.table({"label": LABEL, name: plain(pa.array(values))}).slice(0, rows)
    return leak(Codes(table), "label", name, table.column(name).combine_chunks())


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("bought", LABEL),
        ("ignored", ["no" if one else "yes" for one in LABEL]),
        ("rating", RATING),
        ("seconds", RATING * 10 + DRAW.random(ROWS)),
        ("watched", [float(row) if one else None for row, one in enumerate(LABEL)]),
        ("basket", [[f"b{row}"] if one else [] for row, one in enumerate(LABEL)]),
    ],
)
def test_made_of(name: str, values: Any) -> None:
    assert why(name, values) == OUTCOME


def test_called_as_a_label() -> None:
    told = "called as a label is, so it would tell the model what it must guess"
    assert why("is_click", DRAW.integers(2, size=ROWS)) == told
    assert why("clicked", LABEL, rows=50) == told
    assert why("is_click", [None, *DRAW.integers(2, size=ROWS - 1).tolist()]) == told
    assert why("clicked", DRAW.integers(9, size=ROWS)) is None  # how often, before


@pytest.mark.parametrize(
    ("name", "values", "rows"),
    [
        ("noise", np.where(np.arange(ROWS) < 3, 1 - LABEL, LABEL), ROWS),  # not quite
        ("item", np.arange(ROWS) * 2 + LABEL, ROWS),  # each value is seen once
        ("rating", RATING, 50),  # too few rows to say so
        ("colour", ["red", "blue"] * (ROWS // 2), ROWS),
        ("tags", [["a"]] * ROWS, ROWS),
    ],
)
def test_others(name: str, values: Any, rows: int) -> None:
    assert why(name, values, rows) is None
