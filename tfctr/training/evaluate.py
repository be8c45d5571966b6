"""Evaluation of a SavedModel on a raw split, through the signature that serving uses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tfctr.data.log import checked_rows
from tfctr.errors import UserError
from tfctr.features.parsing import default_slices, dense, outcomes, ragged, sliceable
from tfctr.features.row_checks import column_rules
from tfctr.features.spec import FeatureFile
from tfctr.training.served import ServedModel


@dataclass(frozen=True)
class Predictions:
    """Scores of a split, row by row.

    Attributes:
        labels: 0 or 1, [n].
        scores: Probabilities, [n].
        groups: The GAUC group of every row, [n], or None where the feature file names none.
        weights: Row weights, [n], or None.
        slices: Values [n] by slice column; a missing one is in no slice.
    """

    labels: Any
    scores: Any
    groups: Any
    weights: Any
    slices: dict[str, Any]

    def save(self, path: str | Path) -> None:
        """Writes an .npz without pickled objects, for a paired comparison with another model's predictions."""
        weights = np.ones(len(self.labels)) if self.weights is None else self.weights
        columns = {f"slice/{name}": _as_text(values) for name, values in self.slices.items()}
        if self.groups is not None:
            columns["groups"] = _as_text(self.groups)
        np.savez_compressed(path, labels=self.labels, scores=self.scores, weights=weights, **columns)


def _as_text(values: Any) -> Any:
    """TensorFlow's bytes objects as an array of text; numbers as they are."""
    return np.array([value.decode("utf-8", "replace") for value in values]) if values.dtype == object else values


def predict(
    model_directory: str | Path, file: FeatureFile, records: Sequence[str], slices: Sequence[str] = ()
) -> Predictions:
    """Scores raw examples with the `serving_default` signature of a SavedModel.

    Args:
        model_directory: The SavedModel.
        file: The feature file of the model.
        records: The files of the rows, as `tfctr.data.sources.split_files` names them.
        slices: Columns to keep beside `default_slices`.

    Raises:
        UserError: no SavedModel there, an unknown slice column, a row that `tfctr.features.row_checks` refuses or that
            the model can't score.
    """
    served = ServedModel(model_directory)
    kept = list(dict.fromkeys([*default_slices(file), *slices]))
    allowed = sliceable(file)
    unknown = [name for name in kept if name not in allowed]
    if unknown:
        raise UserError(
            f"there is no column to slice by of that name. Allowed: {sorted(allowed)}. Received: '{unknown[0]}'"
        )
    wanted = {name: allowed[name] for name in kept} | outcomes(file)
    scores, parsed = [], []
    # Labels of one class have no AUC, but a log loss and a calibration.
    rules = column_rules(file)
    for rows in checked_rows(file, records, "scoring", both_classes=False):
        scores.append(served.scores(rows, rules))
        parsed.append({name: dense(ragged(rows.columns[name]), one).numpy() for name, one in wanted.items()})
    joined = {name: np.concatenate([batch[name] for batch in parsed]) for name in wanted}
    return Predictions(
        joined[file.labels.evaluated],
        np.concatenate(scores).astype(np.float64),
        joined[file.group] if file.group is not None else None,
        joined[file.weight] if file.weight is not None else None,
        {name: joined[name] for name in kept},
    )
