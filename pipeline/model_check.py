"""The check between Trainer and Evaluator: a model that a model server could not load and ask is never pushed.

TFX's InfraValidator starts a model server, for which it needs a container engine. This needs a process.
"""

# No `from __future__ import annotations`: TFX reads the annotations of a component function as objects.
from tfx import v1 as tfx

from pipeline.plain import check_servable
from pipeline.servable import GIBIBYTES, SECONDS

_TYPES = tfx.types.standard_artifacts


@tfx.dsl.components.component
def ModelCheck(  # noqa: N802
    model: tfx.dsl.components.InputArtifact[_TYPES.Model],
    verdict: tfx.dsl.components.OutputArtifact[_TYPES.String],
    code: tfx.dsl.components.Parameter[str],
    seconds: tfx.dsl.components.Parameter[int] = SECONDS,
    gibibytes: tfx.dsl.components.Parameter[int] = GIBIBYTES,
) -> None:
    """Fails when a process without keras and tfctr can't load the model and get answers from every signature.

    Args:
        model: The trained model.
        verdict: A text; it exists only when the model may go on.
        code: A hash of the check's source, so that another check asks models again.
        seconds: How long loading and asking may take.
        gibibytes: The memory it may take beside three times the size of the model's files.
    """
    check_servable(model, verdict, code, seconds, gibibytes)
