"""First rows are read alike from every format, and no more of them than asked."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.records import write_records
from tfctr.errors import UserError
from tfctr.features.table_format import TableFormat
from tfctr.project.sample import plain, read_sample

ROWS: list[dict[str, Any]] = [
    {"count": 7, "price": 1.5, "code": "007", "past": [3, 4]},
    {"code": "a"},
    {"count": -2, "price": 2.0, "code": "b", "past": [5]},
]
CSV = "count,price,code,past\n7,1.5,007,3 4\n,,a,\n-2,2.0,b,5\n"


def past(table: pa.Table) -> Collection[str]:
    return {"past"} & set(table.column_names)


def read(data: Path, **options: Any) -> pa.Table:
    return read_sample(data, "train", TableFormat(), past, **options).table


def write(data: Path, form: str, part: str = "a") -> None:
    (data / "train").mkdir(parents=True, exist_ok=True)
    if form == "csv":
        (data / "train" / f"{part}.csv").write_text(CSV)
    elif form == "tfrecord":
        write_records(data / "train" / f"{part}.tfrecord", ROWS)
    else:
        columns = {name: [row.get(name) for row in ROWS] for name in ROWS[0]}
        pq.write_table(pa.table(columns), data / "train" / f"{part}.parquet")


@pytest.mark.parametrize("form", ["csv", "tfrecord", "parquet"])
def test_formats_are_alike(tmp_path: Path, form: str) -> None:
    write(tmp_path, form)
    table = read(tmp_path)
    assert table.column("count").to_pylist() == [7, None, -2]
    assert table.column("price").to_pylist() == [1.5, None, 2.0]
    assert table.column("past").to_pylist() == [[3, 4], None, [5]]
    codes = [one if isinstance(one, str) else one.decode() for one in table.column("code").to_pylist()]
    assert codes == ["007", "a", "b"]


@pytest.mark.parametrize("form", ["csv", "tfrecord", "parquet"])
def test_as_many_of_each_file(tmp_path: Path, form: str) -> None:
    for part in "ab":
        write(tmp_path, form, part)
    sample = read_sample(tmp_path, "train", TableFormat(), past, rows=4)
    assert sample.table.column("count").to_pylist() == [7, None, 7, None]
    assert sample.about == "the first 4 rows of train (equally many of 2 files)"
    assert not sample.whole
    whole = read_sample(tmp_path, "train", TableFormat(), past, rows=6)
    assert (whole.whole, whole.about) == (True, "all 6 rows of train")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (pa.array([1.5, float("nan")]), [1.5, None]),
        (pa.array(["a", "", None]), ["a", None, None]),
        (pa.array(["a", "b"]).dictionary_encode(), ["a", "b"]),
        (pa.array([1_700_000_000_123], pa.timestamp("ms")), [1_700_000_000]),
        (pa.array([[1.0, 2.0], None], pa.list_(pa.float32(), 2)), [[1.0, 2.0], None]),
        (pa.array([[1], [2, 3]], pa.large_list(pa.int8())).slice(1), [[2, 3]]),
        (pa.array([[["a"], ["b", ""]], None]), [[["a"], ["b", None]], None]),
        (pa.nulls(1), [None]),
    ],
)
def test_plain(given: pa.Array, expected: list[Any]) -> None:
    assert plain(given).to_pylist() == expected


def test_two_types_in_one_file_of_records(tmp_path: Path) -> None:
    write_records(tmp_path / "train" / "a.tfrecord", [{"x": 1}, {"x": "a"}])
    with pytest.raises(UserError, match=r"a\.tfrecord: x is string in some records and int64 in others"):
        read(tmp_path)
