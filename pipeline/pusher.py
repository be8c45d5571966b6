"""A Pusher by which a server that watches the directory never sees an incomplete version.

TFX's own copies file by file into the directory that the server watches.
"""

# No `from __future__ import annotations`: TFX reads the annotations of a component function as objects.
from tfx import v1 as tfx

from pipeline.plain import push_blessed

_TYPES = tfx.types.standard_artifacts


@tfx.dsl.components.component
def AtomicPusher(  # noqa: N802
    model: tfx.dsl.components.InputArtifact[_TYPES.Model],
    blessing: tfx.dsl.components.InputArtifact[_TYPES.ModelBlessing],
    evaluation: tfx.dsl.components.InputArtifact[_TYPES.ModelEvaluation],
    pushed_model: tfx.dsl.components.OutputArtifact[_TYPES.PushedModel],
    destination: tfx.dsl.components.Parameter[str],
) -> None:
    """Copies a blessed model to the next version of `destination`; otherwise says why not.

    Args:
        model: The trained model.
        blessing: The Evaluator's verdict.
        evaluation: What the Evaluator measured, for the reasons.
        pushed_model: Custom properties tell: `pushed` 0 or 1, `pushed_destination`, `pushed_version`, `message`.
        destination: The directory a model server watches.
    """
    push_blessed(model, blessing, evaluation, pushed_model, destination)
