"""Parquet files."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from tfctr.data.sources.base import ROWS, Rows, Source, record_source, unique_names
from tfctr.errors import UserError
from tfctr.features.row_checks import AS_WRITTEN, ColumnRule
from tfctr.features.table_format import TableFormat

if TYPE_CHECKING:
    import pyarrow as pa


@record_source
class Parquet(Source):
    """Parquet: lists are histories, and the values of a feature that has several."""

    name = "Parquet"
    examples = "*.parquet"
    typed = True
    is_table = True

    @override
    def is_one(self, file_name: str) -> bool:
        return file_name.endswith(".parquet")

    @override
    def types(self, path: str, tables: TableFormat) -> dict[str, str]:
        with _opened(path) as (file, _):
            return dict.fromkeys(file.schema_arrow.names, AS_WRITTEN)

    @override
    def read(self, path: str, rules: Mapping[str, ColumnRule], tables: TableFormat) -> Iterator[Rows]:
        from tfctr.data.sources.columns import log_rows

        wanted = {rule.column for rule in rules.values()}
        with _opened(path) as (file, _):
            unread = unique_names(path, file.schema_arrow.names) - wanted
        done = 0
        for batch in self.batches(path, wanted, tables):
            yield from log_rows(batch, rules, path, done, unread)
            done += batch.num_rows

    @override
    def batches(self, path: str, wanted: Collection[str] | None, tables: TableFormat) -> Iterator[pa.RecordBatch]:
        with _opened(path) as (file, read):
            names = file.schema_arrow.names
            unique_names(path, names)
            for batch in file.iter_batches(ROWS, columns=[name for name in names if wanted is None or name in wanted]):
                yield batch
                read.append(batch.num_rows)

    @override
    def bytes_in_memory(self, path: str, tables: TableFormat) -> int:
        with _opened(path) as (file, _):
            first = next(file.iter_batches(ROWS), None)
            return file.metadata.num_rows * first.nbytes // first.num_rows if first and first.num_rows else 0

    @override
    def settled(self, table: pa.Table, histories: Collection[str], tables: TableFormat) -> pa.Table:
        return table


@contextmanager
def _opened(path: str) -> Iterator[tuple[Any, list[int]]]:
    """The file, and a list that is told the rows read, for the message where it is damaged."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    done: list[int] = []
    try:
        with pq.ParquetFile(path, memory_map=True) as file:
            yield file, done
    except (pa.ArrowException, OSError) as error:
        told = str(error).splitlines()[0]
        raise UserError(f"{path} is damaged or no Parquet file, after row {sum(done)}: {told}") from None
