"""What the rows of a log must be: one room for `tfctr data check`, training, evaluation and the pipeline."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from tfctr.errors import UserError
from tfctr.features.columns import INT64_MISSING, Column, Fault
from tfctr.features.inputs import columns as feature_columns
from tfctr.features.spec import FeatureFile

AS_WRITTEN = "as written"
"""The dtype of a column that a table says the type of, and that keeps it."""


@dataclass(frozen=True)
class ColumnRule:
    """What the feature file says of a column.

    Attributes:
        column: Its name in the log.
        dtype: "int64", "string" or "float32"; `AS_WRITTEN` for a column that nothing computes with.
        because: Who says so, in words that end before the type.
        history: Whether a row has a list of values.
        everywhere: Whether each split must have it. Bias columns, histories and weights may be in the training split
            only.
        separator: What joins several values of one row, or event, in one text; None for a single value.
    """

    column: str
    dtype: str
    because: str = "the feature file says"
    history: bool = False
    everywhere: bool = True
    separator: str | None = None


def column_rules(file: FeatureFile) -> dict[str, ColumnRule]:
    """The rule of every column that a feature file names, by the name that the feature file calls it."""
    rules = {
        spec.name: ColumnRule(
            spec.logged,
            spec.dtype,
            history=bool(spec.shape),
            everywhere=feature.place not in ("bias", "sequence"),
            separator=spec.separator,
        )
        for feature in file.features
        for spec in feature.kind.columns(feature)
    }
    rules |= {column: ColumnRule(column, file.labels.dtype, "a label must be") for column in file.labels.columns}
    if file.weight is not None:
        rules[file.weight] = ColumnRule(file.weight, "float32", "a weight must be", everywhere=False)
    for name in (*file.meta, file.group, file.request):
        if name is not None:
            rules.setdefault(name, ColumnRule(name, "string", "a meta, group or request column must be"))
    return rules


class SplitCheck:
    """Checks a split, some rows after the other, and then as a whole.

    Args:
        file: The feature file.
        split: Which split, for messages: its directory.
        labelled: Whether every row must have its labels. Without them rows can be scored, whatever the split lacks.
        keys: Columns beside those that the feature file names, which a split may lack.
    """

    def __init__(
        self, file: FeatureFile, split: str, labelled: bool = True, keys: Mapping[str, ColumnRule] | None = None
    ) -> None:
        self.rows = 0
        named = column_rules(file)
        self.rules = named | dict(keys or {})
        self._file, self._split, self._labelled = file, split, labelled
        self._histories = [[spec.name for spec in feature_columns(file, name)] for name in file.sequences]
        self._absent = set(named)
        self._labels: set[int] = set()
        self._weight = 0.0

    def add(self, columns: Mapping[str, Column]) -> Fault | None:
        """The fault of the first row that has one.

        Args:
            columns: Every column that `rules` names.
        """
        self._absent -= {name for name in self._absent if _any_value(columns[name], self.rules[name].dtype)}
        fault = min(self._faults(columns), key=lambda found: found.row, default=None)
        if fault is None:
            labels = columns[self._file.labels.evaluated]
            weights = np.ones(len(labels.lengths))  # of a row without a weight
            if self._file.weight is not None:
                given = columns[self._file.weight]
                weights[given.rows] = given.values
            self.rows += len(weights)
            self._weight += float(weights.sum())
            self._labels |= set(np.unique(labels.values[weights[labels.rows] > 0]).tolist())
        return fault

    def finish(self, training: bool, both_classes: bool = True) -> None:
        """Refuse a split that can't be used as a whole.

        Args:
            training: Whether it is the training split, which must have every column.
            both_classes: Whether labels of one class only are refused.

        Raises:
            UserError: what is wrong with it.
        """
        if self.rows == 0:
            raise UserError(f"{self._split}: the split holds no example; check the data directory")
        if not self._labelled:
            return
        absent = sorted(name for name in self._absent if training or self.rules[name].everywhere)
        if absent:
            raise UserError(
                f"{self._split}: column '{self.rules[absent[0]].column}' has no value in any record; "
                "write it there, correct its name in the feature file, or leave it out of both"
            )
        if self._file.weight is not None and not self._weight > 0:
            raise UserError(f"{self._split}: the weights in column '{self._file.weight}' sum to 0; no row would count")
        if self._weight > float(np.finfo(np.float32).max):
            raise UserError(
                f"{self._split}: the weights in column '{self._file.weight}' sum to {self._weight:.3g}, more than a "
                "float32 holds; divide them by their mean"
            )
        if both_classes and len(self._labels) < 2:
            counted = "" if self._file.weight is None else " of a weight above 0"
            raise UserError(
                f"{self._split}: every {self._file.labels.evaluated}{counted} is {self._labels.pop()}, and labels of "
                "one class only can neither be learned nor ranked; give the split rows of both"
            )

    def _faults(self, columns: Mapping[str, Column]) -> Iterator[Fault]:
        """The first fault of every kind; of several in one row the first is told."""
        if self._file.weight is not None:
            weights = columns[self._file.weight]
            good = np.isfinite(weights.values) & (weights.values >= 0)
            yield from weights.first(~good, f"{self._file.weight} must be a finite number, 0 or more")
        for name, rule in self.rules.items():
            yield from _column_faults(name, rule, columns[name])
        for names in self._histories:
            yield from _length_faults({name: columns[name] for name in names})
        yield from self._file.labels.faults(columns, self._labelled)
        for feature in self._file.features:
            yield from feature.kind.faults(feature, columns)


def _any_value(column: Column, dtype: str) -> bool:
    """Whether a column has another value than the one that stands for a missing value."""
    if dtype == "string":
        return any(value != b"" for value in column.values)
    known = column.values != INT64_MISSING if dtype == "int64" else ~np.isnan(column.values)
    return bool(known.any())


def _column_faults(name: str, rule: ColumnRule, column: Column) -> Iterator[Fault]:
    if not rule.history and len(column.lengths) and column.lengths.max() > 1:
        row = int(column.lengths.argmax())
        yield Fault(row, f"{name} has {column.lengths[row]} values; join several values of one row by |")
    if rule.dtype == "float32":
        # NaN is the only way to say that one event of a history has no value; elsewhere a missing value is left out.
        bad = np.isinf(column.values) if rule.history else ~np.isfinite(column.values)
        yield from column.first(bad, f"{name} must be a finite number; leave it out where it is unknown")


def _length_faults(columns: Mapping[str, Column]) -> Iterator[Fault]:
    lengths = np.stack([column.lengths for column in columns.values()])
    uneven = (lengths != lengths[0]).any(axis=0)
    if uneven.any():
        row = int(uneven.argmax())
        received = dict(zip(columns, lengths[:, row].tolist(), strict=True))
        yield Fault(row, f"the columns of a history must have one length. Received: {received}")
