"""What an entry of `interests` says beside its module's own options: which events, and what becomes of its output."""

from __future__ import annotations

from typing import Any

from tfctr.errors import UserError
from tfctr.features.spec import FeatureFile

ENTRY_KEYS = ("sequence", "features", "content", "raw", "project")


def module_options(entry: dict[str, Any]) -> dict[str, Any]:
    """What the entry says to its module: `type` and the module's own options."""
    return {key: value for key, value in entry.items() if key not in ENTRY_KEYS}


def features_of(entry: dict[str, Any], sequence: str, file: FeatureFile) -> tuple[str, ...]:
    """The candidate's features whose fields make an event, in the order of the events' fields: all, or `features`."""
    shared = file.shared_fields(sequence).values()
    return tuple(name for name in shared if name in entry.get("features", shared))


def content_of(entry: dict[str, Any], sequence: str, file: FeatureFile) -> tuple[str, ...]:
    """The frozen tables whose vectors follow them: none, all, or those that `content` names."""
    content = entry.get("content", False)
    if content is False:
        return ()
    return tuple(sorted(file.frozen_of_sequence(sequence) if content is True else content))


def check_entry(entry: dict[str, Any], reads: list[str], file: FeatureFile) -> None:
    """Checks the keys that are not the module's own.

    Args:
        entry: An entry of `interests`.
        reads: The sequences that it is for.

    Raises:
        UserError: one of them has a value that this feature file does not allow.
    """
    for sequence in reads:
        if sequence not in file.sequences:
            allowed = sorted(file.sequences) or "none, the feature file has no sequences"
            raise UserError(f"interests: no sequence '{sequence}'. Allowed: {allowed}")
    if not reads:
        lacks = (
            "every sequence is named by another entry; leave it out"
            if file.sequences
            else "the feature file has no sequences; choose a preset without interests, such as mlp, or set `model: "
            "{interests: null}` in the experiment file"
        )
        raise UserError(f"interests: the entry of type '{entry.get('type')}' has no sequence to read: {lacks}")
    for key in ("raw", "project"):
        if not isinstance(entry.get(key, False), bool):
            raise UserError(f"interests: `{key}` must be true or false. Received: {entry[key]!r}")
    for sequence in reads:
        _check_events(entry, sequence, file)


def _check_events(entry: dict[str, Any], sequence: str, file: FeatureFile) -> None:
    tables, shared = list(file.frozen_of_sequence(sequence)), list(file.shared_fields(sequence).values())
    content = entry.get("content", False)
    if not isinstance(content, bool):
        _check_names("content", content, "true, false or a list of frozen tables", tables, sequence)
    if "features" in entry:
        _check_names(
            "features", entry["features"], "a list of features that candidate and events share", shared, sequence
        )
    if not features_of(entry, sequence, file) and not content_of(entry, sequence, file):
        raise UserError(
            f"interests: the entry of type '{entry.get('type')}' leaves nothing of the events of '{sequence}': "
            f"name `features` of {shared}, or `content` of {tables}"
        )
    if entry.get("raw") and not content_of(entry, sequence, file):
        raise UserError("interests: `raw: true` is for the vectors of `content`, and the entry has no content")


def _check_names(key: str, given: Any, wanted: str, allowed: list[str], sequence: str) -> None:
    names = list(given) if isinstance(given, list | tuple) else None
    if names is None or not all(isinstance(name, str) for name in names):
        raise UserError(f"interests: `{key}` must be {wanted}. Received: {given!r}")
    unknown = [name for name in names if name not in allowed]
    if unknown or len(set(names)) < len(names):
        fault = f"sequence '{sequence}' has no {unknown}" if unknown else f"the same name twice in {names}"
        raise UserError(f"interests: `{key}`: {fault}. Allowed: {allowed}")
