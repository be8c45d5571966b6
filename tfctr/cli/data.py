"""`tfctr data`: real and synthetic data sets in the layout that pipeline and training read."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from tfctr.console import console
from tfctr.data.prepare import Neutral, Options, prepare_movielens
from tfctr.data.splits import Split
from tfctr.data.synthesize import synthesize as write_synthetic
from tfctr.data.synthetic_world import Settings

app = typer.Typer(help="Make data sets: prepare a public one, or synthesize one.", no_args_is_help=True)

OutOption = Annotated[Path, typer.Option("--out", help="Directory to make; it must be new or empty.")]
ForceOption = Annotated[bool, typer.Option("--force", help="Replace the data set that stands at --out.")]
HistoryOption = Annotated[int, typer.Option(min=1, help="Events kept in a history.")]


@app.command()
def prepare(
    dataset: Annotated[Literal["movielens-1m"], typer.Argument(help="Which data set.")],
    source: Annotated[Path, typer.Option(help="Directory with the publisher's files, plain or .gz.")],
    out: OutOption,
    history_length: HistoryOption = 50,
    neutral: Annotated[Neutral, typer.Option(help="Rows rated 3; they stay in histories.")] = "drop",
    split: Annotated[Split, typer.Option(help="How rows are split 8:1:1.")] = "user-time",
    seed: Annotated[int, typer.Option(min=0, help="Of everything random.")] = 17,
    item_vectors: Annotated[
        Path | None, typer.Option(help="Item vectors, .npz or .npy with ids; text_vectors.npz of --source if there.")
    ] = None,
    rows: Annotated[int | None, typer.Option(min=1, help="Keep this many rows at most.")] = None,
    users: Annotated[int | None, typer.Option(min=1, help="Keep this many users at most.")] = None,
    force: ForceOption = False,
) -> None:
    """Writes a public data set as impressions with histories."""
    del dataset  # There is one, and the argument keeps room for the next.
    options = Options(history_length, neutral, split, seed, rows, users)
    _print_splits(prepare_movielens(source, out, options, item_vectors, force))
    console().print(f"Written to {out}")


@app.command()
def synthesize(
    out: OutOption,
    rows: Annotated[int, typer.Option(min=1, help="Impressions to make.")] = 20_000,
    users: Annotated[int, typer.Option(min=1, help="Number of users.")] = 1_000,
    items: Annotated[int, typer.Option(min=1, help="Number of items.")] = 2_000,
    history_length: HistoryOption = 50,
    vector_width: Annotated[int, typer.Option(min=1, help="Width of the item vectors.")] = 64,
    seed: Annotated[int, typer.Option(min=0, help="Of everything random.")] = 17,
    old_interest_after: Annotated[
        int, typer.Option(min=0, help="Hide a user's first interest from the newest so many events; 0: hide nothing.")
    ] = 0,
    force: ForceOption = False,
) -> None:
    """Writes synthetic impressions, and reports the best AUC and GAUC that any model can reach on them."""
    settings = Settings(rows, users, items, history_length, vector_width, seed, old_interest_after)
    manifest = write_synthetic(out, settings, force)
    _print_splits(manifest)
    for scorer in ("position_unknown", "position_known"):
        ceiling = manifest["ceilings"][scorer]
        values = "; ".join(f"{metric.upper()} {_ceiling(ceiling[metric])}" for metric in ("auc", "gauc"))
        console().print(f"best any model can reach on test, {scorer.replace('_', ' ')}: {values}")
    console().print(f"Written to {out}")


@app.command()
def check(
    directory: Annotated[Path, typer.Argument(help="Directory with train/, valid/ and test/.")],
    features: Annotated[Path, typer.Option(help="The feature file.")],
    rows: Annotated[int | None, typer.Option(min=1, help="Read this many rows of each split at most.")] = None,
) -> None:
    """Checks impressions, your own too, against their feature file: columns, types, labels, histories, items."""
    from tfctr.data.check import check_dataset
    from tfctr.features import load_feature_file

    counts, unread = check_dataset(directory, load_feature_file(features), rows)
    if unread:
        console().print(f"Columns that the feature file does not name, which nothing reads: {', '.join(unread)}")
    read = ", ".join(f"{count:,} of {split}" for split, count in counts.items())
    console().print(f"No fault found in the rows read: {read}")


def _print_splits(manifest: dict[str, Any]) -> None:
    for name, count in manifest["splits"].items():
        share = count["positives"] / count["rows"]
        console().print(f"{name}: {count['rows']:,} rows of {count['users']:,} users, {share:.2%} positive")


def _ceiling(values: dict[str, float | None]) -> str:
    expected, deviation, drawn = (
        "undefined" if values[name] is None else f"{values[name]:.4f}"
        for name in ("expected", "standard_deviation", "drawn_labels")
    )
    return f"{expected} +- {deviation} expected, {drawn} on the labels drawn"
