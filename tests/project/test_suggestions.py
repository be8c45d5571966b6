"""Which kind a column becomes, and why."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import pyarrow as pa
import pytest
from typing_extensions import override

from tests.features.cyclic import Cyclic
from tfctr.features.kinds.base import KINDS
from tfctr.features.kinds.suggestion import Found, Suggestion
from tfctr.project.codes import Codes
from tfctr.project.draft import Drafting
from tfctr.project.roles import Roles
from tfctr.project.sample import Sample, plain

MANY = 4_000


def keys_of(values: Any, name: str = "found", **roles: Any) -> dict[str, Any] | None:
    """The definition of a column beside a label; None where it is left out."""
    column = plain(values if isinstance(values, pa.Array) else pa.array(values))
    table = pa.table({"label": pa.array([0, 1] * len(column))[: len(column)], name: column})
    said = Roles(label="label", item_vectors=None, **roles)
    draft = Drafting(Sample(table, {}, True, "rows"), Codes(table), said, {}, {}, said.sides).draft()
    made = [entry.keys for entries in draft.sides.values() for entry in entries.values()]
    assert len(made) == 1 - (name in draft.left_out)
    return made[0] if made else None


LOG1P = {"kind": "numeric", "dtype": "int64", "transform": "log1p"}
ZSCORE = {"kind": "numeric", "dtype": "int64", "transform": "zscore"}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["a", "b", None] * 9, {"dtype": "string"}),
        ([b"\xff", b"b"] * 9, {"dtype": "string"}),
        ([True, False], {"dtype": "int64"}),
        (list(range(80)) * 2, {"dtype": "int64"}),
        ([value**8 for value in range(60)] * 2, LOG1P),
        ([-1, *range(300)] * 2, {"dtype": "int64"}),
        ([-2, *range(300)] * 2, ZSCORE),
        (list(range(300)) * 2, {"dtype": "int64"}),
        ([-1] * 200 + [100_000 + value for value in range(150)] * 2, {"dtype": "int64"}),
        ([0.5, 1.0, None], {"kind": "numeric", "transform": "zscore"}),
        ([0.0] * 90 + [1e4], {"kind": "numeric", "transform": "log1p"}),
        ([float(value) for value in range(20)], {"kind": "numeric", "transform": "zscore"}),
        ([f"{value}" for value in range(MANY)], None),
        (list(range(MANY)), None),
        (["a|b", "b|c", "a", "c|a"] * 5, {"dtype": "string", "max_values": 2}),
        (["a;b", "b;c", "a", "c;a"] * 5, {"dtype": "string", "max_values": 2, "separator": ";"}),
        (["a, b", "b, c", "a", "c, a"] * 5, {"dtype": "string", "max_values": 2, "separator": ", "}),
        (["a | b", "b | c", "a", "c | a"] * 5, {"dtype": "string", "max_values": 2, "separator": " | "}),
        (["a, b", "b,c", "a", "c,a", "b,a"] * 5, {"dtype": "string", "max_values": 2, "separator": ","}),
        (["Matrix, The", "Wall, A", "Up"] * 5, {"dtype": "string"}),
        ([["a|x", "b"], ["c"]], {"dtype": "string", "max_values": 2, "separator": ","}),
        ([[1, 2], [3]], {"dtype": "string", "max_values": 2}),
        ([[0.5, 2.0], [3.0]], None),
        ([[["a"], ["b"]], [["c"]]], None),
        ([5, 5, 5], None),
        ([1.5, float("inf"), 2.0], None),
    ],
)
def test_kinds(values: list[Any], expected: dict[str, Any] | None) -> None:
    assert keys_of(values) == expected


def test_names_and_roles_make_ids() -> None:
    tail = [value**8 for value in range(60)] * 2
    assert keys_of(tail, "site_id") == {"dtype": "int64"}
    assert keys_of(tail, "thing", item="thing") == {"dtype": "int64"}
    assert keys_of([1.0, 2.0, None], "site_id") == {"dtype": "int64"}
    assert keys_of([1.0, 1e20, None], "site_id") == {"kind": "numeric", "transform": "log1p"}  # no int64 holds it
    assert keys_of([1.0, float("inf")], "site_id") is None
    assert keys_of([1.5, 2.0, None], "site_id") == {"kind": "numeric", "transform": "zscore"}
    assert keys_of(list(range(MANY)), "thing", user="thing") is not None


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, 2, 9], {"dtype": "int64", "vocabulary": {"type": "identity", "size": 16}, "default": 1}),
        ([1.0, 2.0, None], {"dtype": "int64", "vocabulary": {"type": "identity", "size": 4}, "default": 1}),
        ([-1, 2], None),
        (["top", "side"], None),
        ([3, 2**40], None),
        ([[1, 2], [3]], None),
    ],
)
def test_bias(values: list[Any], expected: dict[str, Any] | None) -> None:
    assert keys_of(values, "position", sides={"position": "bias"}) == expected


class Wind(Cyclic):
    """A kind of a test's own, which knows a direction by its range."""

    kind: Literal["wind"]  # type: ignore[assignment]

    @classmethod
    @override
    def suggest(cls, found: Found) -> Suggestion | None:
        if found.quantiles is None or found.quantiles[-1] != 359:
            return None
        return Suggestion(1.0, {"kind": "wind", "period": 360}, "degrees")


@pytest.fixture
def wind() -> Iterator[None]:
    KINDS["wind"] = Wind
    yield
    del KINDS["wind"]


@pytest.mark.usefixtures("wind")
def test_a_new_kind_is_asked_too() -> None:
    assert keys_of(list(range(360)) * 2) == {"kind": "wind", "period": 360}
    assert keys_of(list(range(350)) * 2) == {"dtype": "int64"}
    # It has no key `column`, so a column whose name is none of a feature can't be one.
    assert keys_of(list(range(360)) * 2, "wind direction") is None
