"""The session with and without TensorFlow's private functions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from serving.server import session
from serving.server.engine import LoadedModel
from tests.serving.requests import SCORE

INPUTS = {name: tf.make_tensor_proto(value) for name, value in SCORE.items()}
WRONG = {**INPUTS, "user_vector": tf.make_tensor_proto(np.zeros((1, 3), np.float32))}


@pytest.fixture(params=["", "_call_tf_sessionrun", "_as_tf_output", "TF_NewBufferFromString", "pywrap_tf_session"])
def model(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, saved_models: dict[int, Path]
) -> LoadedModel:
    """A model that is loaded while one of the private functions is hidden. TensorFlow itself still finds it."""
    hidden = request.param
    if hidden == "pywrap_tf_session":
        monkeypatch.setattr(session, "pywrap_tf_session", None)
    elif hidden:
        monkeypatch.setattr(
            session, "_private", lambda owner, name: None if name == hidden else getattr(owner, name, None)
        )
    loaded = LoadedModel(saved_models[1])
    assert loaded.session._low_level == (not hidden)
    return loaded


def test_runs(model: LoadedModel, saved_models: dict[int, Path]) -> None:
    expected = tf.saved_model.load(str(saved_models[1])).signatures["score"]
    wanted = expected(**{name: tf.constant(value) for name, value in SCORE.items()})["probabilities"].numpy()
    for timeout_ms in (None, 60_000):
        found = model.predict("score", INPUTS, [], timeout_ms)["probabilities"]
        np.testing.assert_array_equal(found, wanted)


def test_a_wrong_shape_is_the_fault_of_the_caller(model: LoadedModel) -> None:
    with pytest.raises(tf.errors.InvalidArgumentError):
        model.predict("score", WRONG, [])


def test_a_deadline_stops_the_run(model: LoadedModel) -> None:
    with pytest.raises(tf.errors.DeadlineExceededError):
        model.predict("slow", {"steps": tf.make_tensor_proto(np.array([10**8]))}, [], timeout_ms=100)
