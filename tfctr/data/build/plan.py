"""A build file meets its tables: which columns are made, and what dataset.json says of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from tfctr.data.build.counts import RowCounts
from tfctr.data.build.impressions import LABEL, Plan
from tfctr.data.build.log import LogFile, log_files
from tfctr.data.build.numbers import check_changed
from tfctr.data.build.sides import SideTable, load_side, side_files
from tfctr.data.build.spec import Build
from tfctr.data.build.tables import require_columns
from tfctr.data.item_vectors import FILE_NAME
from tfctr.data.manifest import require_rows
from tfctr.data.sources.columns import is_list
from tfctr.data.splits import SPLITS
from tfctr.errors import UserError

_ROW_OF = {"users": "user", "items": "item"}
_OF_TIME = {"hour": " (UTC)", "weekday": " (UTC), 1 is Monday", "weekend": " (UTC)"}
_SIDES = {"users": "user", "items": "candidate"}


def make_plan(build: Build, base: Path, files: Sequence[LogFile], schema: pa.Schema) -> Plan:
    """Reads the tables of users and items, and decides what is made.

    Args:
        build: The build file.
        base: The directory that its paths start from.
        files: The files of the log.
        schema: The columns of the log.

    Raises:
        UserError: a column that a table lacks, or that would be made twice; events that a change would take out of one
            column of a history alone.
    """
    sides = {name: load_side(side, base, name) for name, side in build.sides.items()}
    tables = {"log": schema.names, **{name: side.table.schema.names for name, side in sides.items()}}
    columns = build.columns if build.columns is not None else _all_columns(build, tables, sides)
    paths = {"log": files[0].path, **{name: str(base / side.path) for name, side in build.sides.items()}}
    for source in [*columns.values(), *build.sources]:
        table, _, column = source.partition(".")
        require_columns(paths[table], tables[table], [column])
    check_changed(sides, build, base)
    _check_events_stay(build, {"log": schema, **{name: side.table.schema for name, side in sides.items()}})
    return Plan(build, files, columns, sides)


def files_read(build: Build, base: Path) -> list[str]:
    """The files of the log and of the tables, each once.

    Args:
        build: The build file.
        base: The directory that its paths start from.

    Raises:
        UserError: there are none of one of them.
    """
    paths = [file.path for file in log_files(build, base)]
    paths += [path for name, side in build.sides.items() for path in side_files(side, base, name)]
    return list(dict.fromkeys(paths))


def described(plan: Plan, counts: RowCounts) -> dict[str, Any]:
    """What dataset.json says of a data set that was built.

    Raises:
        UserError: a split without rows, or a table that has nothing of what the log names.
    """
    require_rows({name: count["rows"] for name, count in counts.splits.items()}, partial(_advice, plan))
    for name, side in plan.sides.items():
        if not counts.found[name]:
            raise UserError(
                f"{name}: no {_ROW_OF[name]} of the log is in the table, whose {side.key} is such as "
                f"'{side.column(side.key)[0]}'"
            )
    build, slices = plan.build, counts.slices()
    levels = {"activity": slices.activity.describe(), "popularity": slices.popularity.describe()}
    return {
        "arguments": build.model_dump(mode="json", exclude_defaults=True) | {"seed": build.seed},
        "splits": {name: _counted(build, count) for name, count in counts.splits.items()},
        "slices": {name: levels[kind] for name, kind in build.slices.items() if kind in levels},
        "columns": dict(_told(plan)),
        "roles": _roles(plan),
    }


def _advice(plan: Plan, split: str) -> str:
    """What to do about a split without rows."""
    build = plan.build
    if not build.given_split:
        return "the log needs more rows, or users; or use another split, or other shares"
    paths = [file.path for file in plan.files if file.split == SPLITS.index(split)]
    place = paths[0] if len(paths) == 1 else str(Path(paths[0]).parent)
    narrowing = {
        "log.where": build.log.where,
        "impressions": build.impressions,
        "keep_negatives": build.keep_negatives < 1,
    }
    named = ", ".join(f"`{key}`" for key, narrows in narrowing.items() if narrows)
    if named:
        return f"{place} has no row that becomes one of it; look at the rows there, and at {named}"
    return f"{place} has no row of data; look whether you have the whole file"


def _check_events_stay(build: Build, schemas: Mapping[str, pa.Schema]) -> None:
    """Refuses a `without` by which one column of a history would lose events that the others have."""
    for key, history in build.histories.items():
        for name, source in history.columns.items():
            if name not in build.changes or build.changes[name].without is None:
                continue
            table, _, column = source.partition(".")
            event = schemas[table].field(column).type
            if history.given is not None and table == "log" and is_list(event):
                event = event.value_type
            if not is_list(event) and not pa.types.is_null(event):
                others = "events" if history.given is None else "given.padding"
                raise UserError(
                    f"changes.{name}.without: of a history it takes values out of the list that each event has, and "
                    f"each event of '{source}' is {event}; what is no event is said by `histories.{key}.{others}`"
                )


def _all_columns(build: Build, tables: dict[str, list[str]], sides: dict[str, SideTable]) -> dict[str, str]:
    left_out = {("log", build.label.column), *((name, side.key) for name, side in sides.items())}
    made: dict[str, str] = {}
    for table, names in tables.items():
        for name in names:
            if (table, name) in left_out:
                continue
            if name in made:
                raise UserError(
                    f"'{name}' is a column of two tables, {made[name]} and {table}.{name}; `rename` one, or list "
                    "`columns`"
                )
            made[name] = f"{table}.{name}"
    others = [LABEL, *filter(None, [build.request]), *build.slices]
    others += [name for history in build.histories.values() for name in history.columns]
    for name in others:
        if name in made:
            raise UserError(
                f"the column '{name}' is made twice: it is {made[name]} too; `rename` that one, or list `columns`"
            )
    return made


def _counted(build: Build, count: dict[str, int]) -> dict[str, int]:
    counted = {"rows": count["rows"], "positives": count["positives"]}
    if build.request is not None:
        counted["requests"] = count["requests"]
    if build.log.user is not None:
        counted["users"] = count["users"]
    return counted


def _told(plan: Plan) -> Iterator[tuple[str, str]]:
    build = plan.build
    for name, source in plan.columns.items():
        yield name, source
    kept = build.history_ttl_seconds
    of_state = f", of a state kept for {kept} seconds" if kept > 1 else ""
    for key, history in build.histories.items():
        for name, source in history.columns.items():
            yield name, f"{source}, at most {history.length} events, newest first ({key}){of_state}"
    yield LABEL, "0 or 1"
    if build.request is not None:
        yield build.request, "rows of one request share it"
    for name, kind in build.slices.items():
        yield name, f"slice: {kind}" + (_OF_TIME.get(kind) or ", by train rows: low, medium, high, new")


def _roles(plan: Plan) -> dict[str, Any]:
    """What the columns are for, as `tfctr init` reads it."""
    build = plan.build
    made_of = {source: name for name, source in reversed(list(plan.columns.items()))}

    def column_of(name: str | None) -> str | None:
        return None if name is None else made_of.get(f"log.{name}")

    keys = {f"log.{build.log.user}": "user", f"log.{build.log.item}": "candidate"}
    # The items of a given history are such as the log's own.
    same = {f"log.{one.given.item}": f"log.{build.log.item}" for one in build.histories.values() if one.given}
    label = f"log.{build.label.column}"
    known = {name: _SIDES.get(source.partition(".")[0], keys.get(source)) for name, source in plan.columns.items()}
    return {
        "label": LABEL,
        "outcome": [name for name, source in plan.columns.items() if source == label],
        "user": column_of(build.log.user),
        "item": column_of(build.log.item),
        "timestamp": column_of(build.log.time),
        "request": build.request,
        "slices": list(build.slices),
        "negative_sampling_rate": build.keep_negatives,
        "sides": {name: side for name, side in known.items() if side is not None},
        "histories": {
            key: {
                "length": history.length,
                "columns": {name: made_of.get(same.get(source, source)) for name, source in history.columns.items()},
            }
            for key, history in build.histories.items()
        },
        "item_vectors": None if build.item_vectors is None else FILE_NAME,
    }
