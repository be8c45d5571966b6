"""`tfctr features`: check a feature file and show what it means."""

import importlib.util
import json
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from tfctr.cli.quiet import import_tensorflow
from tfctr.console import console
from tfctr.errors import UserError
from tfctr.features import FeatureFile, load_feature_file
from tfctr.features.assets import FeatureAssets
from tfctr.features.kinds.base import Feature

app = typer.Typer(help="Check a feature file and show what it means.", no_args_is_help=True)

FeatureFileArgument = Annotated[Path, typer.Argument(help="the feature file (YAML)", show_default=False)]


@app.command("validate")
def validate(file: FeatureFileArgument) -> None:
    """Check a feature file; the exit status is 2 when something is wrong."""
    found = load_feature_file(file)
    _check_optimizers(found)
    count = sum(feature.sequence is None for feature in found.features)
    console().print(f"{file}: valid ({count} features, {len(found.sequences)} sequences)")


@app.command("schema")
def schema() -> None:
    """Print the JSON schema of feature files, by which an editor completes and checks them."""
    typer.echo(json.dumps(FeatureFile.model_json_schema(), indent=1))


@app.command("show")
def show(
    file: FeatureFileArgument,
    assets: Annotated[
        Path | None, typer.Option(help="a feature assets directory: adds learned vocabulary sizes and parameters")
    ] = None,
) -> None:
    """Show every feature: side, kind, vocabulary, dimension, parameters."""
    found = load_feature_file(file)
    sizes = FeatureAssets(assets) if assets else None
    if sizes is not None and sizes.file != found:
        raise UserError(f"{assets}: was made for another feature file than {file}; analyze the data again")
    table = Table("feature", "side", "kind", "vocabulary", "dimension", "parameters")
    for feature in found.features:
        if feature.sequence is None:
            table.add_row(*_row(found, feature, feature.side, sizes))
    for name, sequence in found.sequences.items():
        table.add_section()
        for feature in found.of_sequence(name):
            if feature.along is None:
                table.add_row(*_row(found, feature, f"user: {name} [{sequence.max_length}]", sizes))
    console().print(table)
    labels = ", ".join(found.labels.columns)
    group = f"GAUC by {found.group}" if found.group is not None else "no group, so no GAUC"
    console().print(f"label {labels}, {group}, seed {found.seed}")


def _check_optimizers(file: FeatureFile) -> None:
    """Check the optimizers that features name, by making a step with each; the base install has nothing to make it."""
    # TensorFlow takes seconds to import.
    if not file.table_optimizers or importlib.util.find_spec("tensorflow") is None:
        return
    import_tensorflow()
    from tfctr.training.experiment import Training
    from tfctr.training.optimizer import check_table_optimizers

    check_table_optimizers(Training(), file)


def _row(file: FeatureFile, feature: Feature, side: str, sizes: FeatureAssets | None) -> tuple[str, ...]:
    summary = feature.kind.summary(feature, sizes)
    width = summary.width or file.embedding_dimension
    parameters = f"{summary.rows * width:,}" if summary.rows else "0 (shared)"
    if summary.rows is None:
        parameters = "after analysis"
    return feature.name, side, summary.kind, summary.about, str(width), parameters
