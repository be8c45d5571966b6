"""No line of a CSV is lost: an open quote, which Arrow reads on to the next one, is told with its line."""

from __future__ import annotations

import gzip
import subprocess
import sys
from pathlib import Path

import pytest

from tfctr.data.sources import csv, read
from tfctr.errors import UserError
from tfctr.features.row_checks import ColumnRule
from tfctr.features.table_format import TableFormat

ROWS = 60_000
LINES = ["a,b,c", *(f"{row},x{row},{row}" for row in range(ROWS))]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv, "_BLOCK", 1 << 16)


def count(path: Path, *columns: str, tables: TableFormat | None = None) -> int:
    rules = {name: ColumnRule(name, "string") for name in columns}
    pieces = [len(rows) for rows in read([path], rules, tables or TableFormat())]
    assert max(pieces) <= 4096
    return sum(pieces)


def written(path: Path, changed: dict[int, str], end: str = "\n") -> Path:
    """A file whose lines of those numbers, from 1, are others."""
    lines = [changed.get(number, line) for number, line in enumerate(LINES, start=1)]
    text = (end.join(lines) + end).encode()
    path.write_bytes(gzip.compress(text, 1) if path.suffix == ".gz" else text)
    return path


@pytest.mark.parametrize(
    "changed",
    [
        {40_000: '7,"x,3'},
        {40_000: '7,x,"3'},
        {40_000: '7,x,"3', 40_005: '7,x",3'},
        {40_000: '7,x,"3', 40_005: '7,x,3"'},
        {20: '7,5" pipe,3', 40_000: '7,x,"3', 40_001: ""},
        {ROWS + 1: '7,x,"3'},
    ],
)
@pytest.mark.parametrize("columns", ["abc", "a"])
@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz"])
def test_an_open_quote_is_told_with_its_line(tmp_path: Path, changed: dict[int, str], columns: str, name: str) -> None:
    bad = 40_000 if 40_000 in changed else ROWS + 1
    with pytest.raises(UserError, match=rf'{name}, line {bad}: a quote \("\) is open at its end') as raised:
        count(written(tmp_path / name, changed), *columns)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz"])
def test_an_open_quote_in_a_long_line(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv, "_BLOCK", 1 << 22)
    changed = {40_000: '7,x,"' + "y" * 140_000, 40_009: '7,"x",3'}
    with pytest.raises(UserError, match=rf'{name}, line 40000: a quote \("\) is open at its end'):
        count(written(tmp_path / name, changed), "a")


def test_a_long_value(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv, "_BLOCK", 1 << 22)
    changed = {1: "a,b," + "c" * 140_000, 40_000: f'7,"{"y" * 140_000}",3', 50_000: '7,5" pipe,3'}
    assert count(written(tmp_path / "a.csv", changed), "a", "b") == ROWS


def test_lines_that_are_lost_are_refused_whatever_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv, "_refuse_open_quote", lambda *_: None)
    with pytest.raises(UserError, match=r"a\.csv: 5 of 60,001 lines can't be told apart, because of a quote"):
        count(written(tmp_path / "a.csv", {40_000: '7,x,"3', 40_005: '7,x,3"'}), "a")


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize(
    "changed",
    [{}, {40_000: '7,"x, ""y""",3'}, {40_000: '7,5" pipe,3'}, {40_000: '"7","x",""'}],
)
def test_other_quotes_are_read(tmp_path: Path, changed: dict[int, str], end: str) -> None:
    assert count(written(tmp_path / "a.csv", changed, end), "a", "b", "c") == ROWS


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_empty_lines_are_no_rows(tmp_path: Path, end: str) -> None:
    changed = {5: "", 6: "", 40_000: '7,5" pipe,3', 50_000: "", ROWS + 1: ""}
    assert count(written(tmp_path / "a.csv", changed, end), "a") == ROWS - 4


@pytest.mark.parametrize("end", ["", "\n"])
def test_names_and_no_row(tmp_path: Path, end: str) -> None:
    (tmp_path / "log.csv").write_text("a,b,c" + end)
    rules = {"a": ColumnRule("a", "string")}
    assert not list(read([tmp_path / "log.csv"], rules, TableFormat()))
    (tmp_path / "log.csv").write_text("a,b,c\n1,2,3" + end)
    assert count(tmp_path / "log.csv", "a") == 1


def test_a_line_of_another_length_is_told_once(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"log.csv: can't be read: .*Row #50001") as told:
        count(written(tmp_path / "log.csv", {50_001: "1,2"}), "a")
    assert "after row" not in str(told.value)


def test_names_from_the_feature_file(tmp_path: Path) -> None:
    tables = TableFormat(columns=("a", "b", "c"))
    assert count(written(tmp_path / "a.csv", {}), "a", "c", tables=tables) == ROWS  # The first line is these names.
    others = TableFormat(columns=("x", "y", "z"))
    assert count(written(tmp_path / "a.csv", {}), "x", "z", tables=others) == ROWS + 1
    with pytest.raises(UserError, match=r"line 40000: a quote"):
        count(written(tmp_path / "a.csv", {40_000: '7,x,"3'}), "a", tables=tables)


def test_a_cut_gzip_file_is_told(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv.gz", {})
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(UserError, match=r"a\.csv\.gz: can't be read after row \d+"):
        count(path, "a")


STOPPED = """
import sys
from tfctr.data.sources import batches
from tfctr.features.table_format import TableFormat
next(batches(sys.argv[1], None, TableFormat()))
"""


def test_who_stops_reading_early_can_end(tmp_path: Path) -> None:
    """Arrow's thread that reads ahead aborted about every second such process, and let some wait for ever."""
    path = tmp_path / "log.csv"
    path.write_text("a,b\n" + "123456789,something\n" * 2_000_000)
    for _ in range(8):
        subprocess.run([sys.executable, "-c", STOPPED, path], check=True, timeout=300)
