"""`check_layer` must find the faults that it is meant to find."""

from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

from tests.layer_checks import check_layer

pytestmark = pytest.mark.any_backend

X = np.random.default_rng(0).normal(size=(4, 3)).astype("float32")


@keras.saving.register_keras_serializable(package="tests")
class Scale(keras.layers.Layer):
    def __init__(self, factor: float = 2.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.factor = factor

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        self.weight = self.add_weight(name="weight", shape=(input_shape[-1],), initializer="ones")

    def call(self, inputs: Any) -> Any:
        return self.factor * self.weight * inputs

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "factor": self.factor}


def test_a_good_layer_passes() -> None:
    np.testing.assert_allclose(check_layer(Scale(3.0), X, output_shape=(4, 3)), 3 * X, rtol=1e-6)


@keras.saving.register_keras_serializable(package="tests")
class ForgetsItsConfig(Scale):
    def get_config(self) -> dict[str, Any]:
        return keras.layers.Layer.get_config(self)


@keras.saving.register_keras_serializable(package="tests")
class HasAnIdleWeight(Scale):
    def build(self, input_shape: tuple[int | None, ...]) -> None:
        super().build(input_shape)
        self.idle = self.add_weight(name="idle", shape=(1,))


@keras.saving.register_keras_serializable(package="tests")
class ReadsValuesInPython(Scale):
    def call(self, inputs: Any) -> Any:
        return super().call(inputs) if float(ops.max(inputs)) > 0 else inputs


@keras.saving.register_keras_serializable(package="tests")
class IsInfinite(Scale):
    def call(self, inputs: Any) -> Any:
        return super().call(inputs) / 0.0


@keras.saving.register_keras_serializable(package="tests")
class OverflowsInHalfPrecision(Scale):
    def call(self, inputs: Any) -> Any:
        return super().call(inputs) if self.compute_dtype == "float32" else super().call(inputs) * float("inf")


class IsNotRegistered(Scale):
    pass


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (ForgetsItsConfig(), "get_config leaves out: .'factor'"),
        (HasAnIdleWeight(), "idle: (no gradient|a training step left it alone)"),
        # On JAX, Keras itself fails when it rewords the tracer's error.
        (ReadsValuesInPython(), "symbolic|tf.Tensor|numpy|float|_error_repr"),
        (IsInfinite(), "an output is not finite"),
        (OverflowsInHalfPrecision(), "not finite under mixed_bfloat16"),
        (IsNotRegistered(), "IsNotRegistered"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, keras.layers.Layer) else "",
)
def test_a_faulty_layer_fails(layer: Scale, message: str) -> None:
    with pytest.raises(Exception, match=message):
        check_layer(layer, X)


def test_a_wrong_shape_fails() -> None:
    with pytest.raises(AssertionError, match=r"shapes \[4, 3\], expected \(4, 4\)"):
        check_layer(Scale(), X, output_shape=(4, 4))
