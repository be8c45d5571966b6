"""Which buckets of similarity are used: how alike the events of histories and the candidates of a split are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tfctr.features.columns import Column
from tfctr.features.kinds.base import Feature
from tfctr.features.parsing import dense, outcomes, ragged
from tfctr.features.spec import FeatureFile
from tfctr.interests import INTERESTS
from tfctr.report.sampling import counted, spread
from tfctr.storage import local_copy

_PIECE = 65_536


@dataclass(frozen=True)
class Buckets:
    """The similarities of events and candidates by bucket.

    Attributes:
        events: The sequence and the frozen table, as `history: item_vector`.
        clicked: Events in each bucket where the candidate was clicked; the last bucket is for missing vectors.
        other: The same where it was not.
    """

    events: str
    clicked: npt.NDArray[np.int64]
    other: npt.NDArray[np.int64]


def similarity_buckets(
    file: FeatureFile, interests: Sequence[Mapping[str, Any]], data: str, paths: Sequence[str], total: int
) -> list[Buckets]:
    """Count the events of at most 20,000 rows of a split by the bucket of their similarity with the candidate.

    Args:
        file: The feature file.
        interests: The entries of the model's configuration.
        data: The data directory, whose vectors are taken: those of the model, unless they were changed since.
        paths: The files of the split.
        total: The number of its rows that count.

    Raises:
        UserError: the directory lacks the vectors, or they can't be read.
    """
    wanted: dict[tuple[str, int], Feature] = {}
    for entry in interests:
        bins = INTERESTS[entry["type"]].similarity_bins(entry)
        for feature in file.features:
            if bins is not None and feature.along is not None and _reads(entry, feature):
                wanted[feature.name, bins] = feature
    if not wanted:
        return []
    needed = [path for feature in wanted.values() if feature.along for path in feature.along.kind.files(feature.along)]
    with local_copy(data, needed) as directory:
        vectors = {name: _Vectors(feature, directory) for (name, _), feature in wanted.items()}
    label = outcomes(file)[file.labels.evaluated]
    counts = {key: np.zeros((2, key[1] + 1), np.int64) for key in wanted}
    for rows in spread(counted(file, paths, "similarities"), total):
        labels = dense(ragged(rows.columns[file.labels.evaluated]), label).numpy()
        for (name, bins), feature in wanted.items():
            similarity, lengths = vectors[name].similarities(rows.columns, feature)
            bucket = np.minimum((np.clip(similarity, -1, 1) + 1) * (bins / 2), bins - 1)
            found = np.where(np.isnan(similarity), bins, bucket).astype(np.int64)
            for place, value in enumerate((1, 0)):
                chosen = found[np.repeat(labels == value, lengths)]
                counts[name, bins][place] += np.bincount(chosen, minlength=bins + 1)
    return [
        Buckets(f"{feature.sequence}: {feature.along.name}", *counts[key])
        for key, feature in wanted.items()
        if feature.along is not None
    ]


def _reads(entry: Mapping[str, Any], feature: Feature) -> bool:
    """Whether an interest reads the vectors of these events."""
    assert feature.along is not None
    tables = entry.get("frozen") or feature.along.name
    named = [tables] if isinstance(tables, str) else tables
    return entry.get("sequence", feature.sequence) == feature.sequence and feature.along.name in named


class _Vectors:
    """A table of given vectors, and where its keys stand."""

    def __init__(self, feature: Feature, data: Path) -> None:
        assert feature.along is not None
        table = feature.along.kind.frozen_table(feature.along, data)
        assert table is not None
        self._vectors = table.vectors.astype(np.float32)
        self._rows = {key: row for row, key in enumerate(table.keys, start=1)}

    def similarities(
        self, columns: Mapping[str, Column], feature: Feature
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        """The cosine of each event and the candidate of its row, NaN where a vector is missing, and events by row."""
        assert feature.along is not None
        assert feature.along.refers is not None
        assert feature.refers is not None
        assert feature.length is not None
        history, keys = (columns[_column(one)] for one in (feature.refers, feature.along.refers))
        candidate = np.zeros(len(keys.lengths), np.int64)
        candidate[keys.lengths > 0] = self._look_up(keys.values)
        within = np.arange(len(history.rows)) - np.repeat(np.cumsum(history.lengths) - history.lengths, history.lengths)
        newest = within < feature.length
        event, beside = self._look_up(history.values)[newest], candidate[history.rows[newest]]
        found = np.empty(len(event), np.float32)
        for start in range(0, len(event), _PIECE):
            piece = slice(start, start + _PIECE)
            found[piece] = np.einsum("nd,nd->n", self._vectors[event[piece]], self._vectors[beside[piece]])
        found[(event == 0) | (beside == 0)] = np.nan
        return found, np.minimum(history.lengths, feature.length)

    def _look_up(self, keys: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
        """The row of each key; 0 for one without a vector."""
        values, places = np.unique(keys, return_inverse=True)
        return np.array([self._rows.get(_token(one), 0) for one in values.tolist()], np.int64)[places]


def _column(feature: Feature) -> str:
    (spec,) = feature.kind.columns(feature)
    return spec.name


def _token(key: Any) -> bytes:
    return key if isinstance(key, bytes) else str(key).encode("utf-8")
