"""`tfctr tune`: a search or a sweep over an experiment's keys."""

from pathlib import Path
from typing import Annotated

import typer

from tfctr.cli.quiet import import_tensorflow
from tfctr.cli.training import Data, Features
from tfctr.console import console, resumable
from tfctr.errors import UserError
from tfctr.features import load_feature_file
from tfctr.storage import local_directory


def tune(
    features: Features,
    data: Data,
    plan: Annotated[Path, typer.Option(help="the plan file (YAML): experiment, search, method", show_default=False)],
    out: Annotated[
        Path, typer.Option(parser=local_directory, help="the directory of the search; a killed one in it goes on")
    ],
) -> None:
    """Search the keys of an experiment for the best on the validation split."""
    file = load_feature_file(features)
    if out.exists() and not out.is_dir():
        raise UserError(f"{out}: is a file; --out names a directory")
    import_tensorflow()
    from tfctr.tuning import load_plan
    from tfctr.tuning import tune as search
    from tfctr.tuning.shown import table_of

    found = load_plan(plan)
    with resumable():
        ended = search(file, found, data, out, plan)
    console().print(table_of(ended))
    console().print(
        f"{out / 'best.yaml'}: the experiment of the best trial; "
        f"next: tfctr train --experiment {out / 'best.yaml'}, and tfctr report {out}"
    )
