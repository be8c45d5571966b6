"""Which column is what: said by the data set's manifest, by options, or guessed from names."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import BaseModel, Field, ValidationError

from tfctr.data.staging import MANIFEST
from tfctr.errors import UserError
from tfctr.features.columns import Side
from tfctr.features.table_format import TableFormat
from tfctr.features.yaml_file import Name, describe_validation_error
from tfctr.project.guesses import guess_positions, guess_roles
from tfctr.project.names import is_identifier

Ask = Callable[[str], str]
"""Asks a person; it is given the question."""


class History(BaseModel):
    """A history: at most `length` events, and its columns with the column of the row that holds the same, if any."""

    length: int | None = Field(None, ge=1)
    columns: dict[str, str | None] = Field(min_length=1)


class Roles(BaseModel):
    """What each column is."""

    label: str | None = None
    outcome: tuple[str, ...] = ()
    user: str | None = None
    item: str | None = None
    timestamp: str | None = None
    request: str | None = None
    group: str | None = None
    weight: str | None = None
    slices: tuple[str, ...] = ()
    negative_sampling_rate: float = Field(1.0, gt=0, le=1)
    sides: dict[str, Side] = Field(default_factory=dict)
    histories: dict[Name, History] = Field(default_factory=dict)
    item_vectors: str | None = "item_vectors.npz"

    @property
    def of_one_column(self) -> dict[str, str]:
        """The column of each role that one column has."""
        columns = {role: getattr(self, role) for role in ("label", *_OTHERS)}
        return {role: column for role, column in columns.items() if column is not None}

    @property
    def columns(self) -> set[str]:
        """The columns of which it is said what they are; the group and those of a side can be something else too."""
        named = {column for role, column in self.of_one_column.items() if role != "group"}
        events = {name for history in self.histories.values() for name in history.columns}
        return named | events | {*self.outcome, *self.slices}

    @property
    def no_features(self) -> set[str]:
        """The columns that are no features."""
        named = self.of_one_column
        return {named[role] for role in ("label", *PLAIN) if role in named} | {*self.slices, *self.outcome}

    def without(self, columns: Collection[str]) -> Roles:
        """The roles without those of some columns; the label stays, without which there is nothing to do."""
        lost = {role: None for role in _OTHERS if getattr(self, role) in columns}
        slices = tuple(name for name in self.slices if name not in columns)
        return self.model_copy(update={**lost, "slices": slices})


PLAIN = ("timestamp", "request", "weight")
"""Roles whose columns a feature file names without a feature, so that their names must be such as it can have."""

_OTHERS = ("user", "item", "group", *PLAIN)
_SIDE_OF: dict[str, Side] = {"user": "user", "item": "candidate"}


def option_of(role: str) -> str:
    """The option that says which column has a role."""
    return {"user": "--user-id", "item": "--item-id"}.get(role, f"--{role}")


@dataclass(frozen=True)
class Options:
    """What a person says of the columns. A name that is empty means that there is no such column.

    Attributes:
        named: Columns by role: label, user, item, timestamp, request, group, weight.
        slices: Slice columns.
        sides: Sides by column.
        shares: The column of a row with the same ids, by column of a history.
        leave_out: Columns to leave out.
        csv: How text tables are written.
    """

    named: Mapping[str, str] = field(default_factory=dict)
    slices: tuple[str, ...] = ()
    sides: Mapping[str, Side] = field(default_factory=dict)
    shares: Mapping[str, str] = field(default_factory=dict)
    leave_out: frozenset[str] = frozenset()
    csv: TableFormat = field(default_factory=TableFormat)

    @property
    def columns(self) -> set[str]:
        """The columns of which it is said what they are; the group and those of a side can be something else too."""
        named = {column for role, column in self.named.items() if role != "group"}
        return (named | {*self.slices, *self.shares}) - {""}


def written_roles(data: Path) -> Roles:
    """What a data set's manifest says of its columns; nothing where it has none.

    Raises:
        UserError: it is damaged.
    """
    path = data / MANIFEST
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return Roles.model_validate(content["roles"]) if "roles" in content else Roles()
    except FileNotFoundError:
        return Roles()
    except ValidationError as error:
        raise UserError(describe_validation_error(f"{path}: roles", error)) from None
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{path}: can't be read: {error}") from None


def find_roles(
    written: Roles, names: Collection[str], options: Options, likely_labels: Iterable[str], ask: Ask | None
) -> Roles:
    """What each column is: what options say, else the manifest, else what it is called.

    Args:
        written: What the manifest says.
        names: All columns.
        likely_labels: The columns that hold 0 and 1 only.
        ask: Asks a person for what is necessary and can't be found; None: nobody is there.

    Raises:
        UserError: an option names a column that is not there, or it can't be found which one is the label.
    """
    _check_named(names, options)
    kept = [name for name in names if name not in options.leave_out]
    free = [name for name in kept if name not in written.columns | options.columns]
    said_sides = {**written.sides, **options.sides}
    guesses = {
        role: column
        for role, column in guess_roles(free).items()
        if said_sides.get(column, _SIDE_OF.get(role)) == _SIDE_OF.get(role)
    }
    said = {**written.of_one_column, **{role: column or None for role, column in options.named.items()}}
    others = {
        "outcome": tuple(name for name in written.outcome if name not in options.columns | options.sides.keys()),
        "slices": tuple(dict.fromkeys((*written.slices, *options.slices))),
        "sides": {**dict.fromkeys(guess_positions(free), "bias"), **said_sides},
    }
    roles = written.model_copy(update={**guesses, **said, **others})
    if roles.label not in kept:
        roles = roles.model_copy(update={"label": _asked_label(likely_labels, kept, ask)})
    if roles.group is None and "group" not in options.named:
        roles = roles.model_copy(update={"group": roles.user})
    roles = roles.without({*roles.of_one_column.values(), *roles.slices} - set(kept))
    _check_names(roles, guesses)
    return roles


def _check_named(names: Collection[str], options: Options) -> None:
    given = [(option_of(role), column) for role, column in options.named.items() if column]
    given += [("--meta", column) for column in options.slices]
    given += [(f"--{side}", column) for column, side in options.sides.items()]
    given += [("--share", column) for pair in options.shares.items() for column in pair]
    given += [("--leave-out", column) for column in sorted(options.leave_out)]
    for option, column in given:
        if column not in names:
            raise UserError(f"{option}: there is no column '{column}'. The columns are: {', '.join(names)}")


def _check_names(roles: Roles, guesses: Mapping[str, str]) -> None:
    """Columns that a feature file names without a feature must have names that it can have; a guess may be wrong."""
    named = roles.of_one_column
    said = [(option_of(role), named.get(role)) for role in PLAIN if named.get(role) != guesses.get(role)]
    for option, column in (("--label", roles.label), *said, *(("--meta", name) for name in roles.slices)):
        if column is not None and not is_identifier(column):
            raise UserError(
                f"{option}: '{column}' must be a name of letters, digits and underscores, a letter first; "
                "rename the column in the data; `tfctr data build` does by `columns`, which then names all columns"
            )


def _asked_label(likely: Iterable[str], names: Collection[str], ask: Ask | None) -> str:
    likely = [name for name in likely if name in names]
    of_two = f"Columns of 0 and 1: {', '.join(likely)}" if likely else "No column holds 0 and 1 only"
    if ask is None:
        raise UserError(f"--label: name the column that says whether it was a click. {of_two}")
    while (answer := ask(f"Which column is the label? {of_two}")) not in names:
        pass
    return answer
