"""Histories that the log has already: a list of events in each row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tfctr.data.build.changes import values_of_type
from tfctr.data.build.events import Events
from tfctr.data.build.log import LogFile, place
from tfctr.data.build.sides import SideTable
from tfctr.data.build.spec import Given, History
from tfctr.data.sources.columns import is_list
from tfctr.errors import UserError

_Ints = npt.NDArray[np.int64]


class GivenLists:
    """The lists of one history, as the rows of the log have them: cut, newest first, without what only fills them up.

    Args:
        events: Rows of whole users.
        name: What the build file calls the history, for messages.
        history: What it says of it.
        given: Where its events stand.
        sides: The tables of users and items.
        files: The files of the log, for messages.
    """

    def __init__(
        self,
        events: Events,
        name: str,
        history: History,
        given: Given,
        sides: Mapping[str, SideTable],
        files: Sequence[LogFile],
    ) -> None:
        self._events, self._history, self._given, self._sides, self._files = events, history, given, sides, files
        self._padding_key = f"histories.{name}.given.padding"

    def sizes(self, rows: _Ints) -> _Ints:
        """How many values the lists of each row [m] have, at most."""
        lengths = np.minimum(self._lists(self._given.item, rows)[0], self._history.length)
        return np.asarray(lengths * len(self._history.columns), np.int64)

    def lists(self, rows: _Ints) -> dict[str, pa.Array]:
        """The lists of some rows [m], by column."""
        lengths, items = self._lists(self._given.item, rows)
        padding = values_of_type(self._given.padding, items.type, self._padding_key)
        known = pc.and_(items.is_valid(), pc.invert(pc.is_in(items, padding))).to_numpy(zero_copy_only=False)
        kept = np.flatnonzero(known)
        counts = np.bincount(np.repeat(np.arange(len(rows)), lengths)[kept], minlength=len(rows))
        taken = np.minimum(counts, self._history.length)
        offsets = np.concatenate([[0], np.cumsum(taken)])
        step = np.arange(offsets[-1]) - np.repeat(offsets[:-1], taken)
        ends = np.cumsum(counts)
        # An event of each list by its place among all: from the newest on.
        first, direction = (ends - 1, -1) if self._given.newest == "last" else (ends - counts, 1)
        places = pa.array(kept[np.repeat(first, taken) + direction * step])
        starts = pa.array(offsets.astype(np.int32))
        return {
            name: pa.ListArray.from_arrays(starts, self._values(source, rows, lengths, items, places))
            for name, source in self._history.columns.items()
        }

    def _values(self, source: str, rows: _Ints, lengths: _Ints, items: pa.Array, places: pa.Array) -> pa.Array:
        table, _, column = source.partition(".")
        if table != "log":
            side = self._sides[table]
            return side.column(column).take(side.find(items.take(places)))
        others, values = self._lists(column, rows)
        uneven = others != lengths
        if uneven.any():
            row = int(uneven.argmax())
            raise UserError(
                f"{place(self._events.table, int(rows[row]), self._files)}: '{column}' has {others[row]} events, and "
                f"'{self._given.item}' {lengths[row]}; the columns of a history must have one length"
            )
        return values.take(places)

    def _lists(self, column: str, rows: _Ints) -> tuple[_Ints, pa.Array]:
        """How many values the list of each row [m] has, and the values of all."""
        lists = self._events.table.column(column).combine_chunks().take(pa.array(rows))
        if not is_list(lists.type):
            raise UserError(f"column '{column}' of the log is {lists.type}; a given history has lists")
        lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False)
        return np.asarray(lengths, np.int64), lists.flatten()
