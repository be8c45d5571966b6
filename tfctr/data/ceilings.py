"""The best AUC and GAUC that any model can expect on a synthetic test split."""

from typing import Any

import numpy as np
import numpy.typing as npt

from tfctr.metrics.reference import auc, gauc

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
MAX_ROWS = 1_000_000
_ROWS_REDRAWN = 400_000
MEANING = (
    "The scorer is the one that made the data: it knows every user's interests and every item's taste vector, so no"
    " model can expect to rank better. expected: mean over labels drawn again from the true probabilities, with the"
    " standard deviation of one draw; a model may beat the ceiling by about that much through luck alone."
    " drawn_labels: the same scorer on the labels in the test files, the number to hold a model against."
    " position_unknown is the one for a model that is served without positions: positions are random, so the true"
    " relevance is the best order then."
)


class TestRows:
    """The rows that the ceilings are computed from: the first `MAX_ROWS` of the test split, to bound the memory."""

    __test__ = False  # The name is not meant for pytest.

    def __init__(self) -> None:
        self._pieces: list[tuple[Ints, Floats, Floats, Ints]] = []
        self.rows = 0

    def add(self, user: Ints, relevance: Floats, probability: Floats, label: Ints) -> None:
        """Adds rows [n], which must come in order of time."""
        room = MAX_ROWS - self.rows
        if room > 0:
            self._pieces.append((user[:room], relevance[:room], probability[:room], label[:room]))
            self.rows += len(user[:room])

    def ceilings(self, seed: int) -> dict[str, Any]:
        """AUC and GAUC (weighted by impressions) of the best scorers; the seed decides which labels are drawn again."""
        user, relevance, probability, label = (np.concatenate(column) for column in zip(*self._pieces, strict=True))
        rng = np.random.default_rng([seed, 3])
        draws = int(np.clip(_ROWS_REDRAWN // len(label), 4, 200))
        scorers = {"position_known": probability, "position_unknown": relevance}
        redrawn = [(rng.random(len(label)) < probability).astype(np.int64) for _ in range(draws)]
        ceilings = {name: _ceiling(label, redrawn, scores, user) for name, scores in scorers.items()}
        return {"meaning": MEANING, "rows": len(label), "label_draws": draws, **ceilings}


def _ceiling(label: Ints, redrawn: list[Ints], scores: Floats, user: Ints) -> dict[str, dict[str, float | None]]:
    draws = [_measure(labels, scores, user) for labels in redrawn]
    drawn = _measure(label, scores, user)
    return {metric: _summary([draw[metric] for draw in draws], value) for metric, value in drawn.items()}


def _measure(label: Ints, scores: Floats, user: Ints) -> dict[str, float]:
    return {"auc": float(auc(label, scores)), "gauc": float(gauc(label, scores, user).value)}


def _summary(redrawn: list[float], drawn: float) -> dict[str, float | None]:
    values = np.array([value for value in redrawn if np.isfinite(value)])
    return {
        "expected": round(float(values.mean()), 6) if len(values) else None,
        "standard_deviation": round(float(values.std()), 6) if len(values) else None,
        "drawn_labels": round(drawn, 6) if np.isfinite(drawn) else None,
    }
