"""Drafts a feature file from a sample: asks the kinds which of them each column is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa
from pydantic import TypeAdapter

from tfctr.features.columns import RESERVED, SIDES, Side, length_name
from tfctr.features.kinds.base import KINDS, Kind
from tfctr.features.kinds.suggestion import Found, Suggestion
from tfctr.features.spec import Definition
from tfctr.project.facts import Context, are_seconds, facts, is_constant
from tfctr.project.names import Names, is_identifier
from tfctr.project.roles import History, Roles
from tfctr.project.sample import Sample, is_list
from tfctr.project.sides import Sides

_DEFINITION: TypeAdapter[Kind] = TypeAdapter(Definition)


@dataclass(frozen=True)
class Entry:
    """A feature: its keys as they stand in the file, and a line for the reader."""

    keys: dict[str, Any]
    why: str


@dataclass
class Draft:
    """A feature file with its comments.

    Attributes:
        roles: What each column is; one that can't be read as such is taken out.
        sides: The features by side and name.
        sequences: The length and the fields of each history, by name.
        left_out: Why columns are left out, by column.
        rows: The rows that were looked at, in words.
    """

    roles: Roles
    rows: str
    sides: dict[Side, dict[str, Entry]] = field(default_factory=lambda: {side: {} for side in SIDES})
    sequences: dict[str, tuple[int, dict[str, Entry]]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)


class Drafting:
    """Makes a draft.

    Args:
        sample: The first rows of train.
        absent: Why columns have no value in a split, by column.
        roles: What each column is.
        histories: The histories.
        leave_out: Columns that a person wants to be left out.
    """

    def __init__(
        self,
        sample: Sample,
        absent: dict[str, str],
        roles: Roles,
        histories: Mapping[str, History],
        leave_out: Iterable[str],
    ) -> None:
        self._table, self._histories = sample.table, histories
        self._roles, refusal = _checked(roles, sample.table)
        refused = {name: f"its type, {kind}, is none that a feature can have" for name, kind in sample.refused.items()}
        self._draft = Draft(self._roles, sample.about)
        self._draft.left_out |= refusal | refused | absent | dict.fromkeys(leave_out, "as you wished")
        self._names = Names(*_taken_names(self._roles, histories))
        self._made: dict[str, tuple[str, Kind]] = {}

    def draft(self) -> Draft:
        """The draft."""
        draft, roles = self._draft, self._roles
        events = {name for history in self._histories.values() for name in history.columns}
        sides = Sides(self._table, roles)
        for column in self._table.column_names:
            if column in draft.left_out or column in events | roles.no_features:
                continue
            if is_constant(self._table.column(column).combine_chunks()):
                draft.left_out[column] = f"one value in {draft.rows}"
                continue
            self._add(column, *sides.of(column))
        for name, history in self._histories.items():
            self._add_history(name, history)
        self._add_vectors()
        return replace(draft, roles=self._with_group())

    def _add(self, column: str, side: Side, known: str) -> None:
        is_key = column in (self._roles.user, self._roles.item)
        found = facts(column, self._table.column(column).combine_chunks(), Context(side, is_key))
        best = None if found is None else _best(found)
        if best is None and side == "bias":
            self._add(column, "candidate", "")
            return
        name = self._kept(column, best)
        if name is not None and best is not None:
            self._draft.sides[side][name] = self._entry(column, name, best, known)

    def _kept(self, column: str, best: Suggestion | None) -> str | None:
        """The name of a feature with this definition; None where there is none, and why is noted."""
        if best is None:
            self._draft.left_out[column] = "no kind of feature fits its values"
        elif best.keys is None:
            self._draft.left_out[column] = best.why
        else:
            return self._names.of(column)
        return None

    def _entry(self, column: str, name: str, best: Suggestion, known: str = "") -> Entry:
        keys = {**(best.keys or {}), **({} if name == column else {"column": column})}
        self._made[column] = (name, _DEFINITION.validate_python(keys))
        return Entry(keys, "; ".join(filter(None, (best.why, known))))

    def _add_history(self, sequence: str, history: History) -> None:
        fields: dict[str, Entry] = {}
        alone: set[type[Kind]] = set()
        shared = False
        for column, same in history.columns.items():
            if column in self._draft.left_out or column not in self._table.column_names:
                continue
            best = self._best_of_event(column, same)
            name = self._kept(column, best)
            if name is None or best is None:
                continue
            entry = self._entry(column, name, best)
            kind = self._made[column][1]
            if kind.single and type(kind) in alone:
                self._draft.left_out[column] = "a history can have one such column only"
                continue
            alone.add(type(kind))
            shared |= kind.reference is not None and kind.reference.name in self._draft.sides["candidate"]
            fields[name] = entry
        if shared:
            self._draft.sequences[sequence] = (history.length or 1, fields)
            return
        why = "no event of it has the ids of a candidate; name the column that has the same with --share"
        self._draft.left_out |= {column: why for column in history.columns if column not in self._draft.left_out}

    def _best_of_event(self, column: str, same: str | None) -> Suggestion | None:
        array = self._table.column(column).combine_chunks()
        if not is_list(array.type):
            return None
        clock = self._roles.timestamp
        is_time = same is not None and same == clock
        found = facts(column, array, Context("sequence", False, clock is not None, is_time))
        owner = self._made.get(same or "")
        if found is not None and owner is not None and owner[1].shareable:
            found = replace(found, shares=owner)
        return None if found is None else _best(found)

    def _add_vectors(self) -> None:
        roles = self._roles
        key = self._made.get(roles.item or "")
        if key is None or roles.item_vectors is None or key[0] not in self._draft.sides["candidate"]:
            return
        for kind in KINDS.values():
            keys = kind.suggest_vectors(key[0], roles.item_vectors)
            if keys is not None:
                name = self._names.of("item_vector")
                self._draft.sides["candidate"][name] = Entry(keys, "given vectors, by id; never trained")

    def _with_group(self) -> Roles:
        """The roles, with the group as the feature file calls it; what is no feature becomes a slice column."""
        roles = self._roles
        if roles.group is None:
            return roles
        name, kind = self._made.get(roles.group, ("", None))
        single = kind is not None and kind.is_key and not any(name in fields for _, fields in self._fields())
        if single:
            return roles.model_copy(update={"group": name})
        if not is_identifier(roles.group) or roles.group in (roles.label, roles.weight, roles.timestamp):
            self._draft.left_out.setdefault(roles.group, "can't be the group")
            return roles.model_copy(update={"group": None})
        self._draft.left_out.pop(roles.group, None)
        return roles.model_copy(update={"slices": tuple(dict.fromkeys((*roles.slices, roles.group)))})

    def _fields(self) -> Iterable[tuple[int, dict[str, Entry]]]:
        return self._draft.sequences.values()


def _best(found: Found) -> Suggestion | None:
    """What the kind says that a column like this fits best; None where it fits none."""
    offers = [offer for kind in KINDS.values() if (offer := kind.suggest(found)) is not None]
    return max(offers, key=lambda offer: offer.fit, default=None)


def _checked(roles: Roles, table: pa.Table) -> tuple[Roles, dict[str, str]]:
    """The roles without a time that can't be one, and why it is left out."""
    clock = roles.timestamp
    if clock is None or (clock in table.column_names and are_seconds(table.column(clock))):
        return roles, {}
    why = "would be the time of the request if it were whole seconds since 1970; divide milliseconds by 1000"
    return roles.model_copy(update={"timestamp": None}), {clock: why}


def _taken_names(roles: Roles, histories: Mapping[str, History]) -> tuple[list[str], list[str]]:
    """The names that no feature can have, and what no name can begin with."""
    taken = [*RESERVED, *roles.no_features]
    taken += [f"{roles.timestamp}_{part}" for part in ("hour", "weekday") if roles.timestamp]
    for name in histories:
        taken += [length_name(name), f"{name}_newest_time", f"{name}_recency", f"{name}_item_vector"]
    return taken, ["state_user_", *(f"state_{name}_" for name in histories)]
