"""What the texts of a CSV are read as."""

from __future__ import annotations

import pyarrow as pa
import pytest

from tfctr.data.sources.missing import without_empty
from tfctr.data.sources.texts import TextTypes, typed

WHOLE, NUMBER, TEXT = "int64", "double", "string"


def found(*batches: list[str | None]) -> pa.Array:
    types = TextTypes()
    for texts in batches:
        types.add(pa.record_batch({"a": pa.array(texts, pa.string())}))
    table = pa.table({"a": pa.array([text for texts in batches for text in texts], pa.string())})
    return typed(table, types.types)["a"]


@pytest.mark.parametrize(
    ("texts", "kind"),
    [
        (["1", "-20", "0", None], WHOLE),
        (["1", "", "3"], WHOLE),
        (["1", "2.5"], NUMBER),
        ([".5", "-.25", "1e3", "2E-3"], NUMBER),
        (["007", "7"], TEXT),
        (["E10", "E11"], TEXT),
        (["-", "1"], TEXT),
        ([".", "1"], TEXT),
        (["1.", "2"], TEXT),
        (["10000000000000000000"], TEXT),
        (["1_000"], TEXT),
        (["0x1F"], TEXT),
        ([None, ""], TEXT),
        (["True", "False", None, ""], "bool"),
        (["true", "FALSE"], "bool"),
        (["True", "no"], TEXT),
        (["True", "1"], TEXT),
    ],
)
def test_the_type_of_a_column(texts: list[str | None], kind: str) -> None:
    assert str(found(texts).type) == kind


@pytest.mark.parametrize("whole_first", [True, False])
def test_long_numbers_beside_decimals_stay_texts_wherever_a_piece_ends(whole_first: bool) -> None:
    pieces = [["123456789012345678", "123456789012345679"], ["1.5"]]
    texts = found(*(pieces if whole_first else pieces[::-1]))
    assert str(texts.type) == TEXT
    assert len(set(texts.to_pylist())) == 3
    assert str(found(pieces[0] + pieces[1]).type) == TEXT


def test_what_was_seen_elsewhere_counts() -> None:
    types, other = TextTypes(), TextTypes()
    types.add(pa.record_batch({"a": ["12"], "b": ["123456789012345678"], "c": ["1"]}))
    other.add(pa.record_batch({"a": ["1.5"], "b": ["1.5"], "c": ["x"]}))
    types.merge(other)
    assert {name: str(kind) for name, kind in types.types.items()} == {"a": NUMBER}


@pytest.mark.parametrize("start", [0, 1, 48])
def test_a_slice_of_texts_without_the_empty_ones(start: int) -> None:
    """Arrow's own way makes an invalid array of a slice."""
    texts = ["" if row % 7 == 0 else None if row % 5 == 0 else str(row) for row in range(3_000)]
    found = without_empty(pa.array(texts).slice(start))
    found.validate(full=True)
    assert found.to_pylist() == [text or None for text in texts[start:]]
