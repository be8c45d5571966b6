"""Rows of whole users in order, and what follows from it: who is an impression, its label, its split."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tfctr.data.build.conditions import Condition
from tfctr.data.build.labels import labels_of
from tfctr.data.build.log import FILE, ROW, LogFile, column_of, place, require
from tfctr.data.build.numbers import check_numbers
from tfctr.data.build.spec import TIME_UNITS, TIME_WANTED, Build, Log
from tfctr.data.build.tables import is_typed
from tfctr.data.splits import TEST, TRAIN, VALID, by_time, leave_last_out, runs
from tfctr.errors import UserError
from tfctr.features.kinds.request_time import YEAR_2100

_Ints = npt.NDArray[np.int64]
_TOLD_ALIKE = re.compile(r"(%[YymdeHMSTFR]|[^%])*")
_YEAR_1971 = 31_536_000
_SPLIT_DRAW, _NEGATIVE_DRAW = 1, 2


@dataclass(frozen=True)
class Cut:
    """Where one cut splits the rows of all users.

    Attributes:
        values: What is cut, of each impression [m] of some users, by the seed: their seconds, or what was drawn.
        valid, test: The value from which on a row is valid, and test.
    """

    values: Callable[[Events, int], npt.NDArray[Any]]
    valid: float
    test: float


@dataclass(frozen=True)
class Events:
    """Rows of whole users, by user, time and place in the log.

    Attributes:
        table: The rows of the log.
        user: Rows with equal numbers [n] are of one user; zeros where the log names no users.
        time: Seconds since 1970 [n]; zeros where the log names no time.
        first_of_user, first_of_second: The row [n] at which the user, and the user's second, begins.
        rows: The rows [m] that are impressions.
        labels: Their labels [m].
    """

    table: pa.Table
    user: _Ints
    time: _Ints
    first_of_user: _Ints
    first_of_second: _Ints
    rows: _Ints
    labels: _Ints


def arrange(log: pa.Table, build: Build, files: Sequence[LogFile]) -> Events:
    """Puts rows of whole users in order.

    Args:
        log: The rows, in any order, with their places.
        build: The build file.
        files: The files of the log.

    Raises:
        UserError: a row without a user, a time or a label; two rows of one user, item and second.
    """
    check_numbers(log, build, files)
    log = log.filter(pa.array(all_hold(log, build.log.where)))
    _check_users(log, build.log.user, files)
    user = _codes(log, build.log.user, files)
    time = _seconds(log, build, files)
    order = np.lexsort((_numbers(log, ROW), _numbers(log, FILE), time, user))
    log, user, time = log.take(pa.array(order)), user[order], time[order]
    log, user, time = _without_duplicates(log, user, time, build, files)
    first_of_user, _ = runs(user)
    first_of_second, _ = runs(user, time)
    rows = np.flatnonzero(all_hold(log, build.impressions))
    labels = labels_of(log.take(pa.array(rows)), build.label, files)
    return Events(log, user, time, first_of_user, first_of_second, rows, labels)


def splits(events: Events, build: Build, files: Sequence[LogFile], cut: Cut | None) -> npt.NDArray[np.int8]:
    """The split of each impression [m].

    Args:
        events: Rows of whole users.
        build: The build file.
        files: The files of the log.
        cut: Where a counted split, `global-time` or `random`, cuts; None for another.
    """
    user, time = events.user[events.rows], events.time[events.rows]
    if build.given_split:
        of_file = np.array([file.split for file in files], np.int8)
        return of_file[_numbers(events.table, FILE)[events.rows]]
    if build.split == "random-request":
        cut = Cut(request_draws, *build.shares.cuts)
    if cut is not None:
        values = cut.values(events, build.seed)
        return np.select([values >= cut.test, values >= cut.valid], [TEST, VALID], TRAIN).astype(np.int8)
    return leave_last_out(user, time) if build.split == "leave-last-out" else by_time(user, time, build.shares)


def seconds_of(events: Events, seed: int) -> _Ints:
    """The second of each impression [m]."""
    return events.time[events.rows]


def split_draws(events: Events, seed: int) -> npt.NDArray[np.float64]:
    """What is drawn for each impression [m] to split them at random."""
    return _draws(events, events.rows, seed, _SPLIT_DRAW)


def request_draws(events: Events, seed: int) -> npt.NDArray[np.float64]:
    """What is drawn for the request of each impression [m], a user's second, to split requests at random."""
    return _draws(events, events.first_of_second[events.rows], seed, _SPLIT_DRAW)


def first_of_state(events: Events, seconds: int) -> _Ints:
    """The row [m] before which lies what the histories of each impression hold.

    That is where the second begins in which a cache would have had the state of the user made: an impression has the
    state of the user's impression before it, unless that state was made `seconds` or more before.

    Args:
        events: Rows of whole users.
        seconds: How long a state is kept.
    """
    # Users follow each other, so one number grows with user and time.
    when = (events.user[events.rows] << 33) + events.time[events.rows]
    later = np.searchsorted(when, when + min(seconds, 1 << 32)).tolist()
    made, place = [], 0
    while place < len(later):
        made.append(place)
        place = later[place]
    first = np.array(made, np.int64)
    return np.repeat(events.first_of_second[events.rows[first]], np.diff(first, append=len(later)))


def is_kept(events: Events, split: npt.NDArray[np.int8], build: Build) -> npt.NDArray[np.bool_]:
    """Which impressions [m] are written: train's negatives only by the share that is kept."""
    drawn = _draws(events, events.rows, build.seed, _NEGATIVE_DRAW) < build.keep_negatives
    return np.asarray((events.labels == 1) | (split != TRAIN) | drawn)


def all_hold(table: pa.Table, conditions: Sequence[Condition]) -> npt.NDArray[np.bool_]:
    """Which rows [n] hold all conditions."""
    held = np.ones(table.num_rows, bool)
    for condition in conditions:
        held &= condition.holds(column_of(table, condition.column), condition.column)
    return held


def _numbers(table: pa.Table, name: str) -> _Ints:
    return np.asarray(table.column(name).to_numpy(), np.int64)


def _codes(log: pa.Table, name: str | None, files: Sequence[LogFile]) -> _Ints:
    """A number for each value of a column [n]; zeros where it has no name."""
    if name is None:
        return np.zeros(log.num_rows, np.int64)
    require(log, name, files, "is missing; leave such rows out by `log.where`")
    return np.asarray(column_of(log, name).dictionary_encode().indices.to_numpy(zero_copy_only=False), np.int64)


def _check_users(log: pa.Table, name: str | None, files: Sequence[LogFile]) -> None:
    """One user must be written in one way: rows are put together by user before a text table's numbers are known."""
    if name is not None and pa.types.is_floating(column_of(log, name).type) and not is_typed(files[0].path):
        raise UserError(
            f"{files[0].path}: the user '{name}' is written as a number with a point (1 and 1.0 would be two users); "
            "write whole numbers or texts"
        )


def _seconds(log: pa.Table, build: Build, files: Sequence[LogFile]) -> _Ints:
    """Seconds since 1970 [n]; zeros where the log names no time."""
    name = build.log.time
    if name is None:
        return np.zeros(log.num_rows, np.int64)
    require(log, name, files, "is missing; leave such rows out by `log.where`")
    values = column_of(log, name)
    seconds = _since_1970(values, build.log, log, name, files)
    # Seconds that are read as milliseconds are all in January 1970.
    form = build.log.time_format
    first, since, unit = (_YEAR_1971, 1971, form) if form in TIME_UNITS else (0, 1970, "seconds")
    far = (seconds < first) | (seconds >= YEAR_2100)
    if far.any():
        row = int(far.argmax())
        raise UserError(
            f"{place(log, row, files)}: column '{name}' is {values[row]}, which is no time between {since} and 2100 in "
            f"{unit}; `log.time_format` may be left out (seconds), milliseconds, microseconds or a pattern"
        )
    return seconds


def _since_1970(values: pa.Array, said: Log, log: pa.Table, name: str, files: Sequence[LogFile]) -> _Ints:
    if pa.types.is_timestamp(values.type) or pa.types.is_date(values.type):
        zone = values.type.tz if pa.types.is_timestamp(values.type) else None
        return _floor(values.cast(pa.timestamp("us", zone), safe=False).cast(pa.int64()), 1_000_000)
    if said.time_pattern is not None:
        texts = values.cast(pa.string())
        times = _parsed(texts, said.time_pattern)
        bad = times.is_null().to_numpy(zero_copy_only=False)
        if bad.any():
            row = int(bad.argmax())
            raise UserError(
                f"{place(log, row, files)}: column '{name}' is '{texts[row]}'; time_format is {said.time_pattern}"
            )
        return _floor(times.cast(pa.int64()), 1)
    if pa.types.is_floating(values.type):
        values = pc.floor(values).cast(pa.int64(), safe=False)
    if not pa.types.is_integer(values.type):
        what = f"column '{name}' of the log is {values.type}"
        if pa.types.is_string(values.type):
            bad = pc.invert(pc.match_substring_regex(values, "^[0-9]+$")).to_numpy(zero_copy_only=False)
            row = int(bad.argmax())
            what = f"{place(log, row, files)}: column '{name}' is '{values[row]}'"
        raise UserError(f"{what}; {TIME_WANTED}")
    return _floor(values.cast(pa.int64()), TIME_UNITS.get(said.time_format or "", 1))


def _parsed(texts: pa.Array, pattern: str) -> pa.Array:
    """The times [n] that texts tell; null where they tell none. Fractions of a second (`%S.%f`) are cut off."""
    if "%S.%f" in pattern:
        pattern = pattern.replace("%S.%f", "%S")
        texts = pc.replace_substring_regex(texts, r"^(.*[0-9])\.[0-9]+([^.]*)$", r"\1\2")
    times = pc.strptime(texts, pattern, "s", error_is_null=True)
    if not _TOLD_ALIKE.fullmatch(pattern):
        return times
    # February 30 becomes March 2 without a word: what is told must be what was read, but for zeros and spaces.
    back = pc.strftime(times, format=pattern)
    return pc.if_else(pc.equal(_bare(back), _bare(texts)), times, None)


def _bare(texts: pa.Array) -> pa.Array:
    """Texts without spaces, and without zeros before a number."""
    return pc.replace_substring_regex(pc.replace_substring_regex(texts, r"([^0-9]|^)0+", r"\1"), r"\s+", "")


def _floor(values: pa.Array, unit: int) -> _Ints:
    return np.asarray(values.to_numpy(zero_copy_only=False) // unit, np.int64)


def _without_duplicates(
    log: pa.Table, user: _Ints, time: _Ints, build: Build, files: Sequence[LogFile]
) -> tuple[pa.Table, _Ints, _Ints]:
    if build.log.duplicates == "keep" or None in (build.log.user, build.log.item, build.log.time):
        return log, user, time
    item = _codes(log, build.log.item, files)
    order = np.lexsort((item, time, user))
    same = np.all([key[order][1:] == key[order][:-1] for key in (user, time, item)], axis=0)
    repeated = np.sort(order[1:][same])
    if len(repeated) == 0:
        return log, user, time
    if build.log.duplicates == "refuse":
        names = ", ".join(f"{key} {log.column(key)[int(repeated[0])]}" for key in (build.log.user, build.log.item))
        raise UserError(
            f"{place(log, int(repeated[0]), files)}: a second row of {names} in one second; "
            "`log.duplicates` may be drop (the first in the log stays) or keep"
        )
    kept = np.setdiff1d(np.arange(len(user)), repeated)
    return log.take(pa.array(kept)), user[kept], time[kept]


def _draws(events: Events, rows: _Ints, seed: int, purpose: int) -> npt.NDArray[np.float64]:
    """A number in [0, 1) for each of the rows [m] by its place in the log, so that any driver draws the same."""
    with np.errstate(over="ignore"):
        state = _mixed(np.uint64(seed) + np.uint64(purpose) * np.uint64(1 << 32))
        state = _mixed(state ^ _numbers(events.table, FILE)[rows].astype(np.uint64))
        state = _mixed(state ^ _numbers(events.table, ROW)[rows].astype(np.uint64))
    return (state >> np.uint64(11)).astype(np.float64) / 2**53


def _mixed(state: npt.ArrayLike) -> npt.NDArray[np.uint64]:
    """One step of SplitMix64."""
    mixed = np.asarray(state, np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
