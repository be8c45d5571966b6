"""The splits of a data set, 8:1:1, and the slice columns, which are learned from the train split alone."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from tfctr.errors import UserError

Split = Literal["user-time", "global-time", "random"]
SPLITS = ("train", "valid", "test")
TRAIN, VALID, TEST = range(3)
_Ints = npt.NDArray[np.int64]


def split_records(data: str | Path, split: str) -> list[str]:
    """The TFRecord files of a split.

    Raises:
        UserError: when there are none.
    """
    found = sorted(str(path) for path in (Path(data) / split).glob("*.tfrecord*"))
    if not found:
        raise UserError(
            f"{Path(data) / split}: no *.tfrecord or *.tfrecord.gz file. A data directory has the folders "
            f"{', '.join(SPLITS)}; make one with `tfctr data prepare` or `tfctr data synthesize`"
        )
    return found


def assign_splits(split: Split, user: _Ints, time: _Ints, seed: int) -> npt.NDArray[np.int8]:
    """The split of each row: 0 train, 1 valid, 2 test. The rows [n] are sorted by user and then time, in seconds.

    - `user-time`: of each user's rows in order of time, the last tenth is test and the tenth before it valid.
    - `global-time`: the same over the rows of all users.
    - `random`: floor(0.8 n) rows train, floor(0.1 n) valid, the rest test, by the seed.

    The first two keep all rows of one second (of one user, or of all) in one split, because otherwise a part of
    such a second would be tested that the earlier split already knows. Such rows go to the split in which the middle of
    their ranks falls, so that the sizes are right on average.
    """
    n = len(user)
    if split == "random":
        out = np.full(n, TEST, np.int8)
        order = np.random.default_rng(seed).permutation(n)
        out[order[: n * 8 // 10]] = TRAIN
        out[order[n * 8 // 10 : n * 8 // 10 + n // 10]] = VALID
        return out
    if split == "user-time":
        return _by_time(user, time)
    order = np.argsort(time, kind="stable")
    out = np.empty(n, np.int8)
    out[order] = _by_time(np.zeros(n, np.int64), time[order])
    return out


def _by_time(group: _Ints, time: _Ints) -> npt.NDArray[np.int8]:
    """Splits each group; rows are sorted by group and then time."""
    first, last = runs(group)
    size = last - first + 1
    second_first, second_last = runs(group, time)
    # Twice the middle rank of the second, in whole numbers: exact on every machine.
    middle = (second_first - first) + (second_last - first) + 1
    return np.where(10 * middle > 18 * size, TEST, np.where(10 * middle > 16 * size, VALID, TRAIN)).astype(np.int8)


def runs(*keys: _Ints) -> tuple[_Ints, _Ints]:
    """First and last index of the run that each element of the keys [n] stands in; any key's change ends a run."""
    n = len(keys[0])
    change = np.ones(n, bool)
    change[1:] = np.any([key[1:] != key[:-1] for key in keys], axis=0)
    starts = np.flatnonzero(change)
    lengths = np.diff(starts, append=n)
    return np.repeat(starts, lengths), np.repeat(starts + lengths - 1, lengths)


@dataclass(frozen=True)
class Terciles:
    """`low`, `medium` and `high` by the number of train rows; each level holds about a third of the train rows.

    Attributes:
        counts: The number of train rows by key.
        medium, high: The least count of that level; one more than any count when no key has the level.
    """

    counts: dict[int, int]
    medium: int
    high: int

    @classmethod
    def of(cls, keys: _Ints) -> "Terciles":
        """Learns from the keys (users or items) of the train rows [n]."""
        unique, counts = np.unique(keys, return_counts=True)
        return cls.of_counts(dict(zip(unique.tolist(), counts.tolist(), strict=True)))

    @classmethod
    def of_counts(cls, counts: dict[int, int]) -> "Terciles":
        """Learns from the number of train rows by key."""
        values, keys = np.unique(np.fromiter(counts.values(), np.int64, len(counts)), return_counts=True)
        rows = values * keys
        # Keys with equal counts stay together: where the middle of their rows falls decides for all of them.
        through = np.cumsum(rows)
        middle = 2 * through - rows
        medium, high = (
            int(values[above.argmax()]) if above.any() else int(values[-1]) + 1
            for above in (3 * middle >= 2 * through[-1], 3 * middle >= 4 * through[-1])
        )
        return cls(counts, medium, high)

    def name(self, key: int) -> str:
        """`low`, `medium`, `high`, or `new` for a key that train does not have."""
        count = self.counts.get(key, 0)
        if count == 0:
            return "new"
        return "high" if count >= self.high else "medium" if count >= self.medium else "low"

    def describe(self) -> dict[str, Any]:
        """The levels as they stand in the manifest."""
        return {"keys": len(self.counts), "medium_from": self.medium, "high_from": self.high}
