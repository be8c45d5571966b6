"""Compiles the pipeline to a Kubeflow Pipelines v2 specification: `python -m pipeline.kubeflow_v2_runner --help`.

It is the pipeline of the local runner with other paths. **What it compiles was never run on a cluster.** Known from
reading and from others' reports: open-source Kubeflow sends artifacts without a `type`, on which TFX 1.21's container
entry point fails (TFX issue 7768); whether it runs the Resolver ("Baseline") and the cache check of ExampleGen is not
established. Vertex AI is what TFX wrote this runner for.

Every path must be readable from the containers: the feature file and the experiment travel inside the specification,
but vectors and vocabularies named in the feature file are read from `--data`, which must be mounted (Python opens
them).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.configs import BEAM_PLUGIN, PIPELINE_NAME, PipelineConfig, code_digests
from pipeline.errors import ends_in_words
from tfctr.console import console
from tfctr.errors import UserError
from tfctr.features.spec import load_feature_file


def compile_pipeline(config: PipelineConfig, image: str, target: str | Path) -> Path:
    """Writes the specification.

    Args:
        config: The pipeline; it needs a curated schema.
        image: Container image with this package and its `pipeline` extra.
        target: The file, .json (a PipelineJob) or .yaml (the bare specification).

    Raises:
        UserError: without a schema, or with a file name of neither kind.
    """
    from tfx import v1 as tfx

    from pipeline.pipeline import create_pipeline

    target = Path(target)
    if config.schema is None:
        raise UserError(
            "a compiled pipeline needs the curated schema; a local run writes one to OUT/schema/schema.pbtxt"
        )
    if target.suffix not in (".json", ".yaml"):
        raise UserError(f"{target}: must end in .json or .yaml")
    runner = tfx.orchestration.experimental.KubeflowV2DagRunner(
        config=tfx.orchestration.experimental.KubeflowV2DagRunnerConfig(
            display_name=PIPELINE_NAME, default_image=image, use_pipeline_spec_2_1=True
        ),
        output_dir=str(target.parent),
        output_filename=target.name,
    )
    runner.run(create_pipeline(config), write_out=True)
    return target


app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def main(
    data: Annotated[str, typer.Option(help="Data directory as the containers see it.")],
    features: Annotated[Path, typer.Option(help="The feature file, here.")],
    experiment: Annotated[Path, typer.Option(help="The experiment file, here.")],
    schema: Annotated[str, typer.Option(help="The curated schema as the containers see it.")],
    root: Annotated[str, typer.Option(help="Where artifacts go, for instance gs://bucket/tfctr.")],
    image: Annotated[str, typer.Option(help="Container image with this package.")],
    pushed: Annotated[str, typer.Option(help="The directory a model server watches; must be mounted.")],
    checkpoints: Annotated[str, typer.Option(help="Where training keeps checkpoints; must be mounted.")],
    data_version: Annotated[str, typer.Option(help="Any text; change it when files of --data changed.")] = "1",
    target: Annotated[Path, typer.Option(help="The specification to write, .json or .yaml.")] = Path("pipeline.yaml"),
) -> None:
    """Compile the pipeline for Kubeflow; unproven on a cluster, see the module's text."""
    from tfctr.training.experiment import load_experiment

    with ends_in_words():
        config = PipelineConfig(
            root=root,
            data=data,
            data_digest=data_version,
            code=code_digests(),
            features=load_feature_file(features),
            experiment=load_experiment(experiment),
            checkpoints=checkpoints,
            pushed=pushed,
            schema=schema,
            beam_args=(f"--beam_plugin={BEAM_PLUGIN}",),
        )
        written = compile_pipeline(config, image, target)
    console().print(f"written to {written}; unproven on a cluster", markup=False)


if __name__ == "__main__":
    app()
