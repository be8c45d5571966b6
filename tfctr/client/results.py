"""What a ranking request gives back, and how a refusal is told."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from tfctr.client.codec import Array
from tfctr.client.errors import BadRowError, StateRejectedError
from tfctr.client.metadata import ServedModel
from tfctr.client.requests import Candidates, Features


@dataclass(frozen=True, slots=True)
class Ranked:
    """One candidate in the order of its probability.

    Attributes:
        index: its place in the request.
        candidate: its features as they were given.
        probability: predicted click-through rate.
    """

    index: int
    candidate: Features
    probability: float


@dataclass(frozen=True, slots=True)
class VersionStatus:
    """State of one version on the server: START, LOADING, AVAILABLE, UNLOADING or END, and why if it failed."""

    version: int
    state: str
    error_code: int
    error_message: str


def refuse_nan(probabilities: Array, model: ServedModel) -> Array:
    """The probabilities, unless the model refused some of them.

    Raises:
        StateRejectedError: all are NaN.
        BadRowError: some are.
    """
    bad = np.flatnonzero(np.isnan(probabilities))
    if bad.size == 0:
        return probabilities
    if bad.size == probabilities.size:
        raise StateRejectedError(
            f"{model.where} refused the request (every probability is NaN): the state is not of this model, or a value "
            "of the user, the context or all candidates is bad. Compute the state anew with user_state().",
            bad.tolist(),
        )
    shown = ", ".join(map(str, bad[:10])) + (f" and {bad.size - 10} more" if bad.size > 10 else "")
    raise BadRowError(
        f"{model.where} refused {bad.size} of {probabilities.size} candidates (NaN): rows {shown}. "
        "A value in those rows is bad (infinite, or out of its range).",
        bad.tolist(),
    )


def in_order(candidates: Candidates, probabilities: Array, k: int | None) -> list[Ranked]:
    """The best k of the candidates, best first; equal ones in the order given."""
    order = np.argsort(-probabilities, kind="stable")[:k]
    return [Ranked(int(i), candidate_at(candidates, int(i)), float(probabilities[i])) for i in order]


def candidate_at(candidates: Candidates, index: int) -> Features:
    """One candidate of either form, as a mapping."""
    if isinstance(candidates, Mapping):
        return {name: values[index] for name, values in candidates.items() if values is not None}
    return candidates[index]
