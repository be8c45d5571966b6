"""`tfctr predict`: scores of a log, beside the keys of its rows."""

from pathlib import Path
from typing import Annotated

import typer

from tfctr.cli.quiet import import_tensorflow
from tfctr.console import console, resumable
from tfctr.storage import local_copy, local_directory


def predict(
    model: Annotated[
        str, typer.Option(help="a SavedModel directory (one version), here or in a store", show_default=False)
    ],
    data: Annotated[
        str,
        typer.Option(
            help="a directory, here or in a store, with files of a log, or one with train/, valid/, test/",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path, typer.Option(parser=local_directory, help="the Parquet file to write; a killed run of it is continued")
    ],
    keys: Annotated[str, typer.Option(help="columns to keep beside the score, joined by commas")] = "",
    split: Annotated[str, typer.Option(help="the folder to score, where --data has train/, valid/, test/")] = "test",
) -> None:
    """Score rows, labelled or not, through the signature that is served, and write them with their keys."""
    import_tensorflow()
    from tfctr.data.sources import files_of, split_files
    from tfctr.data.splits import SPLITS
    from tfctr.export.describe import describe
    from tfctr.storage import names
    from tfctr.training.scores import write_scores

    # A data directory may hold items.csv too, which is no log.
    parted = any(name in SPLITS for name in names(data))
    paths = (not parted and files_of(data)) or split_files(data, split)
    with local_copy(model) as directory, resumable():
        rows = write_scores(
            directory, describe(directory).feature_file, paths, out, [key for key in keys.split(",") if key]
        )
    console().print(f"{rows:,} rows scored: {out}")
