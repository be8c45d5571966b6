"""What a first pass over the log counts: it decides the splits by time, and the slices, from train alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from typing_extensions import override

from tfctr.data.build.events import Cut, Events, seconds_of, split_draws
from tfctr.data.build.spec import Build
from tfctr.data.splits import SPLITS, TEST, TRAIN, USUAL_SHARES, VALID, Levels, Shares, by_rank

_Ints = npt.NDArray[np.int64]
_MANY = 1_000_000
_MARGIN = 0.01  # 20 standard deviations of the share of a million draws that lie below a cut, or more


class CutCounts(Protocol):
    """What decides where one cut splits the rows of all users."""

    def add(self, events: Events, seed: int) -> None:
        """Counts the impressions of whole users."""

    def merge(self, other: Self) -> None:
        """Adds what was counted elsewhere, of other users."""

    def cut(self) -> Cut:
        """Where test begins, and valid before it."""


@dataclass
class SecondCounts(CutCounts):
    """Counts the impressions of each second; a second is never cut.

    Attributes:
        seconds: The seconds that have some [m], in order.
        counts: How many [m].
        shares: The shares of train, valid and test.
    """

    seconds: _Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    counts: _Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    shares: Shares = USUAL_SHARES

    @override
    def add(self, events: Events, seed: int) -> None:
        self.merge(SecondCounts(*np.unique(seconds_of(events, seed), return_counts=True)))

    @override
    def merge(self, other: SecondCounts) -> None:
        seconds = np.union1d(self.seconds, other.seconds)
        counts = np.zeros(len(seconds), np.int64)
        for one in (self, other):
            counts[np.searchsorted(seconds, one.seconds)] += one.counts
        self.seconds, self.counts = seconds, counts

    @override
    def cut(self) -> Cut:
        through = np.cumsum(self.counts)
        split = by_rank(through - self.counts, through - 1, int(self.counts.sum()), self.shares)
        first = [self.seconds[split >= number] for number in (VALID, TEST)]
        return Cut(seconds_of, *(float(later[0]) if len(later) else np.inf for later in first))


@dataclass
class DrawCounts(CutCounts):
    """Keeps what was drawn for impressions, so that with 8:1:1 exactly floor(0.8 n) are train and floor(0.1 n) valid.

    Of a million and more only the draws near the cuts are kept: no draw outside these windows can be one.

    Attributes:
        rows: How many impressions.
        dropped: How many draws below the first window, and between the two, are not kept [2].
        draws: Those that are kept.
        shares: The shares of train, valid and test.
    """

    rows: int = 0
    dropped: _Ints = field(default_factory=lambda: np.zeros(2, np.int64))
    draws: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    shares: Shares = USUAL_SHARES

    @override
    def add(self, events: Events, seed: int) -> None:
        draws = split_draws(events, seed)
        self.merge(DrawCounts(len(draws), draws=draws))

    @override
    def merge(self, other: DrawCounts) -> None:
        self.rows += other.rows
        self.dropped = self.dropped + other.dropped
        self.draws = np.concatenate([self.draws, other.draws])
        if self.rows > _MANY:
            valid, test = self.shares.cuts
            between = (valid + test) / 2
            windows = valid - _MARGIN, min(valid + _MARGIN, between), max(test - _MARGIN, between), test + _MARGIN
            place = np.searchsorted(windows, self.draws, side="right")
            self.dropped += np.count_nonzero(place[:, None] == (0, 2), axis=0)
            self.draws = self.draws[place % 2 == 1]

    @override
    def cut(self) -> Cut:
        if not self.rows:
            return Cut(split_draws, np.inf, np.inf)
        train, valid = (self.rows * share // sum(self.shares) for share in self.shares[:2])
        draws = np.sort(self.draws)
        valid_from, test_from = draws[train - self.dropped[0]], draws[train + valid - self.dropped.sum()]
        return Cut(split_draws, float(valid_from), float(test_from))


def cut_counts(build: Build) -> Callable[[], SecondCounts | DrawCounts] | None:
    """What starts the counting for a split that cuts all users in one place; None for another split."""
    counts = None if build.given_split else _CUTS.get(build.split)
    return None if counts is None else partial(counts, shares=build.shares)


_CUTS: dict[str, type[SecondCounts | DrawCounts]] = {"global-time": SecondCounts, "random": DrawCounts}


@dataclass(frozen=True)
class Slices:
    """What the slice columns are made of.

    Attributes:
        activity: Levels of the users.
        popularity: Levels of the items.
        items: Rows of train by item.
    """

    activity: Levels
    popularity: Levels
    items: Counter[object]


@dataclass
class RowCounts:
    """Rows by split, and the rows of train by user and item.

    Attributes:
        splits: Rows, positives, requests and users of each split.
        users: How many users have so many rows of train.
        items: Rows of train by item.
        found: How many rows of the log a table of users or items has something of, by the table's name.
    """

    splits: dict[str, Counter[str]] = field(default_factory=lambda: {name: Counter() for name in SPLITS})
    users: Counter[int] = field(default_factory=Counter)
    items: Counter[object] = field(default_factory=Counter)
    found: Counter[str] = field(default_factory=Counter)

    def add(
        self,
        events: Events,
        split: npt.NDArray[np.int8],
        kept: npt.NDArray[np.bool_],
        item: str | None,
        found: Mapping[str, int],
    ) -> None:
        """Counts rows of whole users.

        Args:
            events: The rows.
            split: The split of each impression [m].
            kept: Which impressions [m] are written.
            item: The column of the item, where its rows are wanted.
            found: How many rows of the log a table of users or items has something of, by the table's name.
        """
        self.found.update(found)
        for number, name in enumerate(SPLITS):
            chosen = kept & (split == number)
            rows = events.rows[chosen]
            self.splits[name].update(
                rows=len(rows),
                positives=int(events.labels[chosen].sum()),
                requests=len(np.unique(events.first_of_second[rows])),
                users=len(np.unique(events.user[rows])),
            )
        train = events.rows[kept & (split == TRAIN)]
        _, rows_of_user = np.unique(events.user[train], return_counts=True)
        self.users.update(rows_of_user.tolist())
        if item is not None:
            counted = events.table.column(item).take(pa.array(train)).drop_null().value_counts()
            items = zip(counted.field("values").to_pylist(), counted.field("counts").to_pylist(), strict=True)
            self.items.update(dict(items))

    def merge(self, other: RowCounts) -> None:
        """Adds what was counted elsewhere, of other users."""
        for name, count in other.splits.items():
            self.splits[name].update(count)
        self.users.update(other.users)
        self.items.update(other.items)
        self.found.update(other.found)

    def slices(self) -> Slices:
        """The slices that follow from train."""
        return Slices(_levels(self.users), _levels(Counter(self.items.values())), self.items)


def _levels(keys: Counter[int]) -> Levels:
    counts = sorted(keys)
    return Levels.of(np.array(counts, np.int64), np.array([keys[count] for count in counts], np.int64))
