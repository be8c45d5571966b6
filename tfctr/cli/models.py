"""`tfctr models`: what there is on the two axes, and the presets."""

import json
from typing import Annotated

import typer
from rich.table import Table

from tfctr.cli.quiet import import_tensorflow
from tfctr.console import console


def show_models(as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False) -> None:
    """List interests, interactions and presets."""
    import_tensorflow()
    from tfctr.interactions import INTERACTIONS
    from tfctr.interests import INTERESTS
    from tfctr.models.presets import PRESETS

    interests = {name: _first_line(found) for name, found in INTERESTS.items()}
    interactions = {name: _first_line(found) for name, found in INTERACTIONS.items()}
    if as_json:
        presets = {
            name: {"about": about, **config.model_dump(mode="json")} for name, (about, config) in PRESETS.items()
        }
        typer.echo(json.dumps({"interests": interests, "interactions": interactions, "presets": presets}, indent=1))
        return
    table = Table("axis", "name", "what it is")
    for axis, found in (("interest", interests), ("interaction", interactions)):
        for name, about in found.items():
            table.add_row(axis, name, about)
        table.add_section()
    for name, (about, _) in PRESETS.items():
        table.add_row("preset", name, about)
    console().print(table)


def _first_line(found: type) -> str:
    return (found.__doc__ or "").strip().split("\n")[0]
