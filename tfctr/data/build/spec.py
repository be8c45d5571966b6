"""What a build file says: how an interaction log becomes impressions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from tfctr.data.build.changes import Change
from tfctr.data.build.conditions import Condition, Rule
from tfctr.data.splits import USUAL_SHARES, Shares, Split
from tfctr.features.table_format import TableFormat
from tfctr.features.yaml_file import Name, Strict, checked, either, load_yaml

ColumnOf = Annotated[str, Field(pattern=r"^(log|users|items)\..+$")]
"""A column of the log or of a table: `log.rating`, `items.genres`."""

TIME_UNITS = {"milliseconds": 1000, "microseconds": 1_000_000}
"""How many of a unit of `log.time_format` a second has; what is no unit is a pattern."""

TIME_WANTED = "a time is a timestamp, or whole seconds since 1970, or written as `log.time_format` says"
"""What a time must be, for messages."""
LABEL_WANTED = "without a rule (`above`, `one_of` ...) a label must be 0 or 1"
"""What a label must be, for messages."""

Duplicates = Literal["refuse", "drop", "keep"]
Slice = Literal["activity", "popularity", "hour", "weekday", "weekend"]


class NamedColumns(Strict):
    """What a table is written like, and what its columns are called in the build file and in what is built."""

    csv: TableFormat = TableFormat()
    rename: dict[str, Name] = Field(
        default_factory=dict, description="name in the table -> name here, of the columns that have another name here"
    )

    @field_validator("rename")
    @classmethod
    def _of_two_names(cls, rename: dict[str, str]) -> dict[str, str]:
        twice = [name for name, count in Counter(rename.values()).items() if count > 1]
        if twice:
            raise ValueError(f"two columns would be called '{twice[0]}'")
        return rename


class Log(NamedColumns):
    """The interaction log; the order of its rows is free."""

    path: str | dict[Literal["train", "valid", "test"], str] = Field(
        description="a Parquet or CSV file, or a folder of them; or one for each split, where the split is given"
    )
    user: str | None = Field(None, description="the column of the user")
    item: str | None = Field(None, description="the column of the item")
    time: str | None = Field(None, description="the column of the time")
    time_format: str | None = Field(
        None,
        description="`milliseconds`, `microseconds`, or a pattern such as `%Y-%m-%d %H:%M:%S` (UTC); left out: a "
        "timestamp, or whole seconds since 1970",
    )
    where: tuple[Condition, ...] = Field((), description="rows of the log that are used at all; all must hold")
    duplicates: Duplicates = Field("refuse", description="rows of one user, item and second")

    @field_validator("time_format")
    @classmethod
    def _no_names_of_zones(cls, value: str | None) -> str | None:
        if value is not None and "%Z" in value:
            raise ValueError("the name of a time zone (%Z) can't be read; write times in UTC, or with %z (+0100)")
        return value

    @property
    def time_pattern(self) -> str | None:
        """The pattern that the times are written by, if there is one."""
        return None if self.time_format in TIME_UNITS else self.time_format


class Side(NamedColumns):
    """A table with one row a user or item."""

    path: str
    key: str = Field(description="the column that the user or item of the log is looked up in")


class Label(Rule):
    """A row is positive when the column holds the rule; a boolean, or 0 and 1, need no rule."""

    column: str


class Given(Strict):
    """A history that the log has already: in each row, a list of the events before it."""

    item: str = Field(description="the column of the events' items, by which `items.x` is looked up")
    newest: Literal["first", "last"] = Field("last", description="where in a list the newest event stands")
    padding: tuple[int | str, ...] = Field((), description="items that only fill a list up, and are no events")


class History(Strict):
    """The events before the second of an impression, newest first."""

    length: int = Field(ge=1, le=100_000)
    columns: dict[Name, ColumnOf] = Field(min_length=1)
    events: tuple[Condition, ...] = Field((), description="rows of the log that are events; all must hold")
    given: Given | None = Field(None, description="that the log has it already; left out: it is made of the log's rows")

    @model_validator(mode="after")
    def _no_events_of_given(self) -> Self:
        if self.given is not None and self.events:
            raise ValueError("events: the history is given, so no rows of the log are events; leave them out")
        return self


class VectorsOf(Strict):
    """Vectors of the items that stand in their table."""

    column: str = Field(description="the column of the vectors, lists of numbers of one length")


class Build(Strict):
    """A build file."""

    about: str | None = Field(None, description="what the data are, for people")
    log: Log
    label: Label
    users: Side | None = None
    items: Side | None = None
    impressions: tuple[Condition, ...] = Field((), description="rows of the log that are impressions; all must hold")
    columns: dict[Name, ColumnOf] | None = Field(
        None,
        description="columns of an impression, and where they come from; left out: all but the label's and the "
        "tables' keys",
    )
    request: Name | None = Field(None, description="a column to make: rows of one user and second share it")
    histories: dict[Name, History] = Field(default_factory=dict)
    history_ttl_seconds: int = Field(
        1,
        ge=1,
        description="how long a user's impressions have the histories of the first of them, as from a cache of states; "
        "1: each second has its own",
    )
    keep_negatives: float = Field(1.0, gt=0, le=1, description="share of train's negatives that is kept, at random")
    split: Split = "user-time"
    shares: Annotated[Shares, Field(description="of train, valid and test")] = USUAL_SHARES
    slices: dict[Name, Slice] = Field(default_factory=dict, description="slice columns, learned from train alone")
    changes: dict[Name, Change] = Field(default_factory=dict, description="how the values of a column are changed")
    item_vectors: Annotated[
        str | VectorsOf | None, either("a path, or a mapping with the `column` of the table of items")
    ] = Field(None, description="vectors of the items: .npz or .npy with ids, or a column of their table")
    seed: int = Field(17, ge=0, lt=2**32)

    @property
    def given_split(self) -> bool:
        """Whether the log is split already."""
        return isinstance(self.log.path, dict)

    @property
    def sides(self) -> dict[str, Side]:
        """The tables that are given, `users` and `items`, by name."""
        return {name: side for name, side in (("users", self.users), ("items", self.items)) if side is not None}

    @property
    def given_histories(self) -> dict[str, History]:
        """The histories that the log has already, by name."""
        return {name: history for name, history in self.histories.items() if history.given is not None}

    @property
    def list_columns(self) -> set[str]:
        """The columns of the log that hold the events of given histories."""
        given = self.given_histories.values()
        named = (source for history in given for source in history.columns.values())
        listed = {source.removeprefix("log.") for source in named if source.startswith("log.")}
        return listed | {history.given.item for history in given if history.given is not None}

    @property
    def sources(self) -> list[str]:
        """The columns that are named as such, of the log and of tables."""
        return [*(self.columns or {}).values(), *(one for h in self.histories.values() for one in h.columns.values())]

    @property
    def log_columns(self) -> list[str]:
        """The columns of the log that are named."""
        conditions = [*self.log.where, *self.impressions, *(one for h in self.histories.values() for one in h.events)]
        roles = filter(None, (self.log.user, self.log.item, self.log.time))
        named = [source.removeprefix("log.") for source in self.sources if source.startswith("log.")]
        named += [history.given.item for history in self.given_histories.values() if history.given is not None]
        return list(dict.fromkeys([*named, *(one.column for one in conditions), self.label.column, *roles]))

    @model_validator(mode="before")
    @classmethod
    def _no_second_split(cls, value: Any) -> Any:
        log = value.get("log") if isinstance(value, dict) else None
        if isinstance(log, dict) and isinstance(log.get("path"), dict):
            for key in {"split", "shares"} & value.keys():
                raise ValueError(
                    f"{key}: log.path gives a path for each split, so there is nothing to split; leave it out"
                )
        return value

    @field_validator("columns", mode="before")
    @classmethod
    def _by_their_own_names(cls, columns: Any) -> Any:
        if not isinstance(columns, list) or not all(isinstance(one, str) for one in columns):
            return columns
        names = [one.partition(".")[2] for one in columns]
        repeated = [name for index, name in enumerate(names) if name in names[:index]]
        if repeated:
            raise ValueError(f"two are called '{repeated[0]}'; write them as name: source")
        return dict(zip(names, columns, strict=True))

    @field_validator("shares", mode="before")
    @classmethod
    def _some_of_each(cls, shares: Any) -> Shares:
        return Shares.of(shares)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for key, reason in self._needs():
            if getattr(self.log, key) is None:
                raise ValueError(f"log.{key} must name a column: {reason} needs it")
        if self.split == "leave-last-out" and "shares" in self.model_fields_set:
            raise ValueError("shares: leave-last-out has none; leave them out")
        if "history_ttl_seconds" in self.model_fields_set and len(self.histories) == len(self.given_histories):
            raise ValueError("history_ttl_seconds: the file has no `histories` that are made; leave it out")
        for source in self.sources:
            table = source.partition(".")[0]
            if table != "log" and getattr(self, table) is None:
                raise ValueError(f"'{source}': the file has no `{table}`")
        names = [
            *(self.columns or ()),
            *(name for one in self.histories.values() for name in one.columns),
            *self.slices,
        ]
        names += ["label", *([self.request] if self.request is not None else [])]
        repeated = [name for index, name in enumerate(names) if name in names[:index]]
        if repeated:
            raise ValueError(f"the column '{repeated[0]}' is made twice")
        of_log = [*(self.columns or ()), *(name for one in self.histories.values() for name in one.columns)]
        unknown = [name for name in self.changes if name not in of_log]
        if unknown:
            raise ValueError(f"changes.{unknown[0]}: `columns` and the histories name no such column")
        if isinstance(self.item_vectors, VectorsOf) and self.items is None:
            raise ValueError("item_vectors.column: the file has no `items`")
        if isinstance(self.log.path, dict) and len(self.log.path) != 3:
            raise ValueError("log.path must be one path, or give train, valid and test each one")
        return self

    def _needs(self) -> Iterator[tuple[str, str]]:
        split = None if self.given_split else self.split
        for key in ("user", "time"):
            yield from ((key, f"histories.{name}") for name in self.histories if name not in self.given_histories)
            yield from ((key, "request") for _ in filter(None, [self.request]))
            if split in ("user-time", "random-request", "leave-last-out"):
                yield key, f"split: {split}"
        if split == "global-time":
            yield "time", f"split: {split}"
        by = {"activity": "user", "popularity": "item"}
        yield from ((by.get(kind, "time"), f"slices.{name}") for name, kind in self.slices.items())
        yield from (("user", "users") for _ in filter(None, [self.users]))
        yield from (("item", "items") for _ in filter(None, [self.items]))


def load_build(path: str | Path) -> Build:
    """Reads and checks a build file.

    Raises:
        UserError: with the file, the path inside it and what is allowed.
    """
    return build_of(load_yaml(path), str(path))


def build_of(content: dict[str, Any], where: str) -> Build:
    """Checks what a build file says; `where` names it in messages.

    Raises:
        UserError: with the path inside it and what is allowed.
    """
    return checked(Build, content, where)
