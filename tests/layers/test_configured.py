import copy
import json
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

from tests.layer_checks import check_layer
from tfctr.layers.configured import Configured, ConfiguredLayer
from tfctr.layers.registry import arguments_of


@keras.saving.register_keras_serializable(package="tests")
class Twofold(ConfiguredLayer):
    """Two kernels of one shape, a dense layer, and a table."""

    weight_kinds = ("kernel", "embeddings")

    def __init__(self, units: tuple[int, ...] | list[int] = (3, 3), factor: float = 2.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.factor = factor
        self.widths = list(units)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        width = input_shape[-1]
        self.first, self.second = (self.make_weight(name, (width, width), "zeros") for name in ("first", "second"))
        self.dense = self.make_dense("dense", width, width, initializer="ones", use_bias=False)
        self.table = self.make_weight("table", (5, width), "ones", kind="embeddings")

    def call(self, inputs: Any) -> Any:
        return self.factor * self.dense(ops.matmul(inputs, self.first + self.second)) + ops.sum(self.table, axis=0)


X = np.random.default_rng(0).normal(size=(4, 3)).astype("float32")


def built(**kwargs: Any) -> Twofold:
    layer = Twofold(**kwargs)
    layer.build((None, 3))
    return layer


def test_the_signature_has_the_arguments_of_the_kinds() -> None:
    assert arguments_of(Twofold) == {
        "units": (3, 3),
        "factor": 2.0,
        "kernel_initializer": None,
        "kernel_regularizer": None,
        "embeddings_initializer": None,
        "embeddings_regularizer": None,
    }


def test_the_config_holds_given_values_and_defaults() -> None:
    given = [3]
    config = Twofold(given, kernel_initializer="he_normal", name="two", dtype="float16").get_config()
    given.append(4)
    assert (config["units"], config["factor"], config["kernel_initializer"]) == ([3], 2.0, "he_normal")
    assert (config["embeddings_regularizer"], config["name"], config["trainable"]) == (None, "two", True)
    assert config["dtype"]["config"] == {"name": "float16"}
    assert Twofold().get_config()["units"] == [3, 3]


OBJECTS = [
    keras.initializers.HeNormal(seed=3),
    "he_normal",
    {"class_name": "HeNormal", "config": {"seed": 3}},
    {"class_name": "HeNormal", "config": {}},
]


@pytest.mark.slow
@pytest.mark.parametrize("initializer", OBJECTS, ids=["object", "name", "configuration", "configuration_without_seed"])
def test_keras_objects_survive(initializer: Any) -> None:
    layer = Twofold(kernel_initializer=initializer, embeddings_regularizer=keras.regularizers.L2(0.5))
    check_layer(layer, X, output_shape=(4, 3))
    config = json.loads(json.dumps(layer.get_config()))
    again = Twofold.from_config(config)
    assert again.get_config() == config
    assert isinstance(again.kernel_initializer, keras.initializers.HeNormal)
    assert isinstance(again.embeddings_regularizer, keras.regularizers.L2)
    assert again.embeddings_regularizer.l2 == 0.5


def test_without_a_choice_each_weight_starts_as_the_code_says() -> None:
    layer = built()
    assert not np.any(layer.first)
    assert np.all(np.asarray(layer.dense.kernel) == 1)
    assert np.all(np.asarray(layer.table) == 1)
    assert not layer.losses


def test_no_two_weights_start_equal() -> None:
    """This holds even for an initializer with a seed, from which Keras alone would draw the same matrix for both.

    A second layer with the same seed still starts with the same numbers.
    """
    for initializer in (keras.initializers.HeNormal(seed=3), "he_normal"):
        layer, again = built(kernel_initializer=initializer), built(kernel_initializer=initializer)
        kernels = [np.asarray(weight) for weight in (layer.first, layer.second, layer.dense.kernel)]
        for i in range(3):
            assert np.any(kernels[i])
            assert not np.array_equal(kernels[i], kernels[i - 1])
        assert np.array_equal(kernels[0], np.asarray(again.first)) == (initializer != "he_normal")
        assert np.all(np.asarray(layer.table) == 1)


def test_regularizers_reach_their_weights() -> None:
    layer = built(kernel_regularizer="l2", embeddings_regularizer={"class_name": "L1", "config": {"l1": 1.0}})
    # Two kernels hold zeros, one holds nine ones, and the table holds fifteen ones.
    assert sorted(float(loss) for loss in layer.losses) == pytest.approx([0.0, 0.0, 0.09, 15.0])


@pytest.mark.parametrize("value", ["he_norml", 3, {"class_name": "NoSuch", "config": {}}, {"config": {}}])
def test_what_is_no_initializer_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match=r"`kernel_initializer` must be a Keras initializer, or .*\. Received: "):
        Twofold(kernel_initializer=value)


def test_what_is_no_layer_has_a_config_too() -> None:
    class Plain(Configured):
        def __init__(self, first: int, second: tuple[int, ...] = (1, 2)) -> None:
            self.sum = first + sum(second)

    assert Plain(3).get_config() == {"first": 3, "second": [1, 2]}
    assert copy.copy(Plain(second=(), first=1)).get_config() == {"first": 1, "second": []}
    with pytest.raises(TypeError, match="first"):
        Plain()  # type: ignore[call-arg]
