"""Builds on one machine, in bounded memory: users go into buckets, which are made one by one; a kill is survived."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tfctr import __version__
from tfctr.console import step, track
from tfctr.data.build.counts import RowCounts, SecondCounts, Slices
from tfctr.data.build.impressions import Plan, impressions
from tfctr.data.build.plan import described, make_plan, wanted_columns
from tfctr.data.build.spec import Build
from tfctr.data.build.tables import LogFile, by_bucket, is_typed, log_batches, log_files
from tfctr.data.item_vectors import load_item_vectors
from tfctr.data.manifest import require_rows, write_manifest
from tfctr.data.sources.texts import TextTypes, typed
from tfctr.data.staging import resumed_directory
from tfctr.errors import UserError
from tfctr.storage import write_text

_BUCKET_BYTES = 48 << 20
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
    files = log_files(build, base)
    with resumed_directory(out, force, _key(build, base, files)) as directory:
        with step("Reading the log"):
            buckets = _Buckets.of(directory / _BUCKETS, build, files)
            plan = make_plan(build, base, files, buckets.schema)
        if build.split == "global-time" and not build.given_split:
            seconds = SecondCounts()
            for log in track(buckets.tables(), "Counting seconds", buckets.count):
                seconds.add(plan.arranged(log)[0])
            plan = replace(plan, cut=seconds.cut())
        counts = RowCounts()
        for log in track(buckets.tables(), "Counting", buckets.count):
            counts.add(*plan.arranged(log), build.log.item)
        require_rows({name: count["rows"] for name, count in counts.splits.items()})
        for number, log in enumerate(track(buckets.tables(), "Writing", buckets.count)):
            _write(directory, number, log, plan, counts.slices())
        manifest = (about or {}) | described(plan, counts)
        if build.item_vectors is not None:
            load_item_vectors(base / build.item_vectors).save(directory)
        if write_more is not None:
            write_more(directory)
        shutil.rmtree(directory / _BUCKETS)
        write_manifest(directory, manifest)
    return manifest


def _key(build: Build, base: Path, files: list[LogFile]) -> str:
    """What a killed run must share with this one to be continued."""
    sides = [base / side.path for side in (build.users, build.items) if side is not None]
    states = [[str(path), (stat := path.stat()).st_size, stat.st_mtime_ns] for path in sides if path.exists()]
    states += [[file.path, (stat := Path(file.path).stat()).st_size, stat.st_mtime_ns] for file in files]
    content = json.dumps([__version__, build.model_dump(mode="json"), states])
    return hashlib.sha256(content.encode()).hexdigest()


@dataclass(frozen=True)
class _Buckets:
    """The log, in files of whole users."""

    paths: tuple[Path, ...]
    types: dict[str, pa.DataType]
    schema: pa.Schema

    @classmethod
    def of(cls, work: Path, build: Build, files: list[LogFile]) -> _Buckets:
        work.mkdir(exist_ok=True)
        count = 1 + sum(Path(file.path).stat().st_size for file in files) // _BUCKET_BYTES
        paths = tuple(work / f"bucket-{number:05d}.arrow" for number in range(count if build.log.user else 1))
        note = work / _TYPES
        if not note.is_file():
            write_text(note, json.dumps({name: str(kind) for name, kind in _fill(paths, build, files).items()}))
        types = {name: pa.type_for_alias(kind) for name, kind in json.loads(note.read_text(encoding="utf-8")).items()}
        with pa.ipc.open_stream(pa.memory_map(str(paths[0]))) as reader:
            schema = typed(reader.schema.empty_table(), types).schema
        return cls(paths, types, schema)

    @property
    def count(self) -> int:
        return len(self.paths)

    def tables(self) -> Iterator[pa.Table]:
        for path in self.paths:
            yield self.table(path)

    def table(self, path: Path) -> pa.Table:
        with pa.ipc.open_stream(pa.memory_map(str(path))) as reader:
            return typed(reader.read_all(), self.types).combine_chunks()


def _fill(paths: tuple[Path, ...], build: Build, files: list[LogFile]) -> dict[str, pa.DataType]:
    """Writes the buckets, and says what the texts of text tables are."""
    types, wanted = TextTypes(), wanted_columns(build)
    schema: pa.Schema | None = None
    sinks: list[Any] = []
    try:
        for number, file in enumerate(files):
            for batch in track(log_batches(number, file, wanted, build.log.csv), f"reading {file.path}"):
                if schema is None:
                    schema = batch.schema
                    sinks = [pa.ipc.new_stream(str(path), schema) for path in paths]
                batch = _as(batch, schema, file.path)
                if not is_typed(file.path):
                    types.add(batch)
                for bucket, some in by_bucket(batch, build.log.user, len(sinks)):
                    sinks[bucket].write_batch(some)
    finally:
        for sink in sinks:
            sink.close()
    if schema is None:
        raise UserError(f"{files[0].path}: the log has no row")
    return types.types


def _as(batch: pa.RecordBatch, schema: pa.Schema, path: str) -> pa.RecordBatch:
    """Rows of one file with the columns of the first one."""
    if batch.schema.equals(schema):
        return batch
    for field in schema:
        index = batch.schema.get_field_index(field.name)
        if index < 0:
            raise UserError(f"{path}: no column '{field.name}', which the first file of the log has")
        kind = batch.schema.field(index).type
        if kind != field.type:
            raise UserError(f"{path}: column '{field.name}' is {kind}; in the first file it is {field.type}")
    return batch.select(schema.names).cast(schema)


def _write(directory: Path, number: int, log: pa.Table, plan: Plan, slices: Slices) -> None:
    """Writes the impressions of a bucket, unless an earlier run has."""
    done = directory / _BUCKETS / f"done-{number:05d}"
    if done.is_file():
        return
    writers: dict[str, pq.ParquetWriter] = {}
    try:
        for split, rows in impressions(log, plan, slices) if log.num_rows else ():
            if split not in writers:
                (directory / split).mkdir(exist_ok=True)
                target = directory / split / f"part-{number:05d}.parquet"
                writers[split] = pq.ParquetWriter(target, rows.schema, compression="zstd", store_schema=False)
            writers[split].write_table(rows)
    finally:
        for writer in writers.values():
            writer.close()
    done.touch()
