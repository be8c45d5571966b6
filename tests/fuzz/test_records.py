"""Cached states whose bytes are changed: never taken for a state that nobody wrote."""

from __future__ import annotations

import contextlib
import struct
import zlib
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.mutations import mutated_bytes
from tfctr.client.record import InvalidRecordError, from_bytes, to_bytes
from tfctr.client.state import StateKey, UserState

KEY = StateKey("ranking", 7, "fingerprint", "user", "history")
TENSORS: dict[str, Any] = {
    "history/events": np.linspace(-1, 1, 24, dtype=np.float32).reshape(1, 6, 4),
    "history/rows": np.arange(6, dtype=np.int32)[None],
    "model_tag": np.array([3]),
}
STATE = UserState("ranking", 7, "fingerprint", TENSORS)
RECORDS = [to_bytes(KEY, STATE, precision) for precision in ("float32", "float16", "int8")]
WRITTEN = set(RECORDS)


@given(record=mutated_bytes(RECORDS))
def test_a_changed_record_is_no_state(record: bytes) -> None:
    try:
        state = from_bytes(KEY, record)
    except InvalidRecordError:
        return
    assert state is not None
    assert record in WRITTEN


@given(record=mutated_bytes([record[:-4] for record in RECORDS]))
def test_a_record_of_a_release_that_writes_otherwise(record: bytes) -> None:
    """The checksum is right, so what is in it must be read without trust: no crash and no memory for a claimed size."""
    try:
        state = from_bytes(KEY, record + struct.pack("<I", zlib.crc32(record)))
    except InvalidRecordError:
        return
    held = 0 if state is None else sum(tensor.nbytes for tensor in state.tensors.values())
    assert held <= 8 * len(record)


@given(record=st.binary(max_size=400))
def test_any_bytes(record: bytes) -> None:
    with contextlib.suppress(InvalidRecordError):
        assert from_bytes(KEY, record) is None
