"""The texts of a first project: feature file, experiment and README."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from tfctr.features.spec import FeatureFile
from tfctr.features.table_format import TableFormat
from tfctr.models.presets import PRESETS
from tfctr.project.draft import Draft, Entry
from tfctr.project.roles import Roles

FEATURES, EXPERIMENT, README = "features.yaml", "experiment.yaml", "README.md"

_SIDES = {
    "user": "the same for all candidates of a request, and kept in the user's state",
    "candidate": "one value for each candidate",
    "context": "of the request; the same for all its candidates",
    "bias": "how a candidate was shown: read in training only",
}
_BATCH, _SMALL_BATCH = 1024, 256


def feature_text(data: Path, draft: Draft, tables: TableFormat) -> str:
    """The feature file, with a comment at every choice."""
    return "\n".join(_feature_lines(data, draft, tables)) + "\n"


def _feature_lines(data: Path, draft: Draft, tables: TableFormat) -> Iterator[str]:
    roles = draft.roles
    yield _comment(f"A first feature file for {data}, made by `tfctr init` from {draft.rows}.")
    yield "# Kinds follow from types and from how many values were seen in those rows: change what you know better."
    yield "# Every key is explained in docs/features.md; `tfctr features validate` checks this file."
    yield _line("labels", {"click": roles.label})
    if roles.weight is not None:
        yield _line("weight", roles.weight, "a row counts so many times, in loss and in metrics")
    if roles.group is not None:
        yield _line("group", roles.group, "GAUC is the AUC inside of each of these")
    if roles.request is not None:
        yield _line("request", roles.request)
    if roles.timestamp is not None:
        yield _line("timestamp", roles.timestamp, "gives hour and weekday (UTC), and the age of events")
    if roles.slices:
        yield _line("meta", list(roles.slices), "metrics are told for each value; no model reads them")
    yield _line("embedding_dimension", 16, "width of a table that has no `dimension`")
    if roles.negative_sampling_rate < 1:
        why = "the share of the negatives that the log kept; served probabilities hold for all"
        yield _line("negative_sampling_rate", roles.negative_sampling_rate, why)
    written = tables.model_dump(mode="json", exclude_unset=True)
    if written:
        yield _line("csv", written)
    for side, entries in draft.sides.items():
        if entries:
            yield from ("", f"{side}:  # {_SIDES[side]}")
            if side == "candidate" and not draft.tells_requests:
                yield "  # No column says which rows are one request. Any column is right here; one that is the same"
                yield "  # for all candidates of a request costs less in `user` or `context`."
            yield from _entries(entries, "  ")
    if draft.sequences:
        yield from ("", "sequences:  # newest event first; every column of one has the same length")
        for name, (length, fields) in draft.sequences.items():
            yield f"  {_flow(name)}:"
            yield f"    max_length: {length}  # older events are cut"
            yield from ("    fields:", *_entries(fields, "      "))
    if draft.left_out:
        yield from ("", "# Left out:")
        yield from (_comment(f"  {column}: {why}") for column, why in draft.left_out.items())


def experiment_text(file: FeatureFile, small: bool) -> str:
    """The experiment: a preset that reads what there is.

    Args:
        file: The feature file.
        small: Whether train has few rows.
    """
    name, why = _preset(file)
    size = _SMALL_BATCH if small else _BATCH
    lines = [
        "# A first experiment, made by `tfctr init`. `tfctr models` lists the presets, docs/experiment.md every key.",
        f"preset: {name}  # {PRESETS[name][0]}: {why}",
        "training:",
        "  epochs: 10  # at most: training stops when the AUC on valid does",
        f"  batch_size: {size}" + ("  # few rows make few steps, so batches are small" if small else ""),
        "  learning_rate: 0.001",
        *(["  jit_compile: false  # few steps don't make up for the time that compiling takes"] if small else []),
        "evaluation:",
        "  min_auc: 0.5  # a model below is refused by the pipeline; raise it to what you have in production",
    ]
    if file.group is not None:
        lines.append("  min_gauc: 0.5")
    return "\n".join(lines) + "\n"


def _preset(file: FeatureFile) -> tuple[str, str]:
    if file.sequences and all(file.frozen_of_sequence(name) for name in file.sequences):
        return "dmf", "the data has histories, and vectors of items"
    if file.sequences:
        return "din", "the data has histories"
    return "dcnv2", "the data has no history, so the model is an interaction only"


def readme_text(data: Path, out: Path, roles: Roles) -> str:
    """The README: from here to scores."""
    where = shlex.quote(str(data.resolve()))
    named = [column for column in (roles.request, roles.user, roles.item) if column and "," not in column]
    keys = f" --keys {shlex.quote(','.join(named))}" if named else ""
    return f"""# {out.resolve().name}

`{FEATURES}` says what the columns of the data are, `{EXPERIMENT}` which model is trained and how. Read both:
every choice has its reason beside it. Leave out a column that is known only after the impression (a rating, a time
watched); it would tell the model what it must guess.

Run in this directory:

```sh
tfctr data check {where} --features {FEATURES}
tfctr train --data {where} --features {FEATURES} --experiment {EXPERIMENT} --out run
tfctr export --run run --to models --version 1 && tfctr evaluate --model models/1 --data {where}
```

The first checks every row against the feature file. The second trains, and resumes when it was killed. The third
writes the model that is served, and judges it on the test split. Scores, beside what tells the rows apart:

```sh
tfctr predict --model models/1 --data {where} --out scores.parquet{keys}
```
"""


def _entries(entries: dict[str, Entry], indent: str) -> Iterator[str]:
    for name, entry in entries.items():
        yield indent + _line(name, entry.keys, entry.why)


def _line(key: str, value: Any, why: str = "") -> str:
    return f"{_flow(key)}: {_flow(value)}" + (f"  {_comment(why)}" if why else "")


def _comment(text: str) -> str:
    """A comment of one line, whatever the name of a column holds."""
    return "# " + "".join(letter if letter.isprintable() else " " for letter in text)


def _flow(value: Any) -> str:
    """YAML in one line."""
    text: str = yaml.safe_dump(value, default_flow_style=True, width=float("inf"), sort_keys=False, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...")
