"""What a first pass over the log counts: it decides the splits by time, and the slices, from train alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tfctr.data.build.events import Cut, Events
from tfctr.data.splits import SPLITS, TEST, TRAIN, VALID, Levels, by_rank

_Ints = npt.NDArray[np.int64]


@dataclass
class SecondCounts:
    """How many impressions each second has, over all users.

    Attributes:
        seconds: The seconds that have some [m], in order.
        counts: How many [m].
    """

    seconds: _Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    counts: _Ints = field(default_factory=lambda: np.zeros(0, np.int64))

    def add(self, events: Events) -> None:
        """Counts rows of whole users."""
        self.merge(SecondCounts(*np.unique(events.time[events.rows], return_counts=True)))

    def merge(self, other: SecondCounts) -> None:
        """Adds what was counted elsewhere."""
        seconds = np.union1d(self.seconds, other.seconds)
        counts = np.zeros(len(seconds), np.int64)
        for one in (self, other):
            counts[np.searchsorted(seconds, one.seconds)] += one.counts
        self.seconds, self.counts = seconds, counts

    def cut(self) -> Cut:
        """Where the last tenth begins, and the tenth before it; a second is never cut."""
        through = np.cumsum(self.counts)
        split = by_rank(through - self.counts, through - 1, int(self.counts.sum()))
        later = int(self.seconds[-1]) + 1 if len(self.seconds) else 0
        valid, test = (
            int(self.seconds[split >= number][0]) if (split >= number).any() else later for number in (VALID, TEST)
        )
        return Cut(valid, test)


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
            counted = events.table.column(item).take(pa.array(train)).value_counts()
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
