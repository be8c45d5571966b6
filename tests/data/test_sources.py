"""Parquet, CSV and TFRecord say the same, and what can't be what the feature file says is told with file and row."""

from __future__ import annotations

import datetime
import decimal
import gzip
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf

from tests.records import write_records
from tests.tables import write_csv, write_parquet
from tfctr.data.examples import serialized_rows
from tfctr.data.log import checked_rows
from tfctr.data.sources import read, split_files, types
from tfctr.errors import UserError
from tfctr.features import INT64_MISSING, FeatureFile
from tfctr.features.columns import Column
from tfctr.features.row_checks import AS_WRITTEN, ColumnRule, column_rules
from tfctr.features.table_format import TableFormat

NOW = 1_600_000_000
CONTENT: dict[str, Any] = {
    "labels": {"click": "label"},
    "weight": "importance",
    "group": "session",
    "timestamp": "time",
    "meta": ["session"],
    "user": {"user": {"column": "205"}},
    "candidate": {
        "item": {"dtype": "string", "column": "item-id"},
        "genres": {"dtype": "string", "max_values": 2},
        "price": {"kind": "numeric"},
        "count": {"kind": "numeric", "dtype": "int64"},
    },
    "sequences": {
        "past": {
            "max_length": 3,
            "fields": {
                "past_item": {"share": "item"},
                "past_genres": {"share": "genres", "max_values": 2},
                "past_price": {"kind": "numeric", "column": "past price"},
                "past_time": {"kind": "event_time"},
            },
        }
    },
}
FILE = FeatureFile.model_validate(CONTENT)
ROWS: list[dict[str, Any]] = [
    {
        "label": 1,
        "importance": 2.0,
        "session": "s1",
        "time": NOW,
        "205": 7,
        "item-id": "a",
        "genres": "x|y",
        "price": 1.5,
        "count": 2**53 + 1,
        "past_item": ["b", "c"],
        "past_genres": ["x|z", "y"],
        "past price": [0.5, 2.5],
        "past_time": [NOW - 1, NOW - 9],
    },
    {"label": 0, "item-id": "b"},
]


def columns(path: Path, file: FeatureFile = FILE) -> dict[str, Column]:
    [rows] = read([path], column_rules(file), file.csv)
    return rows.columns


def assert_same(found: dict[str, Column], expected: dict[str, Column]) -> None:
    assert found.keys() == expected.keys()
    for name, column in expected.items():
        np.testing.assert_array_equal(found[name].lengths, column.lengths, err_msg=name)
        np.testing.assert_array_equal(found[name].values, column.values, err_msg=name)
        assert found[name].values.dtype == column.values.dtype, name


@pytest.fixture
def records(tmp_path: Path) -> dict[str, Column]:
    return columns(write_records(tmp_path / "a.tfrecord", ROWS))


def table(**changed: Any) -> pa.Table:
    names = list(ROWS[0])
    return pa.table({name: changed.get(name, pa.array([row.get(name) for row in ROWS])) for name in names})


def test_parquet_says_what_tfrecord_says(tmp_path: Path, records: dict[str, Column]) -> None:
    pq.write_table(table(), tmp_path / "a.parquet")
    assert_same(columns(tmp_path / "a.parquet"), records)
    assert records["user"].values.tolist() == [7]


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("205", pa.array([7.0, math.nan])),
        ("205", pa.array([7, None], pa.uint8())),
        ("205", pa.array(["7", None])),
        ("205", pa.array(["7.0", None])),
        ("label", pa.array([True, False])),
        ("importance", pa.array([2, None])),
        ("price", pa.array([decimal.Decimal("1.5"), None])),
        ("price", pa.array([1.5, None], pa.float32()).cast(pa.float16())),
        ("205", pa.array(np.array([7, math.nan], np.float16))),
        ("time", pa.array([datetime.datetime.fromtimestamp(NOW, datetime.UTC), None])),
        ("item-id", pa.array(["a", "b"]).dictionary_encode()),
        ("item-id", pa.array([b"a", b"b"])),
        ("genres", pa.array([["x", "y"], None])),
        ("genres", pa.array([["x", None, "y", ""], []])),
        ("genres", pa.array([[b"x", None, b"y", b""], []])),
        ("genres", pa.ListArray.from_arrays([0, 2, 2], pa.array(["x", "y"]).dictionary_encode())),
        ("past_item", pa.ListArray.from_arrays([0, 2, 2], pa.array(["b", "c"]).dictionary_encode())),
        ("past_genres", pa.array([[[b"x", b"z"], [b"y"]], None])),
        ("205", pa.array([" 7 ", None])),
        ("price", pa.array([" 1.5", None])),
        ("past_genres", pa.array([[["x", "z"], ["y"]], None])),
        ("past price", pa.array([[decimal.Decimal("0.5"), decimal.Decimal("2.5")], None])),
        ("past_item", pa.array([["b", "c"], None], pa.large_list(pa.large_string()))),
    ],
)
def test_a_type_changes_where_nothing_is_lost(
    tmp_path: Path, records: dict[str, Column], name: str, values: pa.Array
) -> None:
    pq.write_table(table(**{name: values}), tmp_path / "a.parquet")
    assert_same(columns(tmp_path / "a.parquet"), records)


@pytest.mark.parametrize(
    ("name", "values", "told"),
    [
        ("205", pa.array([7, 1.5]), "row 2: column '205' is 1.5; the feature file says int64"),
        ("205", pa.array([2.0**53 + 2, 1]), "row 1: column '205' is 9007199254740994"),
        ("205", pa.array(["7.0", "9007199254740992.0"]), "row 2: column '205' is 9007199254740992.0"),
        ("205", pa.array(["7", str(2**63)]), "row 2: column '205' is '9223372036854775808'"),
        ("205", pa.array(["7", "0x1F"]), "row 2: column '205' is '0x1F'; the feature file says int64"),
        ("205", pa.array(["7.0", "0x1F"]), "row 2: column '205' is '0x1F'"),
        ("205", pa.array(["7", "1_000"]), "row 2: column '205' is '1_000'"),
        ("price", pa.array(["7", "1_000"]), "row 2: column 'price' is '1_000'; the feature file says float32"),
        ("price", pa.array(["7", "0x1F"]), "row 2: column 'price' is '0x1F'"),
        ("genres", pa.array([[b"x"], [b"y|z"]]), r"row 2: column 'genres' is b'y\|z'; the feature file says without"),
        ("205", pa.array([1, 2**63], pa.uint64()), "row 2: column '205' is 9223372036854775808"),
        ("205", pa.array(["7", "x"]), "row 2: column '205' is 'x'; the feature file says int64"),
        ("importance", pa.array([1, 2**24 + 1]), "row 2: column 'importance' is 16777217; a weight must be float32"),
        ("price", pa.array([1.0, 1e300]), r"row 2: column 'price' is 1e\+300; the feature file says float32"),
        ("item-id", pa.array([1.0, 2.0]), "row 1: column 'item-id' is double; the feature file says string"),
        ("genres", pa.array([["x"], ["y|z"]]), r"row 2: column 'genres' is y\|z; the feature file says without '\|'"),
        ("past_item", pa.array(["b", "c"]), "row 1: column 'past_item' is string; the feature file says a list"),
    ],
)
def test_a_value_that_would_change_is_told(tmp_path: Path, name: str, values: pa.Array, told: str) -> None:
    pq.write_table(table(**{name: values}), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=f"a.parquet, {told}"):
        columns(tmp_path / "a.parquet")


@pytest.mark.parametrize("kind", [pa.int8(), pa.float64(), pa.string(), pa.list_(pa.float64()), pa.date32(), pa.null()])
def test_a_column_without_a_value_may_have_any_type(tmp_path: Path, kind: pa.DataType) -> None:
    expected = columns(write_records(tmp_path / "a.tfrecord", [{"label": 1, "item-id": "a"}] * 2))
    for null in (pa.nulls(2, kind), pa.array([math.nan] * 2) if kind == pa.float64() else pa.nulls(2, kind)):
        content = dict.fromkeys(ROWS[0], null) | {"label": pa.array([1, 1]), "item-id": pa.array(["a", "a"])}
        content |= {"price": pa.nulls(2, kind), "importance": pa.nulls(2, kind), "past price": pa.nulls(2, kind)}
        pq.write_table(pa.table(content), tmp_path / "a.parquet")
        assert_same(columns(tmp_path / "a.parquet"), expected)


@pytest.mark.parametrize(("dtype", "texts"), [("int64", ["7", str(2**53 + 1), "-1"]), ("float32", ["7", "16777217"])])
@pytest.mark.parametrize("beside", ["7", "7.0", " 7", "1e3"])
def test_a_text_is_the_same_number_beside_any_other(tmp_path: Path, dtype: str, texts: list[str], beside: str) -> None:
    rules = {"a": ColumnRule("a", dtype)}
    found = []
    for more in ([], [beside]):
        pq.write_table(pa.table({"a": texts + more}), tmp_path / "a.parquet")
        [rows] = read([tmp_path / "a.parquet"], rules, TableFormat())
        found.append(rows.columns["a"].values[: len(texts)].tolist())
    assert found[0] == found[1] == [float(np.float32(text)) if dtype == "float32" else int(text) for text in texts]


def test_a_null_in_a_history_is_a_missing_value(tmp_path: Path) -> None:
    past = {
        "past_item": pa.array([["b", None], None]),
        "past price": pa.array([[None, 1.0], None]),
        "past_time": pa.array([[NOW - 1, None], None]),
    }
    pq.write_table(table(**past), tmp_path / "a.parquet")
    found = columns(tmp_path / "a.parquet")
    assert found["past_item"].values.tolist() == [b"b", b""]
    assert np.isnan(found["past_price"].values).tolist() == [True, False]
    assert found["past_time"].values.tolist() == [NOW - 1, INT64_MISSING]


def csv_file(**more: Any) -> FeatureFile:
    content = {key: value for key, value in CONTENT.items() if key != "sequences"}
    content["sequences"] = {"past": {"max_length": 3, "fields": {"past_item": {"share": "item"}}}}
    return FeatureFile.model_validate({**content, **more})


HEADER = "label,importance,session,time,205,item-id,genres,price,count,past_item,extra\n"
LINES = f"1,2,s1,{NOW},7,a,x|y,1.5,{2**53 + 1},b c,?\n0,,,,,b,,,,,?\n"


def test_a_label_that_a_csv_writes_as_nan_is_missing(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(HEADER + LINES.replace("1,2,s1", "nan,2,s1", 1))
    with pytest.raises(UserError, match=r"a\.csv, row 1: label must be 0 or 1\. Received: nothing$"):
        list(checked_rows(csv_file(), [tmp_path / "a.csv"], "checking"))


@pytest.mark.parametrize("packed", [False, True])
def test_csv_says_what_tfrecord_says(tmp_path: Path, packed: bool) -> None:
    file = csv_file()
    expected = columns(write_records(tmp_path / "a.tfrecord", ROWS), file)
    path = tmp_path / ("a.csv.gz" if packed else "a.csv")
    text = ("\ufeff" + HEADER + LINES).encode()
    path.write_bytes(gzip.compress(text) if packed else text)
    assert_same(columns(path, file), expected)


@pytest.mark.parametrize("start", ["\n", "\ufeff\n", "\r\n\r\n"])
def test_a_csv_may_begin_with_empty_lines(tmp_path: Path, start: str) -> None:
    file = csv_file()
    expected = columns(write_records(tmp_path / "a.tfrecord", ROWS), file)
    (tmp_path / "a.csv").write_bytes((start + HEADER + "\n" + LINES).encode())
    assert_same(columns(tmp_path / "a.csv", file), expected)
    assert "item-id" in types(tmp_path / "a.csv", file.csv)


@pytest.mark.parametrize("delimiter", ["§", '"', "\n", "\0"])
def test_a_delimiter_that_can_not_be_is_refused(delimiter: str) -> None:
    with pytest.raises(ValueError, match="must be an ASCII character, such as ',' or a tab"):
        csv_file(csv={"delimiter": delimiter})


def test_csv_as_the_feature_file_says(tmp_path: Path) -> None:
    options = {"delimiter": "\t", "nulls": ["NA", ""], "list_delimiter": ";", "columns": HEADER.strip().split(",")}
    file = csv_file(csv=options)
    expected = columns(write_records(tmp_path / "a.tfrecord", ROWS), file)
    lines = LINES.replace("0,,,", "0,NA,NA,").replace("b c", "b;c").replace(",", "\t")
    (tmp_path / "a.csv").write_text(lines)
    assert_same(columns(tmp_path / "a.csv", file), expected)


def test_an_empty_number_in_quotes_is_missing(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('price,n\n"1.5","3"\n"",""\n,\n')
    rules = {"price": ColumnRule("price", "float32"), "n": ColumnRule("n", "int64")}
    (rows,) = read([tmp_path / "a.csv"], rules, TableFormat())
    assert {name: column.lengths.tolist() for name, column in rows.columns.items()} == {
        "price": [1, 0, 0],
        "n": [1, 0, 0],
    }


def test_an_event_of_a_csv_may_lack_a_value(tmp_path: Path) -> None:
    fields = {"past_item": {"share": "item"}, "past_price": {"kind": "numeric"}, "past_time": {"kind": "event_time"}}
    file = csv_file(csv={"nulls": ["", "NA"]}, sequences={"past": {"max_length": 3, "fields": fields}})
    header = "label,item-id,past_item,past_price,past_time\n"
    lines = f'1,a,b NA c,0.5 NA 2.5,{NOW}  {NOW - 9}\n0,b,,NA,\n1,a,"NA",1,{NOW}\n'
    (tmp_path / "a.csv").write_text(header + lines)
    found = columns(tmp_path / "a.csv", file)
    assert [found[name].lengths.tolist() for name in fields] == [[3, 0, 1]] * 3
    assert found["past_item"].values.tolist() == [b"b", b"", b"c", b""]
    np.testing.assert_array_equal(found["past_price"].values, [0.5, np.nan, 2.5, 1])
    assert found["past_time"].values.tolist() == [NOW, INT64_MISSING, NOW - 9, NOW]


NULLS = "; a word that stands for a missing value is named in `csv.nulls`$"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda text: text.replace("\n0,,", '\n0,"a,', 1), r'a\.csv, line 3: a quote \("\) is open at its end'),
        (lambda text: text.replace(",7,", ",7,8,", 1), "Row #2: Expected 11 columns, got 12"),
        (
            lambda text: text.replace(",7,", ",seven,", 1),
            f"row 1: column '205' is 'seven'; the feature file says int64{NULLS}",
        ),
        (lambda text: text.replace(",1.5,", ",NA,", 1), f"row 1: column 'price' is 'NA'; .* says float32{NULLS}"),
        (lambda text: text.replace("\n1,", "\nNA,", 1), f"row 1: column 'label' is 'NA'; a label must be int64{NULLS}"),
        (
            lambda text: text.replace("extra", "205", 1),
            r"two columns are called '205'; the first line must name the columns$",
        ),
        (lambda text: "", "Empty CSV file"),
        (lambda text: "\n\n", "Empty CSV file"),
        (lambda text: text.replace(",a,", ",\udcff,"), "a.csv: is not UTF-8 text|invalid UTF8"),
    ],
)
def test_a_bad_csv_is_told(tmp_path: Path, change: Callable[[str], str], told: str) -> None:
    (tmp_path / "a.csv").write_bytes(change(HEADER + LINES).encode(errors="surrogateescape"))
    with pytest.raises(UserError, match=told) as raised:
        columns(tmp_path / "a.csv", csv_file())
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("change", [lambda whole: whole[:-30], lambda whole: b"label\n1\n", lambda whole: b""])
def test_a_damaged_parquet_is_told(tmp_path: Path, change: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(table(), path)
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(UserError, match=r"a\.parquet is damaged or no Parquet file, after row 0"):
        columns(path)


def test_two_columns_of_one_name_are_told(tmp_path: Path) -> None:
    pq.write_table(pa.table([[1], [2]], ["label", "label"]), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=r"a\.parquet: two columns are called 'label'"):
        columns(tmp_path / "a.parquet")


def test_every_format_says_the_types_of_its_columns(tmp_path: Path) -> None:
    rows = [{"id": 7, "name": "a", "score": 0.5}, {"id": 8, "other": "b"}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    (tmp_path / "a.csv").write_text("id,name\n7,a\n")
    write_records(tmp_path / "a.tfrecord", rows)
    tables = TableFormat()
    assert types(tmp_path / "a.csv", tables) == {"id": "string", "name": "string"}
    assert types(tmp_path / "a.csv", TableFormat(columns=("x", "y"))) == {"x": "string", "y": "string"}
    assert types(tmp_path / "a.parquet", tables) == dict.fromkeys(["id", "name", "score"], AS_WRITTEN)
    assert types(tmp_path / "a.tfrecord", tables) == {
        "id": "int64",
        "name": "string",
        "score": "float32",
        "other": "string",
    }
    with pytest.raises(UserError, match=r"b\.txt: no log\. Allowed: \*\.csv"):
        types(tmp_path / "b.txt", tables)


def test_a_bad_value_in_a_late_row_group_is_told(tmp_path: Path) -> None:
    rows = 1000
    values = {"label": [n % 2 for n in range(rows)], "item-id": ["a"] * rows, "205": [float(n) for n in range(rows)]}
    values["205"][777] = 0.5
    pq.write_table(pa.table(values), tmp_path / "a.parquet", row_group_size=100)
    with pytest.raises(UserError, match=r"a\.parquet, row 778: column '205' is 0\.5"):
        list(checked_rows(FILE, [tmp_path / "a.parquet"], ""))


FAULTS = [
    ("label", 5, "label must be 0 or 1. Received: 5"),
    ("205", "x", "205"),
    ("205", 0.5, "205"),
]


@pytest.mark.parametrize("suffix", ["tfrecord", "parquet", "csv"])
@pytest.mark.parametrize("first", [0, 1, 2])
@pytest.mark.parametrize("loaded", [True, False])
def test_of_several_faults_the_first_is_told(
    tmp_path: Path, suffix: str, first: int, loaded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not loaded:
        monkeypatch.delitem(sys.modules, "tensorflow")
    rows: list[dict[str, Any]] = [{"label": row % 2, "item-id": "a", "205": row, "price": 1.0} for row in range(100)]
    for row, (column, value, _) in zip((20, 60), [FAULTS[first], FAULTS[first - 1]], strict=True):
        rows[row][column] = value
    path = tmp_path / f"a.{suffix}"
    if suffix == "tfrecord":
        write_records(path, rows)
    else:
        texts = {name: [str(row[name]) for row in rows] for name in rows[0]}
        write = {"parquet": write_parquet, "csv": write_csv}[suffix]
        write(path, pa.table(texts))
    with pytest.raises(UserError, match=rf"a\.{suffix}, (row|record) 21: .*{FAULTS[first][2]}"):
        list(checked_rows(FILE, [path], ""))


def test_rows_of_any_format_become_the_same_examples(tmp_path: Path, records: dict[str, Column]) -> None:
    pq.write_table(table(), tmp_path / "a.parquet")
    [rows] = read([tmp_path / "a.parquet"], column_rules(FILE), FILE.csv)
    again = tmp_path / "b.tfrecord"
    with tf.io.TFRecordWriter(str(again)) as writer:
        for record in serialized_rows(rows, column_rules(FILE)):
            writer.write(record)
    assert_same(columns(again), records)


def test_a_split_has_one_format(tmp_path: Path) -> None:
    directory = tmp_path / "train"
    directory.mkdir()
    (directory / "_SUCCESS").touch()
    (directory / ".part.csv").touch()
    with pytest.raises(UserError, match="no file of a log"):
        split_files(tmp_path, "train")
    pq.write_table(table(), directory / "b.parquet")
    pq.write_table(table(), directory / "a.parquet")
    assert [Path(path).name for path in split_files(tmp_path, "train")] == ["a.parquet", "b.parquet"]
    write_records(directory / "c.tfrecord", ROWS)
    with pytest.raises(UserError, match=r"files of several formats, .*b.parquet and .*c.tfrecord; keep one"):
        split_files(tmp_path, "train")


@pytest.mark.parametrize(
    ("feature", "told"),
    [
        ({"column": "label"}, "candidate.more: 'label' is the labels column and can't be a feature too"),
        ({"dtype": "string", "column": "205"}, "candidate.more.column: '205' is read as string, and by user.user as"),
        ({"column": ""}, "candidate.more.column"),
    ],
)
def test_a_column_that_can_not_be_is_refused(feature: dict[str, Any], told: str) -> None:
    content = {**CONTENT, "candidate": {**CONTENT["candidate"], "more": feature}}
    with pytest.raises(ValueError, match=told):
        FeatureFile.model_validate(content)
