"""Batch scoring: a log in, a Parquet file of keys and scores out, in bounded memory; a killed run is continued."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tensorflow as tf

from tfctr.data.examples import serialized_rows
from tfctr.data.keys import files_key
from tfctr.data.log import checked_rows
from tfctr.data.sources import Rows, types
from tfctr.errors import UserError, disk_errors
from tfctr.features.inputs import columns
from tfctr.features.kinds.base import INT64_MISSING
from tfctr.features.row_checks import ColumnRule, column_rules
from tfctr.features.spec import FeatureFile
from tfctr.storage import new_file, write_text

SCORE = "score"
_PART_ROWS = 1 << 18
"""A killed run loses the scores of at most that many rows."""


def write_scores(model: Path, file: FeatureFile, paths: Sequence[str], out: Path, keys: Sequence[str]) -> int:
    """Scores the rows of some files, in their order, and writes them with their keys.

    The columns of the outcome (label, weight, group) are written too, so that metrics can be computed from the file;
    they are null where the log lacks them. Parts lie beside `out` until all are there. A killed run leaves them for the
    next one; a run that fails removes them.

    Args:
        model: A SavedModel version.
        file: The feature file it was trained with.
        paths: The files.
        out: The Parquet file to write.
        keys: Columns of the log to keep, by the name that the feature file calls them or the log has.

    Returns:
        The number of rows.

    Raises:
        UserError: an unknown key, a bad row, one that can't be scored, a disk that refuses; nothing is left then.
    """
    if out.suffix != ".parquet" or out.is_dir():
        raise UserError(f"{out}: the scores are written as Parquet; name a .parquet file")
    if not out.absolute().parent.is_dir():
        raise UserError(f"{out}: the directory {out.parent} doesn't exist; make it first")
    wanted = dict.fromkeys([*keys, *file.labels.columns, *filter(None, (file.weight, file.group))])
    if SCORE in wanted:
        raise UserError(f"{out}: the log's column '{SCORE}' can't be kept; the scores have that name")
    rules, found = column_rules(file), types(paths[0], file.csv)
    _check_features(file, paths[0], found)
    own = {name: _own_name(rules, name) for name in wanted}
    more = {
        name: ColumnRule(name, found.get(name, "string"), "its first rows say") for name in {*own.values()} - {*rules}
    }
    for name in keys:
        _check_key(name, (rules | more)[own[name]], found)
    options = json.dumps([list(wanted), [str(path) for path in paths]])
    key = files_key([*paths, *sorted(path for path in model.rglob("*") if path.is_file())], options)
    parts = out.with_name(f".{out.name}.parts")
    signature = tf.saved_model.load(str(model)).signatures["serving_default"]
    try:
        with disk_errors(out):
            _keep_only(parts, key)
            rows = _write_parts(signature, file, paths, parts, own, more)
            _join(parts, out)
    except Exception:
        shutil.rmtree(parts, ignore_errors=True)
        raise
    return rows


def _own_name(rules: Mapping[str, ColumnRule], name: str) -> str:
    """What the feature file calls a column of that name in the file or in the log; the same where it knows none."""
    if name in rules:
        return name
    return next((own for own, rule in rules.items() if rule.column == name), name)


def _check_features(file: FeatureFile, path: str, types: Mapping[str, str]) -> None:
    """Refuse a log in which a feature is missing as a whole: it would be scored as if nothing were known of it."""
    rules = column_rules(file)
    needed = [rules[spec.name] for spec in columns(file)]
    absent = sorted(rule.column for rule in needed if rule.everywhere and rule.column not in types)
    if absent:
        raise UserError(
            f"{path}: there is no column '{absent[0]}', which the model reads; where it is unknown, write it with no "
            "values"
        )


def _check_key(name: str, rule: ColumnRule, types: Mapping[str, str]) -> None:
    if rule.column not in types:
        raise UserError(f"--keys: the log has no column '{rule.column}'. It has {', '.join(sorted(types))}")
    if rule.history:
        raise UserError(f"--keys: '{name}' is a history; a key has one value a row")


def _keep_only(parts: Path, key: str) -> None:
    """Remove what another scoring has left."""
    note = parts / "key"
    if not note.is_file() or note.read_text(encoding="utf-8") != key:
        shutil.rmtree(parts, ignore_errors=True)
        parts.mkdir()
        write_text(note, key)


def _write_parts(
    signature: Any,
    file: FeatureFile,
    paths: Sequence[str],
    parts: Path,
    kept: Mapping[str, str],
    more: Mapping[str, ColumnRule],
) -> int:
    """Score what no part holds yet. The rows come in the same pieces each time, and a part is some whole pieces."""
    rules = column_rules(file)
    done = sum(pq.read_metadata(path).num_rows for path in _finished(parts))
    pieces: list[pa.Table] = []
    total = 0
    for rows in checked_rows(file, paths, "scoring", labelled=False, keys=more):
        total += len(rows)
        if total <= done:
            continue
        beside = {name: _arrow(rows, own) for name, own in kept.items()}
        pieces.append(pa.table({**beside, SCORE: _scores(signature, rows, rules)}))
        if sum(map(len, pieces)) >= _PART_ROWS:
            _write_part(parts, pieces)
            pieces = []
    if pieces:
        _write_part(parts, pieces)
    return total


def _finished(parts: Path) -> list[Path]:
    return sorted(parts.glob("*.parquet"))


def _write_part(parts: Path, pieces: Sequence[pa.Table]) -> None:
    with new_file(parts / f"{len(_finished(parts)):06d}.parquet") as unfinished:
        pq.write_table(pa.concat_tables(pieces), unfinished)


def _join(parts: Path, out: Path) -> None:
    """One file of all parts, which is there whole or not at all."""
    found = _finished(parts)
    # Among the parts: what a kill leaves of it is removed with them.
    with new_file(parts / "joined") as unfinished, pq.ParquetWriter(unfinished, pq.read_schema(found[0])) as writer:
        for part in found:
            writer.write_table(pq.read_table(part))
    os.replace(parts / "joined", out)
    shutil.rmtree(parts)


def _scores(signature: Any, rows: Rows, rules: Mapping[str, ColumnRule]) -> pa.Array:
    scores = signature(examples=tf.constant(serialized_rows(rows, rules)))["probabilities"].numpy()
    bad = ~np.isfinite(scores)
    if bad.any():
        raise UserError(
            f"{rows.where(int(bad.argmax()))}: can't be scored: a number in it is too large for the model (a numeric "
            "feature with `clip: false`), or the model's weights are not finite"
        )
    return pa.array(scores.astype(np.float32))


def _arrow(rows: Rows, name: str) -> pa.Array:
    """One value a row; null where it has none, or the one that stands for missing."""
    column = rows.columns[name]
    kind, missing = _ARROW[column.values.dtype.kind]
    dense = np.full(len(rows), missing, column.values.dtype)
    dense[column.rows] = column.values
    try:
        return pa.array(dense, mask=(dense == missing) | (dense != dense)).cast(kind)
    except pa.ArrowInvalid:
        bad = next(row for row, value in enumerate(dense) if "\ufffd" in value.decode(errors="replace"))
        raise UserError(f"{rows.where(bad)}: {name} is not UTF-8 text, so it can't stand beside a score") from None


_ARROW: dict[str, tuple[pa.DataType, Any]] = {
    "i": (pa.int64(), INT64_MISSING),
    "f": (pa.float32(), np.nan),
    "O": (pa.string(), b""),
}
