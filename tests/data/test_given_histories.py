"""Builds of logs that have histories already; columns that are changed on the way; vectors in the table of items."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.data.build_logs import rows_of
from tfctr.data.build import impressions
from tfctr.data.build.local import build_dataset
from tfctr.data.build.spec import build_of
from tfctr.errors import UserError

FOR_EACH = {split: f"{split}.parquet" for split in ("train", "valid", "test")}
BUILD: dict[str, Any] = {
    "log": {"path": FOR_EACH, "item": "item"},
    "items": {"path": "items.parquet", "key": "id"},
    "label": {"column": "click"},
    "columns": ["log.item", "log.age", "log.code", "items.tags"],
    "histories": {
        "seen": {
            "length": 2,
            "given": {"item": "before", "padding": [0]},
            "columns": {"seen_item": "log.before", "seen_price": "log.prices", "seen_tags": "items.tags"},
        }
    },
}
ROWS: dict[str, Any] = {
    "item": [1, 2, 3],
    "click": [1, 0, 1],
    "age": [10, 11, None],
    "code": ["GB-1", "", "x"],
    "before": [[0, 0, 1, 2, 3], [3, 0, 0, 0, 1], []],
    "prices": [[0.0, 0.0, 1.5, 2.5, 3.5], [3.5, 0.0, 0.0, 0.0, 1.5], []],
}
ITEMS: dict[str, Any] = {
    "id": [1, 2, 3],
    "tags": [[0, 5], [6, 7], None],
    "vector": [[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]],
}


def built(
    directory: Path, rows: dict[str, Any] = ROWS, items: dict[str, Any] = ITEMS, **changed: Any
) -> list[dict[str, Any]]:
    """The rows of train."""
    for name in FOR_EACH.values():
        pq.write_table(pa.table(rows), directory / name)
    pq.write_table(pa.table(items), directory / "items.parquet")
    build_dataset(build_of(BUILD | changed, "build.yaml"), directory, directory / "out", force=True)
    return rows_of(directory / "out")["train"]


def given(**changed: Any) -> dict[str, Any]:
    """The histories of the build file with other keys."""
    seen = BUILD["histories"]["seen"]
    return {"seen": seen | changed}


def test_a_given_history_is_cut_and_newest_first_without_its_padding(tmp_path: Path) -> None:
    rows = built(tmp_path)
    assert [row["seen_item"] for row in rows] == [[3, 2], [1, 3], []]
    assert [row["seen_price"] for row in rows] == [[3.5, 2.5], [1.5, 3.5], []]
    assert [row["seen_tags"] for row in rows] == [[None, [6, 7]], [[0, 5], None], []]


def test_the_newest_may_be_first(tmp_path: Path) -> None:
    rows = built(tmp_path, histories=given(given={"item": "before", "padding": [0], "newest": "first"}))
    assert [row["seen_item"] for row in rows] == [[1, 2], [3, 1], []]


def test_texts_of_a_csv_become_lists_and_numbers(tmp_path: Path) -> None:
    text = "item,click,before\n7,1,1^2^3\n8,0,\n7,0,2^^4\n"
    for split in FOR_EACH:
        (tmp_path / f"{split}.csv").write_text(text)
    path = {split: f"{split}.csv" for split in FOR_EACH}
    build = {
        "log": {"path": path, "csv": {"list_delimiter": "^"}},
        "label": {"column": "click"},
        "columns": ["log.item"],
        "histories": {"seen": {"length": 5, "given": {"item": "before"}, "columns": {"seen": "log.before"}}},
    }
    build_dataset(build_of(build, "build.yaml"), tmp_path, tmp_path / "out")
    assert [row["seen"] for row in rows_of(tmp_path / "out")["train"]] == [[3, 2, 1], [], [4, 2]]


def test_the_only_word_in_lists_of_numbers_is_warned_of_with_its_row(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "1000")
    lists = ["1^2^3", "", *["4^5"] * 7, "6^NA^7", "NA"]
    lines = ["item,click,before", *(f"{row},{row % 2},{one}" for row, one in enumerate(lists))]
    for split in FOR_EACH:
        (tmp_path / f"{split}.csv").write_text("\n".join(lines))
    log: dict[str, Any] = {"path": {split: f"{split}.csv" for split in FOR_EACH}, "csv": {"list_delimiter": "^"}}
    build = {
        "log": log,
        "label": {"column": "click"},
        "columns": ["log.item"],
        "histories": {"seen": {"length": 5, "given": {"item": "before"}, "columns": {"seen": "log.before"}}},
    }
    build_dataset(build_of(build, "build.yaml"), tmp_path, tmp_path / "out")
    assert capsys.readouterr().err == (
        f"warning: {tmp_path}/train.csv, row 10: column 'before' has 'NA' in its list, the only word among numbers, so "
        "all of the column are texts; if it stands for a missing value, leave that empty, or name the word in "
        "`log.csv.nulls` of the build file\n"
    )
    assert rows_of(tmp_path / "out")["train"][9]["seen"] == ["7", "NA", "6"]


@pytest.mark.parametrize(
    ("name", "change", "values"),
    [
        ("age", {"between": [0, 10, 20]}, [1, 2, None]),
        ("age", {"between": [10, 10.5]}, [None, None, None]),
        ("code", {"part": "^.."}, ["GB", None, None]),
        ("code", {"part": "([A-Z]+)-"}, ["GB", None, None]),
        ("tags", {"without": [0, 7]}, [[5], [6], []]),
        ("seen_tags", {"without": [0]}, [[[], [6, 7]], [[5], []], []]),
    ],
)
def test_a_column_is_changed(tmp_path: Path, name: str, change: dict[str, Any], values: list[Any]) -> None:
    assert [row[name] for row in built(tmp_path, changes={name: change})] == values


@pytest.mark.parametrize("kind", [pa.float32(), pa.int32(), pa.null()])
def test_a_changed_column_has_one_type_where_a_piece_of_the_log_has_no_value_of_it(
    tmp_path: Path, kind: pa.DataType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(impressions, "_VALUES_AT_ONCE", 1)
    ages = pa.array([None, None, None] if pa.types.is_null(kind) else [None, 11, None], kind)
    changes = {"age": {"between": [0, 10, 20]}, "code": {"part": "^.."}}
    rows = built(tmp_path, ROWS | {"age": ages, "code": pa.nulls(3)}, changes=changes)
    assert [row["age"] for row in rows] == [None, None if pa.types.is_null(kind) else 2, None]
    for split in FOR_EACH:
        written = pq.read_schema(tmp_path / "out" / split / "part-00000.parquet")
        assert (written.field("age").type, written.field("code").type) == (pa.int64(), pa.string())


def test_a_column_without_any_value_loses_none(tmp_path: Path) -> None:
    nothing = pa.array([[None], [], [None, None]], pa.list_(pa.null()))
    rows = built(
        tmp_path,
        ROWS | {"before": nothing, "prices": nothing},
        ITEMS | {"tags": nothing},
        changes={"tags": {"without": [0]}, "seen_price": {"without": [0]}},
    )
    assert [row["tags"] for row in rows] == [[None], [], [None, None]]
    assert [(row["seen_item"], row["seen_price"]) for row in rows] == [([], [])] * 3


@pytest.mark.parametrize("labels", [[1.0, 0.0, 1.0], [True, False, True]])
def test_a_label_may_be_a_number_with_a_point_or_a_boolean(tmp_path: Path, labels: list[Any]) -> None:
    assert [row["label"] for row in built(tmp_path, ROWS | {"click": labels})] == [1, 0, 1]


def test_vectors_stand_in_the_table_of_items(tmp_path: Path) -> None:
    items = ITEMS | {"vector": pa.array(ITEMS["vector"], pa.list_(pa.float32(), 2))}
    built(tmp_path, items=items, item_vectors={"column": "vector"})
    saved = np.load(tmp_path / "out" / "item_vectors.npz")
    assert saved["ids"].tolist() == [1, 2, 3]
    assert saved["vectors"].tolist() == ITEMS["vector"]


@pytest.mark.parametrize(
    ("rows", "items", "changed", "match"),
    [
        (
            {"prices": [[1.0], [3.5, 0.0, 0.0, 0.0, 1.5], []]},
            {},
            {},
            r"train.parquet, row 1: 'prices' has 1 events, and 'before' 5; .* must have one length",
        ),
        ({"before": [1, 2, 3]}, {}, {}, "column 'before' of the log is int64; a given history has lists"),
        ({}, {}, {"histories": given(given={"item": "earlier"})}, r"train.parquet: no column 'earlier'; it has item"),
        ({}, {}, {"changes": {"age": {"part": "^."}}}, r"changes.age.part: needs texts; the column is int64"),
        ({}, {}, {"changes": {"code": {"between": [0, 1]}}}, r"changes.code.between: needs numbers; .* is string"),
        ({}, {}, {"changes": {"code": {"without": [0]}}}, r"changes.code.without: needs lists; .* is string"),
        (
            {},
            {},
            {"changes": {"seen_item": {"without": [3]}}},
            r"changes.seen_item.without: .* each event of 'log.before' is int64; .*histories.seen.given.padding",
        ),
        (
            {},
            {"tags": [1, 2, 3]},
            {"changes": {"seen_tags": {"without": [3]}}},
            r"changes.seen_tags.without: .* each event of 'items.tags' is int64; ",
        ),
        (
            {},
            {},
            {"changes": {"tags": {"without": ["none"]}}},
            r"changes.tags.without: the values are int64; \['none'\] can't be among them",
        ),
        (
            {},
            {},
            {"changes": {"seen_tags": {"without": [10**30]}}},
            r"changes.seen_tags.without: the values are int64; \[10+\] can't be among them",
        ),
        (
            {},
            {},
            {"histories": given(given={"item": "before", "padding": [0, "none"]})},
            r"histories.seen.given.padding: the values are int64; \[0, 'none'\] can't be among them",
        ),
        ({}, {}, {"item_vectors": {"column": "vec"}}, r"items.parquet: no column 'vec'; it has id, tags, vector"),
        (
            {},
            {},
            {"item_vectors": {"column": "id"}},
            r"items.parquet: column 'id' is int64; vectors are lists of numbers",
        ),
        (
            {},
            {"vector": [[1.0], [1.0, 2.0], [3.0]]},
            {"item_vectors": {"column": "vector"}},
            r"items.parquet: the vector of id 2 in 'vector' has another length than the first",
        ),
        (
            {},
            {"vector": [[1], [2], [3]]},
            {"item_vectors": {"column": "vector"}},
            r"vectors in .*items.parquet must be floats \[n, width\]. Received: int64",
        ),
        (
            {},
            {"id": ["a", "b", "c"]},
            {"item_vectors": {"column": "vector"}},
            "ids in .*items.parquet must be integers",
        ),
    ],
)
def test_what_the_log_can_not_give_is_one_line_and_leaves_nothing(
    tmp_path: Path, rows: dict[str, Any], items: dict[str, Any], changed: dict[str, Any], match: str
) -> None:
    with pytest.raises(UserError, match=match) as raised:
        built(tmp_path, ROWS | rows, ITEMS | items, **changed)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changed", "match"),
    [
        ({"changes": {"age": {}}}, r"changes.age: must have one of part, between, without"),
        (
            {"changes": {"age": {"part": "(", "between": None}}},
            r"changes.age.part: must be a regular expression; .* Received: \(",
        ),
        ({"changes": {"age": {"part": "(.)(.)"}}}, r"changes.age.part: must have one group at most"),
        (
            {"changes": {"age": {"between": [3, 1]}}},
            r"changes.age.between: must be growing numbers. Received: \[3.0, 1.0\]",
        ),
        ({"changes": {"color": {"part": "."}}}, r"changes.color: `columns` and the histories name no such column"),
        ({"columns": ["log.item", "items.item"]}, r"columns: two are called 'item'; write them as name: source"),
        ({"columns": ["log.item", "shop.age"]}, r"columns.age: "),
        (
            {"histories": given(events=[{"column": "click", "one_of": [1]}])},
            r"histories.seen: events: the history is given",
        ),
        ({"history_ttl_seconds": 60}, r"history_ttl_seconds: the file has no `histories` that are made"),
        ({"item_vectors": 5}, r"item_vectors: must be a path, or a mapping with the `column`"),
        ({"items": None, "item_vectors": {"column": "v"}, "columns": None, "histories": {}}, "the file has no `items`"),
        ({"log": {"path": FOR_EACH}}, r"log.item must name a column: items needs it"),
    ],
)
def test_a_build_file_that_contradicts_itself_is_one_line(changed: dict[str, Any], match: str) -> None:
    with pytest.raises(UserError, match=match) as raised:
        build_of(BUILD | changed, "build.yaml")
    assert "\n" not in str(raised.value)
