from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.client.test_cache import KEY, equal, state
from tfctr.client import CodecError, UserState
from tfctr.client.record import InvalidRecordError, Precision, from_bytes, to_bytes

PRECISIONS: tuple[Precision, ...] = get_args(Precision)


def stored(tensors: dict[str, np.ndarray], precision: Precision) -> dict[str, np.ndarray]:
    found = from_bytes(KEY, to_bytes(KEY, UserState(KEY.model, KEY.version, KEY.fingerprint, tensors), precision))
    assert found is not None
    return dict(found.tensors)


def test_round_trip() -> None:
    found = from_bytes(KEY, to_bytes(KEY, state()))
    assert equal(found, state())
    assert found is not None
    assert (found.model, found.version, found.fingerprint) == ("ranking", 3, "abcd")
    dated = from_bytes(KEY, to_bytes(KEY, replace(state(), created=5.5)))
    assert dated is not None
    assert dated.created == 5.5


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(
    "change", [{"model": "x"}, {"version": 4}, {"fingerprint": "x"}, {"user_key": "user:2"}, {"user_key": "\ud800"}]
)
def test_a_record_under_another_key_is_not_taken(change: dict[str, Any], precision: Precision) -> None:
    with pytest.raises(InvalidRecordError, match="another key"):
        from_bytes(replace(KEY, **change), to_bytes(KEY, state(), precision))


def test_a_record_of_another_history_is_a_plain_miss() -> None:
    assert from_bytes(replace(KEY, history_version="18"), to_bytes(KEY, state())) is None


def test_different_keys_have_different_digests() -> None:
    left, right = replace(KEY, fingerprint="a:b", user_key="c"), replace(KEY, fingerprint="a", user_key="b:c")
    assert left.digest != right.digest


@given(st.integers(0, 400), st.integers(0, 7), st.sampled_from(PRECISIONS))
def test_any_flipped_bit_is_seen(at: int, bit: int, precision: Precision) -> None:
    payload = bytearray(to_bytes(KEY, state(), precision))
    payload[at % len(payload)] ^= 1 << bit
    with pytest.raises(InvalidRecordError):
        from_bytes(KEY, bytes(payload))


@given(st.binary(max_size=300))
def test_garbage_is_no_record(payload: bytes) -> None:
    with pytest.raises(InvalidRecordError):
        from_bytes(KEY, payload)


def test_cut_and_longer_records_are_invalid() -> None:
    payload = to_bytes(KEY, state())
    for wrong in [payload[:size] for size in range(len(payload))] + [payload + b"\0"]:
        with pytest.raises(InvalidRecordError):
            from_bytes(KEY, wrong)


def test_strings_have_no_record() -> None:
    with pytest.raises(CodecError, match="strings"):
        to_bytes(KEY, UserState("ranking", 3, "abcd", {"name": np.array([b"x"], object)}))


FLOATS = st.sampled_from([np.float32, np.float16]).flatmap(
    lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=5))
)


@given(FLOATS, st.sampled_from(PRECISIONS))
@example(np.array([65504, 1], np.float16), "int8")
@example(np.array([[1e38, 1], [np.nan, 1]], np.float32), "int8")
@example(np.array([np.inf, 1], np.float32), "int8")
@example(np.array([7e4], np.float32), "float16")
def test_error_of_every_precision_is_bounded(tensor: np.ndarray, precision: Precision) -> None:
    """A tensor with values that fewer bits cannot hold is stored unchanged."""
    found = stored({"x": tensor}, precision)["x"]
    assert found.dtype == tensor.dtype
    assert found.shape == tensor.shape
    if precision == "float32" or not np.isfinite(tensor).all():
        np.testing.assert_array_equal(found.view(np.uint8), tensor.view(np.uint8))
        return
    exact, found = tensor.astype(np.float64), found.astype(np.float64)
    if precision == "float16":
        assert np.all(np.abs(found - exact) <= np.abs(exact) * 2**-11 + 2**-25)
    elif tensor.size:
        half_a_step = np.abs(exact).max(axis=-1, keepdims=True) / 254
        rounding = np.abs(exact) * 2**-11 + 2**-25 if tensor.dtype == np.float16 else 0  # rounded to float16 again
        assert np.all(np.abs(found - exact) <= half_a_step * (1 + 2**-10) + 2**-24 + rounding)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_integers_and_tags_are_always_exact(precision: Precision) -> None:
    tensors = {
        "model_tag": np.array([-(2**63), 2**63 - 1]),
        "rows": np.arange(-3, 300, dtype=np.int32)[None],
        "flags": np.array([[True, False]]),
    }
    for name, found in stored(tensors, precision).items():
        np.testing.assert_array_equal(found, tensors[name])
        assert found.dtype == tensors[name].dtype


def test_fewer_bits_take_fewer_bytes() -> None:
    tensor = {"keys": np.random.default_rng(0).normal(size=(1, 4, 50, 32)).astype(np.float32)}
    sizes = [len(to_bytes(KEY, UserState("ranking", 3, "abcd", tensor), precision)) for precision in PRECISIONS]
    overhead = sizes[0] - 25600
    assert [size - overhead for size in sizes] == [25600, 12800, 6400 + 2 * 200]
