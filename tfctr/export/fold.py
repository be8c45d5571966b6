"""The served scorer: the scorer of the trained model with its backbone folded."""

from typing import Any

from tfctr.models.model import RankingModel
from tfctr.models.towers import Scorer


def folded_scorer(model: RankingModel) -> Scorer:
    """A scorer with the folded backbone, whose outputs in inference are equal to those of the model's scorer.

    It shares all weights outside the backbone, and the model is not changed. If there is nothing to fold, it is
    the scorer of the model itself.
    """
    trained = model.scorer
    folded = trained.interaction.fold()
    return trained if folded is trained.interaction else trained.with_interaction(folded)


def served_weights(model: RankingModel, scorer: Scorer) -> list[Any]:
    """The weights of the user tower and of the scorer, without duplicates."""
    return list({id(weight): weight for weight in (*model.user_tower.weights, *scorer.weights)}.values())
