"""`tfctr init`: a first project for somebody's data."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from tfctr.console import console
from tfctr.errors import UserError
from tfctr.features.columns import Side
from tfctr.features.table_format import TableFormat
from tfctr.storage import local_directory


def _column(about: str) -> Any:
    return typer.Option(help=f"{about}; empty: none", show_default=False)


def _columns(about: str) -> Any:
    return typer.Option(help=f"{about}, joined by commas", show_default=False)


def init(
    data: Annotated[Path, typer.Option(help="a data directory: train/, valid/, test/", show_default=False)],
    out: Annotated[
        Path,
        typer.Option(parser=local_directory, help="the project: a directory that is new or empty", show_default=False),
    ],
    label: Annotated[str | None, _column("the column that says 1 for a click, else 0")] = None,
    group: Annotated[str | None, _column("the column GAUC groups by")] = None,
    timestamp: Annotated[str | None, _column("the time of the request, in seconds since 1970")] = None,
    request: Annotated[str | None, _column("which rows were one request")] = None,
    weight: Annotated[str | None, _column("the weight of a row")] = None,
    user_id: Annotated[str | None, _column("who was asked")] = None,
    item_id: Annotated[str | None, _column("what was shown")] = None,
    user: Annotated[str, _columns("columns of the user")] = "",
    candidate: Annotated[str, _columns("columns of the candidate")] = "",
    context: Annotated[str, _columns("columns of the request")] = "",
    bias: Annotated[str, _columns("columns of how it was shown, such as the position")] = "",
    meta: Annotated[str, _columns("more columns to slice metrics by, which no model reads")] = "",
    share: Annotated[
        list[str] | None,
        typer.Option(help="HISTORY=COLUMN: a history has the ids of a column of the candidate", show_default=False),
    ] = None,
    leave_out: Annotated[str, _columns("columns that no model may read")] = "",
    delimiter: Annotated[str | None, typer.Option(help="CSV: between columns; \\t: a tab")] = None,
    columns: Annotated[str | None, _columns("CSV: the names of the columns, where the first line has none")] = None,
    null: Annotated[list[str] | None, typer.Option(help="CSV: a text that stands for a missing value")] = None,
    list_delimiter: Annotated[str | None, typer.Option(help="CSV: between the events of a history")] = None,
) -> None:
    """Write a first feature file and experiment for data, from what its first rows hold."""
    from tfctr.project.first import write_project
    from tfctr.project.roles import Options

    roles = {
        "label": label,
        "group": group,
        "timestamp": timestamp,
        "request": request,
        "weight": weight,
        "user": user_id,
        "item": item_id,
    }
    sides: dict[Side, str] = {"user": user, "candidate": candidate, "context": context, "bias": bias}
    options = Options(
        named={role: column for role, column in roles.items() if column is not None},
        slices=tuple(_listed(meta)),
        sides={column: side for side, named in sides.items() for column in _listed(named)},
        shares=dict(_pair(one) for one in share or ()),
        leave_out=frozenset(_listed(leave_out)),
        csv=_csv(delimiter, columns, null, list_delimiter),
    )
    project = write_project(data, out, options, _ask if sys.stdin.isatty() else None)
    placed = ", ".join(f"{len(project.file.of_side(side))} of the {side}" for side in sides)
    console().print(f"Features: {placed}; histories: {', '.join(project.file.sequences) or 'none'}")
    for column, why in project.left_out.items():
        console().print(f"Left out: {column}: {why}")
    console().print(f"Written to {out}, from {project.rows}; the next commands stand in {out / 'README.md'}")


def _ask(question: str) -> str:
    answer: str = typer.prompt(question)
    return answer


def _listed(text: str) -> list[str]:
    return [one for one in text.split(",") if one]


def _pair(text: str) -> tuple[str, str]:
    history, equals, column = text.partition("=")
    if not (history and equals and column):
        raise UserError(f"--share: must be HISTORY=COLUMN. Received: '{text}'")
    return history, column


def _csv(
    delimiter: str | None, columns: str | None, nulls: list[str] | None, list_delimiter: str | None
) -> TableFormat:
    given: dict[str, Any] = {
        "delimiter": delimiter and delimiter.replace("\\t", "\t"),
        "columns": columns and _listed(columns),
        "nulls": nulls and ["", *nulls],
        "list_delimiter": list_delimiter,
    }
    try:
        return TableFormat.model_validate({key: value for key, value in given.items() if value is not None})
    except ValidationError as error:
        (problem, *_) = error.errors()
        option = "--null" if problem["loc"][0] == "nulls" else f"--{str(problem['loc'][0]).replace('_', '-')}"
        raise UserError(f"{option}: {problem['msg']}. Received: {problem['input']!r}") from None
