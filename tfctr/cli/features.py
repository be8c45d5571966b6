"""`tfctr features`: check a feature file and show what it means."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from tfctr.console import console
from tfctr.features import FeatureFile, load_feature_file
from tfctr.features.assets import FeatureAssets
from tfctr.features.spec import (
    SIDES,
    Categorical,
    EventTime,
    Frozen,
    HashVocabulary,
    IdentityVocabulary,
    Numeric,
)

app = typer.Typer(help="Check a feature file and show what it means.", no_args_is_help=True)

FeatureFileArgument = Annotated[Path, typer.Argument(help="the feature file (YAML)", show_default=False)]


@app.command("validate")
def validate(file: FeatureFileArgument) -> None:
    """Check a feature file; the exit status is 2 when something is wrong."""
    found = load_feature_file(file)
    count = sum(len(found.side(side)) for side in SIDES)
    console().print(f"{file}: valid ({count} features, {len(found.sequences)} sequences)", markup=False)


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
    table = Table("feature", "side", "kind", "vocabulary", "dimension", "parameters")
    for side in SIDES:
        for name in found.side(side):
            table.add_row(*_row(found, name, side, sizes))
    for sequence_name, sequence in found.sequences.items():
        table.add_section()
        for name in sequence.fields:
            table.add_row(*_row(found, name, f"user: {sequence_name} [{sequence.max_length}]", sizes))
    console().print(table)
    console().print(f"label {found.label}, GAUC by {found.group}, seed {found.seed}", markup=False)


def _row(file: FeatureFile, name: str, side: str, sizes: FeatureAssets | None) -> tuple[str, ...]:
    feature = file.feature(name)
    width = file.embedding_dimension
    vocabulary, rows, shared = "", None, False
    if isinstance(feature, Categorical):
        owner, resolved = file.resolve(name)
        width = resolved.dimension or width
        shared = owner != name
        vocabulary = f"shares {owner}" if shared else _vocabulary(resolved)
        known = resolved.vocabulary.type in ("hash", "identity") or sizes
        rows = _table_rows(file, name, sizes) if known else None
    elif isinstance(feature, Numeric):
        vocabulary = feature.transform
        rows = 2 if feature.transform != "bucketize" else None
        if feature.transform == "bucketize" and sizes:
            rows = sizes.table_rows(name)
    elif isinstance(feature, Frozen):
        vocabulary = f"{feature.vectors} by {feature.key}"
        rows = sizes.frozen_vectors(name).shape[1] if sizes else None
    elif isinstance(feature, EventTime):
        vocabulary, rows = "log-scaled age", 34
    kind = feature.kind + (f" x{feature.max_values}" if isinstance(feature, Categorical) and feature.max_values else "")
    parameters = "0 (shared)" if shared else "after analysis" if rows is None else f"{rows * width:,}"
    return name, side, kind, vocabulary, str(width), parameters


def _table_rows(file: FeatureFile, name: str, sizes: FeatureAssets | None) -> int:
    if sizes is not None:
        return sizes.table_rows(name)
    vocabulary = file.resolve(name)[1].vocabulary
    if isinstance(vocabulary, HashVocabulary):
        return vocabulary.buckets + 1
    assert isinstance(vocabulary, IdentityVocabulary)
    return vocabulary.size + 2


def _vocabulary(feature: Categorical) -> str:
    vocabulary = feature.vocabulary
    if vocabulary.type == "learned":
        return "learned" + (f", at least {vocabulary.min_count} times" if vocabulary.min_count > 1 else "")
    if vocabulary.type == "hash":
        return f"hash to {vocabulary.buckets}"
    return f"file {vocabulary.path}" if vocabulary.type == "file" else f"identity below {vocabulary.size}"
