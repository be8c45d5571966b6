"""What a first pass over the log counts: it decides the splits by time, and the slices, from train alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tfctr.data.build.events import Cut, Events
from tfctr.data.splits import SPLITS, TEST, TRAIN, VALID, Levels, by_rank

_Ints = npt.NDArray[np.int64]


@dataclass
class SecondCounts:
    """How many impressions each second has, over all users."""

    seconds: Counter[int] = field(default_factory=Counter)

    def add(self, events: Events) -> None:
        """Counts rows of whole users."""
        seconds, counts = np.unique(events.time[events.rows], return_counts=True)
        self.seconds.update(dict(zip(seconds.tolist(), counts.tolist(), strict=True)))

    def merge(self, other: SecondCounts) -> None:
        """Adds what was counted elsewhere."""
        self.seconds.update(other.seconds)

    def cut(self) -> Cut:
        """Where the last tenth begins, and the tenth before it; a second is never cut."""
        seconds = np.array(sorted(self.seconds), np.int64)
        counts = np.array([self.seconds[second] for second in seconds.tolist()], np.int64)
        through = np.cumsum(counts)
        split = by_rank(through - counts, through - 1, int(counts.sum()))
        later = int(seconds[-1]) + 1 if len(seconds) else 0
        first_of = [int(seconds[split >= number][0]) if (split >= number).any() else later for number in (VALID, TEST)]
        return Cut(*first_of)


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
    """

    splits: dict[str, Counter[str]] = field(default_factory=lambda: {name: Counter() for name in SPLITS})
    users: Counter[int] = field(default_factory=Counter)
    items: Counter[object] = field(default_factory=Counter)

    def add(self, events: Events, split: npt.NDArray[np.int8], kept: npt.NDArray[np.bool_], item: str | None) -> None:
        """Counts rows of whole users; `kept` says which impressions are written, `item` names the item's column."""
        for number, name in enumerate(SPLITS):
            rows = events.rows[kept & (split == number)]
            self.splits[name].update(
                rows=len(rows),
                positives=int(events.labels[kept & (split == number)].sum()),
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

    def slices(self) -> Slices:
        """The slices that follow from train."""
        return Slices(_levels(self.users), _levels(Counter(self.items.values())), self.items)


def _levels(keys: Counter[int]) -> Levels:
    counts: Iterable[int] = sorted(keys)
    values = np.array(list(counts), np.int64)
    return Levels.of(values, np.array([keys[value] for value in values.tolist()], np.int64))
