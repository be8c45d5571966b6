"""What ExampleValidator found, in words; it needs neither TFX nor TensorFlow."""

from __future__ import annotations

from tensorflow_metadata.proto.v0 import anomalies_pb2

from pipeline.configs import SPLITS
from tfctr.errors import UserError
from tfctr.storage import join, read_bytes

#: Anomalies that stop no run: neither Transform nor training reads a column that the schema does not name.
_HARMLESS = frozenset({anomalies_pb2.AnomalyInfo.SCHEMA_NEW_COLUMN})


class AnomaliesFoundError(UserError):
    """The data does not conform to the schema."""


def describe(uri: str, splits: list[str]) -> list[str]:
    """One line an anomaly: which split, which column, what is wrong.

    Args:
        uri: Directory of the ExampleAnomalies artifact.
        splits: Names of its splits.
    """
    lines: list[str] = []
    for split in splits:
        content = read_bytes(join(uri, f"Split-{split}", "SchemaDiff.pb"))
        anomalies = anomalies_pb2.Anomalies.FromString(content)
        folder = SPLITS.get(split, split)
        if anomalies.HasField("dataset_anomaly_info"):
            lines.append(f"{folder}: {_sentence(anomalies.dataset_anomaly_info)}")
        for column, info in sorted(anomalies.anomaly_info.items()):
            if any(reason.type not in _HARMLESS for reason in info.reason):
                lines.append(f"{folder}/{column}: {_sentence(info)}")
    return lines


def _sentence(info: anomalies_pb2.AnomalyInfo) -> str:
    reasons = [f"{reason.short_description}: {reason.description}".strip(": ") for reason in info.reason]
    return "; ".join(dict.fromkeys(reasons)) or info.description or info.short_description
