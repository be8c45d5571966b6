"""The one function that makes the impressions of users; whoever drives it decides how many users at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tfctr.data.build.counts import CutCounts, RowCounts, Slices
from tfctr.data.build.events import Cut, Events, all_hold, arrange, first_of_state, is_kept, splits
from tfctr.data.build.given import GivenLists
from tfctr.data.build.log import LogFile
from tfctr.data.build.sides import SideTable
from tfctr.data.build.spec import Build, History
from tfctr.data.splits import SPLITS, TRAIN

_Ints = npt.NDArray[np.int64]
_VALUES_AT_ONCE = 1 << 22
LABEL = "label"


@dataclass(frozen=True)
class Plan:
    """What makes impressions of a log.

    Attributes:
        build: The build file.
        files: The files of the log.
        columns: The columns of an impression, and where each comes from.
        sides: What is known of users and items, by the name of the table.
        cut: Where one cut splits the rows of all users; None for another split.
    """

    build: Build
    files: Sequence[LogFile]
    columns: Mapping[str, str]
    sides: Mapping[str, SideTable]
    cut: Cut | None = None

    def arranged(self, log: pa.Table) -> tuple[Events, npt.NDArray[np.int8], npt.NDArray[np.bool_]]:
        """Rows of whole users in order, and of each impression [m] its split and whether it is written."""
        events = arrange(log, self.build, self.files)
        split = splits(events, self.build, self.files, self.cut)
        return events, split, is_kept(events, split, self.build)

    def places(self, events: Events) -> dict[str, pa.Array]:
        """The row of each table for each row of the log [n], by the table's name; null where it has none."""
        keys = {"users": self.build.log.user, "items": self.build.log.item}
        return {name: side.find(events.table.column(keys[name]).combine_chunks()) for name, side in self.sides.items()}

    def table_of(self, column: str) -> str:
        """The table that a column of an impression, or of a history, comes from, for messages."""
        histories = self.build.histories.values()
        sources = dict(self.columns) | {name: source for one in histories for name, source in one.columns.items()}
        table = sources[column].partition(".")[0]
        return self.files[0].path if table == "log" else self.sides[table].path

    def count_for_cut(self, log: pa.Table, counts: CutCounts) -> None:
        """Adds the impressions of some users to what decides the cut."""
        counts.add(arrange(log, self.build, self.files), self.build.seed)

    def count_rows(self, log: pa.Table, counts: RowCounts) -> None:
        """Adds the rows of some users to what the slices are made of."""
        events, split, kept = self.arranged(log)
        item = self.build.log.item if "popularity" in self.build.slices.values() else None
        found = {name: len(rows) - rows.null_count for name, rows in self.places(events).items()}
        counts.add(events, split, kept, item, found)


def impressions(log: pa.Table, plan: Plan, slices: Slices) -> Iterator[tuple[str, pa.Table]]:
    """The impressions of some users, by split.

    Args:
        log: Rows of whole users, in any order, with their places.
        plan: What makes impressions of them.
        slices: What the slice columns are made of.

    Yields:
        A split, and some of its rows, in order of user, time and place in the log. Histories hold what stood before
        the second of the row, or of the one that their user's state was made for.

    Raises:
        UserError: a row that can't be used.
    """
    events, split, kept = plan.arranged(log)
    sides = plan.places(events)
    seen = first_of_state(events, plan.build.history_ttl_seconds)
    makers = [
        _HistoryMaker(events, plan, one, sides, seen)
        if one.given is None
        else GivenLists(events, name, one, one.given, plan.sides, plan.files)
        for name, one in plan.build.histories.items()
    ]
    activity = _activity(events, split, kept)
    for number, name in enumerate(SPLITS):
        chosen = np.flatnonzero(kept & (split == number))
        for some in _pieces(chosen, sum((maker.sizes(events.rows[chosen]) for maker in makers), np.ones(len(chosen)))):
            rows = events.rows[some]
            columns = {column: _of(source, events, plan, sides, rows) for column, source in plan.columns.items()}
            for maker in makers:
                columns |= maker.lists(rows)
            for column, change in plan.build.changes.items():
                columns[column] = change.apply(columns[column], f"{plan.table_of(column)}: changes.{column}")
            columns[LABEL] = pa.array(events.labels[some])
            if plan.build.request is not None:
                columns[plan.build.request] = _requests(events, plan.build, rows)
            for column, kind in plan.build.slices.items():
                columns[column] = _SLICES[kind](events, plan, slices, rows, activity)
            yield name, pa.table(columns)


def _pieces(chosen: _Ints, sizes: npt.NDArray[Any]) -> list[_Ints]:
    """The chosen impressions in pieces, each of a bounded size in all."""
    ends = np.flatnonzero(np.diff(np.cumsum(sizes) // _VALUES_AT_ONCE)) + 1
    return [piece for piece in np.split(chosen, ends) if len(piece)]


class _HistoryMaker:
    """The lists of one history: events newest first, so that a row's are one piece of them."""

    def __init__(
        self, events: Events, plan: Plan, history: History, sides: Mapping[str, pa.Array], seen: _Ints
    ) -> None:
        is_event = all_hold(events.table, history.events)
        before = np.concatenate([[0], np.cumsum(is_event)])
        self._end = np.zeros(len(events.user), np.int64)
        self._end[events.rows] = before[seen]
        self._begin = np.maximum(before[events.first_of_user], self._end - history.length)
        newest_first = np.flatnonzero(is_event)[::-1]
        self._count = len(newest_first)
        self._columns = {
            name: _as_dictionary(_of(source, events, plan, sides, newest_first))
            for name, source in history.columns.items()
        }

    def sizes(self, rows: _Ints) -> _Ints:
        """How many values the lists of each row [m] have."""
        return np.asarray((self._end[rows] - self._begin[rows]) * len(self._columns), np.int64)

    def lists(self, rows: _Ints) -> dict[str, pa.Array]:
        begin, end = self._begin[rows], self._end[rows]
        lengths = end - begin
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        first = self._count - end
        places = np.arange(offsets[-1]) + np.repeat(first - offsets[:-1], lengths)
        taken, starts = pa.array(places), pa.array(offsets.astype(np.int32))
        return {name: pa.ListArray.from_arrays(starts, values.take(taken)) for name, values in self._columns.items()}


def _as_dictionary(values: pa.Array) -> pa.Array:
    """Texts are copied once for each row whose history they are in; their numbers are cheaper to copy."""
    return values.dictionary_encode() if pa.types.is_string(values.type) else values


def _of(source: str, events: Events, plan: Plan, sides: Mapping[str, pa.Array], rows: _Ints) -> pa.Array:
    """A column for some rows of the log [m], from the log itself or from a table; the time as seconds."""
    table, _, column = source.partition(".")
    if source == f"log.{plan.build.log.time}":
        return pa.array(events.time[rows])
    if table == "log":
        return events.table.column(column).combine_chunks().take(pa.array(rows))
    return plan.sides[table].column(column).take(sides[table].take(pa.array(rows)))


def _requests(events: Events, build: Build, rows: _Ints) -> pa.Array:
    users = events.table.column(build.log.user).combine_chunks().take(pa.array(rows)).cast(pa.string())
    return pc.binary_join_element_wise(users, pa.array(events.time[rows]).cast(pa.string()), "-")


def _activity(events: Events, split: npt.NDArray[np.int8], kept: npt.NDArray[np.bool_]) -> _Ints:
    """How many rows of train the user of each row [n] has."""
    train = np.zeros(len(events.user), np.int64)
    train[events.rows[kept & (split == TRAIN)]] = 1
    through = np.concatenate([[0], np.cumsum(train)])
    last = np.append(np.flatnonzero(np.diff(events.first_of_user)), len(events.user) - 1) + 1
    starts = np.unique(events.first_of_user)
    return np.repeat(through[last] - through[starts], last - starts) if len(starts) else train


def _by_activity(events: Events, plan: Plan, slices: Slices, rows: _Ints, activity: _Ints) -> pa.Array:
    return pa.array(slices.activity.names(activity[rows]))


def _by_popularity(events: Events, plan: Plan, slices: Slices, rows: _Ints, activity: _Ints) -> pa.Array:
    items = events.table.column(plan.build.log.item).combine_chunks().take(pa.array(rows)).dictionary_encode()
    counts = np.array([slices.items.get(item, 0) for item in items.dictionary.to_pylist()], np.int64)
    names = pa.array(slices.popularity.names(counts), pa.string())
    return pc.fill_null(names.take(items.indices), "new")


def _by_hour(events: Events, plan: Plan, slices: Slices, rows: _Ints, activity: _Ints) -> pa.Array:
    return pc.strftime(pa.array(events.time[rows]).cast(pa.timestamp("s")), format="%H")


def _by_weekday(events: Events, plan: Plan, slices: Slices, rows: _Ints, activity: _Ints) -> pa.Array:
    return pc.strftime(pa.array(events.time[rows]).cast(pa.timestamp("s")), format="%u")


def _by_weekend(events: Events, plan: Plan, slices: Slices, rows: _Ints, activity: _Ints) -> pa.Array:
    days = pc.day_of_week(pa.array(events.time[rows]).cast(pa.timestamp("s")))
    return pc.if_else(pc.greater_equal(days, 5), "yes", "no")


_SLICES = {
    "activity": _by_activity,
    "popularity": _by_popularity,
    "hour": _by_hour,
    "weekday": _by_weekday,
    "weekend": _by_weekend,
}
