"""What each feature gains: the AUC that is lost when its values are shuffled among the rows of a split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tfctr.features.parsing import dense, outcomes, ragged
from tfctr.features.row_checks import column_rules
from tfctr.features.spec import FeatureFile
from tfctr.metrics.bootstrap import Interval, bootstrap_difference
from tfctr.report.sampling import counted, spread, taken
from tfctr.training.served import ServedModel

_REPLICATES = 200


@dataclass(frozen=True)
class Gain:
    """The AUC that a feature gains.

    Attributes:
        feature: The feature, or the sequence, whose fields are shuffled together.
        side: Its side.
        auc: AUC with it less AUC with its values shuffled, and the 95 % interval of a paired bootstrap over users.
    """

    feature: str
    side: str
    auc: Interval


def feature_gains(model: str | Path, file: FeatureFile, paths: Sequence[str], total: int, seed: int = 1) -> list[Gain]:
    """Score some rows of a split once as they are and once with the values of each feature shuffled.

    Two features that tell the same lose little each: the other one still tells it. The values are shuffled among at
    most 4,096 neighbouring rows.

    Args:
        model: A SavedModel version.
        file: Its feature file.
        paths: The files of the split.
        total: The number of its rows that count.
        seed: Of the shuffling.
    """
    served, rules = ServedModel(model), column_rules(file)
    wanted = outcomes(file)
    groups = _column_groups(file)
    generator = np.random.default_rng(seed)
    scores: dict[str | None, list[Any]] = {name: [] for name in (None, *groups)}
    parsed: list[dict[str, Any]] = []
    for rows in spread(counted(file, paths, "shuffling"), total):
        parsed.append({name: dense(ragged(rows.columns[name]), one).numpy() for name, one in wanted.items()})
        scores[None].append(served.scores(rows, rules))
        for name, (_, columns) in groups.items():
            order = generator.permutation(len(rows))
            shuffled = {column: taken(rows.columns[column], order) for column in columns}
            mixed = replace(rows, columns={**rows.columns, **shuffled}, serialized=None)
            scores[name].append(served.scores(mixed, rules))
    known = {name: np.concatenate([one[name] for one in parsed]) for name in wanted}
    labels = known[file.labels.evaluated]
    users = known[file.group] if file.group is not None else None
    weights = known[file.weight] if file.weight is not None else None
    before = np.concatenate(scores[None])
    found = []
    for name, (side, _) in groups.items():
        lost = bootstrap_difference(
            labels, np.concatenate(scores[name]), before, users, "auc", weights=weights, replicates=_REPLICATES
        )
        found.append(Gain(name, side, Interval(lost.difference, lost.low, lost.high)))
    return sorted(found, key=lambda gain: -gain.auc.value)


def _column_groups(file: FeatureFile) -> dict[str, tuple[str, list[str]]]:
    """Side and columns of what is shuffled together: a column, or all those of a sequence. Positions are not scored."""
    found: dict[str, tuple[str, list[str]]] = {}
    for feature in file.features:
        if feature.side == "bias":
            continue
        for spec in feature.kind.columns(feature):
            _, columns = found.setdefault(feature.sequence or spec.name, (feature.side, []))
            if spec.name not in columns:
                columns.append(spec.name)
    return found
