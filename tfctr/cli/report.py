"""`tfctr report`: one page about one run or several, or about searches."""

from pathlib import Path
from typing import Annotated

import typer

from tfctr.cli.quiet import import_tensorflow
from tfctr.console import console
from tfctr.errors import UserError, disk_errors
from tfctr.storage import local_directory, write_text


def report(
    runs: Annotated[
        list[str],
        typer.Argument(
            help="workspaces of `tfctr train`, model directories or versions in them, directories of `tfctr tune`",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option(parser=local_directory, help="the page to write, an .html file")],
    data: Annotated[
        str | None, typer.Option(help="a data directory; default: the one that the first run was trained on")
    ] = None,
    split: Annotated[str | None, typer.Option(help="train, valid or test; default: test")] = None,
    slices: Annotated[list[str] | None, typer.Option("--slice", help="one more column to slice by")] = None,
    gains: Annotated[bool, typer.Option(help="measure the gain of each feature, which takes the longest")] = True,
    title: Annotated[str | None, typer.Option(help="the title of the page")] = None,
) -> None:
    """Write one page about one run, or several side by side: what, how good, where, and at which cost."""
    if out.suffix != ".html" or out.is_dir():
        raise UserError(f"{out}: the report is a page; name an .html file")
    if not out.absolute().parent.is_dir():
        raise UserError(f"{out}: the directory {out.parent} doesn't exist; make it first")
    import_tensorflow()
    from tfctr.report.content import Content
    from tfctr.report.page import page
    from tfctr.report.runs import named, read_runs
    from tfctr.tuning.record import is_search, read_search

    places = named(runs)
    searches = {name: read_search(place) for name, place in places.items() if is_search(place)}
    scored = {name: place for name, place in places.items() if name not in searches}
    of_runs = {"--data": data, "--split": split, "--slice": slices, "--no-gains": not gains}
    given = [option for option, value in of_runs.items() if value]
    if given and not scored:
        raise UserError(
            f"{given[0]}: says how runs are scored, and only searches are named; leave it out, or name a run"
        )
    split = split or "test"
    found = read_runs(scored, data, split, slices or (), gains) if scored else []
    html = page(Content(found, split, searches=searches), title or ", ".join(places))
    with disk_errors(out):
        write_text(out, html)
    console().print(str(out), markup=False)
