"""A SavedModel that scores the rows of a log through the signature that is served."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfctr.data.examples import serialized_rows
from tfctr.data.sources import Rows
from tfctr.errors import UserError
from tfctr.features.row_checks import ColumnRule


class ServedModel:
    """The `serving_default` signature of a SavedModel.

    Args:
        directory: One version of a model.

    Raises:
        UserError: no SavedModel there.
    """

    def __init__(self, directory: str | Path) -> None:
        if not (Path(directory) / "saved_model.pb").is_file():
            raise UserError(f"{directory}: holds no SavedModel (saved_model.pb is missing)")
        try:
            self._model: Any = tf.saved_model.load(str(directory))  # a signature alone does not keep its variables
        except (OSError, ValueError, tf.errors.OpError) as error:
            told = str(error).splitlines()[0]
            raise UserError(f"{directory}: the SavedModel can't be read; copy it again. {told}") from None

    def scores(self, rows: Rows, rules: Mapping[str, ColumnRule]) -> npt.NDArray[np.float32]:
        """The probabilities [n] of some rows.

        Args:
            rows: The rows.
            rules: The columns that the feature file names.

        Raises:
            UserError: a row that the model can't score, and where it is.
        """
        signature = self._model.signatures["serving_default"]
        found = signature(examples=tf.constant(serialized_rows(rows, rules)))["probabilities"].numpy()
        bad = ~np.isfinite(found)
        if bad.any():
            raise UserError(
                f"{rows.where(int(bad.argmax()))}: can't be scored: a number in it is too large for the model (a "
                "numeric feature with `clip: false`), or the model's weights are not finite"
            )
        return np.asarray(found, np.float32)
