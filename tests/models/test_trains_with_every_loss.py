"""A step in a graph, with every loss that a configuration can name."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from tests.models.test_model import batch
from tests.workbench import Workbench
from tfctr.losses import LOSSES
from tfctr.models import ModelConfig


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("name", list(LOSSES))
def test_a_model_learns_by_every_loss(workbench: Workbench, name: str, jit_compile: bool) -> None:
    interaction = {"type": "mlp", "hidden": [8], "dropout": 0.2}
    model = workbench.model(ModelConfig.model_validate({"interaction": interaction, "loss": name}))
    model.compile(optimizer=keras.optimizers.Adam(0.01), jit_compile=jit_compile)
    inputs = batch(workbench)
    labels = (np.asarray(inputs["item_id"]) % 2).astype("float32")

    losses = [model.fit(inputs, labels, epochs=1, verbose=0).history["loss"][0] for _ in range(20)]

    assert np.isfinite(losses).all()
    assert losses[-1] < losses[0]
