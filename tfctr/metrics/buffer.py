"""The rows an exact ranking metric has to remember, kept as columns on the host."""

from typing import Any

import numpy as np

from tfctr.metrics.reference import NO_GROUP, Array


class ImpressionBuffer:
    """Labels, scores, groups and weights of the impressions seen so far; appends, merges and pickles.

    An exact AUC needs every score, so the buffer grows with the data. A row takes 21 bytes: label 1, score 4 (float64:
    8), group 8 and weight 8 (float32: 4). Weights that are all one are not stored, which leaves 13. If groups are
    strings, each takes the space of the longest one. Single rows wait in Python lists (about 200 bytes each) and are
    packed every `PACK` rows, on pickling and when the columns are read.
    """

    PACK = 4096

    def __init__(self) -> None:
        self._chunks: list[tuple[Array, Array, Array | None, Array | None]] = []
        self._waiting: list[tuple[Any, float, Any, float]] = []
        self.rows = 0

    def add_row(self, label: float, score: float, group: Any, weight: float) -> None:
        """Append one row; its score is float64, and a group of None is a missing one."""
        self._waiting.append((label, score, group, weight))
        self.rows += 1
        if len(self._waiting) >= self.PACK:
            self._pack()

    def add_rows(self, labels: Array, scores: Array, groups: Array | None = None, weights: Array | None = None) -> None:
        """Append columns of one length; scores keep their precision."""
        scores = np.array(scores).reshape(-1)
        if scores.size == 0:
            return
        self._chunks.append(
            (
                # A wrong label becomes -1, so that the metric can refuse it; int8 alone would turn 0.5 into 0.
                np.where(np.isin(labels, (0, 1)), labels, -1).astype(np.int8).reshape(-1),
                scores,
                None if groups is None else np.array(groups).reshape(-1),
                None if weights is None or bool(np.all(np.equal(weights, 1))) else np.array(weights).reshape(-1),
            )
        )
        self.rows += scores.size

    def merge(self, other: "ImpressionBuffer") -> None:
        """Append the other buffer's rows."""
        self._pack()
        other._pack()
        self._chunks.extend(other._chunks)
        self.rows += other.rows

    def columns(self) -> tuple[Array, Array, Array | None, Array | None]:
        """Return labels [n], scores [n], groups [n] or None, weights [n] or None."""
        self._pack()
        if not self._chunks:
            return np.zeros(0, np.int8), np.zeros(0), None, None
        if len(self._chunks) > 1:
            labels, scores, groups, weights = zip(*self._chunks, strict=True)
            merged_weights = None
            if any(weight is not None for weight in weights):
                merged_weights = np.concatenate(
                    [np.ones(s.size) if w is None else w for s, w in zip(scores, weights, strict=True)]
                )
            merged_groups = _joined(groups, [score.size for score in scores])
            self._chunks = [(np.concatenate(labels), np.concatenate(scores), merged_groups, merged_weights)]
        return self._chunks[0]

    def clear(self) -> None:
        """Forget all rows."""
        self._chunks = []
        self._waiting = []
        self.rows = 0

    def _pack(self) -> None:
        if not self._waiting:
            return
        labels, scores, groups, weights = zip(*self._waiting, strict=True)
        self.rows -= len(self._waiting)
        self._waiting = []
        # Scores that came from a float32 model fit float32 exactly.
        wide = np.array(scores, dtype=np.float64)
        narrow = wide.astype(np.float32)
        self.add_rows(
            np.array(labels),
            narrow if np.array_equal(narrow, wide, equal_nan=True) else wide,
            _packed(groups),
            np.array(weights),
        )

    def __getstate__(self) -> dict[str, Any]:
        self.columns()
        return self.__dict__.copy()


def _packed(groups: tuple[Any, ...]) -> Array | None:
    """The groups of single rows as a column; None where no row has one."""
    known = np.array([group is not None for group in groups])
    found = np.array([group for group in groups if group is not None])
    if known.all() or not known.any():
        return found if known.any() else None
    column = np.full(len(groups), _missing(found), found.dtype)
    column[known] = found
    return column


def _joined(groups: tuple[Array | None, ...], sizes: list[int]) -> Array | None:
    """The groups of chunks as one column; None where no chunk has any."""
    found = next((column for column in groups if column is not None), None)
    if found is None:
        return None
    missing = _missing(found)
    return np.concatenate(
        [
            np.full(size, missing, found.dtype) if column is None else column
            for column, size in zip(groups, sizes, strict=True)
        ]
    )


def _missing(groups: Array) -> Any:
    return NO_GROUP.get(groups.dtype.kind, (np.nan,))[0]
