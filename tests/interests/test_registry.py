import json
from pathlib import Path
from typing import Any

import pytest
from keras import ops

from tests.composition import assert_trains_and_reloads, model_batch
from tests.interests.helpers import CONFIGS, make_inputs, tensors
from tests.registration import registrations_undone
from tests.workbench import Workbench
from tfctr.errors import UserError
from tfctr.interests import (
    INTERESTS,
    ComplementaryModality,
    Din,
    Interest,
    MeanPooling,
    SequenceFacts,
    create_interest,
    interest_arguments,
)
from tfctr.interests.base import interest
from tfctr.layers.export import EXPORTED
from tfctr.models import ModelConfig


def test_every_class_is_exported() -> None:
    for cls in INTERESTS.values():
        assert EXPORTED[cls.__name__] is cls


def define_recent_events() -> type[Interest]:
    """All that a new interest is: a class with the decorator, in a file that one line of the package imports."""

    @interest("recent")
    class RecentEvents(Interest):
        weight_kinds = ("kernel",)

        def __init__(self, count: int = 3, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.count = count

        @classmethod
        def complete(cls, options: dict[str, Any], sequence: SequenceFacts) -> dict[str, Any]:
            return {"count": sequence.max_length // 2, **options}

        def build_width(self, width: int) -> None:
            self.dense = self.make_dense("dense", width, 2 * width)

        def encode(self, sequence: dict[str, Any], training: bool | None = None) -> dict[str, Any]:
            events, _ = self.start(sequence)
            return {"sum": ops.sum(events[:, : self.count], axis=1)}

        def attend(self, state: Any, candidate: Any, context: Any, training: bool | None = None) -> Any:
            target = self.target(candidate)
            return self.dense(ops.concatenate([ops.zeros_like(target) + state["sum"][:, None, :], target], axis=-1))

    return RecentEvents


@pytest.mark.slow
def test_a_new_interest_is_one_class(workbench: Workbench, tmp_path: Path) -> None:
    names = list(INTERESTS)
    with registrations_undone(INTERESTS):
        made = define_recent_events()
        assert list(INTERESTS) == [*names, "recent"]
        assert interest_arguments("recent") == {"count": 3, "kernel_initializer": None, "kernel_regularizer": None}
        layer = create_interest({"type": "recent", "count": 2})
        assert type(layer) is made
        assert layer(tensors(make_inputs())).shape == (3, 5, 8)
        with pytest.raises(UserError, match=r"interest recent: unknown argument 'counts'\. Allowed: count"):
            create_interest({"type": "recent", "counts": 2})

        model = workbench.model(ModelConfig(interests=({"type": "recent", "kernel_regularizer": "l2"},)))
        chosen = model.scorer.interests["history"]
        assert chosen.count == workbench.file.sequences["history"].max_length // 2
        assert_trains_and_reloads(model, chosen.dense.kernel, model_batch(workbench), tmp_path)
    assert list(INTERESTS) == names
    assert "RecentEvents" not in EXPORTED


def test_a_name_is_given_once() -> None:
    with registrations_undone(INTERESTS), pytest.raises(ValueError, match="The name 'din' is already that of Din"):

        @interest("din")
        class Other(Interest):
            pass


def test_arguments_are_listed() -> None:
    assert interest_arguments("mean") == {}
    assert interest_arguments("din")["hidden"] == (80, 40)
    assert "kwargs" not in interest_arguments("din")
    assert list(interest_arguments("din"))[-2:] == ["kernel_initializer", "kernel_regularizer"]


def test_create() -> None:
    layer = create_interest({"type": "din", "hidden": [7]}, name="clicks")
    assert isinstance(layer, Din)
    assert (layer.hidden, layer.name) == ((7,), "clicks")
    assert isinstance(create_interest("mean"), MeanPooling)
    dmf = create_interest({"type": "cmm", "frozen": ["text"]})
    assert isinstance(dmf, ComplementaryModality)
    assert dmf.frozen_names == ("text",)


@pytest.mark.parametrize("name", list(CONFIGS))
def test_config_keeps_every_argument(name: str) -> None:
    """Each argument of the constructor is in get_config, with its value, in a form that JSON keeps."""
    layer = create_interest(CONFIGS[name])
    config = json.loads(json.dumps(layer.get_config()))
    arguments = {key: value for key, value in CONFIGS[name].items() if key != "type"}
    assert set(interest_arguments(CONFIGS[name]["type"])) <= set(config)
    for key, value in arguments.items():
        assert config[key] == value
    assert type(layer).from_config(config).get_config() == layer.get_config()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            {"type": "sasrecc"},
            "interest: unknown type 'sasrecc'. Allowed: mean, din, target_attention, ",
        ),
        ({}, "interest: `type` is missing. Allowed: mean,"),
        (7, "interest: must be a name or a mapping with `type`. Received: 7"),
        ({"type": ["din"]}, "interest: unknown type"),
        ({"type": "din", "hiden": [4]}, "interest din: unknown argument 'hiden'. Allowed: hidden, activation"),
        ({"type": "mean", "bins": 4}, "interest mean: unknown argument 'bins'. Allowed: none"),
        ({"type": "din", "name": "x"}, "interest din: unknown argument 'name'"),
        ({"type": "din", "dtype": "float16"}, "interest din: unknown argument 'dtype'"),
        ({"type": "dta"}, "interest dta: `frozen` must be given"),
        ({"type": "dta", "frozen": "text", "bins": 0}, "interest dta: `bins` must be a positive whole number"),
        ({"type": "din", "hidden": 3}, "interest din: `hidden` must be a list of positive whole numbers. Received: 3"),
        ({"type": "din", "hidden": []}, "interest din: `hidden` must have at least one width. Received: []"),
        ({"type": "din", "softmax": "no"}, "interest din: `softmax` must be true or false. Received: 'no'"),
        ({"type": "din", "kernel_initializer": "he"}, "interest din: `kernel_initializer` must be a Keras initializer"),
        ({"type": "din", "activation": "no_such"}, "interest din: "),
    ],
)
def test_mistakes_are_named(config: Any, message: str) -> None:
    with pytest.raises(UserError) as error:
        create_interest(config)
    assert str(error.value).startswith(message)
