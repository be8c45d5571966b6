import contextlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tfctr.client import BadRequestError, ClientError, CodecError, UnsupportedModelError
from tfctr.client.declared import Declared
from tfctr.client.metadata import ServedModel, Signature, TensorSpec, parse_metadata
from tfctr.client.protos import wire_pb2 as wire
from tfctr.client.requests import RequestBuilder
from tfctr.client.times import newest_time_of

INT64_MISSING = -(2**63)
TYPES = {"int64": wire.DT_INT64, "string": wire.DT_STRING, "float": wire.DT_FLOAT, "int32": wire.DT_INT32}


def specs(**columns: tuple[Any, ...]) -> dict[str, TensorSpec]:
    return {name: TensorSpec(name, TYPES[dtype], (-1, *shape)) for name, (dtype, *shape) in columns.items()}


STATE = {"history/events": TensorSpec("history/events", wire.DT_FLOAT, (-1, 3, 2))}
STATE_INPUT = {"history_events": TensorSpec("history_events", wire.DT_FLOAT, (-1, 3, 2))}
USER = specs(
    user_id=("int64",),
    gender=("string",),
    age=("float",),
    interests=("string",),
    history_item_id=("int64", 3),
    history_genres=("string", 3),
    history_length=("int64",),
)
CANDIDATE = specs(item_id=("int64", -1), genres=("string", -1), price=("float", -1))
CONTEXT = specs(timestamp=("int64",), page=("string",))


def model(user: Any = USER, candidate: Any = CANDIDATE, context: Any = CONTEXT, **options: Any) -> ServedModel:
    signatures = {
        "user_tower": Signature(user, STATE),
        "score": Signature({**STATE_INPUT, **candidate, **context}, specs(probabilities=("float", -1))),
    }
    return ServedModel("ranking", 7, signatures, **options)


BUILDER = RequestBuilder(model())


def lists(inputs: dict[str, np.ndarray]) -> dict[str, list[Any]]:
    return {name: array.tolist() for name, array in inputs.items()}


def test_inputs_are_told_apart_by_the_metadata_alone() -> None:
    served = model()
    assert served.state_inputs == {"history_events": "history/events"}
    assert set(served.candidate_inputs) == {"item_id", "genres", "price"}
    assert set(served.context_inputs) == {"timestamp", "page"}
    assert served.sequences == {"history": ("history_genres", "history_item_id")}


def test_user_is_padded_to_the_served_length() -> None:
    found = lists(
        BUILDER.user(
            {
                "user_id": np.int32(3),
                "gender": "F",
                "age": 20,
                "interests": ["a", "b"],
                "history_item_id": [5, None],
                "history_genres": [["Action", b"War"], None],
            }
        )
    )
    assert found == {
        "user_id": [3],
        "gender": [b"F"],
        "age": [20.0],
        "interests": [b"a|b"],
        "history_item_id": [[5, INT64_MISSING, INT64_MISSING]],
        "history_genres": [[b"Action|War", b"", b""]],
        "history_length": [2],
    }


def test_longer_histories_are_cut_to_the_newest() -> None:
    found = lists(BUILDER.user({"history_item_id": np.arange(10), "history_genres": ["x"] * 10}))
    assert found["history_item_id"] == [[0, 1, 2]]
    assert found["history_length"] == [3]


def test_everything_absent_goes_as_missing() -> None:
    found = BUILDER.user({})
    assert lists(found | {"age": np.zeros(0)}) == {
        "user_id": [INT64_MISSING],
        "gender": [b""],
        "age": [],
        "interests": [b""],
        "history_item_id": [[INT64_MISSING] * 3],
        "history_genres": [[b""] * 3],
        "history_length": [0],
    }
    assert np.isnan(found["age"]).tolist() == [True]
    assert lists(BUILDER.context({})) == {"timestamp": [INT64_MISSING], "page": [b""]}
    rows = BUILDER.candidates([{}, {"item_id": 4}])
    assert rows["item_id"].tolist() == [[INT64_MISSING, 4]]
    assert rows["genres"].tolist() == [[b"", b""]]
    assert np.isnan(rows["price"]).tolist() == [[True, True]]


def test_one_history_field_may_be_absent() -> None:
    found = lists(BUILDER.user({"history_item_id": [1, 2]}))
    assert found["history_genres"] == [[b"", b"", b""]]
    assert found["history_length"] == [2]


def test_a_given_length_counts_for_fields_padded_by_the_caller() -> None:
    found = lists(BUILDER.user({"history_item_id": [1, 2, 0], "history_genres": ["a", "b", ""], "history_length": 2}))
    assert found["history_item_id"] == [[1, 2, INT64_MISSING]]
    assert found["history_length"] == [2]


def test_rows_and_columns_make_the_same_request() -> None:
    rows = [{"item_id": 1, "genres": ["a", "b"], "price": 0.5}, {"item_id": 2, "genres": None, "price": 1}]
    columns = {"item_id": np.array([1, 2]), "genres": [["a", "b"], ""], "price": (0.5, np.float64(1))}
    left, right = BUILDER.candidates(rows), BUILDER.candidates(columns)
    assert lists(left) == lists(right)
    assert {name: array.dtype for name, array in left.items()} == {
        "item_id": np.int64,
        "genres": object,
        "price": np.float32,
    }
    assert all(array.shape == (1, 2) for array in left.values())


@pytest.mark.parametrize(
    ("user", "message"),
    [
        ({"user_id": "7"}, r"user\.user_id must be an integer\. Received: '7' \(str\)"),
        ({"user_id": 7.0}, r"user\.user_id must be an integer\. Received: 7\.0 \(float\)"),
        ({"user_id": [7]}, r"user\.user_id must be an integer"),
        ({"user_id": 2**63}, r"user\.user_id must fit 64 bits.*Received: 9223372036854775808"),
        ({"user_id": np.uint64(2**63)}, "must fit 64 bits"),
        ({"user_id": {"id": 7}}, r"\(dict\)"),
        ({"age": "old"}, r"user\.age must be a number"),
        ({"age": 1j}, r"user\.age must be a number"),
        ({"age": True}, r"user\.age must be a number\. Received: True \(bool\)"),
        ({"age": float("inf")}, r"user\.age must be a finite float32 number\. Received: inf"),
        ({"gender": 1}, r"user\.gender must be a string"),
        ({"gender": "\ud800"}, "must be valid text"),
        ({"interests": ["a", 1]}, r"user\.interests must be a string"),
        ({"interests": ["a|b", "c"]}, r"must not contain the separator '\|'.*Received: b'a\|b'"),
        ({"history_item_id": 5}, r"user\.history_item_id must be a list of events"),
        ({"history_item_id": "12"}, "must be a list of events"),
        ({"history_item_id": np.zeros((2, 2), np.int64)}, "must be a list of events"),
        ({"history_item_id": [1, "x"]}, r"user\.history_item_id\[1\] must be an integer"),
        (
            {"history_item_id": [1], "history_genres": ["a", "b"]},
            "must have the same length.*Received: .*'history_item_id': 1",
        ),
        ({"history_item_id": [1], "history_length": 2}, r"between 0 and the length of the shortest field \(1\)"),
        ({"history_item_id": [1], "history_length": -1}, "between 0"),
        ([("user_id", 1)], "user must be a mapping"),
    ],
)
def test_bad_users(user: Any, message: str) -> None:
    with pytest.raises(BadRequestError, match=message):
        BUILDER.user(user)


@pytest.mark.parametrize(
    ("candidates", "message"),
    [
        ([{"item_id": 1}, {"item_id": "x"}], r"candidates\[1\]\.item_id must be an integer\. Received: 'x'"),
        ([{"item_id": 1}, 5], r"candidates\[1\] must be a mapping"),
        ({"item_id": [1, 2], "price": [1.0]}, "columns must have the same length.*'price': 1"),
        ({"item_id": 5}, r"candidates\.item_id must be a list"),
        ({"price": [0.5, 1e39]}, r"candidates\[1\]\.price must be a finite float32 number\. Received: 1e\+39"),
        ({"price": [10**39, 1]}, r"candidates\[0\]\.price must be a finite float32 number"),
        ({"price": np.array([0.5, -np.inf])}, r"candidates\[1\]\.price must be a finite float32 number"),
        ({"price": np.array([1e39])}, r"candidates\[0\]\.price must be a finite float32 number"),
        ({"price": [0.5, True]}, r"candidates\[1\]\.price must be a number\. Received: True"),
        ({"price": np.array([True])}, r"candidates\[0\]\.price must be a number"),
        ({"item_id": np.zeros((1, 2), np.int64)}, "one-dimensional"),
        ({"genres": "Action"}, "must be a list"),
        ("abc", "list of mappings"),
        (None, "list of mappings"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_bad_candidates(candidates: Any, message: str) -> None:
    with pytest.raises(BadRequestError, match=message):
        BUILDER.candidates(candidates)


def test_unknown_features_are_left_out_counted_and_told_once(caplog: pytest.LogCaptureFixture) -> None:
    builder = RequestBuilder(model())
    for _ in range(3):
        assert set(builder.context({"page": "home", "country": "NL"})) == {"timestamp", "page"}
    builder.candidates([{"item_id": 1, "title": "x"}, {"item_id": 2}])
    assert builder.dropped == {"context.country": 3, "candidates.title": 1}
    assert [r.getMessage() for r in caplog.records] == [
        "model 'ranking' version 7 does not have these features of context, which are left out: ['country']",
        "model 'ranking' version 7 does not have these features of candidates, which are left out: ['title']",
    ]


def test_strict_refuses_what_the_version_does_not_know() -> None:
    builder = RequestBuilder(model(), strict=True)
    with pytest.raises(BadRequestError, match=r"Did you mean 'user_id'\? Allowed: \['age'.*\. Received: 'user_idd'"):
        builder.user({"user_idd": 1})
    with pytest.raises(BadRequestError, match=r"no feature of this name here.*Received: 'user_id'"):
        builder.candidates({"user_id": [1]})


def test_several_sequences() -> None:
    two = specs(clicks_item=("int64", 3), clicks_length=("int64",), buys_item=("int64", 2), buys_length=("int64",))
    assert model(two).sequences == {"clicks": ("clicks_item",), "buys": ("buys_item",)}
    found = lists(RequestBuilder(model(two)).user({"clicks_item": [1], "buys_item": [1, 2, 3]}))
    assert found == {
        "clicks_item": [[1, INT64_MISSING, INT64_MISSING]],
        "buys_item": [[1, 2]],
        "clicks_length": [1],
        "buys_length": [2],
    }
    unclear = {**two, **specs(liked=("int64", 3))}
    with pytest.raises(UnsupportedModelError, match=r"which of the sequences .* it belongs to.*Received: 'liked'"):
        RequestBuilder(model(unclear))
    told = model(unclear, groups={"clicks": ("clicks_item", "liked")})
    assert told.sequences == {"clicks": ("clicks_item", "liked"), "buys": ("buys_item",)}


def test_a_user_vector_that_is_no_sequence() -> None:
    builder = RequestBuilder(model(specs(embedding=("float", 2))))
    assert lists(builder.user({"embedding": [1, 2.5]})) == {"embedding": [[1.0, 2.5]]}
    assert np.isnan(builder.user({})["embedding"]).all()
    with pytest.raises(BadRequestError, match=r"embedding must be a list of 2 values\. Received: \[1\]"):
        builder.user({"embedding": [1]})


def test_a_model_with_inputs_of_other_types_is_refused() -> None:
    with pytest.raises(UnsupportedModelError, match=r"input 'flag' must be one of .*Received: int32"):
        RequestBuilder(model(specs(flag=("int32",)))).user({})
    with pytest.raises(UnsupportedModelError, match=r"inputs must be \[B\]"):
        model(candidate=specs(image=("float", -1, 3)))


def test_fingerprint_follows_the_signatures() -> None:
    assert model().fingerprint == model().fingerprint
    assert model().fingerprint != model(context={}).fingerprint
    assert model().fingerprint != model(user={**USER, **specs(history_item_id=("int64", 4))}).fingerprint


FEATURES = """
labels: {click: label}
group: user_id
timestamp: timestamp
user:
  user_id: {}
  gender: {dtype: string, max_values: 3, separator: ","}
candidate:
  item_id: {}
sequences:
  seen:
    max_length: 3
    fields:
      liked: {share: item_id}
"""


def test_feature_file_guards_names_and_knows_separators(tmp_path: Path) -> None:
    path = tmp_path / "features.yaml"
    path.write_text(FEATURES)
    declared = Declared.of(path)
    assert declared.groups == {"seen": ("liked",)}
    builder = RequestBuilder(model(), declared=declared)
    assert builder.user({"gender": ["a", "b"], "liked": [1]})["gender"].tolist() == [b"a,b"]
    assert builder.dropped == {"user.liked": 1}  # declared, but the served version does not have it
    with pytest.raises(BadRequestError, match=r"Did you mean 'gender'\?.*Received: 'gendr'"):
        builder.user({"gendr": "F"})


# --- times, which a feature file declares


def _timed() -> RequestBuilder:
    user = specs(history_item_id=("int64", 3), history_time=("int64", 3), history_length=("int64",))
    declared = Declared.of(Path(__file__).parents[2] / "configs" / "movielens.yaml")
    return RequestBuilder(model(user=user, context=specs(timestamp=("int64",))), declared=declared)


@pytest.mark.parametrize("times", [[], [978_300_300], [978_300_300, 978_300_300, 978_300_100], [978_300_300, None]])
def test_times_newest_first_are_taken(times: list[Any]) -> None:
    assert _timed().user({"history_item_id": [1] * len(times), "history_time": times})["history_time"].shape == (1, 3)


@pytest.mark.parametrize(
    ("times", "told"),
    [
        (
            [978_300_100, 978_300_300],
            r"user\.history_time must be newest first: reverse every column of the history\. ",
        ),
        ([978_300_300, None, 978_300_301], "must be newest first"),
        (
            [978_300_300_000, 978_300_100_000],
            r"user\.history_time must be seconds since 1970, before the year 2100; divide milliseconds by 1000\. "
            "Received: 978300300000",
        ),
    ],
)
def test_an_oldest_first_history_and_milliseconds_are_refused_as_in_training(times: list[Any], told: str) -> None:
    with pytest.raises(BadRequestError, match=told):
        _timed().user({"history_item_id": [1] * len(times), "history_time": times})


def _undeclared(timed: bool = True, **fields: tuple[Any, ...]) -> RequestBuilder:
    """A client without a feature file, of a model whose state may have the time of the newest event."""
    user = specs(history_length=("int64",), history_time=("int64", 4), **fields)
    served = model(user=user)
    name = newest_time_of("history") if timed else "state_history_sum"
    state = {**STATE, name: TensorSpec(name, wire.DT_INT64, (-1,))}
    return RequestBuilder(replace(served, signatures={**served.signatures, "user_tower": Signature(user, state)}))


ITEM = {"history_item_id": ("int64", 4)}
OLDEST_FIRST = [978_300_100, 978_300_300]


@pytest.mark.parametrize(
    ("fields", "user"),
    [
        (ITEM, {"history_time": OLDEST_FIRST, "history_item_id": [7, 8]}),
        (ITEM, {"history_time": [*OLDEST_FIRST, None, 978_300_301], "history_item_id": [7, 6, 5, 4]}),
        ({"history_genres": ("string", 4)}, {"history_time": [1, 2, 3], "history_genres": ["a", "b", "c"]}),
    ],
)
def test_an_oldest_first_history_is_refused_where_the_metadata_tell_which_input_is_its_times(
    fields: dict[str, Any], user: dict[str, Any]
) -> None:
    with pytest.raises(BadRequestError) as raised:
        _undeclared(**fields).user(user)
    with pytest.raises(BadRequestError) as declared:
        _timed().user({"history_item_id": [1, 1], "history_time": OLDEST_FIRST})
    told = str(declared.value).partition(" Received: ")[0]
    first, second = user["history_time"][:2]
    assert str(raised.value) == f"{told} Received: {first} before {second}"


@pytest.mark.parametrize(
    ("builder", "user"),
    [
        (_undeclared(**ITEM), {"history_time": OLDEST_FIRST[::-1], "history_item_id": [7, 8]}),
        (_undeclared(**ITEM), {"history_time": OLDEST_FIRST[:1], "history_item_id": [7]}),
        (_undeclared(**ITEM), {"history_time": [978_300_100] * 2, "history_item_id": [7, 8]}),
        (_undeclared(**ITEM), {"history_item_id": [7, 8]}),
        (_undeclared(**ITEM), {}),
        # Two inputs look like times, and none: neither can be told to be one.
        (_undeclared(**ITEM), {"history_time": OLDEST_FIRST, "history_item_id": [10**9, 10**9 + 1]}),
        (_undeclared(**ITEM), {"history_time": [1, 2], "history_item_id": [7, 8]}),
        (_undeclared(**ITEM), {"history_item_id": [10**9, 10**9 + 1]}),
        # The state says nothing of times.
        (_undeclared(timed=False, **ITEM), {"history_time": OLDEST_FIRST, "history_item_id": [7, 8]}),
    ],
)
def test_a_history_is_taken_where_its_order_is_right_or_can_not_be_known(
    builder: RequestBuilder, user: dict[str, Any]
) -> None:
    assert builder.user(user)["history_time"].shape == (1, 4)


def test_a_request_time_in_milliseconds_is_refused_as_in_training() -> None:
    assert _timed().context({"timestamp": 978_300_400})["timestamp"].tolist() == [978_300_400]
    assert _timed().context({})["timestamp"].tolist() == [INT64_MISSING]
    with pytest.raises(BadRequestError, match=r"context\.timestamp must be seconds since 1970"):
        _timed().context({"timestamp": 978_300_400_000})


def test_signatures_that_cannot_be_read() -> None:
    reply = wire.GetModelMetadataResponse()
    reply.metadata["signature_def"].value = b"\xff\xff"
    with pytest.raises(CodecError, match="must send a readable signature_def"):
        parse_metadata(reply, "ranking")


@pytest.mark.parametrize("name", ["item_id", "genres", "price"])
def test_a_number_that_python_does_not_write_out(name: str) -> None:
    with pytest.raises(BadRequestError, match=rf"candidates\[0\]\.{name} must .*an integer of thousands of digits"):
        BUILDER.candidates({name: [10**5000]})


def test_the_largest_floats_and_nan_are_taken() -> None:
    largest = float(np.finfo(np.float32).max)
    taken = BUILDER.candidates({"price": [largest, -largest, float("nan"), None, 2]})["price"]
    assert np.array_equal(taken, np.array([[largest, -largest, np.nan, np.nan, 2]], np.float32), equal_nan=True)


# --- whatever is given, the error is one of the client


HUGE = [10**400, -(10**400), 2**64, -(2**63) - 1]
ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from(HUGE),
    st.integers(),
    st.floats(),
    st.text(st.characters()),
    st.sampled_from(
        ["\ud800", b"\xff", object(), 1j, np.datetime64("2020-01-01"), np.float16(1), np.uint64(2**64 - 1)]
    ),
    st.sampled_from([np.array(1), np.array([1, 2, 3]), np.array([[1]]), np.array(["a"]), np.array([None, 10**400])]),
)
VALUES = ODD | st.lists(ODD, max_size=3) | st.tuples(ODD, ODD) | st.dictionaries(st.text(), ODD, max_size=2)


def _features(known: Any) -> st.SearchStrategy[Any]:
    return st.dictionaries(st.sampled_from([*known, "unknown"]) | ODD.filter(_hashable), VALUES, max_size=4) | VALUES


def _hashable(value: Any) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True


@given(_features(USER), _features(CANDIDATE) | st.lists(_features(CANDIDATE), max_size=3), _features(CONTEXT))
@example({"age": 10**400}, {"price": [10**400]}, {})
@settings(deadline=None)
def test_every_error_is_one_of_the_client(user: Any, candidates: Any, context: Any) -> None:
    for build, given_ in ((BUILDER.user, user), (BUILDER.candidates, candidates), (BUILDER.context, context)):
        with contextlib.suppress(ClientError):
            build(given_)
