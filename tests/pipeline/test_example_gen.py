"""ExampleGen makes the same examples of every format, and knows when it must make them again."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import apache_beam as beam
import pytest
from tfx import v1 as tfx  # noqa: F401  before the component, which it must be imported with

from pipeline.configs import SOURCES, SPLITS, code_digests
from pipeline.example_gen import LogExecutor, log_example_gen
from tests.pipeline.logs import FEATURES, ROOT, in_another_format, read_log, rewrite_log, write_features, write_log
from tfctr.data.sources import tfrecord
from tfctr.features.row_checks import column_rules
from tfctr.features.spec import FeatureFile, load_feature_file

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_features(tmp_path_factory.mktemp("features") / "features.yaml")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_log(tmp_path_factory.mktemp("examples") / "data", rows=300)


def properties(data: Path, file: FeatureFile, code: str = "1") -> dict[str, Any]:
    found: dict[str, Any] = log_example_gen(str(data), file, SPLITS, code).exec_properties
    return found


def examples(data: Path, file: FeatureFile, split: str) -> list[dict[str, list[Any]]]:
    """What the executor makes of a split: values by column, of every row."""
    transform = LogExecutor().GetInputSourceToExamplePTransform()
    with TemporaryDirectory() as directory:
        with beam.Pipeline() as pipeline:
            found = pipeline | transform(exec_properties=properties(data, file), split_pattern=f"{split}/*")
            found | beam.io.WriteToTFRecord(f"{directory}/examples", num_shards=1)
        made = [row for path in Path(directory).iterdir() for row in read_log([path])]
    columns = []
    for row in made:
        content = row.features.feature.items()
        lists = {name: getattr(feature, feature.WhichOneof("kind")).value for name, feature in content}
        columns.append({name: list(values) for name, values in lists.items() if len(values)})
    return sorted(columns, key=lambda row: (row["request_id"], row["item_id"], row["position"]))


@pytest.mark.parametrize("name", ["a.parquet", "a.csv", "a.csv.gz"])
def test_every_format_makes_the_same_examples(data: Path, features: Path, tmp_path: Path, name: str) -> None:
    file = load_feature_file(features)
    other = in_another_format(rewrite_log(data, tmp_path / "other", lambda split, rows: None), features, name)
    for split in ("train", "test"):
        expected, found = examples(data, file, split), examples(other, file, split)
        assert len(expected) > 20
        # A table is read for the columns that the feature file names; a tf.Example stays as it is.
        named = {rule.column for rule in column_rules(file).values()}
        assert found == [{name: values for name, values in row.items() if name in named} for row in expected]
        assert found[0].keys() >= {
            "label",
            "user_id",
            "item_id",
            "genres",
            "history_genres",
            "history_time",
            "position",
        }


def test_a_log_of_several_files(data: Path, features: Path, tmp_path: Path) -> None:
    file = load_feature_file(features)
    other = in_another_format(rewrite_log(data, tmp_path / "other", lambda split, rows: None), features, "a.parquet")
    (other / "train" / "b.parquet").write_bytes((other / "train" / "a.parquet").read_bytes())
    (other / "train" / "_SUCCESS").touch()
    assert len(examples(other, file, "train")) == 2 * len(examples(data, file, "train"))


def test_what_makes_examples_again(data: Path, features: Path, tmp_path: Path) -> None:
    file = load_feature_file(features)
    told = properties(data, file)

    def changed(old: str, new: str) -> FeatureFile:
        path = tmp_path / "features.yaml"
        assert old in FEATURES
        path.write_text(FEATURES.replace(old, new))
        return load_feature_file(path)

    assert properties(data, changed("embedding_dimension: 4", "embedding_dimension: 8")) == told
    assert properties(data, changed("max_length: 8", "max_length: 9")) == told
    for other in (
        properties(data, changed("embedding_dimension: 4", "csv: {delimiter: ';'}")),
        properties(data, changed("gender: {dtype: string", "gender: {dtype: string, column: sex")),
        properties(data, file, code="2"),
    ):
        assert other != told
    assert json.loads(told["input_config"])["splits"][1] == {"name": "eval", "pattern": "valid/*"}
    assert code_digests().keys() == {"ExampleGen", "Transform", "Trainer", "ModelCheck", "Report"}
    assert all((ROOT / place).exists() for places in SOURCES.values() for place in places)
    assert len({*code_digests().values()}) == len(SOURCES)


def test_records_are_not_parsed(data: Path, features: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def parsed(*_: Any) -> None:
        raise AssertionError

    for name in ("_by_tensorflow", "_by_python"):
        monkeypatch.setattr(tfrecord, name, parsed)
    made = examples(data, load_feature_file(features), "train")
    assert len(made) == len(read_log(sorted((data / "train").iterdir())))
