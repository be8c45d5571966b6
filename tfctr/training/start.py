"""Weights from an earlier run: of single interests, to train on or to keep."""

from __future__ import annotations

from typing import Any

from tfctr.console import console
from tfctr.errors import UserError
from tfctr.models.interest_entry import InterestEntry
from tfctr.models.model import RankingModel
from tfctr.training.experiment import StartFrom

_OF_A_LAYER = frozenset({"name", "dtype", "trainable", "seed"})
"""What may differ between two modules of one form."""


def start_from(model: RankingModel, source: RankingModel, start: StartFrom) -> None:
    """Gives interests of a model the weights that those of the same type and sequence have in another.

    Args:
        model: The model that is about to be trained.
        source: The trained one.
        start: Which interests, and whether they are frozen.

    Raises:
        UserError: one of the models has no such interest, or it is of another form or reads something else.
    """
    for kind in start.parts:
        own, given = _of_type(model, kind, "this experiment"), _of_type(source, kind, start.run)
        for place, name in own.items():
            if place not in given:
                raise UserError(f"training.start_from: {start.run} has no {_told(kind, *place)}")
            _check_reading(model.scorer.entries[name], source.scorer.entries[given[place]], kind, start)
            _copy(model.scorer.interests[name], source.scorer.interests[given[place]], kind, start.run)
            if start.freeze:
                model.freeze(name)
            frozen = ", frozen" if start.freeze else ""
            console().print(f"training: {_told(kind, *place)} starts from {start.run}{frozen}", markup=False)


def _of_type(model: RankingModel, kind: str, where: str) -> dict[tuple[str, int], str]:
    """The names of a model's interests of a type, by their sequence and their number in it."""
    names: dict[tuple[str, int], str] = {}
    entries = model.model_config.interests_of(model.file)
    for name, (sequence, entry) in entries.items():
        if entry["type"] == kind:
            names[sequence, sum(place[0] == sequence for place in names) + 1] = name
    if not names:
        allowed = ", ".join(sorted({entry["type"] for _, entry in entries.values()})) or "none"
        raise UserError(f"training.start_from: {where} has no interest of type '{kind}'. Allowed: {allowed}")
    return names


def _told(kind: str, sequence: str, number: int) -> str:
    return f"interest {kind} of sequence '{sequence}'" + (f", number {number}" if number > 1 else "")


def _check_reading(own: InterestEntry, given: InterestEntry, kind: str, start: StartFrom) -> None:
    """Checks that the interest reads here what it read there, in the same way."""
    here, there = ({**entry.interest.get_config(), **_reads(entry)} for entry in (own, given))
    for key in sorted({*here, *there} - _OF_A_LAYER):
        if here.get(key) != there.get(key):
            raise UserError(
                f"training.start_from: interest {kind} has `{key}: {here.get(key)}` here and `{key}: {there.get(key)}` "
                f"in {start.run}; give it the same"
            )
    if start.freeze and _reads_ids(own):
        raise UserError(
            f"training.start_from: interest {kind} reads {', '.join(own.features)}, whose embeddings start anew here, "
            "so frozen weights would not fit them. Leave `freeze` out, or give the interest `features: []` in both runs"
        )


def _reads(entry: InterestEntry) -> dict[str, Any]:
    return (
        {"features": entry.features, "content": entry.content, "raw": entry.raw} if entry.interest.reads_events else {}
    )


def _reads_ids(entry: InterestEntry) -> bool:
    """Whether the module's weights are made for embeddings of the model around it."""
    return entry.interest.reads_events and bool(entry.features)


def _copy(own: Any, given: Any, kind: str, run: str) -> None:
    shapes = [[(weight.name, tuple(weight.shape)) for weight in one.weights] for one in (own, given)]
    if shapes[0] != shapes[1]:
        here, there = (", ".join(f"{name} {list(shape)}" for name, shape in one) for one in shapes)
        raise UserError(
            f"training.start_from: interest {kind} has other weights in {run}: give it the options that it has there. "
            f"Here: {here}. There: {there}"
        )
    for weight, value in zip(own.weights, given.weights, strict=True):
        weight.assign(value)
