"""`tfctr data`: real and synthetic data sets in the layout that pipeline and training read."""

from pathlib import Path
from typing import Annotated, Any

import typer

from tfctr.console import console, resumable
from tfctr.data.build.datasets import dataset_names
from tfctr.data.prepare import Neutral, Options, prepare_movielens
from tfctr.data.prepare import prepare as prepare_dataset
from tfctr.data.splits import Shares, Split
from tfctr.data.synthesize import synthesize as write_synthetic
from tfctr.data.synthetic_world import Settings
from tfctr.errors import UserError
from tfctr.storage import local_directory

app = typer.Typer(help="Data sets: of a log, a public one, a synthetic one; and their check.", no_args_is_help=True)

OutOption = Annotated[
    Path, typer.Option("--out", parser=local_directory, help="Directory to make; it must be new or empty.")
]
ForceOption = Annotated[
    bool,
    typer.Option("--force", help="Replace the data set that stands at --out; with anything else in it, it is refused."),
]
HistoryOption = Annotated[int, typer.Option(min=1, help="Events kept in a history.")]


@app.command()
def prepare(
    context: typer.Context,
    dataset: Annotated[str, typer.Argument(help=f"Which data set: {', '.join(dataset_names())}.")],
    source: Annotated[Path, typer.Option(help="Directory with the publisher's files, plain or .gz.")],
    out: OutOption,
    history_length: HistoryOption = 50,
    neutral: Annotated[Neutral, typer.Option(help="Rows rated 3; they stay in histories.")] = "drop",
    split: Annotated[Split, typer.Option(help="How rows are split.")] = "user-time",
    shares: Annotated[str, typer.Option(help="Of train, valid and test.")] = "8:1:1",
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Of everything random.")] = 17,
    item_vectors: Annotated[
        Path | None, typer.Option(help="Item vectors, .npz or .npy with ids; text_vectors.npz of --source if there.")
    ] = None,
    rows: Annotated[int | None, typer.Option(min=1, help="Keep this many rows at most.")] = None,
    users: Annotated[int | None, typer.Option(min=1, help="Keep this many users at most.")] = None,
    history_ttl_seconds: Annotated[
        int, typer.Option(min=1, help="Rows have the histories of the user's first row in so many seconds.")
    ] = 1,
    force: ForceOption = False,
) -> None:
    """Writes a public data set as impressions.

    movielens-1m takes all options, a data set that is split at random takes --seed, and the others are split as
    published.
    """
    options = Options(history_length, neutral, split, _shares(shares), seed, rows, users, history_ttl_seconds)
    if dataset == "movielens-1m":
        manifest = prepare_movielens(source, out, options, item_vectors, force)
    else:
        # What is given is refused where it says nothing, also when it is what would be taken without it.
        sources = {name: context.get_parameter_source(name) for name in context.params}
        given = {name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"}
        if given - {"dataset", "source", "out", "force", "seed"}:
            raise UserError(
                f"{dataset} is written as published; of the options it takes --source, --out and --force, and --seed "
                "where it is split at random"
            )
        with resumable():
            manifest = prepare_dataset(dataset, source, out, force, seed if "seed" in given else None)
    _print_splits(manifest)
    console().print(f"Written to {out}")


@app.command()
def build(
    file: Annotated[Path, typer.Argument(help="The build file: what is an impression, a history, a label, a split.")],
    out: OutOption,
    source: Annotated[
        Path | None, typer.Option(help="Directory that the paths of the build file start from; else its own.")
    ] = None,
    force: ForceOption = False,
) -> None:
    """Makes impressions of an interaction log, and of tables of users and items; a killed run is continued."""
    from tfctr.data.build.local import build_dataset
    from tfctr.data.build.spec import load_build

    with resumable():
        manifest = build_dataset(load_build(file), source or file.parent, out, force)
    _print_splits(manifest)
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
    topics_of_genre: Annotated[int, typer.Option(min=1, help="Planted groups of items in each of 12 genres.")] = 4,
    unseen_users: Annotated[
        bool, typer.Option("--unseen-users", help="Give valid and test users of their own, instead of the last rows.")
    ] = False,
    candidates: Annotated[int, typer.Option(min=1, help="Candidates in a request, on average.")] = 8,
    force: ForceOption = False,
) -> None:
    """Writes synthetic impressions, and reports the best AUC and GAUC that any model can reach on them."""
    sizes = (rows, users, items, history_length, vector_width)
    settings = Settings(*sizes, seed, old_interest_after, topics_of_genre, unseen_users, candidates)
    manifest = write_synthetic(out, settings, force)
    _print_splits(manifest)
    for scorer in ("position_unknown", "position_known"):
        ceiling = manifest["ceilings"][scorer]
        values = "; ".join(f"{metric.upper()} {_ceiling(ceiling[metric])}" for metric in ("auc", "gauc"))
        console().print(f"best any model can reach on test, {scorer.replace('_', ' ')}: {values}")
    console().print(f"Written to {out}")


@app.command()
def check(
    directory: Annotated[str, typer.Argument(help="Directory, here or in a store, with train/, valid/ and test/.")],
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


def _shares(text: str) -> Shares:
    try:
        return Shares.of([int(one) for one in text.split(":")])
    except ValueError:
        raise UserError(f"--shares must be three positive whole numbers, as 7:2:1. Received: {text}") from None


def _print_splits(manifest: dict[str, Any]) -> None:
    for name, count in manifest["splits"].items():
        share = count["positives"] / count["rows"]
        users = f" of {count['users']:,} users" if "users" in count else ""
        console().print(f"{name}: {count['rows']:,} rows{users}, {share:.2%} positive")


def _ceiling(values: dict[str, float | None]) -> str:
    expected, deviation, drawn = (
        "undefined" if values[name] is None else f"{values[name]:.4f}"
        for name in ("expected", "standard_deviation", "drawn_labels")
    )
    return f"{expected} +- {deviation} expected, {drawn} on the labels drawn"
