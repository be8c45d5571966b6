"""Frozen item vectors: reads them from the layouts in use, checks them and writes them in one layout."""

import zipfile
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tfctr.errors import UserError

FILE_NAME = "item_vectors.npz"
_LAYOUTS = (("ids", "vectors"), ("movie_id", "vector"))


@dataclass(frozen=True)
class ItemVectors:
    """One vector for each item.

    Attributes:
        ids: int64 [n]; no id occurs twice.
        vectors: float16 or float32 [n, width]; all values are finite.
    """

    ids: npt.NDArray[np.int64]
    vectors: npt.NDArray[Any]

    def save(self, directory: Path) -> None:
        """Writes `directory/item_vectors.npz` with the arrays `ids` and `vectors`."""
        np.savez(directory / FILE_NAME, ids=self.ids, vectors=self.vectors)

    def coverage(self, item_ids: Collection[int]) -> float:
        """The share of the items that have a vector."""
        return float(np.isin(np.fromiter(item_ids, np.int64), self.ids).mean())


def load_item_vectors(path: Path, width: int | None = None) -> ItemVectors:
    """Reads item vectors.

    Args:
        path: `.npz` with the arrays `ids` and `vectors` (or `movie_id` and `vector`), or `NAME.npy` with the ids
            beside it in `NAME.ids.npy` or `NAME.ids.txt` (one id a line).
        width: The width that the vectors must have; None allows any.

    Raises:
        UserError: The file is missing or unreadable, or ids and vectors do not fit together.
    """
    if not path.is_file():
        raise UserError(f"item vectors: {path} is missing; allowed are .npz and .npy files")
    ids, vectors = _read_npz(path) if path.suffix == ".npz" else _read_npy(path)
    return checked_vectors(path, ids, vectors, width)


def _load(path: Path) -> Any:
    try:
        return np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"item vectors: {path} is not a readable NumPy file: {error}") from error


def _read_npz(path: Path) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    with _load(path) as archive:
        names = set(archive.files)
        for ids, vectors in _LAYOUTS:
            if names == {ids, vectors}:
                try:
                    return archive[ids], archive[vectors]
                except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
                    raise UserError(f"item vectors: {path} is damaged: {error}") from error
    raise UserError(
        f"item vectors: {path} must hold the arrays ids and vectors (or movie_id and vector) and no others;"
        f" it holds {', '.join(sorted(names)) or 'none'}"
    )


def _read_npy(path: Path) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    if path.suffix != ".npy":
        raise UserError(f"item vectors: {path} must end in .npz or .npy")
    binary, text = path.with_suffix(".ids.npy"), path.with_suffix(".ids.txt")
    if binary.is_file():
        return _load(binary), _load(path)
    if not text.is_file():
        raise UserError(f"item vectors: the ids of {path} must be in {binary.name} or {text.name} beside it")
    ids = []
    for number, line in enumerate(text.read_text().splitlines(), start=1):
        try:
            ids.append(int(line))
        except ValueError:
            raise UserError(f"item vectors: {text}, line {number}: not an integer id. Received: {line!r}") from None
    return np.array(ids, np.int64), _load(path)


def checked_vectors(
    path: Path, ids: npt.NDArray[Any], vectors: npt.NDArray[Any], width: int | None = None
) -> ItemVectors:
    """Item vectors of arrays.

    Args:
        path: Where they come from, for messages.
        ids: The ids [n].
        vectors: The vectors [n, width].
        width: The width that the vectors must have; None allows any.

    Raises:
        UserError: Ids and vectors do not fit together.
    """
    if ids.ndim != 1 or ids.dtype.kind not in "iu":
        raise UserError(f"item vectors: ids in {path} must be integers [n]. Received: {_shape(ids)}")
    if vectors.ndim != 2 or vectors.dtype.kind != "f" or not vectors.size:
        raise UserError(f"item vectors: vectors in {path} must be floats [n, width]. Received: {_shape(vectors)}")
    if len(ids) != len(vectors):
        raise UserError(f"item vectors: {path} has {len(ids):,} ids for {len(vectors):,} vectors")
    if width is not None and vectors.shape[1] != width:
        raise UserError(f"item vectors: {path} has vectors of width {vectors.shape[1]}; {width} is expected")
    unique, counts = np.unique(ids, return_counts=True)
    if len(unique) < len(ids):
        raise UserError(f"item vectors: {path} has item {unique[counts > 1][0]} more than once")
    bad = ~np.isfinite(vectors).all(axis=1)
    if bad.any():
        raise UserError(f"item vectors: {path} has NaN or infinity in the vector of item {ids[bad][0]}")
    dtype = np.float16 if vectors.dtype == np.float16 else np.float32
    return ItemVectors(ids.astype(np.int64), vectors.astype(dtype))


def _shape(array: npt.NDArray[Any]) -> str:
    return f"{array.dtype} {list(array.shape)}"
