"""Print the latest evaluation of a run's output directory: `python -m pipeline.show OUT`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from pipeline.errors import ends_in_words
from pipeline.local_runner import OutputLayout
from pipeline.progress import quiet
from tfctr.console import console
from tfctr.errors import UserError
from tfctr.metrics.report import ungrouped_line
from tfctr.metrics.table import METRICS


def slice_table(out: str | Path) -> Table:
    """Return the metrics of the latest evaluation, overall and by slice.

    Args:
        out: a run's output directory.

    Raises:
        UserError: when nothing was evaluated there yet.
    """
    layout = OutputLayout(out)
    if not layout.metadata.exists():
        raise UserError(f"{out}: no pipeline ran here; make one with `python -m pipeline.local_runner --out {out} ...`")
    with quiet(layout.logs / "show.log"):
        from pipeline.evaluation import load_slices
        from pipeline.store import Store

        latest = Store(layout.metadata).latest("Evaluator")
        if latest is None:
            raise UserError(f"{out}: no run has reached its evaluation yet")
        rows = load_slices(latest["evaluation"].uri)
    # The demands compare those metrics with the latest blessed model of which more is better.
    printed = {name: metric for name, metric in METRICS.items() if metric.printed}
    compared = [name for name, metric in printed.items() if metric.rising and any(name in row.baseline for row in rows)]
    shown = [name for name in printed if any(name in row.metrics for row in rows)]
    table = Table("slice", "examples", *shown, *(f"{name} before" for name in compared))
    for column in table.columns[1:]:
        column.justify = "right"
    for row in rows:
        cells = [_cell(name, row.metrics) for name in shown]
        before = [_cell(name, row.baseline) for name in compared]
        # An evaluation of an earlier version counted them under another name.
        examples = row.metrics.get("examples", row.metrics.get("example_count", float("nan")))
        table.add_row(row.name, f"{examples:,.0f}", *cells, *before)
    if rows[0].metrics.get("gauc_ungrouped", 0) > 0:
        table.caption = ungrouped_line(rows[0].metrics["gauc_ungrouped"])
    return table


def _cell(name: str, metrics: dict[str, float]) -> str:
    return f"{metrics[name]:.4f}" if name in metrics else ""


app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def main(out: Annotated[Path, typer.Argument(help="Output directory of the runs.")]) -> None:
    """Print the metrics of the latest evaluation, overall and by slice."""
    with ends_in_words():
        table = slice_table(out)
    console().print(table)


if __name__ == "__main__":
    app()
