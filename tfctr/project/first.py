"""`tfctr init`: from a data directory to a project that trains."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import yaml
from pydantic import ValidationError

from tfctr.data.check import check_dataset
from tfctr.data.splits import SPLITS
from tfctr.errors import UserError
from tfctr.features.spec import FeatureFile
from tfctr.features.yaml_file import describe_validation_error
from tfctr.project.draft import Draft, Drafting
from tfctr.project.histories import find_histories, history_columns
from tfctr.project.roles import Ask, Options, find_roles, written_roles
from tfctr.project.sample import OTHER_ROWS, Sample, read_sample
from tfctr.project.texts import EXPERIMENT, FEATURES, README, experiment_text, feature_text, readme_text
from tfctr.storage import new_directory

_CHECKED_ROWS = 1_000


@dataclass(frozen=True)
class Project:
    """What was written.

    Attributes:
        file: The feature file.
        rows: The rows of train that were looked at, in words.
        left_out: Why columns are left out, by column.
    """

    file: FeatureFile
    rows: str
    left_out: dict[str, str]


def write_project(data: Path, out: Path, options: Options, ask: Ask | None) -> Project:
    """Writes a feature file, an experiment and a README for a data directory.

    Args:
        data: The directory with train/, valid/ and test/.
        out: The directory to make.
        options: What a person says of the columns.
        ask: Asks a person for what is necessary and can't be found; None: nobody is there.

    Raises:
        UserError: the data can't be read, something necessary can't be found, or the name is taken. Then nothing is
            written.
    """
    _check_free(out)
    if not data.is_dir():
        raise UserError(f"{data}: no such directory")
    draft, sample = _draft(data, options, ask)
    text = feature_text(data, draft, options.csv)
    try:
        file = FeatureFile.model_validate(yaml.safe_load(text))
    except ValidationError as error:
        raise UserError(describe_validation_error(f"{out / FEATURES}, which is not written", error)) from None
    # What was seen in a sample need not hold for the types of a format, or for the labels.
    try:
        check_dataset(data, file, _CHECKED_ROWS)
    except UserError as error:
        raise UserError(f"{error}. Nothing is written; options say what columns are, such as --leave-out") from None
    try:
        with new_directory(out) as directory:
            texts = {
                FEATURES: text,
                EXPERIMENT: experiment_text(file, small=sample.whole),
                README: readme_text(data, out),
            }
            for name, content in texts.items():
                (directory / name).write_text(content, encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror or error}") from error
    return Project(file, draft.rows, draft.left_out)


def _check_free(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; --out must name a directory that is new or empty")
    if out.exists() and any(out.iterdir()):
        raise UserError(f"{out} is not empty; --out must name a directory that is new or empty")


def _draft(data: Path, options: Options, ask: Ask | None) -> tuple[Draft, Sample]:
    written = written_roles(data)

    def sampled(split: str, **rows: int) -> Sample:
        return read_sample(data, split, options.csv, lambda table: history_columns(table, written, options), **rows)

    sample = sampled("train")
    if len(sample.names) == 1:
        raise UserError(f"{data}: the only column is '{sample.names[0]:.40}'; say what is between columns: --delimiter")
    roles = find_roles(written, sample.names, options, _of_two(sample.table), ask)
    roles = roles.without(sample.refused)
    histories = find_histories(sample.table, written, roles, options)
    absent = _absent(sample)
    for split in SPLITS[1:]:
        absent = _absent(sampled(split, rows=OTHER_ROWS), sample.names) | absent
    events = {name for history in histories.values() for name in history.columns}
    absent = {name: why for name, why in absent.items() if name in sample.table.column_names}
    roles = roles.without(absent)
    if roles.item_vectors is not None and not (data / roles.item_vectors).is_file():
        roles = roles.model_copy(update={"item_vectors": None})
    absent = {name: why for name, why in absent.items() if name not in events | {roles.label}}
    draft = Drafting(sample, absent, roles, histories, options.leave_out).draft()
    clock = options.named.get("timestamp")
    if clock and draft.roles.timestamp is None:
        raise UserError(f"--timestamp: '{clock}' {draft.left_out[clock]}")
    if not draft.sides["candidate"]:
        left_out = "; ".join(f"{column}: {why}" for column, why in draft.left_out.items()) or "none"
        raise UserError(f"--candidate: no column belongs to the candidates; name those that do. Left out: {left_out}")
    return draft, sample


def _absent(sample: Sample, names: list[str] | None = None) -> dict[str, str]:
    """Why columns can't be used: they have no value in a split."""
    found = {}
    for name in names or sample.names:
        missing = name not in sample.names
        if missing or (name not in sample.refused and _empty(sample.table.column(name))):
            found[name] = f"no value in {sample.about}"
    return found


def _empty(column: Any) -> bool:
    return bool(column.null_count == len(column))


def _of_two(table: pa.Table) -> list[str]:
    """The columns that hold 0 and 1 and nothing else."""
    found = []
    for name in table.column_names:
        column = table.column(name)
        if pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
            values = pc.unique(column.combine_chunks()).drop_null().to_pylist()
            if sorted(values) == [0, 1]:
                found.append(name)
    return found
