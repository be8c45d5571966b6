"""The curated schema, carried by content: a compiled pipeline needs no mount for it, and the cache sees an edit."""

# No `from __future__ import annotations`: TFX reads the annotations of a component function as objects.
from tfx import v1 as tfx

from pipeline.plain import write_schema


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
    write_schema(schema, text)
