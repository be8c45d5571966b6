"""Which columns would tell the model what it must guess."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tfctr.project.codes import EVIDENCE, Codes, Ints, agree, count
from tfctr.project.facts import is_number
from tfctr.project.guesses import is_called_a_label

OUTCOME = "the label is made of it"

_FEW = 20
"""A column of more values may decide the label of some rows by chance, as an item of few rows does."""


def leak(codes: Codes, label: str, name: str, column: Any) -> str | None:
    """Why a column tells the label; None where it does not.

    Args:
        codes: The columns of the rows.
        label: The column of the label.
        name: The column that is asked about.
        column: Its values.
    """
    clicks, values = codes.of(label), codes.of(name)
    rows = np.unique(clicks, return_counts=True)[1]
    # By chance, not one of a hundred clicks or of a hundred other rows would stand on the wrong side.
    certain = len(rows) == 2 and int(rows.min()) >= EVIDENCE
    if certain and (_is_there_for_one(values, clicks) or _few_decide(values, clicks) or _is_larger(column, clicks)):
        return OUTCOME
    if is_called_a_label(name) and count(values[values > 0]) == 2:
        return "called as a label is, so it would tell the model what it must guess"
    return None


def _is_there_for_one(values: Ints, clicks: Ints) -> bool:
    """Whether it is missing where there is no click, as the time that was watched is, or the other way round."""
    return agree(np.minimum(values, 1), clicks)


def _few_decide(values: Ints, clicks: Ints) -> bool:
    return count(values) <= _FEW and agree(values, clicks)


def _is_larger(column: Any, clicks: Ints) -> bool:
    """Whether its numbers are larger for all rows of one label, as a rating is from which the label follows."""
    if not is_number(column) or column.null_count:
        return False
    ends = [pc.min_max(column.filter(pa.array(clicks == one))).as_py() for one in np.unique(clicks)]
    lower, higher = sorted(ends, key=lambda found: found["min"])
    return bool(lower["max"] < higher["min"])
