"""The newest pushed version becomes the model to beat."""

from pathlib import Path

import pytest
from tfx.types import standard_artifacts
from tfx.utils import path_utils

from pipeline import push as pushing
from pipeline.baseline import Baseline
from pipeline.kubeflow_artifacts import ABSENT
from pipeline.plain import PlainArtifact, write_baseline, write_schema
from pipeline.schema_by_content import CuratedSchema


def saved_model(directory: Path, content: str) -> Path:
    (directory / "variables").mkdir(parents=True)
    (directory / "saved_model.pb").write_text(content)
    (directory / "variables" / "variables.index").write_text(content)
    return directory


def baseline_of(destination: Path, uri: Path) -> PlainArtifact:
    model = PlainArtifact(str(uri))
    write_baseline(model, str(destination))
    return model


def serving(model: PlainArtifact) -> Path:
    """Where TFX looks for the model."""
    return Path(path_utils.serving_model_path(model.uri))


def test_the_baseline_is_what_was_pushed_last(tmp_path: Path) -> None:
    for content in ("first", "second"):
        version, _ = pushing.push(saved_model(tmp_path / content, content), tmp_path / "pushed")

    model = baseline_of(tmp_path / "pushed", tmp_path / "model")

    assert {str(p.relative_to(serving(model))): p.read_text() for p in serving(model).rglob("*") if p.is_file()} == {
        "saved_model.pb": "second",
        "variables/variables.index": "second",
    }
    assert model.metadata == {"pushed_version": version.rpartition("/")[2]}


def test_versions_are_numbers(tmp_path: Path) -> None:
    for name in ("9", "10"):
        saved_model(tmp_path / "pushed" / name, name)

    assert baseline_of(tmp_path / "pushed", tmp_path / "model").metadata == {"pushed_version": "10"}


def test_what_a_server_would_not_take_is_no_version(tmp_path: Path) -> None:
    saved_model(tmp_path / "pushed" / "1", "whole")
    saved_model(tmp_path / "pushed" / ".3.partial", "being pushed")
    (tmp_path / "pushed" / "2").mkdir()
    (tmp_path / "pushed" / "4").write_text("a file")

    assert baseline_of(tmp_path / "pushed", tmp_path / "model").metadata == {"pushed_version": "1"}


@pytest.mark.parametrize("made", [True, False])
def test_before_the_first_push_it_is_absent(made: bool, tmp_path: Path) -> None:
    if made:
        (tmp_path / "pushed").mkdir()

    model = baseline_of(tmp_path / "pushed", tmp_path / "model")

    assert model.metadata == {ABSENT: 1}
    # A launcher that uploads folders takes an empty one for missing.
    assert [path.name for path in Path(model.uri).iterdir()] == ["ABSENT"]


def test_as_a_component_of_tfx_it_does_the_same(tmp_path: Path) -> None:
    saved_model(tmp_path / "pushed" / "5", "pushed")
    model = standard_artifacts.Model()
    model.uri = str(tmp_path / "model")

    Baseline.EXECUTOR_SPEC.executor_class().Do({}, {"model": [model]}, {"destination": str(tmp_path / "pushed")})

    assert model.get_string_custom_property("pushed_version") == "5"
    assert (serving(PlainArtifact(model.uri)) / "saved_model.pb").read_text() == "pushed"


def test_a_schema_travels_by_content(tmp_path: Path) -> None:
    schema = standard_artifacts.Schema()
    schema.uri = str(tmp_path / "of_tfx")
    (tmp_path / "of_tfx").mkdir()  # TFX makes it
    CuratedSchema.EXECUTOR_SPEC.executor_class().Do({}, {"schema": [schema]}, {"text": 'feature { name: "é" }'})
    write_schema(PlainArtifact(str(tmp_path / "plain")), 'feature { name: "é" }')

    for directory in ("of_tfx", "plain"):
        assert (tmp_path / directory / "schema.pbtxt").read_text(encoding="utf-8") == 'feature { name: "é" }'
