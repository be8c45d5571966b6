"""CSV files, plain or gzip."""

from __future__ import annotations

import codecs
import csv
import gzip
import os
import re
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from typing_extensions import override

from tfctr.data.sources.base import ROWS, Rows, Source, record_source, unique_names
from tfctr.errors import UserError
from tfctr.features.row_checks import ColumnRule
from tfctr.features.table_format import TableFormat

if TYPE_CHECKING:
    import pyarrow as pa

_BLOCK = 1 << 22
_LONGEST_LINE = 1 << 26
_PACKED = 6  # how much larger a log is without gzip
_LINE_ENDS = (ord("\n"), ord("\r"))
_LONGEST_VALUE = 2**31 - 1
_OF_WORDS = "; a word that stands for a missing value is named in `csv.nulls`"


@record_source
class Csv(Source):
    """CSV: a history is one text, its events joined by `csv.list_delimiter` of the feature file."""

    name = "CSV"
    examples = "*.csv, *.csv.gz"
    typed = False
    is_table = True

    @override
    def is_one(self, file_name: str) -> bool:
        return file_name.endswith((".csv", ".csv.gz"))

    @override
    def types(self, path: str, tables: TableFormat) -> dict[str, str]:
        return dict.fromkeys(_names(path, tables), "string")

    @override
    def read(self, path: str, rules: Mapping[str, ColumnRule], tables: TableFormat) -> Iterator[Rows]:
        from tfctr.data.sources.columns import log_rows

        wanted = {rule.column for rule in rules.values()}
        unread = _unique_names(path, _names(path, tables), tables) - wanted
        histories = {rule.column for rule in rules.values() if rule.history}
        done = 0
        for batch in self.batches(path, wanted, tables):
            for start in range(0, batch.num_rows, ROWS):
                piece = self.with_lists(batch.slice(start, ROWS), histories, tables)
                yield from log_rows(piece, rules, path, done, unread, _OF_WORDS)
                done += piece.num_rows

    @override
    def batches(self, path: str, wanted: Collection[str] | None, tables: TableFormat) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa
        from pyarrow import csv as arrow_csv

        first_line, lines_of_names = _first_line(path, tables)
        names = first_line if tables.columns is None else tables.columns
        _unique_names(path, names, tables)
        read = [name for name in names if wanted is None or name in wanted]
        first_is_names = first_line == names
        parsing = arrow_csv.ParseOptions(delimiter=tables.delimiter)
        converting = arrow_csv.ConvertOptions(
            column_types=dict.fromkeys(read, pa.string()),
            null_values=list(tables.nulls),
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
            include_columns=read,
        )
        done, lines = 0, _Lines()
        try:
            with pa.input_stream(path, compression="gzip" if path.endswith(".gz") else None) as stream:
                for piece in lines.pieces(stream):
                    skipped = lines_of_names if first_is_names and lines.before == 0 else 0
                    reading = arrow_csv.ReadOptions(
                        use_threads=False, block_size=len(piece), column_names=names, skip_rows=skipped
                    )
                    # Arrow's own reader of pieces reads ahead in a thread that calls Python, and aborts the process
                    # when Python has ended meanwhile.
                    for batch in arrow_csv.read_csv(pa.BufferReader(piece), reading, parsing, converting).to_batches():
                        yield batch
                        done += batch.num_rows
        except (pa.ArrowException, OSError, EOFError, zlib.error, csv.Error) as error:
            _refuse_open_quote(path, tables)
            told = str(error).splitlines()[0]
            row = "" if "Row #" in told else f" after row {done}"
            told = re.sub(r"Row #(\d+)", lambda found: f"Row #{lines.before + int(found[1])}", told)
            raise UserError(f"{path}: can't be read{row}: {told}") from None
        # Arrow takes the lines after an open quote for a part of the value.
        missed = lines.count - done - first_is_names
        if lines.quotes % 2 or missed:
            _refuse_open_quote(path, tables)
        if missed:
            raise UserError(
                f"{path}: {abs(missed):,} of {lines.count:,} lines can't be told apart, because of a quote (\") in a "
                "value; double each quote that belongs to a value, and put the value in quotes"
            )

    @override
    def with_lists(self, batch: pa.RecordBatch, histories: Collection[str], tables: TableFormat) -> pa.RecordBatch:
        """The rows with lists of texts as their histories; an event may lack a value as a row may."""
        import pyarrow as pa
        import pyarrow.compute as pc

        from tfctr.data.sources.missing import without

        nulls = pa.array(tables.nulls, pa.string())
        for name in set(histories) & set(batch.schema.names):
            index = batch.schema.get_field_index(name)
            lists = pc.split_pattern(batch.column(index), tables.list_delimiter)
            values = lists.flatten()
            known = without(values, pc.is_in(values, nulls))
            offsets = pa.array(
                np.concatenate([[0], np.cumsum(pc.fill_null(pc.list_value_length(lists), 0))]), pa.int32()
            )
            batch = batch.set_column(index, name, pa.ListArray.from_arrays(offsets, known, mask=lists.is_null()))
        return batch

    @override
    def bytes_in_memory(self, path: str, tables: TableFormat) -> int:
        return (
            os.path.getsize(path) * (_PACKED if path.endswith(".gz") else 1) * 2
        )  # a text has its place and its bytes

    @override
    def settled(self, table: pa.Table, histories: Collection[str], tables: TableFormat) -> pa.Table:
        import pyarrow as pa

        from tfctr.data.sources.texts import TextTypes, typed

        rows = [self.with_lists(one, histories, tables) for one in table.to_batches()]
        types = TextTypes()
        for some in rows:
            types.add(some)
        return typed(pa.Table.from_batches(rows), types.types) if rows else table


class _Lines:
    """The lines of a stream. Empty ones are no rows and do not count.

    Attributes:
        count: The lines that were read.
        before: The lines before the last piece.
        quotes: The quotes that were read.
    """

    def __init__(self) -> None:
        self.count = self.before = self.quotes = 0

    def pieces(self, stream: Any) -> Iterator[bytes]:
        """Pieces of whole lines, each ending with a line end.

        Raises:
            csv.Error: a line is far too long, as if the file were no text.
        """
        rest = b""
        begun = False
        while block := stream.read(_BLOCK):
            if not begun:
                begun = True
                block = block.removeprefix(codecs.BOM_UTF8)  # no part of the first line, which may be empty
            end = 1 + max(block.rfind(b"\n"), block.rfind(b"\r"))
            if end:
                yield from self._counted(rest + block[:end])
                rest = block[end:]
            else:
                rest += block
            if len(rest) > _LONGEST_LINE:
                raise csv.Error(f"a line is longer than {_LONGEST_LINE:,} bytes")
        yield from self._counted(rest + b"\n")

    def _counted(self, piece: bytes) -> Iterator[bytes]:
        ends = np.isin(np.frombuffer(piece, np.uint8), _LINE_ENDS)
        lines = int(np.count_nonzero(ends[1:] & ~ends[:-1]))
        if lines:
            self.before = self.count
            self.count += lines
            self.quotes += piece.count(b'"')
            yield piece


def _unique_names(path: str, names: Sequence[str], tables: TableFormat) -> frozenset[str]:
    return unique_names(path, names, "; the first line must name the columns" if tables.columns is None else "")


def _names(path: str, tables: TableFormat) -> tuple[str, ...]:
    return _first_line(path, tables)[0] if tables.columns is None else tables.columns


def _first_line(path: str, tables: TableFormat) -> tuple[tuple[str, ...], int]:
    """The values of the first line that is not empty, and the number of lines up to its end."""
    try:
        with _text(path) as file, _long_values():
            reader = csv.reader(file, delimiter=tables.delimiter)
            for values in reader:
                if values:
                    return tuple(values), reader.line_num
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not UTF-8 text ({error.reason})") from None
    except (OSError, EOFError, zlib.error, csv.Error) as error:
        raise UserError(f"{path}: can't be read after row 0: {error}") from None
    raise UserError(f"{path}: Empty CSV file; its first line must name the columns, or csv.columns the feature file")


def _refuse_open_quote(path: str, tables: TableFormat) -> None:
    """Refuse the first line that ends inside quotes, if any."""
    with suppress(OSError, EOFError, zlib.error, csv.Error), _text(path, errors="replace") as file, _long_values():
        for number, line in enumerate(file, start=1):
            if any("\n" in value for value in next(csv.reader([line], delimiter=tables.delimiter), ())):
                raise UserError(
                    f'{path}, line {number}: a quote (") is open at its end; close it, or double a quote that belongs '
                    "to a value. A line break may not stand in a value"
                )


@contextmanager
def _long_values() -> Iterator[None]:
    """Lets the csv module read what Arrow reads: by itself it refuses a value of 131,073 characters."""
    before = csv.field_size_limit(_LONGEST_VALUE)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _text(path: str, errors: str = "strict") -> IO[str]:
    return (gzip.open if path.endswith(".gz") else open)(path, "rt", encoding="utf-8-sig", errors=errors)
