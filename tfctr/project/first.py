"""`tfctr init`: from a data directory to a project that trains."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import yaml

from tfctr.data.check import check_dataset
from tfctr.data.sources.columns import is_list
from tfctr.data.splits import SPLITS
from tfctr.errors import UserError, disk_errors
from tfctr.features.row_checks import column_rules
from tfctr.features.spec import FeatureFile
from tfctr.features.yaml_file import checked
from tfctr.project.codes import Codes
from tfctr.project.draft import Draft, Drafting, Entry
from tfctr.project.facts import is_number
from tfctr.project.histories import find_histories, history_columns
from tfctr.project.roles import Ask, Options, Roles, find_roles, option_of, written_roles
from tfctr.project.sample import OTHER_ROWS, ROWS, Sample, read_sample
from tfctr.project.texts import EXPERIMENT, FEATURES, README, experiment_text, feature_text, readme_text
from tfctr.project.trial import unreadable
from tfctr.storage import write_text

_CHECKED_ROWS = 1_000
_NOT_THAT = "it can't be that"


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
    out = out.resolve()
    with disk_errors(out):
        _check_free(out)
    if not data.is_dir():
        raise UserError(f"{data}: no such directory")
    known = _look(data, options, ask)
    unread: dict[str, str] = {}
    while True:
        draft = _draft(known, options, unread)
        text = feature_text(data, draft, options.csv)
        file = checked(FeatureFile, yaml.safe_load(text), f"{out / FEATURES}, which is not written")
        more = _absent_elsewhere(known, file) or _refused(data, file)
        if not more:
            break
        unread |= more
    texts = {
        FEATURES: text,
        EXPERIMENT: experiment_text(file, small=known.sample.whole),
        README: readme_text(data, out, draft.roles),
    }
    with disk_errors(out):
        try:
            for name, content in texts.items():
                write_text(out / name, content)
        except OSError:
            for name in texts:
                (out / name).unlink(missing_ok=True)
            raise
    return Project(file, draft.rows, draft.left_out)


def _check_free(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; --out must name a directory that is new or empty")
    if out.exists() and any(out.iterdir()):
        raise UserError(f"{out} is not empty; --out must name a directory that is new or empty")


def _absent_elsewhere(known: _Known, file: FeatureFile) -> dict[str, str]:
    """The columns that each split must have, and one has not; the label is for the check to refuse."""
    needed = {rule.column for rule in column_rules(file).values() if rule.everywhere} - {*file.labels.columns}
    return {name: why for name, why in known.elsewhere.items() if name in needed}


def _refused(data: Path, file: FeatureFile) -> dict[str, str]:
    """The columns that must be left out, and why, so that the data is what the feature file says; none if it is.

    Raises:
        UserError: it is not, whatever is left out.
    """
    # What was seen in a sample need not hold for the types of a format, or for the labels.
    try:
        check_dataset(data, file, _CHECKED_ROWS)
    except UserError as error:
        found = unreadable(data, file, _CHECKED_ROWS)
        if found and file.labels.evaluated not in found:
            return found
        raise UserError(f"{error}. Nothing is written; options say what columns are, such as --leave-out") from None
    return {}


@dataclass(frozen=True)
class _Known:
    """What is known of data before a draft.

    Attributes:
        data: Its directory.
        sample: The first rows of train.
        codes: Their columns.
        written: What the manifest says of the columns.
        roles: What each column is.
        useless: Why columns of train can't be read, or hold nothing, by column.
        elsewhere: Why columns hold nothing in other splits, by column.
    """

    data: Path
    sample: Sample
    codes: Codes
    written: Roles
    roles: Roles
    useless: dict[str, str]
    elsewhere: dict[str, str]


def _look(data: Path, options: Options, ask: Ask | None) -> _Known:
    written = written_roles(data)

    def sampled(split: str, rows: int) -> Sample:
        return read_sample(data, split, options.csv, lambda table: history_columns(table, written, options), rows)

    train, *others = SPLITS
    sample = sampled(train, ROWS)
    if len(sample.names) == 1:
        raise UserError(f"{data}: the only column is '{sample.names[0]:.40}'; say what is between columns: --delimiter")
    roles = find_roles(written, sample.names, options, _of_two(sample.table), ask)
    useless = {name: f"its type, {kind}, is none that a feature can have" for name, kind in sample.refused.items()}
    useless |= _absent(sample, sample.names)
    elsewhere: dict[str, str] = {}
    for split in others:
        elsewhere = _absent(sampled(split, OTHER_ROWS), sample.names) | elsewhere
    return _Known(data, sample, Codes(sample.table), written, roles, useless, elsewhere)


def _draft(known: _Known, options: Options, unread: dict[str, str]) -> Draft:
    """A draft without the columns that can't be read."""
    table = known.sample.table
    roles = known.roles.without(known.useless)
    if roles.item_vectors is not None and not (known.data / roles.item_vectors).is_file():
        roles = roles.model_copy(update={"item_vectors": None})
    histories = find_histories(table, known.codes, known.written, roles, options)
    left_out = known.useless | unread | dict.fromkeys(options.leave_out, "as you wished")
    left_out.pop(roles.label or "", None)
    said = {*known.written.sides, *options.sides}
    draft = Drafting(known.sample, known.codes, roles, histories, left_out, said).draft()
    _check_said(draft, options)
    if not draft.sides["candidate"]:
        told = "; ".join(f"{column}: {why}" for column, why in draft.left_out.items()) or "none"
        raise UserError(f"--candidate: no column belongs to the candidates; name those that do. Left out: {told}")
    return draft


def _check_said(draft: Draft, options: Options) -> None:
    """Refuses a draft in which a column is not what a person says."""
    left_out = draft.left_out
    for role, column in options.named.items():
        if column and getattr(draft.roles, role) is None:
            raise UserError(f"{option_of(role)}: '{column}': {left_out.get(column, _NOT_THAT)}")
    for column in options.slices:
        if column not in draft.roles.slices:
            raise UserError(f"--meta: '{column}': {left_out.get(column, _NOT_THAT)}")
    candidates = _by_column(draft.sides["candidate"])
    events = {column: one for _, fields in draft.sequences.values() for column, one in _by_column(fields).items()}
    for history, column in options.shares.items():
        if column not in candidates:
            why = left_out.get(column, "it is no feature of the candidate")
            raise UserError(f"--share: '{history}' can't have the ids of '{column}': {why}")
        if history not in events or events[history][1].keys.get("share") != candidates[column][0]:
            why = left_out.get(history, "it must be a list of ids of the same type")
            raise UserError(f"--share: '{history}' can't have the ids of '{column}': {why}")


def _by_column(entries: Mapping[str, Entry]) -> dict[str, tuple[str, Entry]]:
    """Features, and their names, by the column that they read."""
    return {entry.keys.get("column", name): (name, entry) for name, entry in entries.items()}


def _absent(sample: Sample, names: Iterable[str]) -> dict[str, str]:
    """Why columns can't be used: they have no value in a split."""
    given = {name for name in sample.table.column_names if not _empty(sample.table.column(name).combine_chunks())}
    given |= sample.refused.keys()
    return {name: f"no value in {sample.about}" for name in names if name not in given}


def _empty(column: Any) -> bool:
    """Whether a column has no value, be it that all its lists have none."""
    values = column
    while is_list(values.type):
        values = values.flatten()
    return bool(values.null_count == len(values))


def _of_two(table: pa.Table) -> list[str]:
    """The columns that hold 0 and 1 and nothing else."""
    found = []
    for name in table.column_names:
        column = table.column(name)
        if is_number(column):
            values = pc.unique(column.combine_chunks()).drop_null().to_pylist()
            if sorted(values) == [0, 1]:
                found.append(name)
    return found
