"""Which buckets of similarity are used: how alike the events of histories and the candidates of a split are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from keras import ops

from tfctr.features.columns import Column
from tfctr.features.kinds.base import Feature, FrozenTable
from tfctr.features.parsing import dense, outcomes, ragged
from tfctr.features.spec import FeatureFile
from tfctr.interests import INTERESTS
from tfctr.layers.similarity import similarity_buckets as buckets_of
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
        tables = {name: _table(feature, directory) for (name, _), feature in wanted.items()}
    label = outcomes(file)[file.labels.evaluated]
    counts = {key: np.zeros((2, key[1] + 1), np.int64) for key in wanted}
    for rows in spread(counted(file, paths, "similarities"), total):
        labels = dense(ragged(rows.columns[file.labels.evaluated]), label).numpy()
        for (name, bins), feature in wanted.items():
            similarity, lengths = _similarities(tables[name], rows.columns, feature)
            found = ops.convert_to_numpy(buckets_of(similarity, bins))
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


def _table(feature: Feature, data: Path) -> FrozenTable:
    assert feature.along is not None
    table = feature.along.kind.frozen_table(feature.along, data)
    assert table is not None
    return table


def _similarities(
    table: FrozenTable, columns: Mapping[str, Column], feature: Feature
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """The cosine of each event and the candidate of its row, NaN where a vector is missing, and events by row."""
    assert feature.along is not None
    assert feature.along.refers is not None
    assert feature.refers is not None
    assert feature.length is not None
    history, keys = (columns[_column(one)] for one in (feature.refers, feature.along.refers))
    candidate = np.zeros(len(keys.lengths), np.int64)
    candidate[keys.lengths > 0] = table.rows(keys.values)
    within = np.arange(len(history.rows)) - np.repeat(np.cumsum(history.lengths) - history.lengths, history.lengths)
    newest = within < feature.length
    event, beside = table.rows(history.values)[newest], candidate[history.rows[newest]]
    found = np.empty(len(event), np.float32)
    for start in range(0, len(event), _PIECE):
        piece = slice(start, start + _PIECE)
        vectors = [table.vectors[rows[piece]].astype(np.float32) for rows in (event, beside)]
        found[piece] = np.einsum("nd,nd->n", *vectors)
    found[(event == 0) | (beside == 0)] = np.nan
    return found, np.minimum(history.lengths, feature.length)


def _column(feature: Feature) -> str:
    (spec,) = feature.kind.columns(feature)
    return spec.name
