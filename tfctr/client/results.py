"""The results of a ranking request, and the errors for probabilities that are NaN."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from tfctr.client.codec import Array
from tfctr.client.errors import BadRowError, StateRejectedError
from tfctr.client.metadata import ServedModel
from tfctr.client.requests import Candidates, Features


@dataclass(frozen=True, slots=True)
class Ranked:
    """One candidate of a ranking.

    Attributes:
        index: position of the candidate in the request.
        candidate: features of the candidate, as given.
        probability: predicted click-through rate.
    """

    index: int
    candidate: Features
    probability: float


@dataclass(frozen=True, slots=True)
class VersionStatus:
    """State of one version on the server (START, LOADING, AVAILABLE, UNLOADING or END), and its error if it has one."""

    version: int
    state: str
    error_code: int
    error_message: str


def refuse_nan(probabilities: Array, model: ServedModel) -> Array:
    """The probabilities, if none of them is NaN.

    Raises:
        StateRejectedError: all of them are NaN, and the model takes a state.
        BadRowError: some of them are NaN, or all of a model that takes no state.
    """
    bad = np.flatnonzero(np.isnan(probabilities))
    if bad.size == 0:
        return probabilities
    if bad.size == probabilities.size and model.state_inputs:
        raise StateRejectedError(
            f"{model.where} refused the request (every probability is NaN): the state is not of this model, or a value "
            "of the user, of the context or of every candidate is bad. Compute the state again with user_state().",
            bad.tolist(),
        )
    shown = ", ".join(map(str, bad[:10])) + (f" and {bad.size - 10} more" if bad.size > 10 else "")
    raise BadRowError(
        f"{model.where} refused {bad.size} of {probabilities.size} candidates (NaN): rows {shown}. "
        "These rows, or the context, have values that are infinite or out of range.",
        bad.tolist(),
    )


def in_order(candidates: Candidates, probabilities: Array, k: int | None) -> list[Ranked]:
    """The best k candidates, best first; ties keep the given order."""
    order = np.argsort(-probabilities, kind="stable")[:k].tolist()
    return [Ranked(i, candidate_at(candidates, i), float(probabilities[i])) for i in order]


def candidate_at(candidates: Candidates, index: int) -> Features:
    """The features of one candidate, from rows or from columns."""
    if isinstance(candidates, Mapping):
        return {name: values[index] for name, values in candidates.items() if values is not None}
    return candidates[index]
