"""The signatures: names, shapes, checks in the graph, bad rows."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import config_pb2
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2
from tensorflow_serving.apis import prediction_log_pb2

from tests.workbench import PRESETS, Workbench
from tfctr.client.times import newest_time_of
from tfctr.errors import UserError
from tfctr.export.describe import describe
from tfctr.export.saved_model import export_model, next_version
from tfctr.export.signatures import RankingModule, model_tag
from tfctr.features import INT64_MISSING
from tfctr.training.experiment import Experiment

pytestmark = pytest.mark.slow

CANDIDATES = 5


@pytest.fixture(scope="module", params=PRESETS)
def served(request: pytest.FixtureRequest, exported: dict[str, Path]) -> Any:
    return tf.saved_model.load(str(exported[request.param]))


@pytest.fixture
def user(workbench: Workbench) -> dict[str, Any]:
    raw = workbench.raw("test", 3)
    names = [name for name in raw if name.startswith("history") or name in workbench.file.user]
    return {name: raw[name] for name in names}


@pytest.fixture
def candidates(workbench: Workbench) -> dict[str, Any]:
    raw = workbench.raw("test", 3 * CANDIDATES)
    names = ("item_id", "genres", "year")
    return {name: raw[name].reshape(3, CANDIDATES) for name in names} | {"timestamp": raw["timestamp"][:3]}


def call(served: Any, signature: str, inputs: dict[str, Any]) -> dict[str, np.ndarray]:
    outputs = served.signatures[signature](**{name: tf.constant(value) for name, value in inputs.items()})
    return {name: tensor.numpy() for name, tensor in outputs.items()}


def score(served: Any, state: dict[str, Any], candidates: dict[str, Any]) -> np.ndarray:
    return call(served, "score", {**state, **candidates})["probabilities"]


def test_state_goes_from_tower_to_score_under_its_names(served: Any, user: Any, candidates: Any) -> None:
    state = call(served, "user_tower", user)
    assert "model_tag" in state
    assert set(state) < set(served.signatures["score"].structured_input_signature[1])
    probabilities = score(served, state, candidates)
    assert probabilities.shape == (3, CANDIDATES)
    assert ((probabilities > 0) & (probabilities < 1)).all()


def test_a_foreign_tag_is_refused_row_by_row(served: Any, user: Any, candidates: Any) -> None:
    state = call(served, "user_tower", user)
    clean = score(served, state, candidates)
    state["model_tag"][1] += 1
    refused = score(served, state, candidates)
    assert np.isnan(refused[1]).all()
    np.testing.assert_array_equal(refused[[0, 2]], clean[[0, 2]])


@pytest.mark.parametrize("length", [-1, 13, 10**6])
def test_a_bad_length_is_a_bad_row(served: Any, user: Any, candidates: Any, length: int) -> None:
    clean = score(served, call(served, "user_tower", user), candidates)
    user["history_length"][0] = length
    bad = score(served, call(served, "user_tower", user), candidates)
    assert np.isnan(bad[0]).all()
    np.testing.assert_array_equal(bad[1:], clean[1:])


def test_a_spoiled_state_is_a_bad_row(served: Any, user: Any, candidates: Any) -> None:
    """With NaN in a float, an id outside its table or a length outside [0, L], only the scores of that row are NaN."""
    state = call(served, "user_tower", user)
    clean = score(served, state, candidates)
    for name, tensor in state.items():
        if name in ("model_tag", "state_history_newest_time"):
            continue
        spoiled = tensor.copy()
        spoiled[2] = np.nan if tensor.dtype.kind == "f" else 10**9
        probabilities = score(served, {**state, name: spoiled}, candidates)
        assert np.isnan(probabilities[2]).all(), name
        np.testing.assert_array_equal(probabilities[:2], clean[:2])


def test_padding_of_the_history_changes_nothing(served: Any, user: Any, candidates: Any) -> None:
    """TF Serving pads with a tensor's first element and not with zero, so padded values must not affect the scores."""
    user["history_length"][:] = (3, 12, 0)
    clean = score(served, call(served, "user_tower", user), candidates)
    for column in user.values():
        if column.ndim == 2:
            for row, length in enumerate(user["history_length"]):
                column[row, length:] = column[0, 0]
    np.testing.assert_array_equal(score(served, call(served, "user_tower", user), candidates), clean)


def test_padding_of_the_candidates_changes_nothing(served: Any, user: Any, candidates: Any) -> None:
    state = call(served, "user_tower", user)
    clean = score(served, state, candidates)
    for name in ("item_id", "genres", "year"):
        first = np.full((3, 3), candidates[name][0, 0], dtype=candidates[name].dtype)
        candidates[name] = np.concatenate([candidates[name], first], axis=1)
    padded = score(served, state, candidates)
    np.testing.assert_allclose(padded[:, :CANDIDATES], clean, rtol=0, atol=1e-6)


def test_ages_are_unknown_where_the_newest_event_has_no_time(served: Any, user: Any, candidates: Any) -> None:
    user["history_time"][:, 0] = INT64_MISSING
    newest = score(served, call(served, "user_tower", user), candidates)
    user["history_time"][:] = INT64_MISSING
    np.testing.assert_array_equal(newest, score(served, call(served, "user_tower", user), candidates))


def test_unknown_and_missing_ids_are_scored(served: Any, user: Any, candidates: Any) -> None:
    user["user_id"][:] = 10**15
    user["history_item_id"][:] = -7
    candidates["item_id"][:, 0] = 10**15
    candidates["item_id"][:, 1] = INT64_MISSING
    candidates["genres"][:, 2] = b"no such genre"
    candidates["year"][:, 3] = INT64_MISSING
    assert np.isfinite(score(served, call(served, "user_tower", user), candidates)).all()


def test_no_candidates(served: Any, user: Any, candidates: Any) -> None:
    state = call(served, "user_tower", user)
    none = {name: value[:, :0] if value.ndim == 2 else value for name, value in candidates.items()}
    assert score(served, state, none).shape == (3, 0)


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda value: value[:2], "item_id"),
        (lambda value: value[:1], "timestamp"),
        (lambda value: value[:, :4], "genres"),
        (lambda value: value[:1], "model_tag"),
    ],
)
def test_shapes_are_never_broadcast(served: Any, user: Any, candidates: Any, change: Any, name: str) -> None:
    inputs = {**call(served, "user_tower", user), **candidates}
    inputs[name] = change(inputs[name])
    with pytest.raises(tf.errors.InvalidArgumentError, match="must have the same dimension"):
        call(served, "score", inputs)


def test_a_history_of_another_length_is_refused(exported: dict[str, Path], user: Any) -> None:
    """tf.function checks shapes by the signature. TF Serving does not, so the graph must check them (EnsureShape)."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        meta = tf.compat.v1.saved_model.load(session, ["serve"], str(exported["din"]))
        signature = meta.signature_def["user_tower"]
        feed = {signature.inputs[name].name: value for name, value in user.items()}
        fetch = signature.outputs["model_tag"].name
        assert session.run(fetch, feed).shape == (3,)
        short = signature.inputs["history_item_id"].name
        graph = tf.compat.v1.get_default_graph()
        graph.get_tensor_by_name(short).set_shape([None, None])
        runner = session._make_callable_from_options(_callable_options(list(feed), [fetch]))
        feed[short] = feed[short][:, :4]
        with pytest.raises(tf.errors.InvalidArgumentError, match=r"history_item_id|EnsureShape|shape"):
            runner(*feed.values())


@pytest.mark.parametrize("signature", ["serving_default", "user_tower", "score"])
def test_a_request_has_a_size(served: Any, workbench: Workbench, user: Any, candidates: Any, signature: str) -> None:
    """TF Serving fills a tensor that states a shape and holds one value, so the graph has to stop it."""
    rows = {
        "serving_default": {"examples": np.repeat(workbench.serialized("test", 1), 4097)},
        "user_tower": {name: np.repeat(value[:1], 4097, axis=0) for name, value in user.items()},
    }
    if signature == "score":
        rows["score"] = call(served, "user_tower", user)
        for name, value in candidates.items():
            rows["score"][name] = np.repeat(value, 1100, axis=1) if value.ndim == 2 else value
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"a request may have (4096|16384) .*max_.*of the export"):
        call(served, signature, rows[signature])


@pytest.mark.parametrize("signature", ["serving_default", "user_tower", "score"])
def test_strings_have_a_size(served: Any, workbench: Workbench, user: Any, candidates: Any, signature: str) -> None:
    """One long string that stands for many is parsed or split into many times its bytes."""
    long = np.array(b"a|" * (2**23 + 1))
    requests = {"serving_default": {"examples": long[None]}, "user_tower": dict(user), "score": dict(candidates)}
    if signature == "score":
        requests["score"] |= call(served, "user_tower", user)
    if signature != "serving_default":
        texts = [name for name, value in requests[signature].items() if value.dtype.kind in "OS"]
        requests[signature][texts[0]] = np.broadcast_to(long, requests[signature][texts[0]].shape)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"may have 16777216 bytes of strings .*max_string_bytes"):
        call(served, signature, requests[signature])


def _callable_options(feed: list[str], fetch: list[str]) -> Any:
    return config_pb2.CallableOptions(feed=feed, fetch=fetch)


def test_no_tensor_has_candidates_history_and_width(workbench: Workbench, exported: dict[str, Path]) -> None:
    """No tensor in the score graph of dmf has the shape [C, L, d] or [C, L, bins], not even a one-hot encoding.

    The graph is traced with sizes that differ, so that a dimension is known by its size.
    """
    candidates, history = 37, workbench.file.sequences["history"].max_length
    served = tf.saved_model.load(str(exported["dmf"]))
    specs = served.signatures["score"].structured_input_signature[1]
    function = tf.function(lambda **inputs: served.signatures["score"](**inputs))
    fixed = {
        name: tf.TensorSpec([1] + [candidates if size is None else size for size in spec.shape[1:]], spec.dtype)
        for name, spec in specs.items()
    }
    graph = function.get_concrete_function(**fixed).graph
    # In this graph, the function calls are inlined.
    inlined = convert_variables_to_constants_v2(function.get_concrete_function(**fixed)).graph
    seen = 0
    for operation in [*graph.get_operations(), *inlined.get_operations()]:
        for tensor in operation.outputs:
            if tensor.shape.rank is None:
                continue
            sizes = [size for size in tensor.shape.as_list() if size not in (None, 1)]
            seen += candidates in sizes
            if candidates in sizes and history in sizes:
                rest = sorted(sizes)
                rest.remove(candidates)
                rest.remove(history)
                # Besides candidates and events, a tensor may have the four heads, but not a width or the bins.
                assert math.prod(rest) <= 4, f"{operation.name} ({operation.type}): {tensor.shape}"
    assert seen > 20


def test_warmup_requests_run(exported: dict[str, Path]) -> None:
    for directory in exported.values():
        loaded = tf.saved_model.load(str(directory))
        path = directory / "assets.extra" / "tf_serving_warmup_requests"
        signatures = []
        for record in tf.data.TFRecordDataset(str(path)):
            request = prediction_log_pb2.PredictionLog.FromString(record.numpy()).predict_log.request
            signatures.append(request.model_spec.signature_name)
            inputs = {name: tf.make_ndarray(tensor) for name, tensor in request.inputs.items()}
            probabilities = call(loaded, signatures[-1], inputs).get("probabilities")
            assert probabilities is None or np.isfinite(probabilities).all()
        assert signatures == ["serving_default", "user_tower", "score", "score"]


def test_weights_are_stored_once(workbench: Workbench, exported: dict[str, Path]) -> None:
    made = describe(exported["dmf"])
    weights = made.made["trainable_parameters"] + made.made["frozen_parameters"]
    stored = made.bytes_by_part["variables"]
    assert 4 * weights <= stored <= 4 * weights * 1.1 + 20_000


def test_description_tells_the_state(exported: dict[str, Path]) -> None:
    made = describe(exported["dmf"])
    assert set(made.inputs) == {"serving_default", "user_tower", "score"}
    assert made.state_bytes == sum(tensor.row_bytes for tensor in made.state)
    assert made.state_bytes > 1000
    # The client knows by the last one that a history has times.
    assert {tensor.name for tensor in made.state} >= {"model_tag", "state_user_fields", newest_time_of("history")}


def test_negative_sampling_shifts_every_signature(workbench: Workbench, tmp_path: Path) -> None:
    """If a share r of the negatives is kept, the served odds are r times the odds in the sampled data."""
    model = workbench.model("mlp")
    examples = tf.constant(workbench.serialized("test", 8))
    plain = RankingModule(model, workbench.assets).serving_default(examples)["probabilities"].numpy()
    file = workbench.file
    object.__setattr__(workbench.assets, "file", file.model_copy(update={"negative_sampling_rate": 0.25}))
    try:
        shifted = RankingModule(model, workbench.assets).serving_default(examples)["probabilities"].numpy()
    finally:
        object.__setattr__(workbench.assets, "file", file)
    np.testing.assert_allclose(shifted / (1 - shifted), 0.25 * plain / (1 - plain), rtol=1e-4)


def test_an_existing_directory_is_kept(workbench: Workbench, exported: dict[str, Path]) -> None:
    before = sorted(path.name for path in exported["mlp"].parent.iterdir())
    with pytest.raises(UserError, match="exists already"):
        export_model(workbench.model("mlp"), workbench.assets, Experiment(preset="mlp"), exported["mlp"])
    assert sorted(path.name for path in exported["mlp"].parent.iterdir()) == before


def test_versions_grow(tmp_path: Path) -> None:
    (tmp_path / str(2**40)).mkdir()
    (tmp_path / "tmp-7").mkdir()
    assert next_version(tmp_path) == 2**40 + 1


def test_tag_depends_on_weights(workbench: Workbench) -> None:
    tags = {model_tag(workbench.model("mlp", seed=seed), workbench.assets) for seed in (1, 1, 2)}
    assert len(tags) == 2
