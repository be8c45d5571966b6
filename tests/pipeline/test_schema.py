"""With the curated schema, normal changes from day to day pass, and wrong data is an anomaly."""

from pathlib import Path

import pytest
import tensorflow as tf
from tensorflow_metadata.proto.v0 import anomalies_pb2, schema_pb2
from tfx import v1 as tfx  # noqa: F401  must come before TFDV, because it stands in for a module that TFDV needs
from tfx_bsl.coders.example_coder import ExamplesToRecordBatchDecoder

import tensorflow_data_validation as tfdv  # isort: skip
from tensorflow_data_validation.statistics import stats_impl  # isort: skip
from pipeline import anomalies as found_anomalies
from pipeline.schema import CuratedSchema, add_missing_columns, curate
from tests.pipeline.logs import FEATURES
from tfctr.errors import UserError
from tfctr.features.spec import FeatureFile, load_feature_file


@pytest.fixture
def file(tmp_path: Path) -> FeatureFile:
    (tmp_path / "features.yaml").write_text(FEATURES, encoding="utf-8")
    return load_feature_file(tmp_path / "features.yaml")


def example(**changes: object) -> tf.train.Example:
    columns: dict[str, object] = {
        "user_id": 1,
        "gender": "F",
        "age": 30,
        "item_id": 7,
        "genres": "a|b",
        "year": 1999,
        "position": 2,
        "history_item_id": [3, 4],
        "history_genres": ["a", "b|c"],
        "history_time": [20, 10],
        "timestamp": 100,
        "request_id": "r1",
        "user_activity": "high",
        "item_popularity": "head",
        "hour": "13",
        "label": 1,
    }
    columns |= changes
    made = tf.train.Example()
    for name, value in columns.items():
        if value is None:
            continue
        values = value if isinstance(value, list) else [value]
        feature = made.features.feature[name]
        if not values:
            continue
        if isinstance(values[0], str):
            feature.bytes_list.value.extend(v.encode() for v in values)
        else:
            feature.int64_list.value.extend(values)
    return made


def log(count: int = 40, **changes: object) -> list[tf.train.Example]:
    return [
        example(
            **{"user_id": row, "request_id": f"r{row}", "label": row % 2, "gender": "FM"[row % 2], "hour": f"{row % 3}"}
            | {name: value(row) if callable(value) else value for name, value in changes.items()}
        )
        for row in range(count)
    ]


def statistics(examples: list[tf.train.Example]) -> object:
    """The statistics that StatisticsGen computes, without Beam, which takes some seconds for any data."""
    batch = ExamplesToRecordBatchDecoder().DecodeBatch([entry.SerializeToString() for entry in examples])
    return stats_impl.generate_statistics_in_memory(batch)


def anomalies(examples: list[tf.train.Example], schema: schema_pb2.Schema, directory: Path) -> list[str]:
    found = tfdv.validate_statistics(statistics(examples), schema)
    uri = directory / "anomalies"
    (uri / "Split-eval").mkdir(parents=True, exist_ok=True)
    (uri / "Split-eval" / "SchemaDiff.pb").write_bytes(found.SerializeToString())
    return found_anomalies.describe(str(uri), ["eval"])


@pytest.fixture
def schema(file: FeatureFile) -> schema_pb2.Schema:
    return curate(tfdv.infer_schema(statistics(log()), infer_feature_shape=False), file)


def test_the_log_it_came_from_passes(schema: schema_pb2.Schema, tmp_path: Path) -> None:
    assert anomalies(log(), schema, tmp_path) == []


@pytest.mark.parametrize(
    "change",
    [
        {"user_id": lambda row: 10_000 + row},
        {"item_id": lambda row: 10_000 + row},
        {"request_id": lambda row: f"unseen{row}"},
        {"genres": lambda row: "z|y"},
        {"history_genres": lambda row: ["z"]},
        {"history_item_id": [], "history_genres": [], "history_time": []},
        {"gender": lambda row: "X" if row == 0 else "F"},
        {"new_column": 5},
        # `tfctr data check` allows these, and names a history whose columns differ in length.
        {"position": None},
        {"history_item_id": None, "history_genres": None, "history_time": None},
        {"timestamp": lambda row: 10**9 + row},
    ],
    ids=lambda change: next(iter(change)),
)
def test_daily_business_passes(change: dict[str, object], schema: schema_pb2.Schema, tmp_path: Path) -> None:
    assert anomalies(log()[:20] + log(**change)[:20], schema, tmp_path) == []


def test_a_column_that_nothing_reads_may_go(file: FeatureFile, tmp_path: Path) -> None:
    known = curate(tfdv.infer_schema(statistics(log(colour="red", size=3)), infer_feature_shape=False), file)
    assert {"colour", "size"} <= {feature.name for feature in known.feature}
    assert anomalies(log(colour="red", size=3), known, tmp_path / "with") == []
    assert anomalies(log(), known, tmp_path / "without") == []


@pytest.mark.parametrize(
    ("change", "column", "words"),
    [
        ({"item_id": None}, "item_id", "Column dropped"),
        ({"item_id": "seven"}, "item_id", "Expected data of type: INT but got STRING"),
        ({"label": lambda row: 2 if row == 3 else row % 2}, "label", "2"),
        ({"label": lambda row: None if row == 3 else row % 2}, "label", "present in fewer examples"),
        ({"gender": lambda row: "X"}, "gender", "X"),
    ],
    ids=["dropped", "type", "label value", "label missing", "other values"],
)
def test_what_is_wrong_is_said(
    change: dict[str, object], column: str, words: str, schema: schema_pb2.Schema, tmp_path: Path
) -> None:
    found = anomalies(log(**change), schema, tmp_path)

    assert [line.split(":")[0] for line in found] == [f"valid/{column}"]
    assert words in found[0]


def test_a_first_log_is_held_to_the_feature_file(file: FeatureFile, tmp_path: Path) -> None:
    wrong = log(item_id="seven", year=None)
    inferred = tfdv.infer_schema(statistics(wrong), infer_feature_shape=False)

    found = anomalies(wrong, curate(inferred, file), tmp_path)

    assert [line.split(":")[0] for line in found] == ["valid/item_id", "valid/year"]


def test_curating_leaves_the_inferred_schema_alone(file: FeatureFile) -> None:
    inferred = tfdv.infer_schema(statistics(log()), infer_feature_shape=False)
    before = inferred.SerializeToString(deterministic=True)

    curate(inferred, file)

    assert inferred.SerializeToString(deterministic=True) == before


def test_frozen_copies_are_named_by_content(schema: schema_pb2.Schema, tmp_path: Path) -> None:
    curated = CuratedSchema(tmp_path / "out")
    first = curated.freeze(schema)
    assert curated.freeze(schema) == first

    schema.feature[0].presence.min_fraction = 0.5
    assert curated.freeze(schema) != first


def test_a_schema_that_cannot_be_read_is_one_error(tmp_path: Path) -> None:
    curated = CuratedSchema(tmp_path)
    curated.path.parent.mkdir(parents=True)
    curated.path.write_text("feature { nonsense", encoding="utf-8")

    with pytest.raises(UserError, match=r"schema.pbtxt: not a schema"):
        curated.read()


def test_a_new_feature_joins_an_old_schema(file: FeatureFile, schema: schema_pb2.Schema) -> None:
    del schema.feature[[feature.name for feature in schema.feature].index("year")]

    add_missing_columns(schema, file)

    added = next(feature for feature in schema.feature if feature.name == "year")
    assert added.type == schema_pb2.INT


def test_a_schema_and_a_feature_file_that_disagree(file: FeatureFile, schema: schema_pb2.Schema) -> None:
    next(feature for feature in schema.feature if feature.name == "year").type = schema_pb2.BYTES

    with pytest.raises(UserError, match="column 'year': the schema says BYTES and the feature file INT"):
        add_missing_columns(schema, file)


def test_dataset_anomalies_are_told(tmp_path: Path) -> None:
    found = anomalies_pb2.Anomalies()
    found.dataset_anomaly_info.description = "too few examples"
    (tmp_path / "Split-train").mkdir()
    (tmp_path / "Split-train" / "SchemaDiff.pb").write_bytes(found.SerializeToString())

    assert found_anomalies.describe(str(tmp_path), ["train"]) == ["train: too few examples"]


def test_a_weight_may_be_missing_and_a_meta_group_is_a_string(file: FeatureFile, tmp_path: Path) -> None:
    content = {**file.model_dump(mode="json", exclude_unset=True), "weight": "importance", "group": "session"}
    weighted = FeatureFile.model_validate({**content, "meta": [*file.meta, "session"]})
    rows = log(session=lambda row: f"s{row}", importance=1)
    for row in rows:
        row.features.feature["importance"].float_list.value.append(1.0)
    schema = curate(tfdv.infer_schema(statistics(rows), infer_feature_shape=False), weighted)
    assert anomalies(rows, schema, tmp_path) == []
    del rows[0].features.feature["importance"]
    assert anomalies(rows, schema, tmp_path) == []
    for row in rows:
        row.features.feature["session"].int64_list.value.append(1)
    assert anomalies(rows, schema, tmp_path)[0].startswith("valid/session: ")
    # A log without them teaches their types all the same.
    bare = curate(tfdv.infer_schema(statistics(log()), infer_feature_shape=False), weighted)
    types = {feature.name: feature.type for feature in bare.feature}
    assert (types["importance"], types["session"]) == (schema_pb2.FLOAT, schema_pb2.BYTES)
