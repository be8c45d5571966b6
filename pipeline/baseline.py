"""The model that a new one is compared with, where there is no ML Metadata to ask: the newest pushed version."""

# No `from __future__ import annotations`: TFX reads the annotations of a component function as objects.
from tfx import v1 as tfx

from pipeline.plain import write_baseline


@tfx.dsl.components.component
def Baseline(  # noqa: N802
    model: tfx.dsl.components.OutputArtifact[tfx.types.standard_artifacts.Model],
    destination: tfx.dsl.components.Parameter[str],
) -> None:
    """Copies the newest version under `destination`, which was blessed when it was pushed.

    It must not be cached: nothing that it is given changes when a version is pushed.

    Args:
        model: The copy. Custom properties tell: `pushed_version`, or `absent` 1 before the first push.
        destination: The directory a model server watches.
    """
    write_baseline(model, destination)
