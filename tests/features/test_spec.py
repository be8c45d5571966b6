"""The feature file says what is wrong, where, and what is allowed."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from tests.workbench import ROOT
from tfctr.cli import app
from tfctr.errors import UserError
from tfctr.features import load_feature_file, model_inputs, raw_inputs
from tfctr.features.spec import FeatureFile
from tfctr.training.experiment import Training
from tfctr.training.optimizer import check_table_optimizers


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


def own_optimizer(content: dict[str, Any], config: Any) -> dict[str, Any]:
    change(content, "candidate.item_id.optimizer", config)
    return content


def test_an_optimizer_is_told_under_its_key_alone(tmp_path: Path, content: dict[str, Any]) -> None:
    with pytest.raises(UserError) as raised:
        load(tmp_path, own_optimizer(content, 3))
    assert str(raised.value) == (
        f"{tmp_path / 'features.yaml'}: candidate.item_id.optimizer: must be the name of an optimizer, a mapping with "
        "its `type`, or null. Received: 3"
    )


def test_a_file_knows_where_it_was_read_from_and_equals_others_all_the_same(
    tmp_path: Path, content: dict[str, Any]
) -> None:
    file = load(tmp_path, content)
    assert file.origin == str(tmp_path / "features.yaml")
    made = FeatureFile.model_validate(yaml.safe_load(Path(file.origin).read_text()))
    assert made.origin is None
    assert file == made
    assert file.model_dump_json() == made.model_dump_json()


MISTAKES = [
    ("lazy_adm", "candidate.item_id.optimizer: unknown type 'lazy_adm'. Allowed: adam, "),
    (
        {"type": "lazy_sgd", "learning_rte": 0.1},
        "candidate.item_id.optimizer lazy_sgd: unknown argument 'learning_rte'. Allowed: learning_rate, weight_decay",
    ),
    (
        {"type": "lazy_sgd", "learning_rate": {"type": "cosine"}},
        "candidate.item_id.optimizer.learning_rate: unknown type 'cosine'. Allowed: cosine_decay, ",
    ),
]


@pytest.mark.parametrize(("config", "message"), MISTAKES)
def test_a_wrong_optimizer_is_told_with_the_file(
    tmp_path: Path, content: dict[str, Any], config: Any, message: str
) -> None:
    """By `tfctr features validate`, and by a training before it reads data."""
    file = load(tmp_path, own_optimizer(content, config))
    told = f"{tmp_path / 'features.yaml'}: {message}"
    validated = CliRunner().invoke(app, ["features", "validate", str(tmp_path / "features.yaml")])
    assert isinstance(validated.exception, UserError)
    assert str(validated.exception).startswith(told)
    with pytest.raises(UserError) as raised:
        check_table_optimizers(Training(), file)
    assert str(raised.value).startswith(told)


def test_an_optimizer_is_tried_where_tensorflow_is_installed(
    tmp_path: Path, content: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    load(tmp_path, own_optimizer(content, "lazy_sgd"))
    command = ["features", "validate", str(tmp_path / "features.yaml")]
    assert "valid (" in CliRunner().invoke(app, command).output
    load(tmp_path, own_optimizer(content, "lazy_adm"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "valid (" in CliRunner().invoke(app, command).output


def test_a_shared_rate_is_told_under_its_own_key(tmp_path: Path, content: dict[str, Any]) -> None:
    file = load(tmp_path, own_optimizer(content, "lazy_ftrl"))
    rate = {"type": "cosine_decay", "initial_learning_rate": 0.01, "decay_steps": 30}
    with pytest.raises(UserError) as raised:
        check_table_optimizers(Training(learning_rate=rate), file)
    assert str(raised.value).startswith(
        "training.learning_rate cosine_decay: the rate is 0 in step 30, and lazy_ftrl "
        f"({tmp_path / 'features.yaml'}: candidate.item_id.optimizer) divides by the rate"
    )


def test_true_is_no_number() -> None:
    with pytest.raises(ValueError, match="must be a number, and not true or false"):
        FeatureFile.model_validate({"embedding_dimension": True})
