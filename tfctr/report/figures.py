"""Pictures of the report: SVG inside the page, whose colours are those of the page, light or dark."""

from __future__ import annotations

import html
import io
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from tfctr.metrics.bootstrap import Interval

_INK = "#010203"
"""Stands for the colour of the page's text."""
COLOURS = tuple(f"#0102{number:02x}" for number in range(0x10, 0x18))
"""Stand for the colours of the runs, in their order; the page defines them for light and dark."""
_COLOURS_OF_THE_PAGE = {_INK: "currentColor"} | {one: f"var(--run-{index})" for index, one in enumerate(COLOURS)}
_LINES = ("-", "--", ":", "-.")
"""The lines of the first runs, one for each colour, of the next as many, and so on."""
_TAG = re.compile(r"<[^>]*>")
_WIDTH = 4.2
"""Inches of a picture that stands beside others."""
_LONGEST_NAME = 40
"""Characters of a name beside a picture; the table has all of them."""
_MUCH = 20
"""A range whose ends differ by this factor is drawn on a log scale."""
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "tfctr",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.parse_math": False,  # a value of a slice may hold dollars
    "text.color": _INK,
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
}


class Picture:
    """A figure with one pair of axes, under way; `svg` draws it. The page says which colour is which run.

    Args:
        title: What it shows; it stands above.
        height: Its height in inches.
    """

    def __init__(self, title: str, height: float = 2.8) -> None:
        self.title = title
        self.figure = Figure(figsize=(_WIDTH, height), layout="constrained")
        self.axes: Axes = self.figure.subplots()
        self.axes.set_title(title)

    def svg(self, number: int, wide: bool = False) -> str:
        """The picture as an element of a page.

        Args:
            number: That of no other picture of the page.
            wide: Whether it has the width of two.
        """
        self.figure.set_figwidth(2 * _WIDTH if wide else _WIDTH)
        out = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        self.figure.savefig(out, format="svg", metadata=nothing)
        found = out.getvalue()
        found = found[found.index("<svg") :]
        found = re.sub(r"<metadata>.*?</metadata>\s*", "", found, flags=re.DOTALL)
        found = _TAG.sub(lambda tag: _of_the_page(tag[0], number), found)
        size = re.search(r'width="([\d.]+)pt" height="[\d.]+pt"', found)
        assert size is not None
        width = round(float(size.group(1)) * 96 / 72)
        opening = f'<svg role="img" aria-label="{html.escape(self.title)}" style="max-width:{width}px"'
        return found.replace(f" {size.group(0)}", "", 1).replace("<svg", opening, 1)


def _of_the_page(tag: str, number: int) -> str:
    """A tag of a figure with the page's colours and identifiers; each figure counts its own from 1.

    Text between tags is the user's, such as the name of a run, and stays whatever it is like.
    """
    for stand_in, colour in _COLOURS_OF_THE_PAGE.items():
        tag = tag.replace(stand_in, colour)
    return re.sub(r'(\bid="|xlink:href="#|url\(#)', rf"\g<1>f{number}-", tag)


@contextmanager
def drawing() -> Iterator[None]:
    """The style of all pictures."""
    with mpl.rc_context(_STYLE), warnings.catch_warnings():
        # Text stays text, so the reader's font draws it.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        yield


def colour(index: int) -> str:
    """The colour of a run by its place."""
    return COLOURS[index % len(COLOURS)]


def curves(title: str, lines: Sequence[tuple[int, Sequence[float], int]]) -> Picture:
    """Values by epoch, a line a run.

    Args:
        title: What the values are.
        lines: The place of the run, its values and its best epoch (0: none is marked).
    """
    picture = Picture(title)
    axes = picture.axes
    for run, values, best in lines:
        line = _LINES[run // len(COLOURS) % len(_LINES)]
        axes.plot(np.arange(1, len(values) + 1), values, marker=".", linestyle=line, color=colour(run))
        if best:
            axes.plot([best], [values[best - 1]], marker="o", markersize=8, fillstyle="none", color=colour(run))
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return picture


def best_so_far(title: str, numbers: Sequence[int], values: Sequence[float], rising: bool, run: int) -> Picture:
    """Values by their number, a point each, and a line along the best so far."""
    picture = Picture(title)
    axes = picture.axes
    best = (np.maximum if rising else np.minimum).accumulate(np.array(values))
    axes.step(numbers, best, where="post", color=colour(run))
    axes.plot(numbers, values, marker="o", markersize=4, linestyle="none", color=colour(run), alpha=0.6)
    axes.set_xlabel("trial")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return picture


def by_value(title: str, at: Sequence[float] | Sequence[str], name: str, values: Sequence[float], run: int) -> Picture:
    """Values by numbers or by texts, a point each.

    Args:
        title: What they stand by.
        at: Numbers, on a log scale where they span much and are above zero, or texts, from top to bottom.
        name: What the values are.
        values: The values.
        run: The place of the run, for its colour.
    """
    points: dict[str, Any] = {"marker": "o", "markersize": 4, "linestyle": "none", "color": colour(run), "alpha": 0.6}
    numbers = [one for one in at if not isinstance(one, str)]
    if len(numbers) == len(at):
        picture = Picture(title)
        picture.axes.plot(numbers, values, **points)
        if min(numbers) > 0 and max(numbers) >= _MUCH * min(numbers):
            picture.axes.set_xscale("log")
            picture.axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
            picture.axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            picture.axes.xaxis.set_minor_formatter(NullFormatter())
        picture.axes.set_ylabel(name)
        return picture
    texts = list(dict.fromkeys(map(str, at)))
    picture = Picture(title, max(0.9 + 0.26 * len(texts), 1.4))
    picture.axes.plot(values, [texts.index(str(one)) for one in at], **points)
    picture.axes.set_yticks(range(len(texts)), [_shortened(text) for text in texts])
    picture.axes.set_ylim(len(texts) - 0.4, -0.6)
    picture.axes.set_xlabel(name)
    return picture


def calibration(
    title: str, parts: Sequence[tuple[npt.NDArray[Any], npt.NDArray[Any]]], only: int | None = None
) -> Picture:
    """The mean probability and the rate of clicks of parts of the rows, a line a run, and the diagonal.

    Args:
        title: What is drawn.
        parts: Of each run, the means of the parts.
        only: The place of the one run that is drawn with the others faint behind it; None draws all alike.
    """
    picture = Picture(title, 3.4)
    axes = picture.axes
    top = max(float(np.max(part)) for part in parts)
    axes.plot([0, top], [0, top], color=_INK, linewidth=0.8, linestyle="--")
    for run, (predicted, observed) in enumerate(parts):
        if only in (None, run):
            axes.plot(predicted, observed, marker=".", color=colour(run), zorder=3)
        else:
            axes.plot(predicted, observed, color=_INK, linewidth=0.8, alpha=0.2)
    axes.set_xlabel("mean probability")
    axes.set_ylabel("rate of clicks")
    return picture


def histogram(
    title: str, scores: npt.NDArray[Any], labels: npt.NDArray[Any], weights: npt.NDArray[Any], run: int
) -> Picture:
    """The probabilities of the clicked and the other rows, each with area 1."""
    picture = Picture(title)
    axes = picture.axes
    edges = np.linspace(0.0, 1.0, 41).tolist()
    for clicked, word in ((1, "clicked"), (0, "not clicked")):
        chosen = labels == clicked
        if chosen.any():
            fill = {"histtype": "stepfilled", "color": colour(run), "alpha": 0.6}
            line = {"histtype": "step", "color": _INK}
            shape: dict[str, Any] = {"density": True, "linewidth": 1.2, "label": word, **(fill if clicked else line)}
            axes.hist(scores[chosen], edges, weights=weights[chosen], **shape)
    axes.set_xlabel("probability")
    axes.set_ylabel("density")
    axes.legend()
    return picture


def buckets(title: str, clicked: npt.NDArray[Any], other: npt.NDArray[Any], run: int) -> Picture:
    """The share of events in each of some equal buckets over [-1, 1], by whether the candidate was clicked."""
    picture = Picture(title)
    axes = picture.axes
    edges = np.linspace(-1.0, 1.0, len(clicked) + 1)
    for counts, word, filled in ((clicked, "clicked", True), (other, "not clicked", False)):
        shares = counts / max(counts.sum(), 1)
        fill = {"fill": True, "color": colour(run), "alpha": 0.6}
        axes.stairs(shares, edges, label=word, linewidth=1.2, **(fill if filled else {"color": _INK}))
    axes.set_xlabel("cosine of event and candidate")
    axes.set_ylabel("share of events")
    axes.legend()
    return picture


def intervals(title: str, names: Sequence[str], runs: Sequence[tuple[int, Sequence[Interval]]], bars: bool) -> Picture:
    """Values with their intervals by name, the first name on top.

    Args:
        title: What the values are.
        names: The names.
        runs: The place of each run, and its intervals.
        bars: Whether bars from zero are drawn, or points.
    """
    picture = Picture(title, 0.8 + (0.14 + 0.12 * len(runs)) * len(names))
    axes = picture.axes
    places = np.arange(len(names))
    step = 0.8 / len(runs)
    for number, (run, found) in enumerate(runs):
        at = places + (number - (len(runs) - 1) / 2) * step
        values = np.array([one.value for one in found])
        spread = np.array([[one.value - one.low, one.high - one.value] for one in found]).T
        spread = np.maximum(np.nan_to_num(spread), 0.0)
        if bars:
            axes.barh(at, values, step * 0.9, color=colour(run), xerr=spread, ecolor=_INK, alpha=0.85)
        else:
            axes.errorbar(values, at, xerr=spread, fmt="o", markersize=4, color=colour(run))
    if bars:
        axes.axvline(0.0, color=_INK, linewidth=0.8)
    else:
        axes.grid(axis="x", alpha=0.2)
    axes.set_yticks(places, [_shortened(name) for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
    return picture


def _shortened(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"
