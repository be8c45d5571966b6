"""Callbacks of a user in a training whose validation is this package's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
from typing_extensions import override

from tfctr.errors import UserError
from tfctr.models.model import RankingModel

_SETS_THE_RATE = (keras.callbacks.LearningRateScheduler, keras.callbacks.ReduceLROnPlateau)


def check_callbacks(callbacks: Sequence[Any]) -> None:
    """Check the callbacks of a user before anything is read or trained.

    Raises:
        UserError: one that is no callback of Keras, or that sets the learning rate.
    """
    for one in callbacks:
        if not isinstance(one, keras.callbacks.Callback):
            raise UserError(f"callbacks: must be callbacks of Keras, made and not classes. Received: {one!r}")
        if isinstance(one, _SETS_THE_RATE):
            raise UserError(
                f"callbacks: {type(one).__name__} sets the learning rate, which the training does for all of its "
                "optimizers: take training.plateau_factor, or a schedule as training.learning_rate"
            )


class UserCallbacks(keras.callbacks.Callback):
    """Tells callbacks of Keras of one training, although each epoch is a `fit` of its own.

    They hear of the training's begin and end once, of epochs by their number in the training, and of an epoch's end
    after its validation: with `loss`, `learning_rate`, and the metrics of the validation as `val_auc`, `val_logloss`
    and so on. So `keras.callbacks.EarlyStopping("val_auc", mode="max")` does what it says.

    Args:
        callbacks: The user's.
        model: The model that is trained.
        epochs: How many epochs the training has at most.
        ends_epochs: Whether a callback that stops the training at a step ends the epoch there, and not at its end.
    """

    def __init__(
        self,
        callbacks: Sequence[keras.callbacks.Callback],
        model: RankingModel,
        epochs: int,
        ends_epochs: bool = True,
    ) -> None:
        super().__init__()
        self.all = keras.callbacks.CallbackList(list(callbacks), model=model, epochs=epochs, verbose=0)
        self._trained, self._ends_epochs, self._stopped = model, ends_epochs, False
        self._loss: dict[str, float] = {}

    @override
    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self.all.on_train_batch_begin(batch, logs)

    @override
    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self.all.on_train_batch_end(batch, logs)
        if self._trained.stop_training and not self._ends_epochs:
            self._stopped, self._trained.stop_training = True, False

    @override
    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """The steps of an epoch are done; its validation follows."""
        self._loss = {name: float(value) for name, value in (logs or {}).items() if name == "loss"}

    def validated(self, epoch: int, metrics: Mapping[str, float]) -> bool:
        """Tell of the end of an epoch, and return whether a callback ends the training.

        Args:
            epoch: Its number, from 0.
            metrics: What the validation found, the learning rate and the diagnostics.
        """
        named = {name if name == "learning_rate" else f"val_{name}": value for name, value in metrics.items()}
        self.all.on_epoch_end(epoch, {**self._loss, **named})
        return bool(self._trained.stop_training or self._stopped)
