"""The gate after ExampleValidator: TFX only records that data is anomalous, and this component stops the run."""

# No `from __future__ import annotations`: TFX reads the annotations of a component function as objects.
from tfx import v1 as tfx

from pipeline.plain import check_anomalies

_TYPES = tfx.types.standard_artifacts


@tfx.dsl.components.component
def AnomalyGate(  # noqa: N802
    anomalies: tfx.dsl.components.InputArtifact[_TYPES.ExampleAnomalies],
    verdict: tfx.dsl.components.OutputArtifact[_TYPES.String],
) -> None:
    """Fails when the data has an anomaly, with every anomaly in words.

    Args:
        anomalies: What ExampleValidator found.
        verdict: A text; it exists only when the run may go on.
    """
    check_anomalies(anomalies, verdict)
