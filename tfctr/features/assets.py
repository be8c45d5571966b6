"""What was learned from the data about the features: vocabularies, statistics, frozen tables, in one directory."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tfctr.errors import UserError
from tfctr.features.spec import Categorical, FeatureFile, FileVocabulary, Frozen, LearnedVocabulary, Numeric

Statistics = dict[str, dict[str, Any]]


class FeatureAssets:
    """A directory with everything the raw function needs beside the feature file.

    Layout: `features.json` (the feature file it was made for), `vocabularies/<feature>.txt` (one token a line, in index
    order), `statistics.json` (mean and deviation, or bucket boundaries, by feature), `frozen/<table>.keys.txt` and
    `frozen/<table>.npy` (L2-normalised, row 0 all zero: the row of a key without a vector).

    Args:
        directory: Where it lies.

    Raises:
        UserError: when the directory is no such thing.
    """

    def __init__(self, directory: str | Path) -> None:
        self.directory = Path(directory)
        described = self.directory / "features.json"
        if not described.is_file():
            raise UserError(f"{self.directory}: holds no feature assets (features.json is missing)")
        self.file = FeatureFile.model_validate_json(described.read_text(encoding="utf-8"))
        self.statistics: Statistics = json.loads((self.directory / "statistics.json").read_text(encoding="utf-8"))
        self._sizes: dict[str, int] = {}

    def vocabulary_path(self, feature: str) -> Path:
        """The token file of a learned or given vocabulary."""
        return self.directory / "vocabularies" / f"{feature}.txt"

    def tokens(self, feature: str) -> list[str]:
        """The tokens of a learned or given vocabulary, in index order (the first has index 1)."""
        return self.vocabulary_path(feature).read_text(encoding="utf-8").split("\n")[:-1]

    def table_rows(self, feature: str) -> int:
        """Rows of the embedding table of a categorical or bucketized feature, padding and OOV included."""
        found = self.file.feature(feature)
        if isinstance(found, Numeric):
            return len(self.statistics[feature]["boundaries"]) + 2
        owner, categorical = self.file.resolve(feature)
        vocabulary = categorical.vocabulary
        if vocabulary.type == "hash":
            return vocabulary.buckets + 1
        if vocabulary.type == "identity":
            return vocabulary.size + 2
        if owner not in self._sizes:
            self._sizes[owner] = len(self.tokens(owner))
        return self._sizes[owner] + 2

    def frozen_keys_path(self, table: str) -> Path:
        """The keys of a frozen table; line i is row i + 1."""
        return self.directory / "frozen" / f"{table}.keys.txt"

    def frozen_vectors(self, table: str) -> npt.NDArray[np.floating[Any]]:
        """The frozen table [1 + n, width]; row 0 is zero."""
        vectors: npt.NDArray[np.floating[Any]] = np.load(self.directory / "frozen" / f"{table}.npy")
        return vectors

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
    vocabularies: Mapping[str, Sequence[str]],
    statistics: Statistics,
    data_directory: str | Path,
) -> FeatureAssets:
    """Writes a feature assets directory; an existing one is replaced only when the new one is complete.

    Args:
        directory: Where to.
        file: The feature file.
        vocabularies: Tokens in index order, by the name of the feature that owns the vocabulary.
        statistics: {"mean", "deviation"} or {"boundaries"} by numeric feature.
        data_directory: What relative paths in the feature file are relative to.
    """
    directory = Path(directory)
    directory.parent.mkdir(parents=True, exist_ok=True)
    unfinished = directory.with_name(f".{directory.name}.{os.getpid()}.partial")
    shutil.rmtree(unfinished, ignore_errors=True)
    (unfinished / "vocabularies").mkdir(parents=True)
    (unfinished / "frozen").mkdir()
    for name, tokens in vocabularies.items():
        text = "".join(f"{token}\n" for token in tokens)
        (unfinished / "vocabularies" / f"{name}.txt").write_text(text, encoding="utf-8")
    for name, frozen in file.frozen_features().items():
        keys, vectors = read_frozen(frozen, name, Path(data_directory))
        (unfinished / "frozen" / f"{name}.keys.txt").write_text("".join(f"{k}\n" for k in keys), encoding="utf-8")
        np.save(unfinished / "frozen" / f"{name}.npy", vectors)
    (unfinished / "statistics.json").write_text(json.dumps(statistics, indent=1, sort_keys=True), encoding="utf-8")
    (unfinished / "features.json").write_text(file.model_dump_json(indent=1, exclude_unset=True), encoding="utf-8")
    shutil.rmtree(directory, ignore_errors=True)
    unfinished.rename(directory)
    return FeatureAssets(directory)


def read_frozen(frozen: Frozen, name: str, data_directory: Path) -> tuple[list[str], npt.NDArray[np.floating[Any]]]:
    """Reads the vectors of a frozen table: (keys, [1 + n, width] L2-normalised with a zero row first).

    Raises:
        UserError: a missing file, repeated ids, a wrong shape, values that are not finite.
    """
    path = data_directory / frozen.vectors
    where = f"candidate.{name}.vectors: {path}"
    if not path.is_file():
        raise UserError(f"{where}: no such file. It must be an .npz with `ids` [n] and `vectors` [n, width]")
    try:
        with np.load(path) as archive:
            ids, vectors = archive["ids"], archive["vectors"].astype(np.float32)
    except (KeyError, ValueError, OSError) as error:
        raise UserError(f"{where}: must be an .npz with `ids` [n] and `vectors` [n, width] ({error})") from None
    if vectors.ndim != 2 or ids.shape != vectors.shape[:1]:
        raise UserError(f"{where}: `vectors` must be [n, width] and `ids` [n]. Received: {vectors.shape}, {ids.shape}")
    if not np.isfinite(vectors).all():
        raise UserError(f"{where}: holds values that are not finite (id {ids[~np.isfinite(vectors).all(axis=1)][0]})")
    if len(np.unique(ids)) != len(ids):
        values, counts = np.unique(ids, return_counts=True)
        raise UserError(f"{where}: id {values[counts > 1][0]} stands twice")
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    table = np.concatenate([np.zeros_like(vectors[:1]), vectors / np.maximum(norms, 1e-12)])
    return [str(key) for key in ids], table.astype(frozen.dtype)


def given_vocabularies(file: FeatureFile, data_directory: str | Path) -> dict[str, list[str]]:
    """The tokens of all vocabularies of type `file`, by feature."""
    found = {}
    for path, name, feature in file.walk():
        if (
            isinstance(feature, Categorical)
            and feature.share is None
            and isinstance(feature.vocabulary, FileVocabulary)
        ):
            source = Path(data_directory) / feature.vocabulary.path
            if not source.is_file():
                raise UserError(f"{path}.vocabulary.path: {source}: no such file")
            tokens = [line for line in source.read_text(encoding="utf-8").splitlines() if line]
            repeated = (
                {token for token in tokens if tokens.count(token) > 1} if len(set(tokens)) < len(tokens) else None
            )
            if repeated:
                raise UserError(f"{path}.vocabulary.path: {source}: the token '{sorted(repeated)[0]}' stands twice")
            found[name] = tokens
    return found


def learned_vocabularies(file: FeatureFile) -> dict[str, tuple[LearnedVocabulary, list[str]]]:
    """Owner -> (its vocabulary, all columns that feed it: the owner's own and those that share it)."""
    columns: dict[str, list[str]] = {}
    for _, name, feature in file.walk():
        if isinstance(feature, Categorical) and file.resolve(name)[1].vocabulary.type == "learned":
            columns.setdefault(file.resolve(name)[0], []).append(name)
    found = {}
    for owner, names in columns.items():
        vocabulary = file.resolve(owner)[1].vocabulary
        assert isinstance(vocabulary, LearnedVocabulary)
        found[owner] = (vocabulary, sorted(names, key=lambda name: name != owner))
    return found
