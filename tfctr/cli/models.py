"""`tfctr models`: what there is on the two axes, and the presets."""

import ast
import json
from inspect import Parameter
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from rich.table import Table

import tfctr
from tfctr.cli.quiet import import_tensorflow
from tfctr.console import console


def show_models(
    name: Annotated[
        str | None,
        typer.Argument(help="a preset, an interest or an interaction: show all its settings", show_default=False),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """List interests, interactions, presets and published runs, or show the settings of a preset."""
    from tfctr.models.presets import PRESETS
    from tfctr.training.published import note_on, published_experiments

    interests, interactions = _registered("interest"), _registered("interaction")
    if name is not None:
        alone = name not in PRESETS and name in {**interests, **interactions}
        settings = _arguments(name) if alone else _settings(name)
        typer.echo(json.dumps(settings, indent=1) if as_json else yaml.safe_dump(settings, sort_keys=False).strip())
        return
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
    table.add_section()
    for name in published_experiments():
        table.add_row("published run", name, note_on(name).split("\n")[0])
    console().print(table)


def _settings(name: str) -> dict[str, Any]:
    """The configuration of a preset with the defaults of its modules, in the form of an experiment's `model`.

    Raises:
        UserError: there is no such preset.
    """
    from tfctr.models.presets import preset

    config = preset(name)
    import_tensorflow()
    from tfctr.interactions import create_interaction
    from tfctr.interests import create_interest
    from tfctr.models.entry_keys import module_options
    from tfctr.training.experiment import ANY_SEQUENCE

    interests = config.interests or ({"type": "mean"},)
    return {
        **config.model_dump(mode="json"),
        "interests": [
            {
                **entry,
                **_options(create_interest(module_options(entry), ANY_SEQUENCE), "frozen", "category", "max_length"),
            }
            for entry in interests
        ],
        "interaction": {"type": config.interaction["type"], **_options(create_interaction(config.interaction))},
    }


def _arguments(name: str) -> dict[str, Any]:
    """The arguments of an interest or an interaction with their defaults; None where there is none."""
    import_tensorflow()
    from tfctr.interactions import INTERACTIONS
    from tfctr.interests import INTERESTS
    from tfctr.layers.registry import arguments_of

    axis, table = ("interests", INTERESTS) if name in INTERESTS else ("interaction", INTERACTIONS)
    found = {key: None if value is Parameter.empty else value for key, value in arguments_of(table[name]).items()}
    entry = {"type": name, **json.loads(json.dumps(found, default=str))}
    return {axis: [entry] if axis == "interests" else entry}


def _options(layer: Any, *filled_in: str) -> dict[str, Any]:
    """The arguments of a module, without those that any layer has and those that the model fills in."""
    left_out = {"name", "dtype", "trainable", "fields", *filled_in}
    plain = json.loads(json.dumps(layer.get_config(), default=str))
    return {key: value for key, value in plain.items() if key not in left_out and value is not None}


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
