"""The component that writes the page about a model on a cluster, where nobody has the artifacts at hand."""

# No `from __future__ import annotations`: TFX reads the annotations of a component function as objects.
from tfx import v1 as tfx

from pipeline.plain import report_models

_TYPES = tfx.types.standard_artifacts


@tfx.dsl.components.component
def Report(  # noqa: N802
    model: tfx.dsl.components.InputArtifact[_TYPES.Model],
    report: tfx.dsl.components.OutputArtifact[_TYPES.String],
    data: tfx.dsl.components.Parameter[str],
    slices: tfx.dsl.components.Parameter[str],
    data_version: tfx.dsl.components.Parameter[str],
    code: tfx.dsl.components.Parameter[str],
    baseline: tfx.dsl.components.InputArtifact[_TYPES.Model] = None,
) -> None:
    """Writes the page about the new model, beside the one that it was compared with.

    Args:
        model: The trained model.
        report: The page, one file.
        data: The data directory; its test split is scored.
        slices: Columns to slice by, by the names of the feature file: a list in JSON.
        data_version: Another one makes the page anew.
        code: A hash of the sources, so that others make it anew.
        baseline: The model that the Evaluator compared it with.
    """
    report_models(model, report, data, slices, baseline)
