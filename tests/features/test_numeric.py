"""Numbers keep their digits, bad ones mark their row, and far ones are clipped, in every path alike."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from typer.testing import CliRunner

from tests.records import example, write_records
from tfctr.cli import app
from tfctr.data.analyze import analyze
from tfctr.errors import UserError
from tfctr.export.signatures import RankingModule
from tfctr.features import INT64_MISSING, FeatureFile
from tfctr.features.assets import FeatureAssets
from tfctr.features.transform import FileLookups, RawFunction
from tfctr.models import ModelConfig, build_model

SECOND = 1_760_000_000
INT64 = {"dtype": "int64"}
BUCKETS = {"transform": "bucketize", "buckets": 8}
INFINITY, NAN = float("inf"), float("nan")


def feature_file(**definitions: dict[str, Any]) -> FeatureFile:
    """Numeric features of the candidate."""
    numeric = {name: {"kind": "numeric", **definition} for name, definition in definitions.items()}
    candidate = {"item_id": {}, **numeric}
    return FeatureFile.model_validate({"labels": {"click": "label"}, "group": "item_id", "candidate": candidate})


def learned(directory: Path, file: FeatureFile, columns: dict[str, Sequence[Any]]) -> FeatureAssets:
    """What the local pass learns of columns in which None is missing."""
    values = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    # The first row is of the other class and has no number.
    rows = [{"label": 0, "item_id": 1}, *({"label": 1, "item_id": 1, **row} for row in values)]
    write_records(directory / "rows.tfrecord", rows)
    return analyze(file, [directory / "rows.tfrecord"], directory / "assets", directory)


def transformed(directory: Path, definition: dict[str, Any], train: Sequence[Any], values: Sequence[Any]) -> Any:
    """The model inputs that values become after training on others."""
    file = feature_file(x=definition)
    lookups = FileLookups(learned(directory, file, {"x": train}))
    dtype = tf.as_dtype(definition.get("dtype", "float32"))
    raw = {"item_id": tf.constant([1] * len(values), tf.int64), "x": tf.constant(values, dtype)}
    return RawFunction(file, lookups).candidate(raw)["x"].numpy()


@pytest.mark.parametrize("train", [[5] * 4, [SECOND] * 3, [0] * 2])
def test_the_zscore_of_a_constant_column_is_divided_by_one(tmp_path: Path, train: list[int]) -> None:
    values = [train[0], train[0] + 1]
    assert transformed(tmp_path, {**INT64, "clip": False}, train, values).tolist() == [0, 1]
    assert transformed(tmp_path, INT64, train, values).tolist() == [0, 0]


def test_a_constant_that_float32_rounds_is_constant(tmp_path: Path) -> None:
    assert transformed(tmp_path, {"clip": False}, [0.1] * 7, [0.1, 1.1]) == pytest.approx([0, 1])


def test_int64_is_subtracted_before_it_becomes_float32(tmp_path: Path) -> None:
    offsets = np.array([0, 2, 30, 63])
    found = transformed(tmp_path, INT64, [SECOND + n for n in range(64)], SECOND + offsets)
    np.testing.assert_allclose(found, (offsets - 31.5) / np.arange(64).std(), rtol=1e-6)


@pytest.mark.parametrize("base", [SECOND, SECOND * 1_000_000, -SECOND])
def test_int64_is_compared_before_it_becomes_float32(tmp_path: Path, base: int) -> None:
    found = transformed(tmp_path, {**INT64, **BUCKETS}, [base + n for n in range(64)], base + np.array([0, 2, 30, 63]))
    assert found.tolist() == [1, 1, 4, 8]


@pytest.mark.parametrize("transform", ["none", "log1p"])
def test_an_int64_is_rounded_once(tmp_path: Path, transform: str) -> None:
    values = np.array([0, 1, -3, 2**24 + 1, 2**40 + 1])
    found = transformed(tmp_path, {**INT64, "transform": transform}, values.tolist(), values)
    exact = values if transform == "none" else np.sign(values) * np.log1p(np.abs(values))
    np.testing.assert_array_equal(found, exact.astype(np.float32))


@pytest.mark.parametrize("clip", [True, False])
@pytest.mark.parametrize("transform", ["none", "log1p", "zscore"])
def test_infinity_marks_its_row(tmp_path: Path, transform: str, clip: bool) -> None:
    definition = {"transform": transform, "clip": clip, "default": 2.0}
    found = transformed(tmp_path, definition, [1.0, 2.0, 3.0], [INFINITY, -INFINITY, NAN, 2.0])
    assert np.isnan(found[:2]).all()
    assert np.isfinite(found[2:]).all()
    assert found[2] == found[3], "the default is a value like any other"


@pytest.mark.parametrize("transform", ["none", "log1p", "zscore", "bucketize", "log_squared"])
@pytest.mark.parametrize(("dtype", "missing"), [("float32", NAN), ("int64", INT64_MISSING)])
def test_a_missing_number_without_a_default_is_0_after_the_transform(
    tmp_path: Path, transform: str, dtype: str, missing: Any
) -> None:
    train = [(int if dtype == "int64" else float)(year) for year in (1980, 1990, 2000, 2010)]
    found = transformed(tmp_path, {"transform": transform, "dtype": dtype}, train, [missing, train[0]])
    assert found[0] == 0, "a year of 0 would be far outside of everything the model saw"
    assert found[1] != 0


def test_infinity_is_in_no_bucket(tmp_path: Path) -> None:
    train = [float(n) for n in range(64)]
    found = transformed(tmp_path, {**BUCKETS, "default": 30.0}, train, [INFINITY, -INFINITY, NAN, 63.0, -1e30, 1e30])
    assert found.tolist() == [-1, -1, 4, 8, 1, 8]


def test_a_served_row_with_infinity_in_a_bucket_scores_nan(tmp_path: Path) -> None:
    content = feature_file(x=BUCKETS).model_dump(exclude_unset=True)
    content |= {"user": {"u": {"kind": "numeric", **BUCKETS}}, "context": {"c": {"kind": "numeric", **BUCKETS}}}
    content["sequences"] = {
        "past": {"max_length": 2, "fields": {"past_id": {"share": "item_id"}, "s": {"kind": "numeric", **BUCKETS}}}
    }
    file = FeatureFile.model_validate(content)
    rows = [
        {"label": [n % 2], "item_id": [1], "past_id": [1], **{name: [float(n)] for name in "xucs"}} for n in range(64)
    ]
    write_records(tmp_path / "rows.tfrecord", rows)
    assets = analyze(file, [tmp_path / "rows.tfrecord"], tmp_path / "assets", tmp_path)
    model = build_model(assets, ModelConfig(interests=({"type": "mean"},), interaction={"type": "mlp", "hidden": [4]}))
    module = RankingModule(model, assets)
    bad = [{**rows[0], name: [value]} for name in "xucs" for value in (INFINITY, -INFINITY)]
    found = module.serving_default(tf.constant([example(row) for row in [rows[0], *bad]]))["probabilities"].numpy()
    assert np.isfinite(found[0])
    assert np.isnan(found[1:]).all()
    users = [rows[0]["u"], [INFINITY], [0.0]]
    raw = {"u": tf.constant(users)[:, 0], "past_id": tf.constant([[1, INT64_MISSING]] * 3, tf.int64)}
    raw |= {"s": tf.constant([[0.0, INFINITY], [0.0, 0.0], [INFINITY, 0.0]])}
    state = module.user_tower({**raw, "past_length": tf.constant([1] * 3, tf.int64)})
    request = {"item_id": tf.ones([3, 2], tf.int64), "x": tf.constant([[0.0, INFINITY]] * 3), "c": tf.zeros([3])}
    found = module.score({**state, **request})["probabilities"].numpy()
    assert np.isfinite(found).tolist() == [[True, False], [False, False], [False, False]]


YEARS = [1980.0, 1990.0, 2000.0]


@pytest.mark.parametrize(
    ("transform", "expected"),
    [("none", [1980, 2000]), ("log1p", [np.log(1981), np.log(2001)]), ("zscore", [-np.sqrt(1.5), np.sqrt(1.5)])],
)
@pytest.mark.parametrize("dtype", ["int64", "float32"])
def test_a_value_outside_the_training_range_is_clipped(
    tmp_path: Path, transform: str, expected: list[float], dtype: str
) -> None:
    train = YEARS if dtype == "float32" else [int(year) for year in YEARS]
    definition = {"dtype": dtype, "transform": transform, "default": 1922.0}
    lowest = INT64_MISSING + 1 if dtype == "int64" else -3e38
    found = transformed(tmp_path, definition, [*train, None], [1922, 3000, lowest])
    np.testing.assert_allclose(found, [*expected, expected[0]], rtol=1e-6)
    free = transformed(tmp_path, {**definition, "clip": False}, [*train, None], [1922, 3000])
    assert free[0] < expected[0]
    assert free[1] > expected[1]
    # The default is neither learned from nor clipped: a file may say -1 for "no price".
    missing = INT64_MISSING if dtype == "int64" else NAN
    assert transformed(tmp_path, definition, [*train, None], [missing])[0] == free[0]


# 0, 1 and 2 are themselves and so are -1 and -3; ln(3)^2 = 1.21, ln(8)^2 = 4.32, ln(100)^2 = 21.2, ln(2^62)^2 = 1846.8.
STEPS = {0: 0, 1: 1, 2: 2, 3: 1, 8: 4, 100: 21, -1: -1, -3: -3, 2**62: 1846}


@pytest.mark.parametrize("dtype", ["int64", "float32"])
def test_log_squared_by_hand(tmp_path: Path, dtype: str) -> None:
    kind = int if dtype == "int64" else float
    # Most frequent first, and of equally many the later in the alphabet: the tokens' rows are 1 2 3 ...
    train = [kind(value) for value in (3, 1, 1, 1, 0, 0, 0, 2, 2, -3)]
    missing = INT64_MISSING if dtype == "int64" else NAN
    definition = {"transform": "log_squared", "dtype": dtype}
    values = [kind(value) for value in STEPS]
    assets = learned(tmp_path, feature_file(x=definition), {"x": train})
    tokens = [int(token) for token in assets.tokens("x")]
    assert (tokens[:2], sorted(tokens[2:])) == ([1, 0], [-3, 2])
    found = transformed(tmp_path / "again", definition, train, [*values, missing])
    rows = {token: row + 1 for row, token in enumerate(tokens)}
    assert found.tolist() == [*(rows.get(step, len(tokens) + 1) for step in STEPS.values()), 0]
    zero = transformed(tmp_path / "zero", {**definition, "default": 0}, train, [missing])
    assert zero.tolist() == [rows[0]], "Criteo's benchmarks read a missing number as a 0"


def test_log_squared_of_far_numbers_fractions_and_infinity(tmp_path: Path) -> None:
    definition = {"transform": "log_squared"}
    train = [-1.0, 2.0, 3e38, 2.5, -3e38]
    assets = learned(tmp_path, feature_file(x=definition), {"x": train})
    # ln(2.5)^2 = 0.84, ln(3e38)^2 = 7849.4
    assert set(assets.tokens("x")) == {b"-1", b"2", b"7849", b"0", str(-(2**53)).encode()}
    found = transformed(tmp_path / "x", definition, train, [-1.9, 2.5, 3e38, INFINITY, -INFINITY])
    rows = {token: row + 1 for row, token in enumerate(assets.tokens("x"))}
    assert found.tolist() == [rows[b"-1"], rows[b"0"], rows[b"7849"], -1, -1]


def test_rare_tokens_of_log_squared_are_out_of_vocabulary(tmp_path: Path) -> None:
    definition = {"transform": "log_squared", "min_count": 2, **INT64}
    assert transformed(tmp_path, definition, [5, 5, 5, 1, 1, 90], [5, 1, 90, 7]).tolist() == [1, 2, 3, 3]


def test_people_and_editors_are_told_of_clipping(tmp_path: Path) -> None:
    file = feature_file(x={}, y={"clip": False}, z=BUCKETS)
    assets = learned(tmp_path, file, dict.fromkeys("xyz", YEARS))
    assert {"minimum": 1980.0, "maximum": 2000.0}.items() <= assets.statistics["x"].items()
    path = tmp_path / "features.yaml"
    path.write_text(file.model_dump_json(exclude_unset=True))
    learned_too = ["--assets", str(assets.directory)]
    for options, about in (([], "zscore, clipped"), (learned_too, "zscore, clipped to 1980 .. 2000")):
        shown = CliRunner().invoke(app, ["features", "show", str(path), *options], env={"COLUMNS": "200"}).output
        cells = [[cell.strip() for cell in line.split("│")[1:]] for line in shown.splitlines()]
        abouts = {row[0]: row[3] for row in cells if len(row) > 3}
        assert [abouts[name] for name in "xyz"] == [about, "zscore", "bucketize"]
    schema = json.loads(CliRunner().invoke(app, ["features", "schema"]).output)
    assert '"clip"' in json.dumps(schema)


def test_assets_whose_feature_file_is_refused_now_are_told(tmp_path: Path) -> None:
    assets = learned(tmp_path, feature_file(x={}), {"x": YEARS})
    described = assets.directory / "features.json"
    described.write_text(described.read_text().replace('"x"', '"class"'))
    with pytest.raises(UserError, match=r"features.json: candidate.class: 'class' is a word of Python"):
        FeatureAssets(assets.directory)


def test_assets_with_other_statistics_are_told(tmp_path: Path) -> None:
    assets = learned(tmp_path, feature_file(x={}), {"x": YEARS})
    (assets.directory / "statistics.json").write_text('{"x": {"mean": 1.0, "deviation": 1.0}}')
    with pytest.raises(UserError, match=r"assets: another version of tfctr learned the statistics of 'x'; delete"):
        FeatureAssets(assets.directory)
