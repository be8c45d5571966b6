"""The schema: inferred once, completed with what the feature file says, and then for the user to edit."""

from __future__ import annotations

import hashlib
from pathlib import Path

from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2

from tfctr.errors import UserError
from tfctr.features.inputs import columns
from tfctr.features.row_checks import column_rules
from tfctr.features.spec import FeatureFile
from tfctr.storage import write_text

#: The least share of known values in a column whose values are listed in the schema.
_MIN_KNOWN_SHARE = 0.9
_TYPES = {"int64": schema_pb2.INT, "string": schema_pb2.BYTES, "float32": schema_pb2.FLOAT}


def curate(schema: schema_pb2.Schema, file: FeatureFile) -> schema_pb2.Schema:
    """Returns the schema that later runs are held to.

    - Every column that the feature file reads must be there, in the file's type. Bias columns, the weight and histories
      may be absent.
    - The label is 0 or 1, in every row. A weight may be missing, which is 1.
    - Identifiers and joined values ("A|B") get no list of allowed values: new ones are daily business and become OOV.
    - Other strings of few values keep their list, and up to a tenth of the rows may have others.

    Args:
        schema: What SchemaGen inferred.
        file: The feature file.
    """
    curated = schema_pb2.Schema()
    curated.CopyFrom(schema)
    types = column_types(file)
    for feature in curated.feature:
        feature.type = types.get(feature.name, feature.type)
    add_missing_columns(curated, file)
    free = _without_domain(file)
    histories = {spec.logged for spec in columns(file) if spec.shape}
    # What nothing reads may go, too: another format of the same log has only the columns that the feature file names.
    needed = {rule.column for rule in column_rules(file).values() if rule.everywhere}
    for feature in curated.feature:
        domain = feature.WhichOneof("domain_info")
        if domain is not None and (feature.name in free or feature.type != schema_pb2.BYTES):
            feature.ClearField(domain)
        elif domain in ("domain", "string_domain"):
            feature.distribution_constraints.min_domain_mass = _MIN_KNOWN_SHARE
        if feature.name not in needed:
            feature.ClearField("presence")
        if feature.name in histories:
            feature.ClearField("value_count")
        elif feature.HasField("value_count"):
            feature.value_count.min = 0  # an empty list is a missing value
        if feature.name in file.labels.columns:
            feature.int_domain.min, feature.int_domain.max = min(file.labels.values), max(file.labels.values)
            feature.presence.min_fraction = 1.0
    used = {feature.domain for feature in curated.feature if feature.WhichOneof("domain_info") == "domain"}
    for index in reversed(range(len(curated.string_domain))):
        if curated.string_domain[index].name not in used:
            del curated.string_domain[index]
    return curated


def column_types(file: FeatureFile) -> dict[str, int]:
    """The type of every column of the log that the feature file names."""
    return {rule.column: _TYPES[rule.dtype] for rule in column_rules(file).values()}


def add_missing_columns(schema: schema_pb2.Schema, file: FeatureFile) -> None:
    """Adds the columns that the feature file reads and the schema does not know.

    Raises:
        UserError: when the two name different types for a column.
    """
    known = {feature.name: feature for feature in schema.feature}
    everywhere = {rule.column for rule in column_rules(file).values() if rule.everywhere}
    for name, kind in column_types(file).items():
        if name not in known:
            feature = schema.feature.add(name=name, type=kind)
            if name in everywhere:
                feature.presence.min_count = 1
        elif known[name].type != kind:
            theirs, ours = (schema_pb2.FeatureType.Name(value) for value in (known[name].type, kind))
            raise UserError(f"column '{name}': the schema says {theirs} and the feature file {ours}; make them agree")


def _without_domain(file: FeatureFile) -> set[str]:
    """The columns in which a new value is no anomaly."""
    free = {column for column in (file.group, file.request, *file.meta) if column is not None}
    normal = [feature for feature in file.features if feature.kind.new_values_are_normal(feature)]
    return {file.column_of(name) for name in free | {spec.name for f in normal for spec in f.kind.columns(f)}}


def text_for_transform(schema: schema_pb2.Schema) -> str:
    """The schema as text, without shapes: with one, Transform would see dense tensors and fail on a missing value."""
    shapeless = schema_pb2.Schema()
    shapeless.CopyFrom(schema)
    for feature in shapeless.feature:
        feature.ClearField("shape")
    return str(text_format.MessageToString(shapeless))


class CuratedSchema:
    """The schema file of a run's output directory.

    Args:
        out: The output directory.
    """

    def __init__(self, out: Path) -> None:
        self.path = out / "schema" / "schema.pbtxt"
        self._versions = out / "schema" / "versions"

    def exists(self) -> bool:
        """Whether an earlier run wrote it."""
        return self.path.exists()

    def read(self) -> schema_pb2.Schema:
        """The schema, maybe edited by hand.

        Raises:
            UserError: when it is no schema any more.
        """
        return self.load(self.path)

    @staticmethod
    def load(path: Path) -> schema_pb2.Schema:
        """Reads a schema file.

        Raises:
            UserError: when it is none.
        """
        try:
            return text_format.Parse(path.read_text(encoding="utf-8"), schema_pb2.Schema())
        except (text_format.ParseError, UnicodeDecodeError) as error:
            raise UserError(f"{path}: not a schema: {error}. Mend it, or delete it to have it inferred") from None

    def freeze(self, schema: schema_pb2.Schema) -> str:
        """Writes a copy named by its content: ImportSchemaGen caches by name and would miss an edit."""
        text = text_for_transform(schema)
        path = self._versions / hashlib.sha256(text.encode()).hexdigest()[:16] / "schema.pbtxt"
        if not path.exists():
            write_text(path, text)
        return str(path)

    def adopt(self, schema: schema_pb2.Schema) -> None:
        """Makes a schema the one that later runs import."""
        write_text(self.path, text_format.MessageToString(schema))
