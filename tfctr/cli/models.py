"""`tfctr models`: what there is on the two axes, and the presets."""

import ast
import json
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

import tfctr
from tfctr.console import console


def show_models(as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False) -> None:
    """List interests, interactions and presets."""
    from tfctr.models.presets import PRESETS

    interests, interactions = _registered("interest"), _registered("interaction")
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


def _registered(axis: str) -> dict[str, str]:
    """The first line about each architecture of an axis, in the order of the table.

    They are read from the sources, where a decorator names each class: importing them takes ten seconds of TensorFlow.
    """
    package = Path(tfctr.__file__).parent / f"{axis}s"
    found = {}
    for line in ast.parse((package / "__init__.py").read_text(encoding="utf-8")).body:
        if not isinstance(line, ast.ImportFrom) or not (line.module or "").startswith(f"tfctr.{axis}s."):
            continue
        source = package / f"{(line.module or '').rpartition('.')[2]}.py"
        for made in ast.parse(source.read_text(encoding="utf-8")).body:
            for call in made.decorator_list if isinstance(made, ast.ClassDef) else ():
                if isinstance(made, ast.ClassDef) and ast.unparse(call).startswith(f"{axis}("):
                    name = ast.literal_eval(call.args[0]) if isinstance(call, ast.Call) else ""
                    found[name] = (ast.get_docstring(made) or "").split("\n")[0]
    return found
