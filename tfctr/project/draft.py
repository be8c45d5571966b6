"""Drafts a feature file from a sample: asks the kinds which of them each column is."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa
from pydantic import TypeAdapter, ValidationError

from tfctr.data.sources.columns import is_list
from tfctr.features.columns import RESERVED, SIDES, Side, length_name
from tfctr.features.kinds.base import KINDS, Kind
from tfctr.features.kinds.suggestion import Found, Suggestion
from tfctr.features.spec import Definition
from tfctr.features.yaml_file import describe_validation_error
from tfctr.project.codes import Codes
from tfctr.project.facts import Context, are_seconds, are_weights, facts, has_infinite, is_constant, is_text
from tfctr.project.leaks import OUTCOME, leak
from tfctr.project.names import Names, is_identifier, names_an_id
from tfctr.project.roles import PLAIN, History, Roles
from tfctr.project.sample import Sample
from tfctr.project.sides import Sides

_DEFINITION: TypeAdapter[Kind] = TypeAdapter(Definition)
_INFINITE = "holds an infinite value, which is neither a number nor a missing one"


@dataclass(frozen=True)
class Entry:
    """A feature: its keys as they stand in the file, and a line for the reader."""

    keys: dict[str, Any]
    why: str

    def told(self, known: str) -> Entry:
        """The same with what is known of its side, in words."""
        return replace(self, why="; ".join(filter(None, (self.why, known))))


@dataclass
class Draft:
    """A feature file with its comments.

    Attributes:
        roles: What each column is; one that can't be read as such is taken out.
        sides: The features by side and name.
        sequences: The length and the fields of each history, by name.
        left_out: Why columns are left out, by column.
        rows: The rows that were looked at, in words.
        tells_requests: Whether rows of one request could be told from those of others.
    """

    roles: Roles
    rows: str
    tells_requests: bool
    sides: dict[Side, dict[str, Entry]] = field(default_factory=lambda: {side: {} for side in SIDES})
    sequences: dict[str, tuple[int, dict[str, Entry]]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)


class Drafting:
    """Makes a draft.

    Args:
        sample: The first rows of train.
        codes: Its columns.
        roles: What each column is.
        histories: The histories.
        left_out: Why columns must be left out, by column.
        said: The columns of which it is said, not guessed, which side they are of.
    """

    def __init__(
        self,
        sample: Sample,
        codes: Codes,
        roles: Roles,
        histories: Mapping[str, History],
        left_out: Mapping[str, str],
        said: Collection[str],
    ) -> None:
        self._table, self._codes, self._histories = sample.table, codes, histories
        self._joined_by, self._said = sample.joined_by, said
        # A column that can't stand in the file as what it is may still show which rows belong together.
        self._sides = Sides(codes, roles)
        out = {**dict.fromkeys(roles.outcome, OUTCOME), **_unfit(roles, sample.table), **left_out}
        self._roles = roles.without(out)
        self._draft = Draft(self._roles, sample.about, self._sides.tell_requests, left_out=out)
        self._names = Names(*_taken_names(self._roles, histories))
        self._made: dict[str, tuple[str, Kind]] = {}

    def draft(self) -> Draft:
        """The draft."""
        draft, roles = self._draft, self._roles
        events = {name for history in self._histories.values() for name in history.columns}
        for column in self._table.column_names:
            if column in draft.left_out or column in events | roles.no_features:
                continue
            why = self._useless(column)
            if why is None:
                self._add(column, *self._sides.of(column))
            else:
                draft.left_out[column] = why
        for name, history in self._histories.items():
            self._add_history(name, history)
        self._add_vectors()
        return replace(draft, roles=self._with_group())

    def _useless(self, column: str) -> str | None:
        """Why a column can't help a model, if so."""
        values = self._array(column)
        if is_constant(values):
            return f"one value in {self._draft.rows}"
        if has_infinite(values):
            return _INFINITE
        roles = self._roles
        if roles.label is None or column in self._said or column in (roles.user, roles.item, roles.group):
            return None
        if (is_text(values) or names_an_id(column)) and self._sides.names_requests(column):
            return "another value for each request, by which nothing of the next one is known"
        return leak(self._codes, roles.label, column, values)

    def _add(self, column: str, side: Side, known: str) -> None:
        is_key = column in (self._roles.user, self._roles.item)
        found = facts(column, self._array(column), Context(side, is_key, joined_by=self._joined_by))
        best = None if found is None else _best(found)
        made = self._made_of(column, best)
        if made is not None:
            name, entry = made
            self._draft.sides[side][name] = entry.told(known)

    def _made_of(self, column: str, best: Suggestion | None) -> tuple[str, Entry] | None:
        """A feature with this definition, and its name; None where there is none, and why is noted."""
        if best is None:
            self._draft.left_out[column] = "no kind of feature fits its values"
            return None
        if best.keys is None:
            self._draft.left_out[column] = best.why
            return None
        name = self._names.of(column)
        keys = {**best.keys, **({} if name == column else {"column": column})}
        try:
            self._made[column] = (name, _DEFINITION.validate_python(keys))
        except ValidationError as error:  # a kind whose columns must have the names of the feature, for instance
            self._draft.left_out[column] = describe_validation_error(f"{name} can't be made of it", error)
            return None
        return name, Entry(keys, best.why)

    def _array(self, column: str) -> Any:
        return self._table.column(column).combine_chunks()

    def _add_history(self, sequence: str, history: History) -> None:
        fields: dict[str, Entry] = {}
        alone: set[type[Kind]] = set()
        shared = False
        for column, same in history.columns.items():
            if column in self._draft.left_out or column not in self._table.column_names:
                continue
            if has_infinite(self._array(column)):
                self._draft.left_out[column] = _INFINITE
                continue
            made = self._made_of(column, self._best_of_event(column, same))
            if made is None:
                continue
            name, entry = made
            kind = self._made[column][1]
            if kind.single and type(kind) in alone:
                self._draft.left_out[column] = "a history can have one such column only"
                continue
            alone.add(type(kind))
            shared |= kind.reference is not None and kind.reference.name in self._draft.sides["candidate"]
            fields[name] = entry
        if shared:
            assert history.length is not None  # find_histories fills it in
            self._draft.sequences[sequence] = (history.length, fields)
            return
        why = "no event of it has the ids of a candidate; name the column that has the same with --share"
        self._draft.left_out |= {column: why for column in history.columns if column not in self._draft.left_out}

    def _best_of_event(self, column: str, same: str | None) -> Suggestion | None:
        array = self._array(column)
        if not is_list(array.type):
            return None
        clock = self._roles.timestamp
        owner = self._made.get(same or "")
        shares = owner if owner is not None and owner[1].shareable else None
        is_time = same is not None and same == clock
        found = facts(column, array, Context("sequence", shares is not None, clock is not None, is_time))
        return None if found is None else _best(replace(found, shares=shares))

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
        single = (
            kind is not None and kind.is_key and not any(name in fields for _, fields in self._draft.sequences.values())
        )
        if single:
            return roles.model_copy(update={"group": name})
        if not is_identifier(roles.group) or roles.group in (roles.label, roles.weight, roles.timestamp):
            self._draft.left_out.setdefault(roles.group, "can't be the group")
            return roles.model_copy(update={"group": None})
        self._draft.left_out.pop(roles.group, None)
        return roles.model_copy(update={"slices": tuple(dict.fromkeys((*roles.slices, roles.group)))})


def _best(found: Found) -> Suggestion | None:
    """What the kind says that a column like this fits best; None where it fits none."""
    offers = [offer for kind in KINDS.values() if (offer := kind.suggest(found)) is not None]
    return max(offers, key=lambda offer: offer.fit, default=None)


def _unfit(roles: Roles, table: pa.Table) -> dict[str, str]:
    """Why columns can't be what they are called, by column."""
    found = {}
    for role in PLAIN:
        column = roles.of_one_column.get(role)
        if column is None:
            continue
        if not is_identifier(column):
            found[column] = f"would be the {role} if its name had only letters, digits and underscores; rename it"
        elif role == "timestamp" and not are_seconds(table.column(column)):
            found[column] = (
                "would be the time of the request if it were whole seconds since 1970; divide milliseconds by 1000"
            )
        elif role == "weight" and not are_weights(table.column(column)):
            found[column] = "would be the weight if all its values were numbers, 0 or more"
    return found


def _taken_names(roles: Roles, histories: Mapping[str, History]) -> tuple[list[str], list[str]]:
    """The names that no feature can have, and what no name can begin with."""
    taken = [*RESERVED, *roles.no_features]
    taken += [f"{roles.timestamp}_{part}" for part in ("hour", "weekday") if roles.timestamp]
    for name in histories:
        taken += [length_name(name), f"{name}_newest_time", f"{name}_recency", f"{name}_item_vector"]
    return taken, ["state_user_", *(f"state_{name}_" for name in histories)]
