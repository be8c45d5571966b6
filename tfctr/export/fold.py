"""The served scorer: the scorer of the trained model with its backbone folded, without what only training needs."""

from typing import Any

from tfctr.models.model import RankingModel
from tfctr.models.scorer import Scorer


def served_scorer(model: RankingModel, fold: bool = True) -> Scorer:
    """A scorer for inference, whose outputs are equal to those of the model's scorer.

    It shares all weights outside the backbone, and the model is not changed. If there is nothing to leave out or to
    fold, it is the scorer of the model itself.

    Args:
        model: A built model.
        fold: Whether the backbone is folded.
    """
    trained = model.scorer
    return trained.with_interaction(trained.interaction.fold() if fold else trained.interaction)


def served_weights(model: RankingModel, scorer: Scorer) -> list[Any]:
    """The weights of the user tower and of the scorer, without duplicates."""
    return list({id(weight): weight for weight in (*model.user_tower.weights, *scorer.weights)}.values())
