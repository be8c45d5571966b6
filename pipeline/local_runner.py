"""Runs the pipeline on this machine: `python -m pipeline.local_runner --data DIR --features FILE ...`."""

from __future__ import annotations

import hashlib
import time
import traceback
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from pipeline.configs import SPLITS, PipelineConfig, beam_args, check_one, code_digests, trained_or_tuned
from pipeline.errors import ends_in_words, for_people
from pipeline.progress import Progress, quiet
from tfctr import MODEL_NAME
from tfctr.data.sources import split_files
from tfctr.errors import UserError
from tfctr.features.assets import given_files
from tfctr.features.spec import FeatureFile, load_feature_file
from tfctr.storage import exists, join, local_copy, local_directory, only_one, whole_place

REFUSED = 3
_WORKERS_HAVE_TFX = "--sdk_container_image=this_machine"
"""Else TFX packs its own source for every component, which costs seconds. No image is read on this machine."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        pushed: Whether the model stands in the served directory.
        message: Which version, or which slice and metric said no.
        evaluation: Directory of the evaluation.
        metrics: A line with the metrics of all test rows, beside those of the blessed model.
        report: The page about the model; None if it could not be written.
    """

    pushed: bool
    message: str
    evaluation: str
    metrics: str
    report: Path | None


class OutputLayout:
    """The paths below the output directory.

    Args:
        out: The output directory.
    """

    def __init__(self, out: str | Path) -> None:
        self.out = Path(out).resolve()
        self.artifacts = self.out / "artifacts"
        self.metadata = self.out / "metadata.sqlite"
        self.checkpoints = self.out / "checkpoints"
        self.serving = self.out / "serving" / MODEL_NAME
        self.logs = self.out / "logs"


def run(
    data: str | Path,
    features: Path,
    experiment: Path | None,
    out: Path,
    workers: int = 1,
    cache: bool = True,
    page: bool = True,
    plan: Path | None = None,
) -> Outcome:
    """Runs the pipeline once.

    Args:
        data: Directory with train/, valid/ and test/, here or in a store.
        features: The feature file.
        experiment: The experiment file; None where a plan has it.
        out: Output directory; runs on the same one share what is cached.
        workers: Beam worker processes.
        cache: Whether to serve unchanged components from earlier runs.
        page: Whether to write the report, for which one process scores the test split with both models.
        plan: A plan file: a Tuner searches, and the Trainer trains the best experiment.

    Raises:
        UserError: bad arguments, data that `tfctr data check` refuses too, or that does not fit the schema.
    """
    started = time.monotonic()
    check_one(experiment, plan)
    data = whole_place(data)
    for place in (data, whole_place(out)):
        if set("*?[]") & set(place):
            raise UserError(f"{place}: TFX takes a path with one of * ? [ ] for a pattern; rename it")
    file = load_feature_file(features)
    for folder in SPLITS.values():
        split_files(data, folder)
    digest = digest_of_files(file, data)
    layout = OutputLayout(out)
    layout.out.mkdir(parents=True, exist_ok=True)
    log = layout.logs / f"{datetime.now():%Y%m%d-%H%M%S}.log"
    # Two runs on one directory would use the same checkpoints.
    with only_one(layout.out, layout.out / ".lock"), quiet(log) as progress:
        progress.say(f"starting; TensorFlow's and TFX's log: {log}")
        from pipeline.pipeline import create_pipeline
        from tfctr.training.cluster import refuse_several
        from tfctr.training.devices import check_devices
        from tfctr.training.splits import check_split_once

        refuse_several("the pipeline")
        trained, tuning = trained_or_tuned(experiment, plan)
        config = PipelineConfig(
            root=str(layout.artifacts),
            data=data,
            data_digest=digest,
            code=code_digests(),
            features=file,
            experiment=trained,
            checkpoints=str(layout.checkpoints),
            pushed=str(layout.serving),
            metadata=str(layout.metadata),
            beam_args=(*beam_args(workers), _WORKERS_HAVE_TFX),
            tuning=tuning,
            cache=cache,
        )
        # The Trainer runs on this machine, but only after all rows were read.
        check_devices(config.experiment.training)
        create_pipeline(config)  # what an experiment can't ask of this feature file is told before the data is read
        for folder in SPLITS.values():
            check_split_once(file, config.data, folder, layout.checkpoints)
        try:
            outcome = _run(config, layout, progress, page)
        except BaseException as error:
            traceback.print_exc()
            raise for_people(error, log) from error
        progress.table(time.monotonic() - started)
        progress.say(outcome.message)
        progress.say(outcome.metrics)
        progress.say(f"Evaluator's result, for TFMA: {outcome.evaluation}")
        if outcome.report is not None:
            progress.say(f"report: {outcome.report}")
    return outcome


def _run(config: PipelineConfig, layout: OutputLayout, progress: Progress, page: bool) -> Outcome:
    from absl import logging as absl_logging

    absl_logging.set_verbosity(absl_logging.INFO)
    absl_logging.use_absl_handler()
    from pipeline.execution import execute
    from pipeline.pipeline import create_pipeline
    from pipeline.report import overall_line
    from pipeline.schema import CuratedSchema, add_missing_columns, curate
    from pipeline.store import Store, text_property

    curated = CuratedSchema(layout.out)
    if curated.exists():
        schema = curated.read()
        add_missing_columns(schema, config.features)
    else:
        execute(create_pipeline(config), progress)
        latest = Store(layout.metadata).latest("SchemaGen")
        assert latest is not None
        schema = curate(CuratedSchema.load(Path(latest["schema"].uri) / "schema.pbtxt"), config.features)
    execute(create_pipeline(replace(config, schema=curated.freeze(schema))), progress)
    if not curated.exists():
        curated.adopt(schema)
        progress.say(f"schema inferred; later runs are held to {curated.path}")
    store = Store(layout.metadata)
    pushed, evaluation = store.latest("Pusher"), store.latest("Evaluator")
    assert pushed is not None
    assert evaluation is not None
    artifact = pushed["pushed_model"]
    return Outcome(
        pushed=artifact.custom_properties["pushed"].int_value == 1,
        message=text_property(artifact, "message"),
        evaluation=evaluation["evaluation"].uri,
        metrics=overall_line(evaluation["evaluation"].uri),
        report=_report(config, layout, progress) if page else None,
    )


def _report(config: PipelineConfig, layout: OutputLayout, progress: Progress) -> Path | None:
    """Write the page about the model; None where that fails, since the model is judged and pushed all the same."""
    from pipeline.pipeline import sliced_features
    from pipeline.report import write_report
    from pipeline.store import Store

    times = {name: seconds for name, _, seconds in progress.times}
    progress.start("Report")
    try:
        written = write_report(Store(layout.metadata), layout.out, config.data, sliced_features(config), times)
    except Exception as error:
        traceback.print_exc()
        progress.finish("Report", "FAILED")
        progress.say(f"no report: {type(error).__name__}: {error}")
        return None
    progress.finish("Report", "done")
    return written


def digest_of_files(file: FeatureFile, data: str | Path) -> str:
    """A hash of the files that the feature file names: vectors and vocabularies."""
    digest = hashlib.sha256()
    for name in given_files(file):
        if not exists(place := join(data, name)):
            raise UserError(f"{place}: no such file, but the feature file names it")
        with local_copy(place) as path, path.open("rb") as content:
            digest.update(hashlib.file_digest(content, "sha256").digest())
    return digest.hexdigest()


app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def main(
    data: Annotated[
        str, typer.Option(help="Directory with train/, valid/ and test/ (Parquet, CSV, TFRecord), here or in a store.")
    ],
    features: Annotated[Path, typer.Option(help="The feature file.")],
    out: Annotated[
        Path, typer.Option(parser=local_directory, help="Output directory; runs on the same one share what is cached.")
    ],
    experiment: Annotated[Path | None, typer.Option(help="The experiment file.")] = None,
    plan: Annotated[
        Path | None, typer.Option(help="Instead of it, a plan file: its best experiment is searched, then trained.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Beam worker processes.")] = 1,
    cache: Annotated[bool, typer.Option(help="Serve unchanged components from earlier runs.")] = True,
    page: Annotated[
        bool, typer.Option("--report/--no-report", help="Write OUT/report.html; it scores the test split once more.")
    ] = True,
) -> None:
    """Run the pipeline on data and push the model if it is blessed; otherwise print why it is not.

    Exit status: 0 pushed, 1 stopped (anomalous data, a failed component), 2 bad arguments or data that
    `tfctr data check` refuses, 3 the model was refused.
    """
    with ends_in_words():
        outcome = run(data, features, experiment, out, workers, cache, page, plan)
    typer.echo(f"its metrics by slice: python -m pipeline.show {out}")
    if not outcome.pushed:
        raise typer.Exit(REFUSED)


if __name__ == "__main__":
    app()
