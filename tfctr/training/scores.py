"""Batch scoring: a log in, a Parquet file of keys and scores out, in bounded memory; a killed run is continued."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from tfctr.console import error_console
from tfctr.data.keys import files_key
from tfctr.data.log import checked_rows
from tfctr.data.sources import Rows, source_of, types
from tfctr.errors import UserError, disk_errors
from tfctr.features.columns import INT64_MISSING
from tfctr.features.inputs import columns
from tfctr.features.row_checks import ColumnRule, column_rules
from tfctr.features.spec import FeatureFile
from tfctr.storage import discard_work, finish_file, new_file, only_one, unfinished_work
from tfctr.training.served import ServedModel

SCORE = "score"
_PART_ROWS = 1 << 15
"""A killed run loses the scores of at most that many rows."""


def write_scores(model: Path, file: FeatureFile, paths: Sequence[str], out: Path, keys: Sequence[str]) -> int:
    """Scores the rows of some files, in their order, and writes them with their keys.

    The columns of the outcome (label, weight, group) are written too, so that metrics can be computed from the file;
    they are null where the log lacks them. Parts lie beside `out` until all are there. A killed run leaves them for the
    next one; a run that fails removes them.

    Args:
        model: A SavedModel version.
        file: The feature file it was trained with.
        paths: The files, of one format.
        out: The Parquet file to write.
        keys: Columns of the log to keep, by the name that the feature file calls them or the log has.

    Returns:
        The number of rows.

    Raises:
        UserError: an unknown key, a bad row, one that can't be scored, a disk that refuses, another run that writes the
            same; nothing is left then.
    """
    if out.suffix != ".parquet" or out.is_dir():
        raise UserError(f"{out}: the scores are written as Parquet; name a .parquet file")
    if out.resolve().parent in {Path(path).resolve().parent for path in paths}:
        raise UserError(f"{out}: the scores can't stand among the files that are scored; name another directory")
    if out.is_file() and not _is_scores(out):
        raise UserError(f"{out} holds something else than scores, so it is not replaced; name another file")
    if not out.absolute().parent.is_dir():
        raise UserError(f"{out}: the directory {out.parent} doesn't exist; make it first")
    wanted = dict.fromkeys([*keys, *file.labels.columns, *filter(None, (file.weight, file.group))])
    if SCORE in wanted:
        raise UserError(f"{out}: the log's column '{SCORE}' can't be kept; the scores have that name")
    rules = column_rules(file)
    own = {name: _own_name(rules, name) for name in wanted}
    for name in keys:
        if own[name] in rules and rules[own[name]].history:
            raise UserError(f"--keys: '{name}' is a history; a key has one value a row")
    more = _checked_keys(file, paths, [own[name] for name in keys])
    options = json.dumps([list(wanted), [str(path) for path in paths]])
    key = files_key([*paths, *sorted(path for path in model.rglob("*") if path.is_file())], options)
    parts = out.with_name(f".{out.name}.parts")
    served = ServedModel(model)
    with only_one(out, out.with_name(f".{out.name}.lock")), disk_errors(out), unfinished_work(parts, key):
        rows = _write_parts(served, file, paths, parts, own, more)
        _join(parts, out)
        with suppress(OSError):  # the scores are there
            discard_work(parts)
    return rows


def _is_scores(path: Path) -> bool:
    try:
        return SCORE in pq.read_schema(path).names
    except (pa.ArrowException, OSError):
        return False


def _own_name(rules: Mapping[str, ColumnRule], name: str) -> str:
    """What the feature file calls a column of that name in the file or in the log; the same where it knows none."""
    if name in rules:
        return name
    return next((own for own, rule in rules.items() if rule.column == name), name)


def _read_by_model(file: FeatureFile) -> dict[str, ColumnRule]:
    """The columns without which a model would score every row as if nothing were known of it."""
    rules = column_rules(file)
    return {spec.name: rules[spec.name] for spec in columns(file) if spec.side != "bias"}


def _checked_keys(file: FeatureFile, paths: Sequence[str], keys: Sequence[str]) -> dict[str, ColumnRule]:
    """How to read the keys that the feature file does not name.

    Raises:
        UserError: a file lacks a key, or a feature as a whole.
    """
    rules = column_rules(file)
    unknown = [name for name in keys if name not in rules]
    source = source_of(paths[0])
    every_file = source is not None and source.is_table
    found: dict[str, str] = {}
    for path in paths:
        if not every_file and found.keys() >= set(unknown):
            break  # a record may lack any column, so nothing else can be told beforehand
        here = types(path, file.csv)
        if every_file:
            absent = sorted(rule.column for rule in _read_by_model(file).values() if rule.column not in here)
            if absent:
                raise UserError(
                    f"{path}: there is no column '{absent[0]}', which the model reads; where it is unknown, write it "
                    "with no values"
                )
            _refuse_absent([rules[name].column if name in rules else name for name in keys], here, path)
        found = here | found
    _refuse_absent(unknown, found, "the log")
    return {name: ColumnRule(name, found[name], "its first record says") for name in unknown}


def _refuse_absent(keys: Sequence[str], found: Mapping[str, str], where: str) -> None:
    absent = [key for key in keys if key not in found]
    if absent:
        raise UserError(f"--keys: {where} has no column '{absent[0]}'. It has {', '.join(sorted(found))}")


def _write_parts(
    served: ServedModel,
    file: FeatureFile,
    paths: Sequence[str],
    parts: Path,
    kept: Mapping[str, str],
    more: Mapping[str, ColumnRule],
) -> int:
    """Score what no part holds yet. The rows come in the same pieces each time, and a part is some whole pieces."""
    rules = column_rules(file)
    unseen = _read_by_model(file)
    done, schema = _done(parts)
    pieces: list[pa.Table] = []
    total = 0
    for rows in checked_rows(file, paths, "scoring", labelled=False, keys=more):
        unseen = {name: rule for name, rule in unseen.items() if not rows.columns[name].lengths.any()}
        start, total = total, total + len(rows)
        if total <= done:
            continue
        if start < done:
            raise _misfit(parts)
        piece = _piece(rows, kept, served.scores(rows, rules), schema)
        schema = piece.schema
        pieces.append(piece)
        if sum(map(len, pieces)) >= _PART_ROWS:
            _write_part(parts, total, pieces)
            pieces = []
    if total < done:
        raise _misfit(parts)
    if pieces:
        _write_part(parts, total, pieces)
    if unseen:
        names = ", ".join(sorted(rule.column for rule in unseen.values()))
        error_console().print(f"warning: no row has a value of {names}, which the model reads")
    return total


def _finished(parts: Path) -> list[Path]:
    return sorted(parts.glob("*.parquet"))


def _done(parts: Path) -> tuple[int, pa.Schema | None]:
    """How many rows the parts hold, from the first row on, and their columns."""
    rows = 0
    for part in _finished(parts):
        if int(part.stem) != rows:
            raise _misfit(parts)
        rows += pq.read_metadata(part).num_rows
    return rows, pq.read_schema(_finished(parts)[-1]) if rows else None


def _misfit(parts: Path) -> UserError:
    return UserError(f"{parts}: what a killed run has left does not fit the log; run the same again, which starts over")


def _write_part(parts: Path, total: int, pieces: Sequence[pa.Table]) -> None:
    """A part is named by the number of rows before its first one; its last one is row `total`."""
    part = pa.concat_tables(pieces, promote_options="default")
    with new_file(parts / f"{total - len(part):012d}.parquet") as unfinished:
        pq.write_table(part, unfinished)


def _join(parts: Path, out: Path) -> None:
    """One file of all parts, which is there whole or not at all."""
    found = _finished(parts)
    # Among the parts: what a kill leaves of it is removed with them.
    joined = parts / "joined"
    schema = pq.read_schema(found[-1])
    with pq.ParquetWriter(joined, schema) as writer:
        for part in found:
            writer.write_table(pq.read_table(part).cast(schema))
    finish_file(joined, out)


def _piece(rows: Rows, kept: Mapping[str, str], scores: npt.NDArray[np.float32], schema: pa.Schema | None) -> pa.Table:
    """The keys of some rows beside their scores, in the types of the rows before them."""
    piece = pa.table({**{name: _arrow(rows, own) for name, own in kept.items()}, SCORE: pa.array(scores)})
    if schema is None:
        return piece
    for index, field in enumerate(schema):
        column = piece.column(index)
        if pa.types.is_null(field.type):
            continue  # no row before had a value
        try:
            piece = piece.set_column(index, field, column.cast(field.type))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            raise UserError(
                f"{rows.where(0)}: {field.name} is {column.type} from here on and {field.type} in the rows before; "
                "a key must be of one type"
            ) from None
    return piece


def _arrow(rows: Rows, name: str) -> pa.Array:
    """One value a row; null where it has none, or the one that stands for missing."""
    column = rows.columns[name]
    if isinstance(column.flat, pa.Array):
        return column.flat.take(pa.array(np.cumsum(column.lengths) - 1, mask=column.lengths == 0))
    kind, missing = _ARROW[column.values.dtype.kind]
    dense = np.full(len(rows), missing, column.values.dtype)
    dense[column.rows] = column.values
    try:
        return pa.array(dense, mask=(dense == missing) | (dense != dense)).cast(kind)
    except pa.ArrowInvalid:
        bad = next(row for row, value in enumerate(dense) if "\ufffd" in value.decode(errors="replace"))
        raise UserError(f"{rows.where(bad)}: {name} is not UTF-8 text, so it can't stand beside a score") from None


_ARROW = {
    "i": (pa.int64(), INT64_MISSING),
    "f": (pa.float32(), np.nan),
    "O": (pa.string(), b""),
}
