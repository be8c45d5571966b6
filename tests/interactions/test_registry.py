from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from keras import ops

from tests.composition import assert_trains_and_reloads, model_batch
from tests.registration import registrations_undone
from tfctr.errors import UserError
from tfctr.interactions import INTERACTIONS, Interaction, Mlp, QnnAlpha, QnnAlphaReleased, create_interaction
from tfctr.interactions.base import interaction
from tfctr.interactions.headed import HeadedInteraction
from tfctr.layers.export import EXPORTED
from tfctr.layers.registry import arguments_of
from tfctr.models import ModelConfig

if TYPE_CHECKING:
    from pathlib import Path

    from tests.workbench import Workbench


def define_squares() -> type[Interaction]:
    """All that a new backbone is: a class with the decorator, in a file that one line of the package imports."""

    @interaction("squares")
    class Squares(HeadedInteraction):
        def __init__(self, units: int = 3, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.units = units

        def build_hidden(self, input_shape: tuple[int | None, ...]) -> int:
            self.dense = self.make_dense("dense", self.units, input_shape[-1])
            return self.units

        def hidden(self, inputs: Any, mask: Any = None, training: bool | None = None) -> Any:
            return ops.square(self.dense(inputs))

    return Squares


@pytest.mark.slow
@pytest.mark.tensorflow
@pytest.mark.parametrize("whole", [None, "wide_deep", "dcnv2"])
def test_a_new_backbone_is_one_class(workbench: Workbench, tmp_path: Path, whole: str | None) -> None:
    names = list(INTERACTIONS)
    with registrations_undone(INTERACTIONS):
        made = define_squares()
        assert list(INTERACTIONS) == [*names, "squares"]
        assert list(arguments_of(made)) == ["units", "kernel_initializer", "kernel_regularizer"]
        assert type(create_interaction({"type": "squares", "units": 2})) is made
        with pytest.raises(UserError, match=r"interaction squares: unknown argument 'unit'\. Allowed: units, kernel_"):
            create_interaction({"type": "squares", "unit": 2})

        own = {"type": "squares", "units": 2, "kernel_regularizer": "l2"}
        model = workbench.model(ModelConfig(interaction=own if whole is None else {"type": whole, "deep": own}))
        backbone = model.scorer.interaction
        chosen = backbone if whole is None else backbone.deep
        assert_trains_and_reloads(model, chosen.dense.kernel, model_batch(workbench), tmp_path)
    assert list(INTERACTIONS) == names
    assert "Squares" not in EXPORTED


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
