import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfctr.client import BadRequestError, MemoryStateCache, StateKey, UserState
from tfctr.client.cache import lifetime

KEY = StateKey("ranking", 3, "abcd", "user:1", "17")


def state(value: float = 1.0, size: int = 4) -> UserState:
    tensors = {
        "history/events": np.full((1, size), value, np.float32),
        "half": np.full((1, 2, 0), value, np.float16),
        "model_tag": np.array([7]),
        "rows": np.array([[1, 2]], np.int32),
    }
    return UserState("ranking", 3, "abcd", tensors)


def equal(left: UserState | None, right: UserState) -> bool:
    return left is not None and all(
        left.tensors[name].dtype == tensor.dtype
        and left.tensors[name].shape == tensor.shape
        and np.array_equal(left.tensors[name], tensor)
        for name, tensor in right.tensors.items()
    )


def test_least_recently_used_goes_first() -> None:
    cache = MemoryStateCache(max_entries=2)
    keys = [replace(KEY, user_key=str(i)) for i in range(3)]
    cache.put(keys[0], state(0))
    cache.put(keys[1], state(1))
    assert equal(cache.get(keys[0]), state(0))
    cache.put(keys[2], state(2))
    assert cache.get(keys[1]) is None
    assert equal(cache.get(keys[0]), state(0))
    assert equal(cache.get(keys[2]), state(2))
    assert cache.counts == {"evicted": 1, "unstorable": 0}


def test_bounded_in_bytes() -> None:
    cache = MemoryStateCache(max_bytes=3 * state(size=1000).nbytes)
    for i in range(10):
        cache.put(replace(KEY, user_key=str(i)), state(size=1000))
    assert len(cache) == 3
    cache.put(KEY, state(size=100_000))  # not kept, because it is larger than the whole cache
    assert cache.get(KEY) is None
    assert len(cache) == 3
    assert cache.counts == {"evicted": 7, "unstorable": 1}
    cache.put(KEY, state())
    assert equal(cache.get(KEY), state())


def test_same_key_twice_counts_once() -> None:
    cache = MemoryStateCache(max_bytes=2 * state().nbytes)
    for value in range(10):
        cache.put(KEY, state(value))
    cache.put(replace(KEY, user_key="2"), state())
    assert len(cache) == 2
    assert equal(cache.get(KEY), state(9))


def test_old_states_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    cache = MemoryStateCache(ttl_seconds=10)
    cache.put(KEY, state())
    now += lifetime(KEY, 10) - 0.01
    assert cache.get(KEY) is not None
    now += 0.01
    assert cache.get(KEY) is None
    assert len(cache) == 0


@given(st.builds(StateKey, st.text(), st.integers(), st.text(), st.text(), st.text()), st.floats(1e-3, 1e9))
def test_no_state_lives_longer_than_its_ttl_nor_much_shorter(key: StateKey, ttl: float) -> None:
    assert 0.9 * ttl <= lifetime(key, ttl) <= ttl
    assert lifetime(key, ttl) == lifetime(replace(key), ttl)


def test_a_burst_of_states_does_not_expire_in_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "monotonic", lambda: 100.0)
    cache = MemoryStateCache(ttl_seconds=1000)
    keys = [replace(KEY, user_key=str(i)) for i in range(1000)]
    for key in keys:
        cache.put(key, state())
    left = []
    for now in (999.9, 1025, 1050, 1075, 1100):
        monkeypatch.setattr(time, "monotonic", lambda now=now: now)
        left.append(sum(cache.get(key) is not None for key in keys))
    assert (left[0], left[-1]) == (1000, 0)
    assert all(200 < gone < 300 for gone in -np.diff(left))


def test_invalidate() -> None:
    cache = MemoryStateCache()
    cache.put(KEY, state())
    cache.invalidate(KEY)
    cache.invalidate(KEY)
    assert cache.get(KEY) is None


def test_forget_user_forgets_every_version_of_that_user_only() -> None:
    cache = MemoryStateCache()
    others = [replace(KEY, user_key="user:2"), replace(KEY, model="another")]
    mine = [KEY, replace(KEY, version=4), replace(KEY, history_version="18")]
    for key in mine + others:
        cache.put(key, state())
    cache.forget_user(KEY.model, KEY.user_key)
    assert [cache.get(key) is None for key in mine + others] == [True, True, True, False, False]


@pytest.mark.parametrize("bound", ["max_entries", "max_bytes", "ttl_seconds"])
@pytest.mark.parametrize("wrong", [0, -1, "many", None, float("nan")])
def test_bounds_are_positive(bound: str, wrong: Any) -> None:
    make: Callable[..., MemoryStateCache] = MemoryStateCache
    with pytest.raises(BadRequestError, match=bound):
        make(**{bound: wrong})


def test_threads() -> None:
    cache = MemoryStateCache(max_entries=5)
    wrong = []

    def work(seed: int) -> None:
        for i in range(500):
            key = replace(KEY, user_key=str((i * seed) % 9))
            cache.put(key, state(float(key.user_key)))
            found = cache.get(key)
            if found is not None and found.tensors["history/events"][0, 0] != float(key.user_key):
                wrong.append(key)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in (1, 2, 3, 4)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert not wrong
    assert len(cache) <= 5
