"""A feature kind is one class in one file: one of the test's own goes all the way; every kind stands where it may."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from typer.testing import CliRunner

from tests.features.cyclic import Cyclic
from tests.features.place import Place
from tests.records import example, write_records
from tfctr.cli import app
from tfctr.client import RankingClient
from tfctr.client.declared import Declared
from tfctr.data.analyze import analyze
from tfctr.errors import UserError
from tfctr.features import FeatureFile, load_feature_file, model_inputs, raw_inputs
from tfctr.features.assets import FeatureAssets
from tfctr.features.kinds.base import KINDS
from tfctr.features.parsing import parse_examples
from tfctr.features.transform import FileLookups, RawFunction
from tfctr.features.vocabulary import read_user_tokens
from tfctr.models import ModelConfig, build_model
from tfctr.training.experiment import Experiment

FEATURES: dict[str, Any] = {
    "labels": {"click": "label"},
    "group": "user_id",
    "timestamp": "timestamp",
    "embedding_dimension": 4,
    "user": {
        "user_id": {"dtype": "int64"},
        "mood": {"kind": "frozen", "key": "user_id", "vectors": "moods.npz"},
        "wake": {"kind": "cyclic", "period": 24},
    },
    "candidate": {
        "item_id": {"dtype": "int64"},
        "price": {"kind": "numeric", "transform": "zscore"},
        "text": {"kind": "frozen", "key": "item_id", "vectors": "texts.npz"},
        "aired": {"kind": "cyclic", "period": 7},
    },
    "context": {"wind": {"kind": "cyclic", "period": 360}},
    "sequences": {
        "history": {
            "max_length": 3,
            "fields": {
                "seen": {"share": "item_id"},
                "paid": {"kind": "numeric", "transform": "zscore"},
                "spent": {"kind": "numeric", "transform": "bucketize", "buckets": 2},
                "seen_at": {"kind": "cyclic", "period": 24},
                "seen_time": {"kind": "event_time"},
            },
        }
    },
}


def rows(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """A log in which an hour near midnight is what makes a click, and some values are missing."""
    generator = np.random.default_rng(seed)
    found = []
    for number in range(count):
        length = int(generator.integers(0, 5))
        wind = float(generator.uniform(0, 360))
        row = {
            "label": [int(np.cos(wind * np.pi / 180) > 0)],
            "timestamp": [1_000_000 + number],
            "user_id": [int(generator.integers(0, 9))],
            "item_id": [int(generator.integers(0, 20))],
            "wake": [float(generator.uniform(0, 24))],
            "aired": [float(generator.uniform(0, 7))],
            "wind": [wind],
            "price": [float(generator.normal(5, 2))],
            "seen": generator.integers(0, 20, length).tolist(),
            "paid": generator.normal(100, 10, length).tolist(),
            "spent": generator.uniform(0, 1, length).tolist(),
            "seen_at": generator.uniform(0, 24, length).tolist(),
            "seen_time": [999_000 - 10 * step for step in range(length)],
        }
        if number % 10 == 0:
            del row["wake"], row["price"]
        found.append({name: values for name, values in row.items() if values})
    return found


@pytest.fixture
def file(monkeypatch: pytest.MonkeyPatch) -> FeatureFile:
    monkeypatch.setitem(KINDS, "cyclic", Cyclic)
    return FeatureFile.model_validate(FEATURES)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    generator = np.random.default_rng(1)
    for name, count in {"moods": 9, "texts": 20}.items():
        np.savez(tmp_path / f"{name}.npz", ids=np.arange(count), vectors=generator.normal(size=(count, 5)))
    for split, count in {"train": 400, "valid": 100, "test": 50}.items():
        write_records(tmp_path / split / "rows.tfrecord", rows(count, seed=len(split)))
    return tmp_path


@pytest.fixture
def assets(file: FeatureFile, data: Path) -> FeatureAssets:
    return analyze(file, [data / "train" / "rows.tfrecord"], data / "assets", data)


def raw_of(file: FeatureFile, count: int = 50) -> dict[str, Any]:
    return parse_examples(tf.constant([example(row) for row in rows(count, seed=4)]), file)


def test_every_kind_stands_where_it_may(assets: FeatureAssets, file: FeatureFile) -> None:
    raw = raw_of(file)
    out = {name: value.numpy() for name, value in RawFunction(file, FileLookups(assets)).all_sides(raw).items()}
    assert {name: (value.dtype.name, value.shape[1:]) for name, value in out.items()} == {
        spec.name: (spec.dtype, spec.shape) for spec in model_inputs(file)
    }
    real = np.arange(3) < raw["history_length"].numpy()[:, None]
    paid = raw["paid"].numpy()
    statistics = assets.statistics["paid"]
    clipped = np.clip(paid, statistics["minimum"], statistics["maximum"])
    expected = (clipped - statistics["mean"]) / statistics["deviation"]
    np.testing.assert_allclose(out["paid"], np.where(real, expected, 0), rtol=1e-4, atol=1e-4)
    assert statistics["mean"] == pytest.approx(100, abs=2)
    boundary = assets.statistics["spent"]["boundaries"][0]
    np.testing.assert_array_equal(out["spent"], np.where(real, 1 + (raw["spent"].numpy() >= boundary), 0))
    np.testing.assert_array_equal(out["mood"], raw["user_id"].numpy() + 1)
    angle = raw["seen_at"].numpy() * (2 * np.pi / 24)
    circle = np.stack([np.sin(angle), np.cos(angle)], axis=-1)
    np.testing.assert_allclose(out["seen_at"], np.where(real[..., None], circle, 0), atol=1e-5)
    assert not out["wake"][0].any(), "a missing number is the centre of the circle"


def test_what_stands_in_padded_steps_of_any_kind_changes_nothing(assets: FeatureAssets, file: FeatureFile) -> None:
    function, raw = RawFunction(file, FileLookups(assets)), raw_of(file)
    poisoned = dict(raw)
    for spec in raw_inputs(file):
        if spec.shape:
            real = tf.sequence_mask(raw["history_length"], 3)
            poisoned[spec.name] = tf.where(real, raw[spec.name], tf.constant(7, spec.dtype))
    clean, other = function.user(raw), function.user(poisoned)
    for name, value in clean.items():
        np.testing.assert_array_equal(value.numpy(), other[name].numpy(), err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("interaction", ["mlp", "wide_deep"])
def test_the_model_is_built_of_what_the_kinds_say(assets: FeatureAssets, file: FeatureFile, interaction: str) -> None:
    config = ModelConfig(interests=({"type": "cmm"},), interaction={"type": interaction})
    model = build_model(assets, config)
    inputs = RawFunction(file, FileLookups(assets)).all_sides(raw_of(file))
    for spec in model_inputs(file):
        if spec.side == "candidate":
            inputs[spec.name] = inputs[spec.name][:, None]
    assert {"aired", "wake", "wind", "seen_at", "paid"} <= set(model.embeddings.projections)
    assert model.embeddings.projections["wind"].kernel.shape == (2, 4)
    np.testing.assert_allclose(model.embeddings.frozen_tables["mood"], assets.frozen_vectors("mood"))
    if interaction == "wide_deep":
        assert model.scorer.first_order.slopes["wind"].kernel.shape == (2, 1)
    state = model.user_tower(model._pick("user", inputs))
    np.testing.assert_array_equal(model.score(state, inputs, inputs), model(inputs))
    assert np.isfinite(model(inputs).numpy()).all()


@pytest.mark.parametrize(
    ("path", "entry", "message"),
    [
        ("user", {"kind": "event_time"}, "user.more: the kind of a user feature must be one of categorical, "),
        ("bias", {"kind": "numeric"}, "bias.more: the kind of a bias feature must be one of categorical."),
        ("context", {"kind": "frozen", "key": "user_id"}, "context.more.key: must name a single-valued feature of the"),
        ("user", {"kind": "cyclic"}, "user.more.period: is required"),
        ("user", {"kind": "cyclic", "period": 3, "phase": 1}, "user.more.phase: unknown key. Allowed: kind, period"),
        ("user", {"kind": "cyclical"}, "user.more: kind must be one of categorical, "),
        ("user", {"share": "seen"}, "user.more.share: must name a categorical feature that shares nothing itself"),
        ("user", "int64", "user.more: must be a mapping of keys. Received: 'int64'"),
        ("user", {"kind": ["cyclic"]}, "user.more: kind must be one of categorical, "),
        ("user", {"vocabulary": {"type": []}}, "user.more.vocabulary: type must be one of learned, "),
        ("user", {"share": "item_id", "default": "x"}, "user.more.default: must be of dtype int64. Received: 'x'"),
        ("user", {"default": 10**20}, "user.more.default: must be of dtype int64. Received: 1000000000000000000"),
        ("user", {"kind": "numeric", "default": 1e300}, "user.more.default: "),
        ("user", {"vocabulary": {"type": "identity", "size": 10**12}}, "user.more.vocabulary.size: "),
        (
            "bias",
            {"vocabulary": {"type": "identity", "size": 4}, "default": 9},
            "bias.more: a bias feature needs an identity vocabulary and a default in it (for serving). Received: defa",
        ),
    ],
)
def test_errors(file: FeatureFile, tmp_path: Path, path: str, entry: Any, message: str) -> None:
    content = json.loads(json.dumps(FEATURES))
    content.setdefault(path, {})["more"] = entry
    (tmp_path / "features.yaml").write_text(json.dumps(content))
    with pytest.raises(UserError) as raised:
        load_feature_file(tmp_path / "features.yaml")
    assert str(raised.value).startswith(f"{tmp_path / 'features.yaml'}: {message}")


TAKEN = [
    "history_length", "history_text", "history_newest_time", "history_recency", "timestamp_hour", "timestamp_weekday",
    "candidate_mask", "model_tag", "tfctr_statistics", "tfctr_group",
]  # fmt: skip


@pytest.mark.parametrize("name", TAKEN)
def test_a_name_that_follows_from_another_feature_is_taken(file: FeatureFile, name: str) -> None:
    content = json.loads(json.dumps(FEATURES))
    content["context"][name] = {"dtype": "int64"}
    with pytest.raises(ValueError, match=f"needs the name '{name}'; rename one"):
        FeatureFile.model_validate(content)


@pytest.mark.parametrize("role", ["labels", "weight", "request", "meta", "group"])
@pytest.mark.parametrize("name", TAKEN)
def test_a_name_that_follows_from_a_feature_is_no_other_column(file: FeatureFile, name: str, role: str) -> None:
    change = {"labels": {"click": name}, "meta": [name], "group": name}.get(role, name)
    message = "group: must be a feature" if role == "group" else f"'{name}'"
    with pytest.raises(ValueError, match=message):
        FeatureFile.model_validate({**FEATURES, role: change})


def test_a_slice_may_be_a_feature(file: FeatureFile) -> None:
    FeatureFile.model_validate({**FEATURES, "meta": ["wake", "user_id", "session"], "request": "session"})


@pytest.mark.parametrize("side", ["user", "candidate", "context"])
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("class", "more: 'class' is a word of Python, which no input of a model can be named"),
        ("self", "more: 'self' is a word of Python, which no input of a model can be named"),
        ("History_Length", "more: 'History_Length' differs from 'history_length' in case only; rename one"),
        ("Model_Tag", "more: 'Model_Tag' differs from 'model_tag' in case only; rename one"),
        (
            "State_History_x",
            "more: the user's state needs the names that start with 'state_'; rename 'State_History_x'",
        ),
        ("Item_ID", "more: '(Item_ID|item_id)' differs from '(Item_ID|item_id)' in case only; rename one"),
        ("state_history_events", "more: the user's state needs the names that start with 'state_'; rename"),
        ("state_user_fields", "more: the user's state needs the names that start with 'state_'; rename"),
    ],
)
def test_a_name_that_no_signature_can_have_is_told(file: FeatureFile, side: str, name: str, message: str) -> None:
    content = json.loads(json.dumps(FEATURES))
    content[side][name] = {"dtype": "int64"}
    with pytest.raises(ValueError, match=message.replace("more", rf"({side}\.{name}|candidate\.item_id)")):
        FeatureFile.model_validate(content)


def test_no_sequence_is_named_as_the_users_state(file: FeatureFile) -> None:
    content = {**FEATURES, "sequences": {"user": FEATURES["sequences"]["history"]}}
    with pytest.raises(ValueError, match=r"sequences\.user: the user's state needs this name"):
        FeatureFile.model_validate(content)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": {"click": "history_length"}}, "sequences.history: labels needs the name 'history_length'"),
        ({"weight": "timestamp_hour"}, "timestamp: weight needs the name 'timestamp_hour'"),
        ({"request": "label"}, "request: labels needs the name 'label'"),
        ({"meta": ["label"]}, "meta: 'label' is the labels column and can't be a slice too"),
        ({"group": "seen"}, r"group: must be a feature with one value a row or a meta column\. Allowed: \['aired', "),
        ({"group": "text"}, "group: must be a feature with one value a row or a meta column"),
    ],
)
def test_a_column_has_one_role(file: FeatureFile, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FeatureFile.model_validate({**FEATURES, **change})


@pytest.mark.slow
@pytest.mark.parametrize("text", ["? [a, b]\n: 1", "a: 2020-99-99", "a: " + "[" * 3000, "a: " + "1" * 5000])
def test_odd_yaml_is_told_in_a_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "features.yaml").write_text(text)
    with pytest.raises(UserError, match=r"features\.yaml.*: not valid YAML: ") as raised:
        load_feature_file(tmp_path / "features.yaml")
    assert "\n" not in str(raised.value)


def test_damaged_vectors_and_vocabularies_are_told_in_a_line(file: FeatureFile, data: Path) -> None:
    feature = file.feature("text")
    for content in (b"", b"PK\x03\x04damaged"):
        (data / "texts.npz").write_bytes(content)
        with pytest.raises(UserError, match=r"candidate\.text\.vectors: .*must be an \.npz"):
            feature.kind.frozen_table(feature, data)
    for ids in (np.array([1.0]), np.array([True]), np.zeros(0, int)):
        np.savez(data / "texts.npz", ids=ids, vectors=np.ones((len(ids), 3)))
        with pytest.raises(UserError, match="`ids` must hold integers or texts"):
            feature.kind.frozen_table(feature, data)
    np.savez(data / "texts.npz", ids=np.array([1]), vectors=np.full((1, 4), 1e38))
    np.testing.assert_allclose(feature.kind.frozen_table(feature, data).vectors, [[0] * 4, [0.5] * 4])
    with pytest.raises(UserError, match="can't be read"):
        read_user_tokens(data)


def test_assets_of_another_file_are_told(file: FeatureFile, assets: FeatureAssets, tmp_path: Path) -> None:
    content = json.loads(json.dumps(FEATURES))
    del content["context"]["wind"]
    (tmp_path / "features.yaml").write_text(json.dumps(content))
    command = ["features", "show", str(tmp_path / "features.yaml"), "--assets", str(assets.directory)]
    assert "was made for another feature file" in str(CliRunner().invoke(app, command).exception)


def test_people_and_editors_are_told_of_it(file: FeatureFile, assets: FeatureAssets, tmp_path: Path) -> None:
    (tmp_path / "features.yaml").write_text(json.dumps(FEATURES))
    shown = CliRunner().invoke(
        app, ["features", "show", str(tmp_path / "features.yaml"), "--assets", str(assets.directory)]
    )
    line = next(line for line in shown.output.splitlines() if " wind " in line)
    assert [part.strip() for part in line.strip("│ ").split("│")] == [
        "wind",
        "context",
        "cyclic",
        "period 360",
        "4",
        "12",
    ]
    schema = json.loads(CliRunner().invoke(app, ["features", "schema"]).output)
    kinds = schema["properties"]["candidate"]["patternProperties"]["^[A-Za-z][A-Za-z0-9_]*$"]["oneOf"]
    named = [one["properties"]["kind"]["const"] for one in kinds]
    assert named == list(KINDS)
    assert kinds[-1]["properties"]["period"]["exclusiveMinimum"] == 0


def test_a_kind_may_have_several_columns_and_learn_from_each(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(KINDS, "place", Place)
    fields = {"seen": {"share": "item_id"}, "at": {"kind": "place"}}
    sequences = {name: {"max_length": 2, "fields": {f"{name}_{key}": fields[key] for key in fields}} for name in "xy"}
    content = {
        "labels": {"click": "label"},
        "group": "item_id",
        "candidate": {"item_id": {}, "shop": {"kind": "place"}},
        "sequences": sequences,
    }
    file = FeatureFile.model_validate(content)
    rows = [
        {"label": [1], "item_id": [1], "shop_latitude": [50.0], "shop_longitude": [7.0], "x_seen": [1, 2]},
        {"label": [0], "item_id": [2], "shop_latitude": [54.0], "shop_longitude": [11.0], "y_seen": [1]},
    ]
    rows[0] |= {"x_at_latitude": [1.0, 3.0], "x_at_longitude": [2.0, 6.0]}
    rows[1] |= {"y_at_latitude": [5.0], "y_at_longitude": [5.0]}
    write_records(tmp_path / "rows.tfrecord", rows)
    assets = analyze(file, [tmp_path / "rows.tfrecord"], tmp_path / "assets", tmp_path)
    moments = {"mean": 52.0, "deviation": 2.0, "minimum": 50.0, "maximum": 54.0}
    assert assets.statistics["shop_latitude"] == moments
    assert assets.statistics["x_at_longitude"] == {"mean": 4.0, "deviation": 2.0, "minimum": 2.0, "maximum": 6.0}
    raw = parse_examples(tf.constant([example(row) for row in rows]), file)
    # The one place of y has no deviation; a z-score of a constant is not this kind's to define.
    function = RawFunction(file, FileLookups(assets))
    np.testing.assert_allclose(function.candidate(raw)["shop"], [[-1, -1], [1, 1]])
    np.testing.assert_allclose(function.user(raw)["x_at"], [[[-1, -1], [1, 1]], [[0, 0], [0, 0]]])
    # A client tells by its columns to which of the sequences a feature belongs.
    declared = Declared.of(file)
    assert declared.groups["y"] == ("y_seen", "y_at_latitude", "y_at_longitude")
    assert "shop" not in declared.names


@pytest.mark.e2e
def test_a_kind_of_ones_own_goes_from_yaml_to_a_served_score(file: FeatureFile, data: Path) -> None:
    """Transform on Beam, the pipeline's Trainer, an export, the embedded server and the client."""
    from pipeline.trainer import run_fn
    from serving.server import Server
    from tests.features.beam import run_transform

    config = {"features": file.model_dump_json(exclude_unset=True), "data": str(data)}
    transformed = run_transform(file, data, {split: data / split / "rows.tfrecord" for split in ("train", "valid")})
    experiment = Experiment(preset="mlp", training={"epochs": 30, "batch_size": 100, "learning_rate": 0.02})
    run_fn(
        SimpleNamespace(
            custom_config={
                **config,
                "experiment": experiment.model_dump_json(),
                "checkpoints": str(data / "checkpoints"),
            },
            train_files=transformed["train"],
            eval_files=transformed["valid"],
            transform_graph_path=str(data / "graph"),
            serving_model_dir=str(data / "served" / "1"),
            hyperparameters=None,
        )
    )
    records = list(tf.data.TFRecordDataset(str(data / "test" / "rows.tfrecord")).as_numpy_iterator())
    served = tf.saved_model.load(str(data / "served" / "1")).signatures["serving_default"]
    expected = served(examples=tf.constant(records))["probabilities"].numpy()
    log = rows(50, seed=len("test"))
    labels = np.array([row["label"][0] for row in log])
    assert ((expected > 0.5) == labels).mean() > 0.9, "the direction of the wind alone tells the label"
    sides = {spec.name: (spec.side, spec.shape) for spec in raw_inputs(file)}
    with Server(data / "served", "ranking") as server, RankingClient(server.address, timeout_seconds=60) as client:
        for row, score in zip(log[:10], expected, strict=False):
            given: dict[str, dict[str, Any]] = {"user": {}, "candidate": {}, "context": {}}
            for name, values in row.items():
                if name in sides:
                    side, shape = sides[name]
                    given[side][name] = values[:3] if shape else values[0]
            answered = client.score(client.user_state(given["user"]), [given["candidate"]], given["context"])
            assert answered[0] == pytest.approx(score, abs=1e-6)
