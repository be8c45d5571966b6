"""The columnar copy gives back the rows that it was given, in any order, and is there whole or not at all."""

from __future__ import annotations

import errno
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tests.workbench import ROOT
from tfctr.data import columnar
from tfctr.data.columnar import LABEL, WEIGHT, Arrays, RowCopy, remove_other_copies, write_copy
from tfctr.errors import UserError
from tfctr.features import FeatureFile
from tfctr.features.columns import GROUP
from tfctr.features.inputs import model_inputs

CONTENT: dict[str, Any] = {
    "labels": {"click": "label"},
    "group": "session",
    "meta": ["session"],
    "timestamp": "time",
    "user": {"user": {}},
    "candidate": {
        "item": {},
        "genres": {"dtype": "string", "max_values": 3},
        "price": {"kind": "numeric"},
    },
    "sequences": {
        "past": {
            "max_length": 4,
            "fields": {
                "past_item": {"share": "item"},
                "past_genres": {"share": "genres", "max_values": 2},
                "past_price": {"kind": "numeric"},
                "past_time": {"kind": "event_time"},
            },
        },
        "seen": {"max_length": 7, "fields": {"seen_item": {"share": "item"}}},
    },
}
FILE = FeatureFile.model_validate(CONTENT)
LENGTHS = {"past": 4, "seen": 7}


def rows(count: int, seed: int = 0) -> Arrays:
    """Rows as the raw function makes them: every value another one, histories of any length, padded with zeros."""
    generator = np.random.default_rng(seed)
    lengths = {name: generator.integers(0, most + 1, count) for name, most in LENGTHS.items()}
    made: Arrays = {}
    for spec in model_inputs(FILE):
        if spec.name.endswith("_length"):
            made[spec.name] = lengths[spec.name.removesuffix("_length")].astype(np.int32)
            continue
        values = generator.integers(1, 10**6, (count, *spec.shape)).astype(spec.dtype)
        along = next((name for name in lengths if spec.name.startswith(name) and spec.shape), None)
        if along is not None:
            values[np.arange(spec.shape[0]) >= lengths[along][:, None]] = 0
        made[spec.name] = values
    made[LABEL] = generator.integers(0, 2, count).astype(np.float32)
    made[WEIGHT] = generator.random(count, np.float32)
    made[GROUP] = np.array([b"s%d" % n for n in generator.integers(0, 9, count)], object)
    return made


def pieces(whole: Arrays, size: int = 32) -> Iterator[Arrays]:
    for start in range(0, len(whole[LABEL]), size):
        yield {name: values[start : start + size] for name, values in whole.items()}


def assert_rows(found: Arrays, whole: Arrays, order: Any) -> None:
    assert found.keys() == whole.keys()
    for name, values in whole.items():
        np.testing.assert_array_equal(found[name], values[order], err_msg=name)
        assert found[name].dtype == values.dtype, name


@pytest.fixture(params=[1 << 27, 1 << 14, 1], ids=["one shard", "some shards", "a shard a piece"])
def shards(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(columnar, "_SHARD_BYTES", request.param)
    return {1 << 27: 1, 1 << 14: 4, 1: 16}[request.param]


def test_rows_come_back_in_any_order(tmp_path: Path, shards: int) -> None:
    whole = rows(500)
    write_copy(tmp_path / "copy", FILE, pieces(whole))
    assert len(list((tmp_path / "copy").iterdir())) == shards
    copy = RowCopy(tmp_path / "copy", FILE)
    assert len(copy) == 500
    generator = np.random.default_rng(1)
    for order in (
        np.arange(500),
        np.arange(500)[::-1],
        generator.permutation(500),
        generator.integers(0, 500, 50),
        np.array([499]),
        np.arange(0),
    ):
        if len(order):
            assert_rows(copy.take(order, groups=True), whole, order)
        without = copy.take(order)
        assert without.keys() == whole.keys() - {GROUP}
        assert len(without[LABEL]) == len(order)


def test_only_some_sides(tmp_path: Path) -> None:
    whole = rows(40)
    write_copy(tmp_path / "copy", FILE, pieces(whole))
    found = RowCopy(tmp_path / "copy", FILE).take(np.arange(40), sides=("candidate",))
    of_candidate = {spec.name for spec in model_inputs(FILE) if spec.side == "candidate"}
    assert found.keys() == {*of_candidate, LABEL, WEIGHT}
    assert_rows(found, {name: whole[name] for name in found}, np.arange(40))


def test_digests_are_equal_where_all_inputs_of_the_sides_are(tmp_path: Path, shards: int) -> None:
    """Each row stands there again with another candidate, and for every input once more with one bit of it changed."""
    of_request = [spec.name for spec in model_inputs(FILE) if spec.side in ("user", "context")]
    once = rows(30)
    again = {name: values if name in of_request else values[::-1] for name, values in once.items()}
    changed = []
    for name in of_request:
        if not name.endswith("_length"):
            other = once[name].copy()
            other.reshape(30, -1).view(np.uint8)[:, 0] ^= 1
            changed.append((name, once | {name: other}))
    parts = [once, again, *(other for _, other in changed)]
    whole = {name: np.concatenate([part[name] for part in parts]) for name in once}
    write_copy(tmp_path / "copy", FILE, pieces(whole))
    found = RowCopy(tmp_path / "copy", FILE).digests(("user", "context")).reshape(len(parts), 30, 2)
    np.testing.assert_array_equal(found[0], found[1])
    assert len(np.unique(found[0], axis=0)) == 30
    for (name, _), other in zip(changed, found[2:], strict=True):
        along = (one for one in LENGTHS if name.startswith(one) and once[name].ndim > 1)
        length = next((once[f"{one}_length"] for one in along), None)
        differs = np.ones(30, bool) if length is None else length > 0
        np.testing.assert_array_equal((other != found[0]).any(axis=1), differs, err_msg=name)


def test_digests_are_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_copy(tmp_path / "copy", FILE, pieces(rows(40)))
    made = [RowCopy(tmp_path / "copy", FILE).digests(sides) for sides in (("user", "context"), ("user",))]
    monkeypatch.setattr(columnar._Shard, "digests", None)
    again = [RowCopy(tmp_path / "copy", FILE).digests(sides) for sides in (("user", "context"), ("user",))]
    np.testing.assert_array_equal(made, again)
    assert not np.array_equal(*made)


def test_groups_may_be_numbers(tmp_path: Path) -> None:
    whole = rows(40) | {GROUP: np.arange(40, dtype=np.int64)}
    write_copy(tmp_path / "copy", FILE, pieces(whole))
    assert_rows(RowCopy(tmp_path / "copy", FILE).take(np.arange(40), groups=True), whole, np.arange(40))


def test_histories_are_all_empty_or_all_full(tmp_path: Path) -> None:
    for name, length in (("empty", 0), ("full", 1)):
        whole = rows(40)
        for sequence, most in LENGTHS.items():
            whole[f"{sequence}_length"][:] = length * most
            for spec in model_inputs(FILE):
                if spec.name.startswith(sequence) and spec.shape:
                    whole[spec.name][:] = length
        write_copy(tmp_path / name, FILE, pieces(whole))
        assert_rows(RowCopy(tmp_path / name, FILE).take(np.arange(40), groups=True), whole, np.arange(40))


def test_padding_takes_no_room(tmp_path: Path) -> None:
    for name, longest in (("short", 10), ("long", 1000)):
        content = {**CONTENT, "sequences": {"past": {**CONTENT["sequences"]["past"], "max_length": longest}}}
        file = FeatureFile.model_validate(content)
        whole = rows(40)
        for spec in model_inputs(file):
            if spec.name.startswith("past") and spec.shape:
                wide = np.zeros((40, *spec.shape), spec.dtype)
                wide[:, :4] = whole[spec.name]
                whole[spec.name] = wide
        write_copy(tmp_path / name, file, pieces(whole))
        taken = RowCopy(tmp_path / name, file).take(np.arange(40))
        np.testing.assert_array_equal(taken["past_item"], whole["past_item"])
    [short], [long] = ([path.stat().st_size for path in (tmp_path / n).iterdir()] for n in ("short", "long"))
    assert short == long


def test_shards_are_mapped_into_memory(tmp_path: Path) -> None:
    write_copy(tmp_path / "copy", FILE, pieces(rows(20_000), 4096))
    before = pa.total_allocated_bytes()
    copy = RowCopy(tmp_path / "copy", FILE)
    copy.take(np.arange(10))
    assert pa.total_allocated_bytes() - before < 100_000
    assert len(copy) == 20_000


def test_no_rows(tmp_path: Path) -> None:
    write_copy(tmp_path / "copy", FILE, [])
    assert len(RowCopy(tmp_path / "copy", FILE)) == 0


class TestWholeOrNotAtAll:
    def test_a_bad_row(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(columnar, "_SHARD_BYTES", 1)

        def bad() -> Iterator[Arrays]:
            yield from pieces(rows(100))
            raise UserError("row 101: no")

        with pytest.raises(UserError, match="row 101: no"):
            write_copy(tmp_path / "copy", FILE, bad())
        assert not list(tmp_path.iterdir())

    def test_a_full_disk(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(columnar, "_SHARD_BYTES", 1)
        new_file, made = pa.ipc.new_file, []

        def full(path: Any, schema: Any) -> Any:
            made.append(path)
            if len(made) == 3:
                raise OSError(errno.ENOSPC, "No space left on device")
            return new_file(path, schema)

        monkeypatch.setattr(pa.ipc, "new_file", full)
        with pytest.raises(UserError) as raised:
            write_copy(tmp_path / "copy", FILE, pieces(rows(500)))
        assert str(raised.value) == f"cannot write {tmp_path / 'copy'}: No space left on device"
        assert not list(tmp_path.iterdir())

    def test_a_kill(self, tmp_path: Path) -> None:
        script = f"""
import os, signal
from pathlib import Path
from tests.data.test_columnar import *
columnar._SHARD_BYTES = 1
def killed():
    yield from pieces(rows(100))
    os.kill(os.getpid(), signal.SIGKILL)
write_copy(Path({str(tmp_path)!r}) / "train-1", FILE, killed())
"""
        ran = subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=False)
        assert ran.returncode == -signal.SIGKILL
        [left] = tmp_path.iterdir()
        assert list(left.iterdir())
        assert left.name.startswith(".train-1.")
        write_copy(tmp_path / "train-1", FILE, pieces(rows(100)))
        assert len(RowCopy(tmp_path / "train-1", FILE)) == 100
        remove_other_copies(tmp_path / "train-1", "train")
        assert [path.name for path in tmp_path.iterdir()] == ["train-1"]


def test_a_kill_while_a_copy_is_removed_leaves_none_that_is_taken_for_whole(tmp_path: Path) -> None:
    script = f"""
import os, signal
from pathlib import Path
from tests.data.test_columnar import *
columnar._SHARD_BYTES = 1
parent = Path({str(tmp_path)!r})
for name in ("train-1", "train-2"):
    write_copy(parent / name, FILE, pieces(rows(100)))
def partly(directory, **_):
    next(directory.glob("*.arrow")).unlink()
    os.kill(os.getpid(), signal.SIGKILL)
columnar.shutil.rmtree = partly
remove_other_copies(parent / "train-2", "train")
"""
    ran = subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=False)
    assert ran.returncode == -signal.SIGKILL
    assert not (tmp_path / "train-1").exists()
    remove_other_copies(tmp_path / "train-2", "train")
    assert [path.name for path in tmp_path.iterdir()] == ["train-2"]


def test_copies_of_other_rows_are_removed(tmp_path: Path) -> None:
    for name in ("train-1", "train-2", "valid-1", "training"):
        (tmp_path / name).mkdir()
    remove_other_copies(tmp_path / "train-2", "train")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["train-2", "training", "valid-1"]
