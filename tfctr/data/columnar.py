"""A compact copy of transformed rows: Arrow files, memory-mapped, from which training takes rows in any order.

A shard is one Arrow IPC file with one record batch. A column is a model input; a history keeps its real events only,
and is padded when rows are taken.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tfctr.errors import disk_errors
from tfctr.features.columns import GROUP, SIDES, InputSpec, Side, length_name
from tfctr.features.inputs import model_inputs
from tfctr.features.spec import FeatureFile
from tfctr.storage import new_directory, new_file, remove_directory

LABEL, WEIGHT = "tfctr_label", "tfctr_weight"
_SHARD_BYTES = 1 << 27
Arrays = dict[str, npt.NDArray[Any]]
_Ints = npt.NDArray[np.int64]


def write_copy(directory: Path, file: FeatureFile, pieces: Iterable[Mapping[str, npt.NDArray[Any]]]) -> None:
    """Writes rows; the directory is there whole or not at all.

    Args:
        directory: Where they go.
        file: The feature file.
        pieces: Some rows after the other: every model input [n, ...] by name, `LABEL` and `WEIGHT` float32 [n], and
            `GROUP` [n] where the feature file names a group.

    Raises:
        UserError: the disk refuses.
    """
    columns = _columns(file)
    with disk_errors(directory), new_directory(directory) as unfinished:
        for number, shard in enumerate(_shards(_packed(rows, columns) for rows in pieces)):
            with pa.ipc.new_file(unfinished / f"{number:06d}.arrow", shard.schema) as writer:
                writer.write_batch(shard)


def remove_other_copies(copy: Path, split: str) -> None:
    """Remove the copies beside that one which are named after a split too: of other rows, or left by a killed run."""
    for left in copy.parent.glob(f".{split}-*"):
        shutil.rmtree(left, ignore_errors=True)
    for old in copy.parent.glob(f"{split}-*"):
        if old != copy:
            with disk_errors(old):
                remove_directory(old)


class RowCopy:
    """The rows of a copy.

    Args:
        directory: What `write_copy` has written.
        file: The feature file.
    """

    def __init__(self, directory: str | Path, file: FeatureFile) -> None:
        self._directory = Path(directory)
        self._shards = [_Shard(path) for path in sorted(self._directory.glob("*.arrow"))]
        self._starts = np.cumsum([0, *(len(shard) for shard in self._shards)])
        self._columns = _columns(file)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def take(self, rows: _Ints, groups: bool = False, sides: Collection[Side] = SIDES) -> Arrays:
        """Some rows by their numbers [n], in that order, in the form that `write_copy` was given.

        Args:
            rows: Which rows.
            groups: Whether the groups are wanted too.
            sides: Which model inputs are wanted.
        """
        shards = np.searchsorted(self._starts, rows, side="right") - 1
        columns = self._of(sides)
        out: Arrays = {name: np.zeros(len(rows), np.float32) for name in (LABEL, WEIGHT)}
        for spec, _ in columns:
            out[spec.name] = np.zeros((len(rows), *spec.shape), spec.dtype)
        for number in np.unique(shards):
            shard, places = self._shards[number], np.flatnonzero(shards == number)
            chosen = rows[places] - self._starts[number]
            events: dict[str, tuple[_Ints, _Ints, _Ints]] = {}
            for spec, sequence in columns:
                if sequence is None:
                    out[spec.name][places] = shard.values(spec.name)[chosen]
                    continue
                if sequence not in events:
                    events[sequence] = shard.events(spec.name, chosen)
                source, row, step = events[sequence]
                out[spec.name][places[row], step] = shard.values(spec.name)[source]
            for name in (LABEL, WEIGHT):
                out[name][places] = shard.values(name)[chosen]
            if groups:
                taken = shard.batch.column(GROUP).take(pa.array(chosen)).to_numpy(zero_copy_only=False)
                out.setdefault(GROUP, np.empty(len(rows), taken.dtype))[places] = taken
        return out

    def digests(self, sides: Collection[Side]) -> npt.NDArray[np.uint64]:
        """Digests [rows, 2] of 128 bits, equal where all model inputs of some sides are the same bytes.

        They are kept beside the rows, since every training on these asks for the same.

        Raises:
            UserError: the disk refuses.
        """
        kept = self._directory / f"{'-'.join(sides)}.npy"
        if not kept.is_file():
            with disk_errors(kept), new_file(kept) as unfinished, unfinished.open("wb") as content:
                np.save(content, self._digests(sides))
        found: npt.NDArray[np.uint64] = np.load(kept)
        return found

    def _digests(self, sides: Collection[Side]) -> npt.NDArray[np.uint64]:
        names = [(spec.name, sequence) for spec, sequence in self._of(sides)]
        fixed, lists = (
            [name for name, sequence in names if (sequence is not None) == along] for along in (False, True)
        )
        parts = [np.empty((0, 2), np.uint64), *(shard.digests(fixed, lists) for shard in self._shards)]
        return np.concatenate(parts)

    def _of(self, sides: Collection[Side]) -> list[tuple[InputSpec, str | None]]:
        return [(spec, sequence) for spec, sequence in self._columns if spec.side in sides]


@dataclass(frozen=True)
class _Shard:
    path: Path

    @cached_property
    def batch(self) -> pa.RecordBatch:
        return pa.ipc.open_file(pa.memory_map(str(self.path))).get_batch(0)

    @cached_property
    def _views(self) -> Arrays:
        return {}

    def __len__(self) -> int:
        return int(self.batch.num_rows)

    def values(self, name: str) -> npt.NDArray[Any]:
        """The values of a column [n, ...], or those of all its events [events, ...], in place."""
        if name not in self._views:
            column = self.batch.column(name)
            flat = column.values if pa.types.is_list(column.type) else column
            width = flat.type.list_size if pa.types.is_fixed_size_list(flat.type) else None
            plain = (flat.values if width else flat).to_numpy()
            self._views[name] = plain.reshape(-1, width) if width else plain
        return self._views[name]

    def events(self, name: str, rows: _Ints) -> tuple[_Ints, _Ints, _Ints]:
        """Where the events of some rows lie, and which row and step of the batch each one becomes."""
        offsets = self.batch.column(name).offsets.to_numpy()
        starts = offsets[rows].astype(np.int64)
        lengths = offsets[rows + 1] - starts
        ends = np.cumsum(lengths)
        step = np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - lengths, lengths)
        return np.repeat(starts, lengths) + step, np.repeat(np.arange(len(rows)), lengths), step

    def digests(self, fixed: Iterable[str], lists: Iterable[str]) -> npt.NDArray[np.uint64]:
        """Digests [n, 2] of the values of some columns.

        Args:
            fixed: Columns of one size a row. Where `lists` has any, the lengths of their rows must be among them.
            lists: Columns along events.
        """
        count = len(self)
        parts = [np.ascontiguousarray(self.values(name)).reshape(count, -1).view(np.uint8) for name in fixed]
        rows = np.concatenate([np.empty((count, 0), np.uint8), *parts], axis=1)
        events = []
        for name in lists:
            values = self.values(name)
            ends = self.batch.column(name).offsets.to_numpy().astype(np.int64) * values[:1].nbytes
            events.append((values.reshape(-1).view(np.uint8).data, ends.tolist()))
        found = bytearray()
        for row in range(count):
            digest = hashlib.blake2b(rows[row], digest_size=16)
            for content, ends in events:
                digest.update(content[ends[row] : ends[row + 1]])
            found += digest.digest()
        return np.frombuffer(found, np.uint64).reshape(-1, 2)


def _columns(file: FeatureFile) -> list[tuple[InputSpec, str | None]]:
    """The model inputs, and the sequence along whose events each one lies."""
    along = {
        spec.name: feature.sequence
        for feature in file.features
        for spec in feature.kind.inputs(feature)
        if feature.sequence is not None and spec.shape
    }
    return [(spec, along.get(spec.name)) for spec in model_inputs(file)]


def _packed(rows: Mapping[str, npt.NDArray[Any]], columns: list[tuple[InputSpec, str | None]]) -> pa.RecordBatch:
    """The rows without the padding of their histories."""
    packed = {spec.name: _column(rows[spec.name], rows, sequence) for spec, sequence in columns}
    packed |= {name: pa.array(rows[name]) for name in (LABEL, WEIGHT, GROUP) if name in rows}
    return pa.RecordBatch.from_arrays(list(packed.values()), list(packed))


def _column(values: npt.NDArray[Any], rows: Mapping[str, npt.NDArray[Any]], sequence: str | None) -> pa.Array:
    if sequence is None:
        return _fixed(values)
    lengths = rows[length_name(sequence)]
    real = np.arange(values.shape[1]) < lengths[:, None]
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), _fixed(values[real]))


def _fixed(values: npt.NDArray[Any]) -> pa.Array:
    flat = pa.array(np.ascontiguousarray(values).reshape(-1))
    return flat if values.ndim == 1 else pa.FixedSizeListArray.from_arrays(flat, values.shape[1])


def _shards(pieces: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The rows again, in pieces of the size of a shard or a little more."""
    gathered: list[pa.RecordBatch] = []
    size = 0
    for piece in pieces:
        gathered.append(piece)
        size += piece.nbytes
        if size >= _SHARD_BYTES:
            yield _joined(gathered)
            gathered, size = [], 0
    if gathered:
        yield _joined(gathered)


def _joined(pieces: list[pa.RecordBatch]) -> pa.RecordBatch:
    [joined] = pa.Table.from_batches(pieces).combine_chunks().to_batches()
    return joined
