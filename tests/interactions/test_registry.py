import pytest

from tfctr.errors import UserError
from tfctr.interactions import INTERACTIONS, Mlp, QnnAlpha, QnnAlphaReleased, create_interaction
from tfctr.layers.registry import arguments_of


def test_create() -> None:
    assert type(create_interaction("mlp")) is Mlp
    assert type(create_interaction({"type": "qnn_alpha_released", "heads": 2})) is QnnAlphaReleased
    layer = create_interaction({"type": "qnn_alpha", "rows": 3}, name="backbone", dtype="mixed_bfloat16")
    assert type(layer) is QnnAlpha
    assert (layer.rows, layer.name, layer.compute_dtype) == (3, "backbone", "bfloat16")


@pytest.mark.parametrize("name", list(INTERACTIONS))
def test_every_default_is_usable(name: str) -> None:
    layer = create_interaction(name)
    config = {key: value for key, value in layer.get_config().items() if key not in ("trainable", "name", "dtype")}
    assert list(config) == list(arguments_of(type(layer)))
    assert create_interaction({"type": name, **config}).get_config().items() >= config.items()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("mpl", "interaction: unknown type 'mpl'. Allowed: mlp, qnn_alpha, qnn_alpha_released"),
        ({}, "interaction: `type` is missing. Allowed: mlp,"),
        (None, "interaction: must be a name or a mapping with `type`. Received: None"),
        (
            {"type": "mlp", "hiden": [3], "x": 1},
            "interaction mlp: unknown argument 'hiden', 'x'. Allowed: hidden, activation, batch_norm, dropout",
        ),
        ({"type": "mlp", "dtype": "float16"}, "interaction mlp: unknown argument 'dtype'. Allowed: hidden"),
        (
            {"type": "mlp", "hidden": 256},
            "interaction mlp: `hidden` must be a list of positive whole numbers. Received: 256",
        ),
        ({"type": "mlp", "hidden": "256"}, "`hidden` must be"),
        ({"type": "mlp", "hidden": [256, 0]}, "`hidden` must be"),
        ({"type": "mlp", "hidden": [True]}, "`hidden` must be"),
        ({"type": "mlp", "dropout": 1.0}, "`dropout` must be at least 0 and less than 1. Received: 1.0"),
        (
            {"type": "mlp", "activation": "rely"},
            "`activation` must be the name of a Keras activation, prelu, dice or null",
        ),
        ({"type": "mlp", "activation": 3}, "`activation` must be"),
        ({"type": "mlp", "batch_norm": "no"}, "`batch_norm` must be true or false. Received: 'no'"),
        (
            {"type": "qnn_alpha", "rows": 0},
            "interaction qnn_alpha: `rows` must be a positive whole number. Received: 0",
        ),
        ({"type": "qnn_alpha", "heads": 2.0}, "`heads` must be"),
        ({"type": "qnn_alpha", "layers": "2"}, "`layers` must be"),
        ({"type": "qnn_alpha", "mid_dropout": -0.1}, "`mid_dropout` must be"),
        ({"type": "qnn_alpha", "residual": 1}, "`residual` must be true or false"),
        ({"type": "qnn_alpha", "activation": "rely"}, "`activation` must be the name of a Keras activation"),
    ],
)
def test_errors(config: object, message: str) -> None:
    with pytest.raises(UserError) as error:
        create_interaction(config)  # type: ignore[arg-type]
    assert message in str(error.value)
    assert "\n" not in str(error.value)
