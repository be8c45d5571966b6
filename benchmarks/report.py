"""Printing and plotting for benchmarks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tfctr.console import console


def say(line: str) -> None:
    """Prints a line."""
    console().print(line, markup=False, highlight=False, soft_wrap=True)


def subplots(columns: int, rows: int = 1, **options: Any) -> tuple[Any, Any]:
    """An empty figure and its axes, `[columns]`, or `[rows][columns]` for several rows."""
    # matplotlib takes a second to import, and most benchmarks draw nothing.
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "tfctr"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(rows, columns, layout="constrained", squeeze=False, **options)
    return figure, axes[0] if rows == 1 else axes


def by_history(ax: Any, title: str) -> None:
    """Makes the axes logarithmic, over the number of events of a history."""
    ax.set(xscale="log", yscale="log", xlabel="events in the history", title=title)
    ax.grid(True, which="major", alpha=0.3)


def save(figure: Any, path: Path) -> None:
    """Writes the figure. The same numbers give the same bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
