import json
from typing import Any

import pytest

from tests.interests.helpers import CONFIGS
from tfctr.errors import UserError
from tfctr.interests import INTERESTS, ComplementaryModality, Din, MeanPooling, create_interest, interest_arguments
from tfctr.layers.export import EXPORTED


def test_every_class_is_exported() -> None:
    for cls in INTERESTS.values():
        assert EXPORTED[cls.__name__] is cls


def test_arguments_are_listed() -> None:
    assert interest_arguments("mean") == {}
    assert interest_arguments("din")["hidden"] == (80, 40)
    assert "kwargs" not in interest_arguments("din")


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
        ({"type": "din", "hidden": 3}, "interest din: "),
        ({"type": "din", "activation": "no_such"}, "interest din: "),
    ],
)
def test_mistakes_are_named(config: Any, message: str) -> None:
    with pytest.raises(UserError) as error:
        create_interest(config)
    assert str(error.value).startswith(message)
