"""`tfctr data build` on Beam, for logs past one machine: `python -m pipeline.data_build --help`.

It runs the same functions as `tfctr data build`, on groups of whole users, and writes the same rows. The paths must be
readable from all workers.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import apache_beam as beam
import pyarrow as pa
import pyarrow.parquet as pq
import typer
from apache_beam.io import fileio
from apache_beam.options.pipeline_options import PipelineOptions

from pipeline.configs import beam_args
from pipeline.local_runner import ends_in_words
from tfctr.console import console
from tfctr.data.build.counts import RowCounts, SecondCounts
from tfctr.data.build.impressions import Plan, impressions
from tfctr.data.build.plan import described, make_plan, wanted_columns
from tfctr.data.build.spec import Build, load_build
from tfctr.data.build.tables import LogFile, by_bucket, is_typed, log_batches, log_files
from tfctr.data.item_vectors import load_item_vectors
from tfctr.data.manifest import require_rows, write_manifest
from tfctr.data.sources.texts import TextTypes, typed
from tfctr.data.splits import SPLITS
from tfctr.data.staging import staged_directory
from tfctr.errors import UserError

_BUCKET_BYTES = 8 << 20
Types = dict[str, pa.DataType]


class Work:
    """What a worker needs of the build file; tables of users and items are read where they are used.

    Args:
        build: The build file.
        base: The directory that its paths start from.
    """

    def __init__(self, build: Build, base: Path) -> None:
        self.build, self.base = build, base
        self.files = log_files(build, base)
        self.buckets = 1 + sum(Path(file.path).stat().st_size for file in self.files) // _BUCKET_BYTES

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "plan"}

    @cached_property
    def plan(self) -> Plan:
        """What makes impressions; without the cut of `global-time`."""
        for batch in log_batches(0, self.files[0], wanted_columns(self.build), self.build.log.csv):
            return make_plan(self.build, self.base, self.files, batch.schema)
        raise UserError(f"{self.files[0].path}: the log has no row")

    def batches(self, numbered: tuple[int, LogFile]) -> Iterator[pa.RecordBatch]:
        """The rows of a file of the log."""
        yield from log_batches(*numbered, wanted_columns(self.build), self.build.log.csv)

    def pieces(self, numbered: tuple[int, LogFile]) -> Iterator[tuple[int, pa.RecordBatch]]:
        """The same in pieces, by the bucket of their users."""
        for batch in self.batches(numbered):
            yield from by_bucket(batch, self.build.log.user, self.buckets)

    def text_types(self, numbered: tuple[int, LogFile]) -> TextTypes:
        """What the texts of a file can be read as."""
        types = TextTypes()
        for batch in self.batches(numbered) if not is_typed(numbered[1].path) else ():
            types.add(batch)
        return types

    def planned(self, seconds: SecondCounts) -> Plan:
        """What makes impressions."""
        wanted = self.build.split == "global-time" and not self.build.given_split
        return replace(self.plan, cut=seconds.cut()) if wanted else self.plan

    def seconds(self, group: tuple[int, Any], types: TextTypes) -> SecondCounts:
        """How many impressions each second has, of some users."""
        counts = SecondCounts()
        counts.add(self.plan.arranged(_table(group, types))[0])
        return counts

    def counts(self, group: tuple[int, Any], types: TextTypes, seconds: SecondCounts) -> RowCounts:
        """The rows of some users."""
        counts = RowCounts()
        counts.add(*self.planned(seconds).arranged(_table(group, types)), self.build.log.item)
        return counts

    def impressions(
        self, group: tuple[int, Any], types: TextTypes, seconds: SecondCounts, counts: RowCounts
    ) -> Iterator[tuple[str, pa.Table]]:
        """The impressions of some users, by split."""
        yield from impressions(_table(group, types), self.planned(seconds), counts.slices())


def build_on_beam(
    build: Build, base: Path, out: Path, force: bool = False, arguments: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Writes a log as impressions, as `tfctr.data.build.local.build_dataset` does.

    Args:
        build: The build file.
        base: The directory that its paths start from.
        out: The directory to make.
        force: Whether a data set that stands at `out` is replaced.
        arguments: Beam's arguments.

    Returns:
        The content of dataset.json.

    Raises:
        UserError: the input is bad, or `out` is taken. Then nothing is written.
    """
    work = Work(build, base)
    plan = work.plan
    with staged_directory(out, force) as directory:
        for split in SPLITS:
            (directory / split).mkdir()
        counted = directory / "counted.json"
        try:
            with beam.Pipeline(options=PipelineOptions(list(arguments))) as pipeline:
                _add_steps(pipeline, work, directory, counted)
        except Exception as error:
            raise _for_people(error) from error
        counts = _counts_of(counted)
        counted.unlink()
        require_rows({name: count["rows"] for name, count in counts.splits.items()})
        if build.item_vectors is not None:
            load_item_vectors(base / build.item_vectors).save(directory)
        manifest = described(plan, counts)
        write_manifest(directory, manifest)
    return manifest


def _add_steps(pipeline: beam.Pipeline, work: Work, directory: Path, counted: Path) -> None:
    files = pipeline | "Files" >> beam.Create(list(enumerate(work.files))) | beam.Reshuffle()
    types = files | "Types" >> beam.Map(work.text_types) | "All types" >> beam.CombineGlobally(_Merged(TextTypes))
    types = beam.pvalue.AsSingleton(types)
    groups = files | "Rows" >> beam.FlatMap(work.pieces) | "Users" >> beam.GroupByKey()
    seconds = groups | "Seconds" >> beam.Map(work.seconds, types)
    seconds = beam.pvalue.AsSingleton(seconds | "All seconds" >> beam.CombineGlobally(_Merged(SecondCounts)))
    counts = groups | "Counts" >> beam.Map(work.counts, types, seconds)
    counts = counts | "All counts" >> beam.CombineGlobally(_Merged(RowCounts))
    _ = counts | "Write counts" >> beam.Map(_write_counts, str(counted))
    made = groups | "Impressions" >> beam.FlatMap(work.impressions, types, seconds, beam.pvalue.AsSingleton(counts))
    _ = made | "Write" >> fileio.WriteToFiles(
        str(directory),
        destination=lambda element: element[0],
        sink=lambda _: _ParquetSink(),
        file_naming=lambda window, pane, index, shards, compression, split: f"{split}/part-{index:05d}.parquet",
        shards=0,
    )


class _Merged(beam.CombineFn):  # type: ignore[misc]  # Beam has no types.
    """What was counted of several groups."""

    def __init__(self, kind: type[Any]) -> None:
        self._kind = kind

    def create_accumulator(self) -> Any:
        return self._kind()

    def add_input(self, total: Any, one: Any) -> Any:
        total.merge(one)
        return total

    def merge_accumulators(self, totals: Any) -> Any:
        merged = self._kind()
        for total in totals:
            merged.merge(total)
        return merged

    def extract_output(self, total: Any) -> Any:
        return total


class _ParquetSink(fileio.FileSink):  # type: ignore[misc]  # Beam has no types.
    """A Parquet file of the tables that come in."""

    def __init__(self) -> None:
        self._writer: pq.ParquetWriter | None = None

    def open(self, file: Any) -> None:
        self._file = file

    def write(self, element: tuple[str, pa.Table]) -> None:
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._file, element[1].schema, compression="zstd", store_schema=False)
        self._writer.write_table(element[1])

    def flush(self) -> None:
        if self._writer is not None:
            self._writer.close()


def _table(group: tuple[int, Any], types: TextTypes) -> pa.Table:
    return typed(pa.Table.from_batches(list(group[1])), types.types).combine_chunks()


def _write_counts(counts: RowCounts, path: str) -> None:
    items = [[item, count] for item, count in counts.items.items()]
    content = {"splits": counts.splits, "users": list(counts.users.items()), "items": items}
    Path(path).write_text(json.dumps(content), encoding="utf-8")


def _counts_of(path: Path) -> RowCounts:
    content = json.loads(path.read_text(encoding="utf-8"))
    counts = RowCounts()
    for split, count in content["splits"].items():
        counts.splits[split].update(count)
    counts.users.update(dict(content["users"]))
    counts.items.update(dict(content["items"]))
    return counts


def _for_people(error: BaseException) -> BaseException:
    """The fault of the input that a worker met, if it was one."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, UserError):
            return UserError(str(cause).split(" [while running")[0])
        cause = cause.__cause__ or cause.__context__
    return error


app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def main(
    file: Annotated[Path, typer.Argument(help="The build file.")],
    out: Annotated[Path, typer.Option(help="Directory to make; it must be new or empty.")],
    source: Annotated[
        Path | None, typer.Option(help="Directory that the paths of the build file start from; else its own.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Worker processes on this machine.")] = 1,
    beam_arg: Annotated[
        list[str] | None, typer.Option(help="An argument of Beam, such as --runner=FlinkRunner.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the data set that stands at --out.")] = False,
) -> None:
    """Make impressions of an interaction log on Beam: the rows that `tfctr data build` makes."""
    with ends_in_words():
        arguments = (*beam_args(workers), *(beam_arg or ()))
        manifest = build_on_beam(load_build(file), source or file.parent, out, force, arguments)
    rows = ", ".join(f"{count['rows']:,} of {split}" for split, count in manifest["splits"].items())
    console().print(f"{rows}: {out}")


if __name__ == "__main__":
    app()
