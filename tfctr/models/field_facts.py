"""What the model knows of the fields that its backbone reads."""

from __future__ import annotations

from collections.abc import Mapping

from tfctr.features.columns import Side
from tfctr.features.spec import FeatureFile
from tfctr.interactions.base import FieldFacts
from tfctr.models.interest_entry import InterestEntry


def field_facts(file: FeatureFile, entries: Mapping[str, InterestEntry]) -> list[FieldFacts]:
    """Return the facts of all fields, in the order in which the scorer joins them."""

    def of_side(side: Side) -> list[FieldFacts]:
        features = file.of_side(side)
        return [FieldFacts(one.name, side, field.source) for one in features for field in one.kind.fields(one)]

    interests = [
        FieldFacts(name, "history", "interest") for name, entry in entries.items() for _ in range(entry.fields)
    ]
    elapsed = [
        FieldFacts(feature.name, "context", "elapsed")
        for feature in file.features
        for _ in feature.kind.request_fields(feature)
    ]
    return [*of_side("candidate"), *interests, *of_side("context"), *elapsed, *of_side("user")]
