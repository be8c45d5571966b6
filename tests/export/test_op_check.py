from pathlib import Path

import pytest
import tensorflow as tf

from tfctr.errors import UserError
from tfctr.export.op_check import check_ops, serving_ops


class Scorer(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec([None, 3], tf.float32, "x")])
    def score(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
        # Cumsum only runs in a branch, two functions below the signature's own.
        return {"y": tf.cond(tf.shape(x)[0] > 1, lambda: tf.cumsum(x, axis=1), lambda: x)}

    @tf.function(input_signature=[tf.TensorSpec([None, 3], tf.float32, "x")])
    def user_tower(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"state": tf.reduce_sum(x, axis=1)}


@pytest.fixture(scope="module")
def saved_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    module = Scorer()
    directory = tmp_path_factory.mktemp("model")
    signatures = {"score": module.score, "user_tower": module.user_tower}
    tf.saved_model.save(module, str(directory), signatures=signatures)
    return directory


def _save(directory: Path, function: object) -> Path:
    module = tf.Module()
    module.run = function  # type: ignore[attr-defined]
    tf.saved_model.save(module, str(directory), signatures={"score": function})
    return directory


def test_the_list_is_the_runtime_before_this_one() -> None:
    ops = serving_ops()
    assert len(ops) == 1907
    assert {"MatMul", "StatefulPartitionedCall", "ParseExampleV2", "LookupTableFindV2"} <= ops
    assert "DecodeJxl" not in ops  # new in TensorFlow 2.21


def test_a_plain_model_passes(saved_model: Path) -> None:
    check_ops(saved_model)


def test_an_unregistered_op_is_named_with_its_signature(saved_model: Path) -> None:
    with pytest.raises(UserError) as caught:
        check_ops(saved_model, known_ops=serving_ops() - {"Cumsum"})
    message = str(caught.value)
    assert "op Cumsum is not registered" in message
    assert "`score`" in message
    assert "`user_tower`" not in message


def test_an_op_of_the_main_graph_counts(saved_model: Path) -> None:
    with pytest.raises(UserError, match="op Placeholder is not registered there; it is used in the main graph"):
        check_ops(saved_model, known_ops=serving_ops() - {"Placeholder"})


def test_an_op_newer_than_the_server_is_refused(tmp_path: Path) -> None:
    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "image")])
    def decode(image: tf.Tensor) -> dict[str, tf.Tensor]:
        pixels = tf.map_fn(lambda one: tf.raw_ops.DecodeJxl(contents=one), image, fn_output_signature=tf.uint8)
        return {"pixels": pixels}

    with pytest.raises(UserError, match="op DecodeJxl is not registered"):
        check_ops(_save(tmp_path, decode))


@pytest.mark.parametrize(
    ("shape", "reason"), [([], "is a scalar"), (None, "no known rank"), ([5], "fixed first dimension 5")]
)
def test_a_signature_that_cannot_be_batched_is_refused(tmp_path: Path, shape: list[int] | None, reason: str) -> None:
    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, "x"), tf.TensorSpec(shape, tf.float32, "scale")])
    def score(x: tf.Tensor, scale: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"y": x * tf.reduce_sum(scale)}

    with pytest.raises(UserError, match=f"input scale of signature `score` .*{reason}"):
        check_ops(_save(tmp_path, score))


def test_a_scalar_output_is_refused(tmp_path: Path) -> None:
    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, "x")])
    def score(x: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"loss": tf.reduce_sum(x)}

    with pytest.raises(UserError, match="output loss of signature `score` is a scalar"):
        check_ops(_save(tmp_path, score))


def test_no_saved_model(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no SavedModel"):
        check_ops(tmp_path)
    (tmp_path / "saved_model.pb").write_bytes(b"\xff\xff not a proto")
    with pytest.raises(UserError, match="is not a SavedModel"):
        check_ops(tmp_path)
