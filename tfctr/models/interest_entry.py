"""An interest of a model: its module, the sequence it reads, and what becomes of its output."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from tfctr.errors import UserError
from tfctr.features.spec import FeatureFile
from tfctr.interests import SequenceFacts, create_interest
from tfctr.interests.base import Interest, Shapes
from tfctr.models.embeddings import FeatureEmbeddings
from tfctr.models.entry_keys import ENTRY_KEYS, content_of, features_of, module_options


@dataclass(frozen=True)
class InterestEntry:
    """One interest module and the sequence it reads.

    Attributes:
        interest: The module.
        sequence: The sequence.
        width: The width of an event, and of a candidate as the interest sees it.
        fields: The number of fields that the interest gives the backbone.
        project: Whether its output is projected to these fields, or already is these fields side by side.
        features: Candidate features that events share, in order; an event is their fields side by side.
        content: Frozen tables whose vectors follow them in events and candidates.
        raw: Whether these vectors stay as they are, or are projected to E.
    """

    interest: Interest
    sequence: str
    width: int
    fields: int
    project: bool
    features: tuple[str, ...]
    content: tuple[str, ...] = ()
    raw: bool = False


def make_entry(file: FeatureFile, embeddings: FeatureEmbeddings, sequence: str, entry: dict[str, Any]) -> InterestEntry:
    """The module that an entry of `interests` describes, completed with what only the feature file knows.

    Raises:
        UserError: if the sequence does not have what the module needs, or its output is no whole number of fields.
    """
    shared = tuple(file.shared_fields(sequence).values())
    facts = SequenceFacts(
        sequence,
        max_length=file.sequences[sequence].max_length,
        frozen=tuple(sorted(file.frozen_of_sequence(sequence))),
        features={name: embeddings.table_rows.get(name) for name in shared},
    )
    interest = create_interest(module_options(entry), facts, ENTRY_KEYS, dtype=embeddings.dtype_policy.name)
    unknown = [name for name in interest.id_names if name not in shared]
    if unknown:
        raise UserError(
            f"interest {entry['type']}: sequence '{sequence}' shares no candidate feature {unknown}. "
            f"Allowed: {', '.join(shared)}"
        )
    tables = file.frozen_of_sequence(sequence)
    unknown = [name for name in interest.frozen_names if name not in tables]
    if unknown:
        raise UserError(
            f"interest {entry['type']}: `frozen`: sequence '{sequence}' has no frozen table {unknown}. "
            f"Allowed: {', '.join(sorted(tables)) or 'none; the sequence shares no key of one'}"
        )
    features, content = (parts_of(entry, sequence, file) for parts_of in (features_of, content_of))
    raw, project = entry.get("raw", False), entry.get("project", True)
    of_field = embeddings.width
    of_content = [embeddings.frozen_shapes[table][1] if raw else of_field for table in content]
    width = len(features) * of_field + sum(of_content)
    given = width if project else interest.output_width(width)
    if not project and given % of_field:
        raise UserError(
            f"interest {entry['type']}: with `project: false` its output must be whole fields, a multiple of the "
            f"embedding_dimension {of_field}. Received: a width of {given}"
        )
    fields = math.ceil(given / of_field)
    return InterestEntry(interest, sequence, width, fields, project, features, content, raw)


def entry_shapes(file: FeatureFile, embeddings: FeatureEmbeddings, entry: InterestEntry) -> Shapes:
    """The shapes that the module of an entry is built with."""
    length = file.sequences[entry.sequence].max_length
    vectors = {
        f"vectors/{table}": (None, length, embeddings.frozen_shapes[table][1])
        for table in file.frozen_of_sequence(entry.sequence)
    }
    in_context = sum(len(feature.kind.fields(feature)) for feature in file.of_side("context"))
    count = in_context + sum(len(feature.kind.request_fields(feature)) for feature in file.features)
    return {
        "sequence": {"events": (None, length, entry.width), **vectors},
        "candidate": {"target": (None, None, entry.width)},
        "context": {"fields": (None, None, count, embeddings.width)} if count else {},
    }
