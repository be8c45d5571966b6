"""The check of a model before it is pushed, on small SavedModels: the good one, and each way to be bad."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from pipeline.ask_model import WARMUP_FILE, _Blocker
from pipeline.servable import ModelUnservableError, check_model

pytestmark = pytest.mark.e2e


class Small(tf.Module):
    """Three signatures, as an export has them.

    Args:
        spoil: What is done to every logit.
    """

    def __init__(self, spoil: Callable[[Any], Any]) -> None:
        self.weight = tf.Variable(tf.random.stateless_normal([50_000], [1, 2]))
        self.spoil = spoil

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "examples")])
    def whole(self, examples: Any) -> Any:
        return {"probabilities": tf.sigmoid(tf.cast(tf.strings.length(examples), tf.float32) * self.weight[0])}

    @tf.function(input_signature=[tf.TensorSpec([None, 5], tf.int64, "clicks")])
    def tower(self, clicks: Any) -> Any:
        return {"state": tf.cast(clicks, tf.float32) * self.weight[:5]}

    @tf.function(
        input_signature=[tf.TensorSpec([None, 5], tf.float32, "state"), tf.TensorSpec([None, None], tf.int64, "item")]
    )
    def score(self, state: Any, item: Any) -> Any:
        logits = tf.cast(item, tf.float32) + tf.reduce_sum(state, 1, keepdims=True)
        return {"probabilities": self.spoil(tf.sigmoid(logits))}


def save(directory: Path, spoil: Callable[[Any], Any] = tf.identity, skipped: str = "") -> Path:
    model = Small(spoil)
    signatures = {"serving_default": model.whole, "user_tower": model.tower, "score": model.score}
    tf.saved_model.save(model, str(directory), signatures)
    requests: dict[str, dict[str, Any]] = {
        "serving_default": {"examples": [b"row"]},
        "user_tower": {"clicks": tf.ones([1, 5], tf.int64)},
        "score": {"state": tf.ones([1, 5]), "item": tf.ones([1, 7], tf.int64)},
    }
    (directory / WARMUP_FILE).parent.mkdir()
    with tf.io.TFRecordWriter(str(directory / WARMUP_FILE)) as writer:
        for name in requests.keys() - {skipped}:
            log = prediction_log_pb2.PredictionLog()
            log.predict_log.request.model_spec.signature_name = name
            for key, value in requests[name].items():
                log.predict_log.request.inputs[key].CopyFrom(tf.make_tensor_proto(value))
            writer.write(log.SerializeToString())
    return directory


def raises(values: Any) -> Any:
    with tf.control_dependencies([tf.debugging.assert_greater(values, 2.0, "no such item")]):
        return tf.identity(values)


def hangs(values: Any) -> Any:
    return tf.while_loop(lambda x: tf.reduce_all(x < 2), lambda x: [tf.identity(x)], [values])[0]


def refused(directory: Path, **limits: Any) -> str:
    with pytest.raises(ModelUnservableError) as caught:
        check_model(directory, **limits)
    assert "\n" not in str(caught.value)
    assert str(directory) in str(caught.value)
    return str(caught.value)


def test_a_good_model_passes(tmp_path: Path) -> None:
    assert "requests answered" in check_model(save(tmp_path / "model"))


def test_a_signature_that_raises_is_named_with_the_request(tmp_path: Path) -> None:
    told = refused(save(tmp_path / "model", raises))

    assert "score, warm-up request" in told
    assert "no such item" in told


def test_answers_that_are_no_number(tmp_path: Path) -> None:
    told = refused(save(tmp_path / "model", lambda values: values * float("nan")))

    assert "score, warm-up request" in told
    assert "probabilities must be from 0 to 1. Received: nan (7 of 7)" in told


def test_answers_above_one(tmp_path: Path) -> None:
    assert "from 0 to 1. Received: 1." in refused(save(tmp_path / "model", lambda values: values + 1))


def test_a_truncated_file_of_variables(tmp_path: Path) -> None:
    directory = save(tmp_path / "model")
    [path] = (directory / "variables").glob("*.data-*")
    os.truncate(path, path.stat().st_size // 2)

    assert ": loading: " in refused(directory)


def test_a_model_that_hangs_is_ended(tmp_path: Path) -> None:
    told = refused(save(tmp_path / "model", hangs), seconds=30)

    assert "score, warm-up request" in told
    assert "no answer within the limit of 30 s" in told


def test_a_model_that_takes_too_much_memory(tmp_path: Path) -> None:
    assert "can't be served" in refused(save(tmp_path / "model"), gibibytes=0.05)


def test_warm_up_requests_must_be_there(tmp_path: Path) -> None:
    directory = save(tmp_path / "model", skipped="user_tower")
    assert f"{WARMUP_FILE} has no request for user_tower" in refused(directory)
    (directory / WARMUP_FILE).unlink()
    assert f"{WARMUP_FILE}: not there; an export writes it" in refused(directory)


def test_a_model_that_needs_the_python_of_its_maker(tmp_path: Path) -> None:
    def needs_python(values: Any) -> Any:
        return tf.ensure_shape(tf.numpy_function(lambda x: x, [values], tf.float32), [None, None])

    assert "score, warm-up request" in refused(save(tmp_path / "model", needs_python))


@pytest.mark.parametrize("name", ["keras", "keras.ops", "tf_keras", "tfctr.layers"])
def test_what_a_model_server_lacks_is_not_imported(name: str) -> None:
    with pytest.raises(ImportError, match="a model server has no such package"):
        _Blocker().find_spec(name)
