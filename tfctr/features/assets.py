"""What was learned from the data about the features: vocabularies, statistics, frozen tables, in one directory."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tfctr.errors import UserError, disk_errors
from tfctr.features.kinds.base import FrozenTable
from tfctr.features.kinds.fields import Table
from tfctr.features.kinds.learned import Numbers, Tokens
from tfctr.features.spec import FeatureFile
from tfctr.features.vocabulary import read_tokens, write_tokens
from tfctr.storage import local_copy, new_directory

Statistics = dict[str, dict[str, Any]]


class FeatureAssets:
    """A directory with everything the raw function needs beside the feature file.

    Layout: `features.json` (the feature file it was made for), `vocabularies/<feature>.txt` (one token a line, in index
    order), `statistics.json` (mean, deviation and range, or bucket boundaries, by column), `frozen/<table>.keys.txt`
    and `frozen/<table>.npy` (L2-normalised, row 0 all zero: the row of a key without a vector).

    Args:
        directory: Where it lies.

    Raises:
        UserError: when the directory is no such thing, or another version of tfctr made it.
    """

    def __init__(self, directory: str | Path) -> None:
        self.directory = Path(directory)
        described = self.directory / "features.json"
        if not described.is_file():
            raise UserError(f"{self.directory}: holds no feature assets (features.json is missing)")
        self.file = FeatureFile.of_json(described.read_text(encoding="utf-8"), described)
        self.statistics: Statistics = json.loads((self.directory / "statistics.json").read_text(encoding="utf-8"))
        for column, asked in learned_numbers(self.file).items():
            if self.statistics.get(column, {}).keys() != asked.named(range(asked.size)).keys():
                raise UserError(
                    f"{self.directory}: another version of tfctr learned the statistics of '{column}'; delete the "
                    "directory and analyze the data again"
                )
        self._counts: dict[str, int] = {}

    def vocabulary_path(self, feature: str) -> Path:
        """The token file of a learned or given vocabulary."""
        return self.directory / "vocabularies" / f"{feature}.txt"

    def tokens(self, feature: str) -> list[bytes]:
        """The tokens of a learned or given vocabulary, in index order (the first has index 1)."""
        return read_tokens(self.vocabulary_path(feature))

    def token_count(self, owner: str) -> int:
        """The number of tokens of a learned or given vocabulary."""
        if owner not in self._counts:
            self._counts[owner] = len(self.tokens(owner))
        return self._counts[owner]

    def rows(self, table: Table) -> int:
        """Rows of a trained table, padding and out of vocabulary included."""
        if table.rows is not None:
            return table.rows
        owner = self.file.feature(table.name)
        return owner.kind.learned_rows(owner, self)

    def trained_tables(self) -> dict[str, int]:
        """Rows of every trained table, by the name of the feature that owns it."""
        fields = [field for feature in self.file.features for field in feature.kind.fields(feature)]
        return {field.table.name: self.rows(field.table) for field in fields if field.table is not None}

    def table_rows(self, feature: str) -> int:
        """Rows of the trained table that a feature is looked up in."""
        at = self.file.feature(feature)
        return next(self.rows(field.table) for field in at.kind.fields(at) if field.table is not None)

    def frozen_tables(self) -> list[str]:
        """The names of the frozen tables."""
        return [path.stem for path in sorted((self.directory / "frozen").glob("*.npy"))]

    def frozen_keys_path(self, table: str) -> Path:
        """The keys of a frozen table; line i is row i + 1."""
        return self.directory / "frozen" / f"{table}.keys.txt"

    def frozen_vectors(self, table: str) -> npt.NDArray[np.floating[Any]]:
        """The frozen table [1 + n, width]; row 0 is zero."""
        vectors: npt.NDArray[np.floating[Any]] = np.load(self.directory / "frozen" / f"{table}.npy")
        return vectors

    def frozen_shape(self, table: str) -> tuple[int, int]:
        """[rows, width] of a frozen table."""
        rows, width = np.load(self.directory / "frozen" / f"{table}.npy", mmap_mode="r").shape
        return rows, width

    @cached_property
    def fingerprint(self) -> str:
        """A hash over every file, hexadecimal: equal assets have equal fingerprints."""
        digest = hashlib.sha256()
        for path in sorted(p for p in self.directory.rglob("*") if p.is_file()):
            digest.update(str(path.relative_to(self.directory)).encode())
            digest.update(hashlib.sha256(path.read_bytes()).digest())
        return digest.hexdigest()


def write_assets(
    directory: str | Path,
    file: FeatureFile,
    vocabularies: Mapping[str, Sequence[bytes]],
    statistics: Statistics,
    data_directory: str | Path,
) -> FeatureAssets:
    """Writes a feature assets directory; an existing one is replaced only when the new one is complete.

    Args:
        directory: Where to.
        file: The feature file.
        vocabularies: Learned tokens in index order, by the name of the feature that owns the vocabulary.
        statistics: Those of `named_statistics`.
        data_directory: What relative paths in the feature file are relative to.

    Raises:
        UserError: a file that the feature file names is missing or wrong, a learned vocabulary has no token, or the
            disk refuses.
    """
    directory = Path(directory)
    for name, tokens in vocabularies.items():
        if not tokens:
            raise UserError(
                f"{file.feature(name).path}: the training split holds no token for its vocabulary (a value, seen "
                "`min_count` times); leave the feature out of the file or lower its `min_count`"
            )
    with local_copy(data_directory, only=given_files(file)) as data:
        all_tokens = {**given_vocabularies(file, data), **vocabularies}
        tables = given_tables(file, data)
    with disk_errors(directory), new_directory(directory, replace=True) as unfinished:
        (unfinished / "vocabularies").mkdir()
        (unfinished / "frozen").mkdir()
        for name, tokens in all_tokens.items():
            write_tokens(unfinished / "vocabularies" / f"{name}.txt", tokens)
        for name, table in tables.items():
            write_tokens(unfinished / "frozen" / f"{name}.keys.txt", table.keys)
            np.save(unfinished / "frozen" / f"{name}.npy", table.vectors)
        (unfinished / "statistics.json").write_text(json.dumps(statistics, indent=1, sort_keys=True), encoding="utf-8")
        (unfinished / "features.json").write_text(file.model_dump_json(indent=1, exclude_unset=True), encoding="utf-8")
    return FeatureAssets(directory)


def given_vocabularies(file: FeatureFile, data_directory: str | Path) -> dict[str, list[bytes]]:
    """The tokens of the vocabularies that files give, by feature."""
    found = {feature.name: feature.kind.given_tokens(feature, Path(data_directory)) for feature in file.features}
    return {name: tokens for name, tokens in found.items() if tokens is not None}


def given_tables(file: FeatureFile, data_directory: str | Path) -> dict[str, FrozenTable]:
    """The frozen tables by name."""
    found = {feature.name: feature.kind.frozen_table(feature, Path(data_directory)) for feature in file.features}
    return {name: table for name, table in found.items() if table is not None}


def given_files(file: FeatureFile) -> list[str]:
    """The files beside the log that the features are read from, relative to the data directory."""
    return sorted({path for feature in file.features for path in feature.kind.files(feature)})


def learned_vocabularies(file: FeatureFile) -> dict[str, list[Tokens]]:
    """What feeds each learned vocabulary, by the feature that owns it: its own column and those that share it."""
    found: dict[str, list[Tokens]] = {}
    for feature in file.features:
        for tokens in feature.kind.tokens(feature):
            found.setdefault(tokens.owner, []).append(tokens)
    return found


def learned_numbers(file: FeatureFile) -> dict[str, Numbers]:
    """The statistics to learn, by column."""
    return {column: numbers for feature in file.features for column, numbers in feature.kind.numbers(feature).items()}


def named_statistics(file: FeatureFile, vectors: Mapping[str, Any]) -> Statistics:
    """The learned statistics by column and name.

    Args:
        file: The feature file.
        vectors: What the accumulators give for `learned_numbers(file)`: a vector, or None, by column.

    Raises:
        UserError: a column had no number.
    """
    for column, vector in vectors.items():
        if vector is None:
            raise UserError(f"column '{column}' has no value in the training split; leave its feature out of the file")
    return {column: asked.named(vectors[column].tolist()) for column, asked in learned_numbers(file).items()}
