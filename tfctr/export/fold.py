"""The scorer that is served: that of the trained model, with its backbone folded."""

from __future__ import annotations

from typing import Any

from tfctr.models.model import RankingModel
from tfctr.models.towers import Scorer


def folded_scorer(model: RankingModel) -> Scorer:
    """A scorer equal to the model's in inference, with `fold()` of its backbone; it shares every other weight.

    The model stays as it is. Where the backbone has nothing to fold, its own scorer is given back.
    """
    trained = model.scorer
    folded = trained.interaction.fold()
    return trained if folded is trained.interaction else trained.with_interaction(folded)


def served_weights(model: RankingModel, scorer: Scorer) -> list[Any]:
    """The weights of the model's user tower and of this scorer, each once."""
    return list({id(weight): weight for weight in (*model.user_tower.weights, *scorer.weights)}.values())
