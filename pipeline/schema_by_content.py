"""The curated schema, carried by content: a compiled pipeline needs no mount for it, and the cache sees an edit."""

# No `from __future__ import annotations`: TFX reads the annotations of a component function as objects.
import os

from tfx import v1 as tfx
from tfx.dsl.io import fileio

from pipeline.plain import SCHEMA_FILE


@tfx.dsl.components.component
def CuratedSchema(  # noqa: N802
    schema: tfx.dsl.components.OutputArtifact[tfx.types.standard_artifacts.Schema],
    text: tfx.dsl.components.Parameter[str],
) -> None:
    """Writes a schema.

    Args:
        schema: The schema.
        text: Its content.
    """
    # TFX's way to files, since on Vertex AI the artifact lies in a bucket.
    with fileio.open(os.path.join(schema.uri, SCHEMA_FILE), "w") as file:
        file.write(text)
