"""What sections of the report are made of, and what they read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tfctr.report.figures import Picture
from tfctr.report.runs import Run
from tfctr.tuning.record import Search


@dataclass(frozen=True)
class Table:
    """A table: headings, and rows of text. The first `texts` columns are text, the others are numbers."""

    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    texts: int = 1


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
        title: Its heading.
        words: What a reader must know to read it.
        pictures: What is drawn.
        tables: What is printed below.
        folded: Whether the tables are shown only when asked for.
    """

    title: str
    words: str
    pictures: Sequence[Picture] = ()
    tables: Sequence[Table] = ()
    folded: bool = False


@dataclass(frozen=True)
class Content:
    """All that sections read.

    Attributes:
        runs: The runs.
        split: The split that they scored.
        seconds: Times of the stages of a run that had them, by name.
        searches: Searches, by name.
    """

    runs: Sequence[Run]
    split: str
    seconds: Mapping[str, float] = field(default_factory=dict)
    searches: Mapping[str, Search] = field(default_factory=dict)
