"""`tfctr data build` on Beam, for logs past one machine: `python -m pipeline.data_build --help`.

It runs the same functions as `tfctr data build`, on groups of whole users, and writes the same rows. The paths must be
readable from all workers.
"""

from __future__ import annotations

import json
import shutil
import traceback
from collections.abc import Callable, Iterator
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
from apache_beam.options.value_provider import StaticValueProvider

from pipeline.configs import beam_args
from pipeline.errors import ends_in_words, for_people, user_error_in
from pipeline.progress import quiet
from tfctr.console import console
from tfctr.data.build.counts import CutCounts, RowCounts, Slices, cut_counts
from tfctr.data.build.events import Cut
from tfctr.data.build.impressions import Plan, impressions
from tfctr.data.build.log import LogFile, bucket_count, by_bucket, log_batches, log_files, log_schema, text_types
from tfctr.data.build.numbers import log_pieces, warn_of_words
from tfctr.data.build.plan import described, files_read, make_plan
from tfctr.data.build.sides import vectors_of_items
from tfctr.data.build.spec import Build, load_build
from tfctr.data.build.tables import arrow_errors, is_typed
from tfctr.data.manifest import warn_of_one_class, write_manifest
from tfctr.data.sources.texts import TextTypes, typed
from tfctr.data.splits import SPLITS
from tfctr.data.staging import staged_directory
from tfctr.errors import UserError, disk_errors
from tfctr.storage import local_directory

_BUCKET_BYTES = 32 << 20


class Work:
    """What a worker needs of the build file; tables of users and items are read where they are used.

    Args:
        build: The build file.
        base: The directory that its paths start from.
    """

    def __init__(self, build: Build, base: Path) -> None:
        self.build, self.base = build, base
        self.files = log_files(build, base)
        self.schema = log_schema(self.files, build)
        self.buckets = bucket_count(self.files, build, _BUCKET_BYTES)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "plan"}

    @cached_property
    def plan(self) -> Plan:
        """What makes impressions; without the cut of a split that cuts all users in one place."""
        return make_plan(self.build, self.base, self.files, self.schema)

    def pieces(self, numbered: tuple[int, LogFile]) -> Iterator[tuple[int, pa.RecordBatch]]:
        """The rows of a file of the log in pieces, by the bucket of their users."""
        with arrow_errors():
            for batch in log_batches(*numbered, self.build, self.schema):
                yield from by_bucket(batch, self.build.log.user, self.buckets)

    def text_types(self, numbered: tuple[int, LogFile]) -> TextTypes:
        """What the texts of a file can be read as."""
        types = text_types(self.build)
        if not is_typed(numbered[1].path):
            with arrow_errors():
                for batch in log_batches(*numbered, self.build, self.schema):
                    types.add(batch)
        return types

    def cut_counts(self, group: tuple[int, Any], types: TextTypes, kind: Callable[[], CutCounts]) -> CutCounts:
        """What decides the cut, of some users."""
        counts = kind()
        with arrow_errors():
            self.plan.count_for_cut(_table(group, types), counts)
        return counts

    def counts(self, group: tuple[int, Any], types: TextTypes, cut: Cut | None) -> RowCounts:
        """The rows of some users."""
        counts = RowCounts()
        with arrow_errors():
            replace(self.plan, cut=cut).count_rows(_table(group, types), counts)
        return counts

    def write_description(self, counts: RowCounts, types: TextTypes, path: str) -> None:
        """Writes what dataset.json says of all of it, and the columns of numbers that one word makes texts."""
        found = {"manifest": described(self.plan, counts), "words": types.of_one_word}
        Path(path).write_text(json.dumps(found), encoding="utf-8")

    def impressions(
        self, group: tuple[int, Any], types: TextTypes, cut: Cut | None, slices: Slices
    ) -> Iterator[tuple[str, pa.Table]]:
        """The impressions of some users, by split."""
        with arrow_errors():
            yield from impressions(_table(group, types), replace(self.plan, cut=cut), slices)


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
    with arrow_errors():
        work = Work(build, base)
        tables = [f"{side.table.num_rows:,} {name}" for name, side in work.plan.sides.items()]
    console().print(f"{', '.join([f'{len(work.files)} files of the log', *tables])}; {work.buckets} groups of users")
    for name, side in work.plan.sides.items():
        warn_of_words(side.words, side.pieces, name)
    vectors = vectors_of_items(build, base, work.plan.sides)
    with staged_directory(out, force, map(Path, files_read(build, base))) as directory:
        description, parts = directory / "description.json", directory / "parts"
        for split in SPLITS:
            (directory / split).mkdir()
        try:
            with beam.Pipeline(options=PipelineOptions(list(arguments))) as pipeline:
                _add_steps(pipeline, work, directory, description, parts)
        except Exception as error:
            told = user_error_in(error)
            if told is None:
                raise
            raise UserError(told) from error
        found = json.loads(description.read_text(encoding="utf-8"))
        manifest: dict[str, Any] = found["manifest"]
        description.unlink()
        with arrow_errors():
            warn_of_words(found["words"], lambda column: log_pieces(build, work.files, column), "log")
        if parts.exists():
            shutil.rmtree(parts)
        _check_all_written(directory, manifest)
        if vectors is not None:
            vectors.save(directory)
        write_manifest(directory, manifest)
    warn_of_one_class(manifest)
    return manifest


def _add_steps(pipeline: beam.Pipeline, work: Work, directory: Path, description: Path, parts: Path) -> None:
    files = pipeline | "Files" >> beam.Create(list(enumerate(work.files))) | beam.Reshuffle()
    types = files | "Types" >> beam.Map(work.text_types) | "All types" >> beam.CombineGlobally(_Merged(TextTypes))
    types = beam.pvalue.AsSingleton(types)
    groups = files | "Rows" >> beam.FlatMap(work.pieces) | "Users" >> beam.GroupByKey()
    cut = None
    if (kind := cut_counts(work.build)) is not None:
        for_cut = groups | "For the cut" >> beam.Map(work.cut_counts, types, kind)
        for_cut = for_cut | "All for the cut" >> beam.CombineGlobally(_Merged(kind))
        cut = beam.pvalue.AsSingleton(for_cut | "Cut" >> beam.Map(lambda counts: counts.cut()))
    counts = groups | "Counts" >> beam.Map(work.counts, types, cut)
    counts = counts | "All counts" >> beam.CombineGlobally(_Merged(RowCounts))
    _ = counts | "Description" >> beam.Map(work.write_description, types, str(description))
    slices = beam.pvalue.AsSingleton(counts | "Slices" >> beam.Map(RowCounts.slices))
    made = groups | "Impressions" >> beam.FlatMap(work.impressions, types, cut, slices)
    _ = made | "Write" >> fileio.WriteToFiles(
        str(directory),
        destination=lambda element: element[0],
        sink=lambda _: _ParquetSink(),
        file_naming=lambda window, pane, index, shards, compression, split: f"{split}/part-{index:05d}.parquet",
        temp_directory=StaticValueProvider(str, str(parts)),
        shards=0,
    )


def _check_all_written(directory: Path, manifest: dict[str, Any]) -> None:
    """Beam only logs that a file could not be moved to its place."""
    for split, count in manifest["splits"].items():
        rows = sum(pq.read_metadata(path).num_rows for path in (directory / split).iterdir())
        if rows != count["rows"]:
            raise UserError(
                f"{directory.name}: {rows:,} of {count['rows']:,} rows of {split} were written; run it again"
            )


class _Merged(beam.CombineFn):  # type: ignore[misc]  # Beam has no types.
    """What was counted of several groups."""

    def __init__(self, kind: Callable[[], Any]) -> None:
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


app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def main(
    file: Annotated[Path, typer.Argument(help="The build file.")],
    out: Annotated[Path, typer.Option(parser=local_directory, help="Directory to make; it must be new or empty.")],
    source: Annotated[
        Path | None, typer.Option(help="Directory that the paths of the build file start from; else its own.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Worker processes on this machine.")] = 1,
    beam_arg: Annotated[
        list[str] | None, typer.Option(help="An argument of Beam, such as --runner=FlinkRunner.")
    ] = None,
    force: Annotated[
        bool,
        typer.Option(
            "--force", help="Replace the data set that stands at --out; with anything else in it, it is refused."
        ),
    ] = False,
) -> None:
    """Make impressions of an interaction log on Beam: the rows that `tfctr data build` makes."""
    arguments = (*beam_args(workers), *(beam_arg or ()))
    log = Path(f"{out.expanduser().absolute()}.log")
    with ends_in_words("interrupted; nothing was written"):
        build = load_build(file)
        with disk_errors(log), quiet(log) as progress:
            progress.say(f"starting; Beam's log: {log}")
            progress.relaying = True
            try:
                manifest = build_on_beam(build, source or file.parent, out, force, arguments)
            except UserError:
                raise
            except Exception as error:
                traceback.print_exc()
                raise for_people(error, log) from error
    rows = ", ".join(f"{count['rows']:,} of {split}" for split, count in manifest["splits"].items())
    console().print(f"{rows}: {out}")


if __name__ == "__main__":
    app()
