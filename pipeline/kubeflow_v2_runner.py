"""Compiles the pipeline for a cluster: `python -m pipeline.kubeflow_v2_runner --platform kubeflow --help`.

It is the pipeline of the local runner with other paths, for one of two platforms that read different documents:

- `kubeflow`: open-source Kubeflow Pipelines 2. A YAML specification and, in a file of its own, what only Kubernetes has
  (secrets, volumes, tolerations). The baseline is the newest pushed version: Kubeflow runs none of TFX's Resolvers.
- `vertex`: Vertex AI. A PipelineJob in JSON, with TFX's Resolver.

Feature file, experiment or plan, and schema travel inside the document. `--data`, `--pushed` and `--checkpoints` are
paths or URIs as the containers see them.
"""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Annotated

import typer
import yaml

from pipeline.configs import BEAM_PLUGIN, PIPELINE_NAME, PipelineConfig, code_digests, trained_or_tuned
from pipeline.errors import ends_in_words
from pipeline.kubeflow_document import Document, Json, check_root, complete, offered
from pipeline.kubeflow_settings import Platform, Settings, load_settings
from tfctr.console import console, error_console
from tfctr.errors import UserError, disk_errors
from tfctr.features.spec import FeatureFile, load_feature_file
from tfctr.storage import write_text

ENTRY_POINT = ("python", "-m", "pipeline.kubeflow_entrypoint")
SUFFIXES: dict[Platform, str] = {"kubeflow": ".yaml", "vertex": ".json"}
_DIGEST = re.compile(r"[^\s@]+@sha256:[0-9a-f]{64}")


def compile_pipeline(
    config: PipelineConfig,
    image: str,
    target: str | Path,
    platform: Platform,
    settings: Settings | None = None,
    exit_handler: object | None = None,
) -> list[Path]:
    """Writes the document, and for Kubeflow beside it what only Kubernetes has.

    Args:
        config: The pipeline; it needs the text of a curated schema.
        image: Container image with this package and its `pipeline` extra.
        target: The file: .yaml for Kubeflow, .json for Vertex AI.
        platform: Where it will run.
        settings: What containers get.
        exit_handler: A component of TFX that runs when all others have ended, however they did.

    Returns:
        The files.

    Raises:
        UserError: without a schema, with a file name of the other kind, a root that the platform can't use, or settings
            that it does not have.
    """
    target, settings = Path(target), settings or Settings()
    if target.suffix != SUFFIXES[platform]:
        raise UserError(f"--target {target}: must end in {SUFFIXES[platform]} for {platform}")
    if config.schema_text is None:
        raise UserError(
            "a compiled pipeline needs the curated schema; a local run writes one to OUT/schema/schema.pbtxt"
        )
    check_root(config.root, platform)
    job = _compiled(config, image, exit_handler)
    values = {
        "data": config.data,
        "data_version": config.data_digest,
        "pushed": config.pushed,
        "checkpoints": config.checkpoints,
    }
    document = complete(job["pipelineSpec"], platform, settings, config.root, values)
    if not target.absolute().parent.is_dir():
        raise UserError(f"--target {target}: the directory {target.parent} doesn't exist; make it first")
    with disk_errors(target):
        return _write(document, job, target, platform)


def _write(document: Document, job: Json, target: Path, platform: Platform) -> list[Path]:
    if platform == "vertex":
        write_text(target, json.dumps({**job, "pipelineSpec": document.specification}, sort_keys=True, indent=1))
        return [target]
    write_text(target, yaml.safe_dump(document.specification))
    beside = target.with_suffix(".kubernetes.yaml")
    # A package for Kubeflow is one file of both documents: `cat` makes it.
    write_text(beside, f"---\n{yaml.safe_dump(document.kubernetes)}")
    return [target, beside]


def _compiled(config: PipelineConfig, image: str, exit_handler: object | None) -> Json:
    from tfx import v1 as tfx

    from pipeline.pipeline import create_pipeline

    orchestration = tfx.orchestration.experimental
    runner = orchestration.KubeflowV2DagRunner(
        config=orchestration.KubeflowV2DagRunnerConfig(
            display_name=PIPELINE_NAME,
            default_image=image,
            default_commands=list(ENTRY_POINT),
            use_pipeline_spec_2_1=True,
        )
    )
    if exit_handler is not None:
        runner.set_exit_handler(exit_handler)
    job: Json = runner.run(create_pipeline(config), write_out=False)
    return job


def schema_text(path: Path, file: FeatureFile) -> str:
    """The curated schema as a compiled pipeline carries it.

    Raises:
        UserError: when the file is no schema, or names another type for a column than the feature file.
    """
    from pipeline.schema import CuratedSchema, add_missing_columns, text_for_transform

    if not path.is_file():
        raise UserError(f"--schema {path}: no such file; a local run writes one to OUT/schema/schema.pbtxt")
    schema = CuratedSchema.load(path)
    add_missing_columns(schema, file)
    return text_for_transform(schema)


def check_image(image: str, tag_allowed: bool) -> str | None:
    """Returns a warning, if any, about an image whose name may come to mean another one.

    Raises:
        UserError: when it may, and that is not allowed.
    """
    if _DIGEST.fullmatch(image):
        return None
    reason = "a moved tag is served from the cache of the old image"
    if not tag_allowed:
        raise UserError(
            f"--image {image}: must end in a digest, name@sha256:...: {reason}; --allow-tag takes it anyway"
        )
    return f"--image {image} has no digest: {reason}"


def submission(platform: Platform, written: list[Path], root: str) -> str:
    """The commands that submit what was compiled."""
    if platform == "vertex":
        call = (
            f"aiplatform.PipelineJob(display_name={_quoted(PIPELINE_NAME)}, template_path={_quoted(written[0])}, "
            f"pipeline_root={_quoted(root)}, parameter_values={{}}).submit()"
        )
        return f"python -c {shlex.quote(f'from google.cloud import aiplatform; {call}')}"
    package = written[0].with_suffix(".package.yaml")
    arguments = f"{_quoted(package)}, arguments={{}}, pipeline_root={_quoted(root)}"
    joined = f"cat {shlex.join(map(str, written))} > {shlex.quote(str(package))}"
    return (
        f"{joined}\npython -c {shlex.quote(f'import kfp; kfp.Client().create_run_from_pipeline_package({arguments})')}"
    )


def _quoted(value: object) -> str:
    # In double quotes, since the shell's are single ones.
    return json.dumps(str(value))


app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def main(
    platform: Annotated[Platform, typer.Option(help="Where it will run.")],
    data: Annotated[str, typer.Option(help="Data directory as the containers see it.")],
    data_version: Annotated[
        str, typer.Option(help="A digest or the date of the data; another one makes examples anew.")
    ],
    features: Annotated[Path, typer.Option(help="The feature file, here.")],
    schema: Annotated[Path, typer.Option(help="The curated schema, here.")],
    root: Annotated[str, typer.Option(help="Where artifacts go, for instance s3://bucket/tfctr.")],
    image: Annotated[str, typer.Option(help="Container image with this package, name@sha256:...")],
    pushed: Annotated[str, typer.Option(help="The directory a model server watches, as the containers see it.")],
    checkpoints: Annotated[str, typer.Option(help="Where training keeps checkpoints, as the containers see it.")],
    experiment: Annotated[Path | None, typer.Option(help="The experiment file, here.")] = None,
    plan: Annotated[
        Path | None,
        typer.Option(help="Instead of it, a plan file: its best experiment is searched, then trained."),
    ] = None,
    settings: Annotated[Path | None, typer.Option(help="What containers get: configs/kubeflow.yaml is one.")] = None,
    allow_tag: Annotated[bool, typer.Option("--allow-tag", help="Take an image without a digest.")] = False,
    target: Annotated[Path | None, typer.Option(help="The file to write.")] = None,
) -> None:
    """Compile the pipeline for Kubeflow or Vertex AI, and print the command that submits it."""
    with ends_in_words():
        warning = check_image(image, allow_tag)
        check_root(root, platform)
        trained, tuning = trained_or_tuned(experiment, plan)
        file = load_feature_file(features)
        config = PipelineConfig(
            root=root,
            data=data,
            data_digest=data_version,
            code=code_digests(),
            features=file,
            experiment=trained,
            checkpoints=checkpoints,
            pushed=pushed,
            schema_text=schema_text(schema, file),
            baseline_is_pushed=platform == "kubeflow",
            report=True,
            tuning=tuning,
            # Beam's workers run in this image too; and TFX, which is told of an image, does not pack its own source.
            beam_args=(f"--beam_plugin={BEAM_PLUGIN}", f"--sdk_container_image={image}"),
        )
        given = load_settings(settings) if settings else Settings()
        written = compile_pipeline(config, image, target or Path(f"pipeline{SUFFIXES[platform]}"), platform, given)
    if warning:
        error_console().print(f"warning: {warning}", markup=False, highlight=False)
    anew = ", ".join(offered(given, platform)) or "nothing"
    say = console()
    say.print(f"written: {', '.join(map(str, written))}; a run may give anew: {anew}", markup=False, highlight=False)
    say.print("submit with:", markup=False)
    typer.echo(submission(platform, written, root))


if __name__ == "__main__":
    app()
