"""The tables of papers: published settings, several seeds, beside the published figures.

    tfctr data prepare frappe --source SOURCE --out DATA
    python -m benchmarks.reproduce --table frappe --data DATA --work WORK [--rows NAME,NAME] [--seeds 3]

benchmarks/tables/ has one plan a table, its rows in the order in which a reader wants them. Each row is an experiment
that is trained as `tfctr train` trains, in a workspace of its own: WORK/TABLE/ROW/SEED, which `tfctr report` reads. A
killed run goes on from its checkpoint. A finished one is a line of benchmarks/results/reproduce.jsonl and is not
repeated, unless its row in the plan has changed. Without `--table` it only writes docs/results.md of these lines.
Plans of your own lie in a directory that `--plans` names, with `--results` and `--page` beside it.
"""

from __future__ import annotations

import json
import math
import os
import platform
import time
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.report import say
from benchmarks.table_plans import PLANS, Result, Row, Table, read_results, read_tables, results_page
from pipeline.errors import RunFailedError, ends_in_words
from tfctr.errors import UserError

RESULTS = Path(__file__).parent / "results" / "reproduce.jsonl"
PAGE = Path(__file__).parents[1] / "docs" / "results.md"


def main(
    table: Annotated[str | None, typer.Option(help="Name of a table; without one only the page is written.")] = None,
    data: Annotated[Path | None, typer.Option(help="The prepared data directory.")] = None,
    work: Annotated[Path | None, typer.Option(help="Directory for the workspaces.")] = None,
    rows: Annotated[str, typer.Option(help="Comma-separated names; default: all.")] = "",
    seeds: Annotated[int, typer.Option(min=1, help="How many of the plan's seeds.")] = 3,
    plans: Annotated[Path, typer.Option(help="Directory of the plans.")] = PLANS,
    results: Annotated[Path, typer.Option(help="The file of results, a line each.")] = RESULTS,
    page: Annotated[Path, typer.Option(help="The page to write.")] = PAGE,
) -> None:
    """Train the rows of a table that have no result yet, seed by seed, then write the page of all results.

    A row that can't be trained is told and keeps no other from being trained; then the exit status is 1.
    """
    with ends_in_words("interrupted; the same command goes on"):
        tables = read_tables(plans)
        failed: list[str] = []
        if table is not None:
            if table not in tables:
                raise typer.BadParameter(f"{table}: no such table. Allowed: {', '.join(tables)}", param_hint="--table")
            if data is None or work is None:
                raise typer.BadParameter("needs --data and --work", param_hint="--table")
            failed = _train_rows(tables[table], rows.split(",") if rows else [], data, work, seeds, results)
        page.write_text(results_page(list(tables.values()), read_results(results)), "utf-8")
        if failed:
            raise RunFailedError("\n".join(["rows that could not be trained:", *failed]))


def _train_rows(table: Table, names: list[str], data: Path, work: Path, seeds: int, results: Path) -> list[str]:
    """Trains the rows; returns which could not be trained, and why."""
    if unknown := set(names) - {row.name for row in table.rows}:
        allowed = ", ".join(row.name for row in table.rows)
        raise typer.BadParameter(f"{', '.join(sorted(unknown))}: no row of {table.name}. Allowed: {allowed}")
    wanted = [row for row in table.rows if not names or row.name in names]
    failed = []
    # Seed by seed, so that an interrupted run has a figure for every row first.
    for seed in table.seeds[:seeds]:
        for row in wanted:
            if any(one.of(table, row) and one.seed == seed for one in read_results(results)):
                continue
            try:
                found = _train(table, row, seed, data, work / table.name / row.name / str(seed))
            except UserError as error:
                failed.append(f"{row.name}, seed {seed}: {error}")
                say(failed[-1])
                continue
            with results.open("a", encoding="utf-8") as file:
                file.write(found.model_dump_json() + "\n")
            shown = ", ".join(f"{name} {value:.6f}" for name, value in found.test.items())
            say(f"{table.name} {row.name} seed {seed}: test {shown}; {found.epochs} epochs, {found.seconds:.0f} s")
    return failed


def _train(table: Table, row: Row, seed: int, data: Path, out: Path) -> Result:
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
    return Result(
        table=table.name,
        row=row.name,
        plan=row.digest,
        seed=seed,
        test={name: measured[name] for name in ("auc", "logloss", "gauc") if name in measured},
        valid={name: valid[name] for name in ("auc", "logloss") if name in valid},
        best_epoch=best,
        epochs=len(run.history),
        parameters=sum(math.prod(weight.shape) for weight in run.model.trainable_variables),
        seconds=seconds["steps"] + seconds["validation"],
        rows_per_second=_rows(data) * len(run.history) / seconds["steps"],
        machine=f"{platform.machine()}, {_cores()} cores",
        day=time.strftime("%Y-%m-%d"),
    )


def _rows(data: Path) -> int:
    manifest = json.loads((data / "dataset.json").read_text("utf-8"))
    return int(manifest["splits"]["train"]["rows"])


def _cores() -> int:
    return len(os.sched_getaffinity(0))


app = typer.Typer(add_completion=False, rich_markup_mode=None)
app.command()(main)

if __name__ == "__main__":
    app()
