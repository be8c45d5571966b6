"""Tables in one or several files, as a build reads them: one schema, to which every file is brought without a loss."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa

from tfctr.data.build.spec import NamedColumns
from tfctr.data.sources import batches, files_of, source_of, types
from tfctr.data.sources.missing import without_nan
from tfctr.errors import UserError


def table_names(path: str, said: NamedColumns) -> dict[str, str]:
    """The columns that a file of a table has, in its own words, and what each is called.

    Raises:
        UserError: a column that is renamed is not there, or its new name is that of another one.
    """
    given = types(path, said.csv)
    names = {name: said.rename.get(name, name) for name in given}
    for theirs, ours in said.rename.items():
        if theirs not in given:
            raise UserError(f"{path}: no column '{theirs}', which `rename` calls '{ours}'; it has {', '.join(given)}")
        if ours != theirs and names.get(ours) == ours:
            raise UserError(
                f"{path}: `rename` calls '{theirs}' '{ours}', and another column is called so; rename that one too, or "
                "choose another name"
            )
    return names


def table_batches(path: str, wanted: Collection[str] | None, said: NamedColumns) -> Iterator[pa.RecordBatch]:
    """The rows of a file of a table, in order, as its format gives them.

    Args:
        path: The file.
        wanted: The columns to read, of those that the file has, as the build file calls them; None reads all.
        said: What the build file says of the table.

    Raises:
        UserError: a damaged file, or columns that can't be renamed.
    """
    names = table_names(path, said)
    theirs = None if wanted is None else [name for name, ours in names.items() if ours in wanted]
    for batch in batches(path, theirs, said.csv):
        yield batch.rename_columns([names[name] for name in batch.schema.names])


@contextmanager
def arrow_errors() -> Iterator[None]:
    """Tells in one line what Arrow can't do with a log or a table."""
    try:
        yield
    except pa.ArrowException as error:
        raise UserError(f"the log or a table can't be used: {str(error).splitlines()[0]}") from error


def with_values(batch: pa.RecordBatch) -> pa.Schema:
    """The columns of some rows; one without a value has no type."""
    known = [without_nan(column.cast(_plain(column.type))) for column in batch.columns]
    types = [pa.null() if one.null_count == len(one) else one.type for one in known]
    return pa.schema(list(zip(batch.schema.names, types, strict=True)))


def merged(first: pa.Schema | None, other: pa.Schema) -> pa.Schema:
    """The columns of the first of several tables; one that has no value at all there has the other's type."""
    types = {field.name: _plain(field.type) for field in other}
    before = {} if first is None else {field.name: field.type for field in first if not pa.types.is_null(field.type)}
    names = types if first is None else first.names
    return pa.schema([(name, before.get(name, types.get(name, pa.null()))) for name in names])


def _plain(kind: pa.DataType) -> pa.DataType:
    """What a dictionary holds; a float32 for a float16, which Arrow can't compute with."""
    if pa.types.is_float16(kind):
        return pa.float32()
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def as_schema(batch: pa.RecordBatch, schema: pa.Schema, path: str) -> pa.RecordBatch:
    """Rows of a file with the columns of the first one; a column that has no value at all may have no type.

    Numbers, texts and times of one zone may be of another width there, if nothing is lost.

    What is not a number is a missing one here, as it is to all that reads the impressions.
    """
    columns = []
    for field in schema:
        index = batch.schema.get_field_index(field.name)
        if index < 0:
            raise UserError(f"{path}: no column '{field.name}', which the first file has")
        kind = _plain(batch.schema.field(index).type)
        told = f"{path}: column '{field.name}' is {kind}; in the first file it is {field.type}"
        given = without_nan(batch.column(index).cast(kind))
        if given.null_count == len(given):
            columns.append(pa.nulls(len(given), field.type))
            continue
        if kind != field.type and not _alike(kind, field.type):
            raise UserError(told)
        try:
            values = given.cast(field.type)
        except pa.ArrowInvalid as error:
            raise UserError(f"{told}, which can't hold it: {str(error).splitlines()[0]}") from None
        floating = pa.types.is_floating(kind) and pa.types.is_floating(field.type)
        if floating and not values.cast(kind).equals(given):  # here Arrow rounds without a word
            raise UserError(f"{told}, which can't hold all its digits")
        columns.append(values)
    return pa.RecordBatch.from_arrays(columns, schema.names)


def require_columns(path: str, names: Collection[str], wanted: Collection[str]) -> None:
    """Raises a `UserError` for the first column that a table lacks."""
    for name in wanted:
        if name not in names:
            source = source_of(path)
            values = source is not None and not source.typed and any(map(_is_number, names))
            hint = "; its first line must name the columns" if values else ""
            raise UserError(f"{path}: no column '{name}'; it has {', '.join(names)}{hint}")


def _is_number(name: str) -> bool:
    return name.replace(".", "", 1).isdigit()


def is_typed(path: str) -> bool:
    """Whether the format of a file says what type a column has."""
    source = source_of(path)
    return source is not None and source.typed


def table_files(path: Path, key: str) -> list[str]:
    """The files of a table, in order.

    Args:
        path: A file, or a folder of such. A CSV file that is not there may be packed: `.csv.gz`.
        key: What the build file calls it, for the message.

    Raises:
        UserError: there are none.
    """
    if not path.exists():
        packed = path.with_name(f"{path.name}.gz") if path.suffix == ".csv" else None
        if packed is None or not packed.is_file():
            either = "" if packed is None else f", and no {packed.name}"
            raise UserError(f"{path}: no such file or folder{either}; `{key}` names it")
        path = packed
    found = files_of(path) if path.is_dir() else [str(path)]
    sources = [source_of(one) for one in found if Path(one).is_file()]
    if not sources or not all(source is not None and source.is_table for source in sources):
        raise UserError(f"{path}: `{key}` must be a .parquet, .csv or .csv.gz file, or a folder of such")
    return found


def _alike(kind: pa.DataType, other: pa.DataType) -> bool:
    """Whether values of one of two types may become such of the other one, if nothing is lost."""
    if pa.types.is_timestamp(kind) and pa.types.is_timestamp(other):
        return bool(kind.tz == other.tz)
    return any(is_one(kind) and is_one(other) for is_one in (is_number, _is_text))


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def is_number(kind: pa.DataType) -> bool:
    """Whether values of a type are numbers."""
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))
