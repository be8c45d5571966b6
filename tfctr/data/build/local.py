"""Builds on one machine, in bounded memory: users go into buckets, which are made one by one; a kill is survived."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tfctr.console import step, track
from tfctr.data.build.counts import RowCounts, Slices, cut_counts
from tfctr.data.build.impressions import Plan, impressions
from tfctr.data.build.log import (
    LogFile,
    bucket_count,
    by_bucket,
    log_batches,
    log_files,
    log_schema,
    text_types,
    with_places,
)
from tfctr.data.build.numbers import log_pieces, warn_of_words
from tfctr.data.build.plan import described, files_read, make_plan
from tfctr.data.build.sides import vectors_of_items
from tfctr.data.build.spec import Build
from tfctr.data.build.tables import arrow_errors, is_typed
from tfctr.data.keys import files_key
from tfctr.data.manifest import warn_of_one_class, write_manifest
from tfctr.data.sources.texts import typed
from tfctr.data.staging import resumed_directory
from tfctr.storage import finish_file, new_file, write_text

_BUCKET_BYTES = 192 << 20  # in memory, where a bucket and what is made of it take about four times as much
_MOST_BUCKETS = 512  # each is an open file while the log is read
_BUCKETS = "buckets"
_TYPES = "types.json"
"""A file that is there when the log is in its buckets."""


def build_dataset(
    build: Build,
    base: Path,
    out: Path,
    force: bool = False,
    about: dict[str, Any] | None = None,
    write_more: Callable[[Path], None] | None = None,
) -> dict[str, Any]:
    """Writes a log as impressions.

    Args:
        build: The build file.
        base: The directory that its paths start from.
        out: The directory to make, with train/, valid/, test/ in Parquet and dataset.json.
        force: Whether a data set that stands at `out` is replaced.
        about: What else dataset.json says.
        write_more: Writes other files of the data set into its directory.

    Returns:
        The content of dataset.json.

    Raises:
        UserError: the input is bad, or `out` is taken. Then nothing is written.
    """
    files, read = log_files(build, base), files_read(build, base)
    # What a killed run must share with this one to be continued.
    key = files_key(read, build.model_dump_json())
    with arrow_errors(), resumed_directory(out, force, key, map(Path, read)) as directory:
        schema = log_schema(files, build)
        plan = make_plan(build, base, files, schema)
        for name, side in plan.sides.items():
            warn_of_words(side.words, side.pieces, name)
        vectors = vectors_of_items(build, base, plan.sides)
        with step("Reading the log"):
            buckets = _Buckets.of(directory / _BUCKETS, build, files, schema)
        if (kind := cut_counts(build)) is not None:
            cut = kind()
            for log in track(buckets.tables(), "Cutting", buckets.count):
                plan.count_for_cut(log, cut)
            plan = replace(plan, cut=cut.cut())
        counts = RowCounts()
        for log in track(buckets.tables(), "Counting", buckets.count):
            plan.count_rows(log, counts)
        manifest = (about or {}) | described(plan, counts)
        slices = counts.slices()
        for number in track(range(buckets.count), "Writing", buckets.count):
            _write(directory, number, buckets, plan, slices)
        if vectors is not None:
            vectors.save(directory)
        if write_more is not None:
            write_more(directory)
        write_manifest(directory, manifest)
        (directory / _BUCKETS / _TYPES).unlink()  # a kill while the buckets are removed must not leave some as all
        shutil.rmtree(directory / _BUCKETS)
    warn_of_one_class(manifest)
    return manifest


@dataclass(frozen=True)
class _Buckets:
    """The log, in files of whole users."""

    paths: tuple[Path, ...]
    types: dict[str, pa.DataType]

    @classmethod
    def of(cls, work: Path, build: Build, files: list[LogFile], schema: pa.Schema) -> _Buckets:
        note = work / _TYPES
        if work.is_dir() and not note.is_file():  # a kill while the log was read: nobody can go on with that
            shutil.rmtree(work)
        work.mkdir(exist_ok=True)
        count = min(bucket_count(files, build, _BUCKET_BYTES), _MOST_BUCKETS)
        paths = tuple(work / f"bucket-{number:05d}.arrow" for number in range(count))
        if not note.is_file():
            write_text(note, json.dumps({name: str(kind) for name, kind in _fill(paths, build, files, schema).items()}))
        types = {name: pa.type_for_alias(kind) for name, kind in json.loads(note.read_text(encoding="utf-8")).items()}
        return cls(paths, types)

    @property
    def count(self) -> int:
        return len(self.paths)

    def tables(self) -> Iterator[pa.Table]:
        yield from map(self.table, range(self.count))

    def table(self, number: int) -> pa.Table:
        with pa.ipc.open_stream(pa.memory_map(str(self.paths[number]))) as reader:
            return typed(reader.read_all(), self.types).combine_chunks()


def _fill(paths: tuple[Path, ...], build: Build, files: list[LogFile], schema: pa.Schema) -> dict[str, pa.DataType]:
    """Writes the buckets, and says what the texts of text tables are."""
    types = text_types(build)
    options = pa.ipc.IpcWriteOptions(compression="lz4")
    with ExitStack() as open_files:
        unfinished = [open_files.enter_context(new_file(path)) for path in paths]
        sinks = [
            open_files.enter_context(pa.ipc.new_stream(str(path), with_places(schema), options=options))
            for path in unfinished
        ]
        for number, file in enumerate(files):
            for batch in track(log_batches(number, file, build, schema), f"reading {file.path}"):
                if not is_typed(file.path):
                    types.add(batch)
                for bucket, some in by_bucket(batch, build.log.user, len(sinks)):
                    sinks[bucket].write_batch(some)
    warn_of_words(types.of_one_word, lambda column: log_pieces(build, files, column), "log")
    return types.types


def _write(directory: Path, number: int, buckets: _Buckets, plan: Plan, slices: Slices) -> None:
    """Writes the impressions of a bucket, unless an earlier run has."""
    work = directory / _BUCKETS
    done = work / f"done-{number:05d}"
    if done.is_file():
        return
    with ExitStack() as open_files:
        writers: dict[str, pq.ParquetWriter] = {}
        for split, rows in impressions(buckets.table(number), plan, slices):
            if split not in writers:
                writer = pq.ParquetWriter(work / split, rows.schema, compression="zstd", store_schema=False)
                writers[split] = open_files.enter_context(writer)
            writers[split].write_table(rows)
    for split in writers:
        (directory / split).mkdir(exist_ok=True)
        finish_file(work / split, directory / split / f"part-{number:05d}.parquet")
    done.touch()
