"""The feature file says what is wrong, where, and what is allowed."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.workbench import ROOT
from tfctr.errors import UserError
from tfctr.features import load_feature_file, model_inputs, raw_inputs
from tfctr.features.spec import FeatureFile


@pytest.fixture
def content() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "configs" / "movielens.yaml").read_text())


def load(tmp_path: Path, content: dict[str, Any]) -> Any:
    path = tmp_path / "features.yaml"
    path.write_text(yaml.safe_dump(content))
    return load_feature_file(path)


@pytest.mark.parametrize("name", ["movielens", "synthetic"])
def test_shipped_files_are_valid(name: str) -> None:
    file = load_feature_file(ROOT / "configs" / f"{name}.yaml")
    assert file.labels.root == {"click": "label"}
    assert file.frozen_of_sequence("history") == {"item_vector": "history_item_vector"}
    assert file.shared_fields("history") == {"history_item_id": "item_id", "history_genres": "genres"}


def test_inputs_follow_from_the_file(tmp_path: Path, content: dict[str, Any]) -> None:
    file = load(tmp_path, content)
    raw = {(s.name, s.side, s.dtype, s.shape) for s in raw_inputs(file)}
    assert ("genres", "candidate", "string", ()) in raw
    assert ("history_genres", "user", "string", (50,)) in raw
    assert ("history_length", "user", "int64", ()) in raw
    assert ("timestamp", "context", "int64", ()) in raw
    assert not any(name == "item_vector" for name, *_ in raw)
    model = {(s.name, s.side, s.dtype, s.shape) for s in model_inputs(file)}
    assert ("genres", "candidate", "int32", (4,)) in model
    assert ("history_genres", "user", "int32", (50, 2)) in model
    assert ("item_vector", "candidate", "int32", ()) in model
    assert ("history_item_vector", "user", "int32", (50,)) in model
    assert ("year", "candidate", "float32", ()) in model
    assert ("history_newest_time", "user", "int64", ()) in model


def change(content: dict[str, Any], path: str, value: Any) -> None:
    *parents, last = path.split(".")
    for key in parents:
        content = content.setdefault(key, {})
    if value is None:
        del content[last]
    else:
        content[last] = value


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (
            "colour",
            "red",
            "colour: unknown key. Allowed: bias, candidate, context, csv, embedding_dimension, group,",
        ),
        ("user.gender.colour", "red", "user.gender.colour: unknown key. Allowed: column, default, dimension, dtype,"),
        ("user.gender.vocabulary.size", 3, "user.gender.vocabulary.size: unknown key. Allowed: buckets, type"),
        ("sequences.history.length", 3, "sequences.history.length: unknown key. Allowed: fields, max_length"),
        ("labels", None, "labels: is required"),
        ("user.gender.kind", "categoric", "user.gender: "),
        ("user.gender.vocabulary.type", "lerned", "user.gender.vocabulary: "),
        ("user.gender.vocabulary.buckets", 0, "user.gender.vocabulary.buckets: "),
        (
            "sequences.history.fields.history_item_id",
            {"share": "itemid"},
            "share: must name a categorical feature that shares nothing itself. Allowed: [",
        ),
        ("sequences.history.fields.history_item_id", {"share": "item_id", "dtype": "int64"}, "remove it here"),
        (
            "sequences.history.fields.more",
            {"kind": "frozen", "key": "item_id"},
            "the kind of a sequence feature must be one of categorical, event_time, numeric. Received: frozen",
        ),
        (
            "candidate.item_vector.key",
            "genres",
            "key: must name a single-valued feature of the same side. Allowed: ['item_id']. Received: 'genres'",
        ),
        ("user.item_id", {"dtype": "int64"}, "the name 'item_id' is taken by"),
        ("group", "session", "group: must be a feature with one value a row or a meta column. Allowed: ["),
        ("meta", ["history_time"], "meta: 'history_time' is a history, and a slice column has one value a row"),
        ("timestamp", None, "need the top-level key `timestamp`"),
        ("candidate.genres.dtype", "int64", "max_values needs dtype: string"),
        ("user.age.default", "old", "user.age.default: must be of dtype int64"),
        ("bias", {"position": {"dtype": "int64"}}, "bias.position: a bias feature needs an identity vocabulary"),
        ("negative_sampling_rate", 0, "negative_sampling_rate: "),
        ("user.label", {"dtype": "int64"}, "'label' is the labels column"),
        ("user.tfctr_group", {"dtype": "int64"}, "the pipeline needs the name 'tfctr_group'; rename one"),
    ],
)
def test_errors_name_file_and_place(
    tmp_path: Path, content: dict[str, Any], path: str, value: Any, message: str
) -> None:
    change(content, path, value)
    with pytest.raises(UserError) as raised:
        load(tmp_path, content)
    assert message in str(raised.value)
    assert str(raised.value).startswith(str(tmp_path / "features.yaml"))


def test_sequences_share_at_least_one_table(tmp_path: Path, content: dict[str, Any]) -> None:
    content["sequences"]["history"]["fields"] = {"history_rating": {"dtype": "int64"}}
    with pytest.raises(UserError, match="at least one must share a candidate's table"):
        load(tmp_path, content)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("labels: {click: label}\nlabels: {buy: label}\n", "line 2: .*the key 'labels' stands twice"),
        ("labels: [\n", "not valid YAML"),
        ("- a\n", "must be a mapping"),
    ],
)
def test_broken_yaml(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "features.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        load_feature_file(path)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="can't be read"):
        load_feature_file(tmp_path / "none.yaml")


def test_true_is_no_number() -> None:
    with pytest.raises(ValueError, match="must be a number, and not true or false"):
        FeatureFile.model_validate({"embedding_dimension": True})
