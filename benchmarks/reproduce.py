"""The tables of papers: published settings, several seeds, beside the published figures.

    tfctr data prepare frappe --source SOURCE --out DATA
    python -m benchmarks.reproduce --table frappe --data DATA --work WORK [--rows NAME,NAME] [--seeds 3]

benchmarks/tables/ has one plan a table, its rows in the order in which a reader wants them. Each row is an experiment
that is trained as `tfctr train` trains, in a workspace of its own: WORK/TABLE/ROW/SEED, which `tfctr report` reads. A
killed run goes on from its checkpoint. A finished one is a line of benchmarks/results/reproduce.jsonl and is not
repeated, unless its row in the plan has changed. Without `--table` it only writes docs/results.md of these lines.
Plans of your own lie in a directory that `--plans` names; `--results` and `--page` say where theirs are to be.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.report import say
from benchmarks.table_plans import (
    METRICS,
    PLANS,
    Result,
    Row,
    Table,
    keep_result,
    read_results,
    read_tables,
    results_page,
)
from pipeline.errors import RunFailedError, ends_in_words
from tfctr.data.staging import MANIFEST
from tfctr.errors import UserError

RESULTS = Path(__file__).parent / "results" / "reproduce.jsonl"
PAGE = Path(__file__).parents[1] / "docs" / "results.md"


def main(
    table: Annotated[str | None, typer.Option(help="Name of a table; without one only the page is written.")] = None,
    data: Annotated[Path | None, typer.Option(help="The prepared data directory.")] = None,
    work: Annotated[Path | None, typer.Option(help="Directory for the workspaces.")] = None,
    rows: Annotated[str, typer.Option(help="Comma-separated names; default: all.")] = "",
    seeds: Annotated[int | None, typer.Option(min=1, help="How many of the plan's seeds; default: all.")] = None,
    plans: Annotated[Path, typer.Option(help="Directory of the plans.")] = PLANS,
    results: Annotated[Path | None, typer.Option(help="The file of results, a line each.")] = None,
    page: Annotated[Path | None, typer.Option(help="The page to write.")] = None,
) -> None:
    """Train the rows of a table that have no result yet, seed by seed, then write the page of all results.

    A row that can't be trained is told and keeps no other from being trained; then the exit status is 1.
    """
    if plans != PLANS and (results is None or page is None):
        raise typer.BadParameter("needs --results and --page of its own", param_hint="--plans")
    results, page = results or RESULTS, page or PAGE
    with ends_in_words("interrupted; the same command goes on"):
        tables = read_tables(plans)
        failed: list[str] = []
        if table is not None:
            if table not in tables:
                raise typer.BadParameter(f"{table}: no such table. Allowed: {', '.join(tables)}", param_hint="--table")
            if data is None or work is None:
                raise typer.BadParameter("needs --data and --work", param_hint="--table")
            names = [name.strip() for name in rows.split(",") if name.strip()]
            failed = _train_rows(tables[table], names, data, work, seeds, results)
        page.write_text(results_page(list(tables.values()), read_results(results)), "utf-8")
        if failed:
            raise RunFailedError("\n".join(["rows that could not be trained:", *failed]))


def _train_rows(table: Table, names: list[str], data: Path, work: Path, seeds: int | None, results: Path) -> list[str]:
    """Trains the rows; returns which could not be trained, and why."""
    if unknown := set(names) - {row.name for row in table.rows}:
        allowed = ", ".join(row.name for row in table.rows)
        raise typer.BadParameter(f"{', '.join(sorted(unknown))}: no row of {table.name}. Allowed: {allowed}")
    if seeds is not None and seeds > len(table.seeds):
        raise typer.BadParameter(f"{table.name} has {len(table.seeds)} seeds. Received: {seeds}", param_hint="--seeds")
    key = _data_key(data)
    for one in read_results(results):
        if any(one.of(table, row) and one.data != key for row in table.rows):
            raise UserError(
                f"{results}: {one.row}, seed {one.seed} was trained on other data than {data}, so their figures do not "
                "belong in one table; train on that data, or give --results a file of its own"
            )
    wanted = [row for row in table.rows if not names or row.name in names]
    failed = []
    # Seed by seed, so that an interrupted run has a figure for every row first.
    for seed in table.seeds[:seeds]:
        for row in wanted:
            if any(one.of(table, row) and one.seed == seed for one in read_results(results)):
                continue
            try:
                found = _train(table, row, seed, data, key, work / table.name / row.name / str(seed))
            except UserError as error:
                failed.append(f"{row.name}, seed {seed}: {error}")
                say(failed[-1])
                continue
            keep_result(results, found)
            shown = ", ".join(f"{name} {value:.6f}" for name, value in found.test.items())
            say(f"{table.name} {row.name} seed {seed}: test {shown}; {found.epochs} epochs, {found.seconds:.0f} s")
    return failed


def _train(table: Table, row: Row, seed: int, data: Path, key: str, out: Path) -> Result:
    from tfctr.data.keys import rows_key
    from tfctr.data.sources import split_files
    from tfctr.features.transform import FileLookups, RawFunction
    from tfctr.training.dataset import RankingData
    from tfctr.training.loop import validate
    from tfctr.training.workspace import finished_run, run_note, train_in_workspace

    file, experiment = row.feature_file(), row.experiment(seed)
    say(f"{table.name} {row.name} seed {seed}: {out}")
    best = train_in_workspace(file, experiment, data, out).progress.best_epoch
    run, note = finished_run(out), run_note(out)
    assert note is not None
    function, paths = RawFunction(file, FileLookups(run.assets)), split_files(data, "test")
    copy = out / f"rows-test-{rows_key(file, paths)}-{run.assets.fingerprint[:16]}"
    test = RankingData.of_log(file, paths, function, copy)
    measured = validate(run.model, test, experiment.training.batch_size, experiment.evaluation.weighting)
    seconds, valid = note["seconds"], run.history[best - 1]
    train_rows = int(_manifest(data)["splits"]["train"]["rows"])
    return Result(
        table=table.name,
        row=row.name,
        plan=row.digest,
        seed=seed,
        data=key,
        # A GAUC is NaN when no group of the split has both labels.
        test={name: measured[name] for name in METRICS if math.isfinite(measured.get(name, math.nan))},
        valid={name: valid[name] for name in ("auc", "logloss") if math.isfinite(valid.get(name, math.nan))},
        best_epoch=best,
        epochs=len(run.history),
        parameters=sum(math.prod(weight.shape) for weight in run.model.trainable_variables),
        seconds=seconds["steps"] + seconds["validation"],
        rows_per_second=train_rows * len(run.history) / seconds["steps"],
        machine=f"{platform.machine()}, {_cores()} {'core' if _cores() == 1 else 'cores'}",
        day=time.strftime("%Y-%m-%d"),
    )


def _manifest(data: Path) -> dict[str, Any]:
    path = data / MANIFEST
    if not path.is_file():
        raise UserError(f"{path}: no such file; --data is a directory that `tfctr data prepare` or `build` wrote")
    content: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return content


def _data_key(data: Path) -> str:
    """A hash of what the data was made from and how, so that no table has figures of two data sets."""
    content = _manifest(data)
    decides = {key: content.get(key) for key in ("dataset", "source", "arguments", "splits")}
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:12]


def _cores() -> int:
    return len(os.sched_getaffinity(0))


app = typer.Typer(add_completion=False, rich_markup_mode=None)
app.command()(main)

if __name__ == "__main__":
    app()
