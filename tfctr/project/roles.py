"""Which column is what: said by the data set's manifest, by options, or guessed from names."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, ValidationError

from tfctr.data.staging import MANIFEST
from tfctr.errors import UserError
from tfctr.features.columns import Side
from tfctr.features.table_format import TableFormat
from tfctr.features.yaml_file import Name, describe_validation_error
from tfctr.project.names import is_identifier

Ask = Callable[[str], str]
"""Asks a person; it is given the question."""

# What columns are called by those who do not say so otherwise, in lower case and letters alone; the first is taken.
_GUESSES: dict[str, tuple[str, ...]] = {
    "label": ("label", "click", "clicked", "isclick", "isclicked", "target"),
    "user": ("userid", "user", "uid", "memberid", "customerid"),
    "item": ("itemid", "item", "adid", "movieid", "productid", "articleid", "videoid"),
    "timestamp": ("timestamp", "time", "ts", "unixtime", "eventtime", "requesttime"),
    "request": ("requestid", "request", "impressionid"),
    "weight": ("weight", "sampleweight", "importance"),
}
_POSITIONS = ("position", "pos", "slot")


class History(BaseModel):
    """A history: at most `length` events, and its columns with the column of the row that holds the same, if any."""

    length: int | None = Field(None, ge=1)
    columns: dict[str, str | None] = Field(min_length=1)


class Roles(BaseModel):
    """What each column is."""

    label: str | None = None
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
    def no_features(self) -> set[str]:
        """The columns that are no features."""
        named = {self.label, self.timestamp, self.request, self.weight}
        return {column for column in named if column is not None} | set(self.slices)

    @property
    def tell_requests(self) -> bool:
        """Whether rows of one request can be told from those of others."""
        return self.request is not None or (self.user is not None and self.timestamp is not None)

    def without(self, columns: Collection[str]) -> Roles:
        """The roles without those of some columns; the label stays, without which there is nothing to do."""
        lost = {role: None for role in _OTHERS if getattr(self, role) in columns}
        slices = tuple(name for name in self.slices if name not in columns)
        return self.model_copy(update={**lost, "slices": slices})


_OTHERS = ("user", "item", "timestamp", "request", "group", "weight")


@dataclass(frozen=True)
class Options:
    """What a person says of the columns. A name that is empty means that there is no such column.

    Attributes:
        named: Columns by role: label, user, item, timestamp, request, group, weight.
        slices: The slice columns; None where nothing is said.
        sides: Sides by column.
        shares: The column of a row with the same ids, by column of a history.
        leave_out: Columns to leave out.
        csv: How text tables are written.
    """

    named: Mapping[str, str] = field(default_factory=dict)
    slices: tuple[str, ...] | None = None
    sides: Mapping[str, Side] = field(default_factory=dict)
    shares: Mapping[str, str] = field(default_factory=dict)
    leave_out: frozenset[str] = frozenset()
    csv: TableFormat = field(default_factory=TableFormat)


def written_roles(data: Path) -> Roles | None:
    """What a data set's manifest says of its columns, if it has one that does.

    Raises:
        UserError: it is damaged.
    """
    path = data / MANIFEST
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return Roles.model_validate(content["roles"]) if "roles" in content else None
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise UserError(describe_validation_error(f"{path}: roles", error)) from None
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{path}: can't be read: {error}") from None


def find_roles(
    written: Roles | None, names: Collection[str], options: Options, likely_labels: Iterable[str], ask: Ask | None
) -> Roles:
    """What each column is: what options say, else the manifest, else the names.

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
    roles = written or _guessed(kept)
    given: dict[str, Any] = {role: column or None for role, column in options.named.items()}
    if options.slices is not None:
        given["slices"] = options.slices
    roles = roles.model_copy(update={**given, "sides": {**roles.sides, **options.sides}})
    if roles.label not in kept:
        roles = roles.model_copy(update={"label": _asked_label(likely_labels, kept, ask)})
    if roles.group is None and "group" not in options.named:
        roles = roles.model_copy(update={"group": roles.user})
    named = {*roles.slices, *(getattr(roles, role) for role in _OTHERS)}
    roles = roles.without(named - set(kept))
    _check_names(roles)
    return roles


def _check_named(names: Collection[str], options: Options) -> None:
    ids = {"user": "--user-id", "item": "--item-id"}
    given = [(ids.get(role, f"--{role}"), column) for role, column in options.named.items() if column]
    given += [("--meta", column) for column in options.slices or ()]
    given += [(f"--{side}", column) for column, side in options.sides.items()]
    given += [("--share", column) for pair in options.shares.items() for column in pair]
    given += [("--leave-out", column) for column in sorted(options.leave_out)]
    for option, column in given:
        if column not in names:
            raise UserError(f"{option}: there is no column '{column}'. The columns are: {', '.join(names)}")


def _check_names(roles: Roles) -> None:
    """Columns that a feature file names without a feature must have names that it can have."""
    named = [(f"--{role}", getattr(roles, role)) for role in ("label", "timestamp", "request", "weight")]
    for option, column in (*named, *(("--meta", name) for name in roles.slices)):
        if column is not None and not is_identifier(column):
            raise UserError(
                f"{option}: '{column}' must be a name of letters, digits and underscores, a letter first; "
                "rename the column in the data"
            )


def _guessed(names: Collection[str]) -> Roles:
    columns = {re.sub("[^a-z0-9]", "", name.lower()): name for name in names}
    found = {role: [columns[one] for one in wanted if one in columns] for role, wanted in _GUESSES.items()}
    if len(found["label"]) > 1:  # The other one would tell the model what it must guess.
        found["label"] = []
    sides: dict[str, Side] = {columns[one]: "bias" for one in _POSITIONS if one in columns}
    return Roles(**{role: named[0] for role, named in found.items() if named}, sides=sides)


def _asked_label(likely: Iterable[str], names: Collection[str], ask: Ask | None) -> str:
    likely = [name for name in likely if name in names]
    of_two = f"Columns of 0 and 1: {', '.join(likely)}" if likely else "No column holds 0 and 1 only"
    if ask is None:
        raise UserError(f"--label: name the column that says whether it was a click. {of_two}")
    while (answer := ask(f"Which column is the label? {of_two}")) not in names:
        pass
    return answer
