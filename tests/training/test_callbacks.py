"""Callbacks of a user that a training can't take are told before anything is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import pytest

from tests.training.runs import small_experiment
from tests.workbench import small_features
from tfctr.errors import UserError
from tfctr.training.workspace import train_in_workspace


@pytest.mark.parametrize(
    ("callback", "message"),
    [
        (keras.callbacks.LearningRateScheduler(lambda epoch: 0.1), r"LearningRateScheduler sets the learning rate"),
        (keras.callbacks.ReduceLROnPlateau("val_auc"), r"take training.plateau_factor, or a schedule as"),
        ("stop", r"must be callbacks of Keras, made and not classes. Received: 'stop'"),
        (keras.callbacks.TerminateOnNaN, r"must be callbacks of Keras"),
    ],
)
def test_callbacks_that_can_not_be(callback: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"^callbacks: .*{message}"):
        train_in_workspace(small_features(), small_experiment(), tmp_path / "nowhere", tmp_path / "out", [callback])
