"""Prints the latest evaluation of a run's output directory: `python -m pipeline.show OUT`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from pipeline.local_runner import OutputLayout, ends_in_words
from pipeline.progress import quiet
from tfctr.console import console
from tfctr.errors import UserError

_COLUMNS = ("example_count", "auc", "gauc", "logloss", "copc", "ece")


def slice_table(out: str | Path) -> Table:
    """The metrics of the latest evaluation, overall and by slice.

    Args:
        out: A run's output directory.

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
            raise UserError(f"{out}: no run has come to its evaluation yet")
        rows = load_slices(latest["evaluation"].uri)
    has_baseline = any("auc" in row.baseline for row in rows)
    shown = [name for name in _COLUMNS if any(name in row.metrics for row in rows)]
    headings = ["examples" if name == "example_count" else name for name in shown]
    table = Table("slice", *headings, *(["auc before", "gauc before"] if has_baseline else []))
    for column in table.columns[1:]:
        column.justify = "right"
    for row in rows:
        cells = [_cell(name, row.metrics) for name in shown]
        before = [_cell(name, row.baseline) for name in ("auc", "gauc")] if has_baseline else []
        table.add_row(row.name, *cells, *before)
    return table


def _cell(name: str, metrics: dict[str, float]) -> str:
    if name not in metrics:
        return ""
    return f"{metrics[name]:,.0f}" if name == "example_count" else f"{metrics[name]:.4f}"


app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def main(out: Annotated[Path, typer.Argument(help="Output directory of the runs.")]) -> None:
    """Print the metrics of the latest evaluation, overall and by slice."""
    with ends_in_words():
        table = slice_table(out)
    console().print(table)


if __name__ == "__main__":
    app()
