"""The splits of a data set by shares, 8:1:1 for instance, and the slice columns, which are learned from train alone."""

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

Split = Literal["user-time", "global-time", "random", "random-request", "leave-last-out"]
SPLITS = ("train", "valid", "test")
"""The splits, which are the folders of a data set."""
TRAIN, VALID, TEST = range(3)
_Ints = npt.NDArray[np.int64]


class Shares(NamedTuple):
    """How many of as many rows as their sum are train, valid and test."""

    train: int
    valid: int
    test: int

    @classmethod
    def of(cls, given: Any) -> "Shares":
        """Three positive whole numbers, as shares.

        Raises:
            ValueError: they are something else.
        """
        three = isinstance(given, list | tuple) and len(given) == 3
        if not three or not all(type(one) is int and one > 0 for one in given):
            raise ValueError(f"must be three positive whole numbers, of train, valid and test. Received: {given}")
        return cls(*given)

    @property
    def cuts(self) -> tuple[float, float]:
        """The shares of the rows before valid, and before test."""
        return self.train / sum(self), (self.train + self.valid) / sum(self)


USUAL_SHARES = Shares(8, 1, 1)


def by_time(group: _Ints, time: _Ints, shares: Shares = USUAL_SHARES) -> npt.NDArray[np.int8]:
    """Of each group's rows in order of time, the last are test (2), those before them valid (1), and the first train.

    Rows of one second of a group go into one split, because otherwise a part of such a second would be tested that the
    earlier split already knows: into the one in which the middle of their ranks falls, so that sizes are right on
    average. The rows [n] are sorted by group and then time.
    """
    first, last = runs(group)
    second_first, second_last = runs(group, time)
    return by_rank(second_first - first, second_last - first, last - first + 1, shares)


def by_rank(first: _Ints, last: _Ints, size: _Ints | int, shares: Shares) -> npt.NDArray[np.int8]:
    """The split of a second [n] by the ranks of its first and last row among `size` rows in order of time."""
    # Twice the middle rank of the second, in whole numbers: exact on every machine.
    middle, whole = first + last + 1, sum(shares)
    before = [2 * size * rows for rows in (shares.train, shares.train + shares.valid)]
    return np.select([whole * middle > before[1], whole * middle > before[0]], [TEST, VALID], TRAIN).astype(np.int8)


def leave_last_out(user: _Ints, time: _Ints) -> npt.NDArray[np.int8]:
    """Each user's last second is test and the one before it valid; users of fewer than three seconds are train.

    The rows [n] are sorted by user and then time.
    """
    first, last = runs(user)
    start, _ = runs(user, time)
    place = np.cumsum(start == np.arange(len(user)))
    from_end = place[last] - place
    seconds = place[last] - place[first] + 1
    out = np.select([from_end == 0, from_end == 1], [TEST, VALID], TRAIN)
    return np.where(seconds < 3, TRAIN, out).astype(np.int8)


def runs(*keys: _Ints) -> tuple[_Ints, _Ints]:
    """First and last index of the run that each element of the keys [n] stands in; any key's change ends a run."""
    n = len(keys[0])
    change = np.ones(n, bool)
    change[1:] = np.any([key[1:] != key[:-1] for key in keys], axis=0)
    starts = np.flatnonzero(change)
    lengths = np.diff(starts, append=n)
    return np.repeat(starts, lengths), np.repeat(starts + lengths - 1, lengths)


@dataclass(frozen=True)
class Levels:
    """`low`, `medium` and `high` by the number of train rows; each level holds about a third of the train rows.

    Attributes:
        keys: How many keys (users or items) train has.
        medium, high: The least count of that level; one more than any count when no key has the level.
    """

    keys: int
    medium: int
    high: int

    @classmethod
    def of(cls, values: _Ints, keys: _Ints) -> "Levels":
        """Learns from the counts that occur [m], in order, and how many keys have each [m]."""
        if not len(values):
            return cls(0, 1, 1)
        rows = values * keys
        # Keys with equal counts stay together: where the middle of their rows falls decides for all of them.
        through = np.cumsum(rows)
        middle = 2 * through - rows
        medium, high = (
            int(values[above.argmax()]) if above.any() else int(values[-1]) + 1
            for above in (3 * middle >= 2 * through[-1], 3 * middle >= 4 * through[-1])
        )
        return cls(int(keys.sum()), medium, high)

    def names(self, counts: _Ints) -> npt.NDArray[Any]:
        """`low`, `medium`, `high`, or `new` for a key that train does not have, by the number of train rows [n]."""
        steps = [counts == 0, counts < self.medium, counts < self.high]
        return np.select(steps, ["new", "low", "medium"], "high")

    def describe(self) -> dict[str, Any]:
        """The levels as they stand in the manifest."""
        return {"keys": self.keys, "medium_from": self.medium, "high_from": self.high}


@dataclass(frozen=True)
class Terciles:
    """The levels of keys whose counts are at hand.

    Attributes:
        counts: The number of train rows by key.
        levels: Their levels.
    """

    counts: dict[int, int]
    levels: Levels

    @classmethod
    def of(cls, keys: _Ints) -> "Terciles":
        """Learns from the keys (users or items) of the train rows [n]."""
        unique, counts = np.unique(keys, return_counts=True)
        return cls.of_counts(dict(zip(unique.tolist(), counts.tolist(), strict=True)))

    @classmethod
    def of_counts(cls, counts: dict[int, int]) -> "Terciles":
        """Learns from the number of train rows by key."""
        values, keys = np.unique(np.fromiter(counts.values(), np.int64, len(counts)), return_counts=True)
        return cls(counts, Levels.of(values, keys))

    def name(self, key: int) -> str:
        """`low`, `medium`, `high`, or `new` for a key that train does not have."""
        return str(self.levels.names(np.array([self.counts.get(key, 0)]))[0])
