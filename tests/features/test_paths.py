"""A value becomes the same model input by the local pass, by Transform and in a saved model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tests.features.beam import run_transform
from tests.features.test_vocabulary import UGLY
from tests.records import example, write_records
from tfctr.data.analyze import analyze
from tfctr.errors import UserError
from tfctr.features import FeatureFile
from tfctr.features.assets import learned_numbers
from tfctr.features.columns import STATISTICS
from tfctr.features.parsing import parse_examples
from tfctr.features.transform import FileLookups, RawFunction

SECOND = 1_760_000_000
FEATURES: dict[str, Any] = {
    "labels": {"click": "label"},
    "group": "token",
    "candidate": {
        "token": {"dtype": "string"},
        "made": {"kind": "numeric", "dtype": "int64"},
        "made_in": {
            "kind": "numeric",
            "dtype": "int64",
            "transform": "bucketize",
            "buckets": 8,
            "default": SECOND + 30,
        },
        "micro": {"kind": "numeric", "dtype": "int64", "clip": False},
        "constant": {"kind": "numeric", "clip": False},
        "price": {"kind": "numeric", "transform": "log1p", "default": 5000},
        "share": {"kind": "numeric", "transform": "none"},
        "clicks": {"kind": "numeric", "transform": "bucketize", "buckets": 3},
        "views": {"kind": "numeric", "dtype": "int64", "transform": "log_squared"},
    },
    "sequences": {
        "past": {
            "max_length": 2,
            "fields": {
                "past_token": {"share": "token"},
                "past_made": {"kind": "numeric", "dtype": "int64"},
                "past_clicks": {"kind": "numeric", "transform": "bucketize", "buckets": 3},
            },
        }
    },
}


def row(number: int, token: bytes, **columns: Any) -> dict[str, list[Any]]:
    """A row in which every number follows from its own; None leaves a column out."""
    columns = {
        "made": SECOND + number,
        "made_in": SECOND + number,
        "micro": (SECOND + number) * 1_000_000,
        "constant": 0.1,
        "price": number / 7,
        "share": number / 64,
        "clicks": float(number**2),
        # As the tokens, each step has a number of rows of its own.
        "views": 3 * 4 ** UGLY.index(token) if token in UGLY else 0,
        **columns,
    }
    found = {name: [value] for name, value in columns.items() if value is not None}
    past = {"past_token": [token, b"other"], "past_made": [SECOND + number, SECOND], "past_clicks": [number / 3, 0.0]}
    return {"label": [number % 2], "token": [token], **found, **past}


class Saved(tf.Module):
    """The raw function over serialized examples."""

    def __init__(self, function: RawFunction) -> None:
        super().__init__()
        self.function, self.lookups = function, function.lookups

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def __call__(self, examples: Any) -> Any:
        return self.function.all_sides(parse_examples(examples, self.function.file))


@pytest.mark.e2e
def test_every_path_makes_the_same_of_a_value(tmp_path: Path) -> None:
    from pipeline.assets import assets_from_transform

    file = FeatureFile.model_validate(FEATURES)
    # No two tokens are equally frequent, so that there is one right order of the vocabulary.
    tokens = [token for count, token in enumerate(UGLY, 1) for _ in range(count)]
    train = write_records(tmp_path / "train.tfrecord", [row(number % 64, token) for number, token in enumerate(tokens)])
    numbers = ("made", "made_in", "micro", "price", "share", "clicks", "views")
    test = [row(number, token) for number, token in zip((0, 2, 30, 63) * 7, [*UGLY, b"unknown", b""], strict=False)]
    test += [row(1, b"plain", **dict.fromkeys((*numbers, "constant")))]
    test += [row(1922 - 10**6, b"plain"), row(10**6, b"plain", constant=1.1)]
    test += [row(1, b"plain", **{name: value}) for name in ("price", "clicks") for value in (np.inf, -np.inf)]
    records = [example(one) for one in test]
    transformed = run_transform(
        file, tmp_path, {"train": train, "test": write_records(tmp_path / "test.tfrecord", test)}
    )

    local = analyze(file, [train], tmp_path / "local", tmp_path)
    assets = assets_from_transform(str(tmp_path / "graph"), transformed["train"], file, tmp_path / "assets", tmp_path)
    assert local.tokens("token") == assets.tokens("token")
    assert {*local.tokens("token")} == {*UGLY, b"other"}
    assert local.table_rows("token") == assets.table_rows("token") == len(UGLY) + 3
    for name, learned in local.statistics.items():
        for key, value in learned.items():
            np.testing.assert_allclose(assets.statistics[name][key], value, rtol=1e-9, err_msg=f"{name} {key}")

    eager = RawFunction(file, FileLookups(local)).all_sides(parse_examples(tf.constant(records), file))
    expected = {name: value.numpy() for name, value in eager.items()}
    order = local.tokens("token")
    known = {token: index for index, token in enumerate([b"", *order])}
    ids = [known.get(one["token"][0], len(order) + 1) for one in test]
    assert expected["token"].tolist() == expected["past_token"][:, 0].tolist() == ids
    assert len({*expected["made"][:4].tolist()}) == len({*expected["micro"][:4].tolist()}) == 4
    assert expected["made_in"][:4].tolist() == [1, 1, 4, 8]
    missing, low, high, *bad = range(len(UGLY) + 2, len(test))
    assert expected["made_in"][missing] == 4
    assert expected["price"][missing] == np.float32(np.log1p(5000))
    assert expected["constant"][[0, high]] == pytest.approx([0, 1])
    assert expected["made"][low] == expected["made"][0], "the smallest of the training split"
    assert np.isnan(expected["price"][bad]).tolist() == [True, True, False, False]
    assert expected["clicks"][bad].tolist()[2:] == [-1, -1]

    # The order in which pieces are merged may round the last digits of a statistic.
    by_transform = RawFunction(file, FileLookups(assets)).all_sides(parse_examples(tf.constant(records), file))
    for name, value in by_transform.items():
        np.testing.assert_allclose(value.numpy(), expected[name], rtol=1e-6, atol=1e-6, err_msg=name)
    expected = {name: value.numpy() for name, value in by_transform.items()}

    saved = Saved(RawFunction(file, FileLookups(assets)))
    tf.saved_model.save(saved, tmp_path / "saved", signatures={"serving_default": saved.__call__})
    served = tf.saved_model.load(tmp_path / "saved").signatures["serving_default"](tf.constant(records))
    raw = tf.data.TFRecordDataset(transformed["test"]).as_numpy_iterator()
    rows = [tf.train.Example.FromString(record).features.feature for record in raw]
    for name, value in expected.items():
        np.testing.assert_array_equal(served[name].numpy(), value, err_msg=name)
        kind = "float_list" if value.dtype == np.float32 else "int64_list"
        whole = np.array([getattr(one[name], kind).value for one in rows]).reshape(value.shape)
        np.testing.assert_array_equal(whole.astype(value.dtype), value, err_msg=name)


EMPTY = {
    "no value": ({"dtype": "string"}, None),
    "empty": ({"dtype": "string"}, b""),
    "rare": ({"dtype": "int64", "vocabulary": {"type": "learned", "min_count": 9}}, 4),
}


@pytest.mark.parametrize("case", EMPTY)
def test_a_vocabulary_without_a_token_is_one_line(tmp_path: Path, case: str) -> None:
    definition, value = EMPTY[case]
    file = FeatureFile.model_validate({**FEATURES, "user": {"city": definition}})
    columns = {} if value is None else {"city": [value]}
    train = write_records(tmp_path / "train.tfrecord", [{**row(number, b"a"), **columns} for number in range(3)])
    told = r"user\.city: the training split holds no token" if value else "column 'city' has no value"
    with pytest.raises(UserError, match=told) as raised:
        analyze(file, [train], tmp_path / "assets", tmp_path)
    assert "\n" not in str(raised.value)


@pytest.mark.e2e
def test_the_pipeline_tells_of_a_vocabulary_without_a_token(tmp_path: Path) -> None:
    from pipeline.assets import assets_from_transform

    file = FeatureFile.model_validate({**FEATURES, "user": {"city": {"dtype": "string"}}})
    train = write_records(tmp_path / "train.tfrecord", [row(number, b"a") for number in range(3)])
    examples = run_transform(file, tmp_path, {"train": train})["train"]
    with pytest.raises(UserError, match=r"^user\.city: the training split holds no token"):
        assets_from_transform(str(tmp_path / "graph"), examples, file, tmp_path / "assets", tmp_path)


def test_the_pipeline_tells_of_a_number_without_a_value(tmp_path: Path) -> None:
    from pipeline.assets import _statistics
    from pipeline.preprocessing import _Gather

    candidate = {"token": {"dtype": "string"}, "price": {"kind": "numeric"}}
    file = FeatureFile.model_validate({**FEATURES, "candidate": candidate, "sequences": {}})
    gather = _Gather([*learned_numbers(file).values()], seed=1)
    nothing = gather.add_input(gather.create_accumulator(), [np.array([np.nan, np.inf], np.float32)])
    vector = gather.extract_output(gather.merge_accumulators([nothing, gather.create_accumulator()]))
    learned = tf.io.serialize_tensor(tf.constant(vector, tf.float64)).numpy()
    path = write_records(tmp_path / "transformed.tfrecord", [{STATISTICS: [learned]}])
    with pytest.raises(UserError, match=r"^column 'price' has no value in the training split"):
        _statistics([str(path)], file)
