"""With a cache that fails, both clients still rank correctly and in time."""

import asyncio
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.client.connect import Connect
from tests.client.stub_server import StubServer
from tests.client.test_client import CANDIDATES, CONTEXT, EXPECTED, USER
from tests.client.test_flight import REQUEST, right, until
from tfctr.client import (
    AsyncRankingClient,
    AsyncStateCache,
    DeadlineError,
    MemoryStateCache,
    StateCache,
    StateKey,
    UnavailableError,
    UserState,
)
from tfctr.client.drivers import CACHE_THREADS


class RaisingCache(StateCache):
    """Every call raises an error."""

    def __init__(self, blocking: bool):
        self.blocking = blocking

    def get(self, key: StateKey) -> UserState | None:
        raise KeyError(key.user_key)

    def put(self, key: StateKey, state: UserState) -> None:
        raise OSError("disk full")

    def invalidate(self, key: StateKey) -> None:
        raise RuntimeError

    def forget_user(self, model: str, user_key: str) -> None:
        raise RuntimeError(f"{model}: {user_key} is still there")


class HungCache(RaisingCache):
    """Answers no call until `go_on` is set."""

    def __init__(self) -> None:
        super().__init__(blocking=True)
        self.failures = 1000
        self.go_on = threading.Event()

    def get(self, key: StateKey) -> UserState | None:
        self.go_on.wait(60)
        return None

    def forget_user(self, model: str, user_key: str) -> None:
        self.go_on.wait(60)


class SlowCache(MemoryStateCache):
    """A cache in memory that is as slow as a remote one."""

    blocking = True

    def get(self, key: StateKey) -> UserState | None:
        time.sleep(0.005)
        return super().get(key)


class StubbornCache(MemoryStateCache):
    """Ignores `invalidate`."""

    def invalidate(self, key: StateKey) -> None:
        pass


class HungAsyncCache(HungCache, AsyncStateCache):
    """A cache with coroutines. `aget` never returns, and `aput` raises an error."""

    given_up = False

    async def aget(self, key: StateKey) -> UserState | None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            self.given_up = True
            raise
        return None

    async def aput(self, key: StateKey, state: UserState) -> None:
        raise OSError("disk full")

    async def ainvalidate(self, key: StateKey) -> None:
        raise RuntimeError

    async def aforget_user(self, model: str, user_key: str) -> None:
        raise RuntimeError(f"{user_key} is still there")


class OwnCache(StateCache):
    """A cache as someone else writes it: four methods, and no word to the base class."""

    def __init__(self, wrong: Any = None):
        self.states: dict[StateKey, UserState] = {}
        self.wrong = wrong
        self.calls: list[float] = []

    def get(self, key: StateKey) -> UserState | None:
        self.calls.append(time.monotonic())
        return self.wrong or self.states.get(key)

    def put(self, key: StateKey, state: UserState) -> None:
        self.states[key] = state

    def invalidate(self, key: StateKey) -> None:
        self.states.pop(key, None)

    def forget_user(self, model: str, user_key: str) -> None:
        for key in [key for key in self.states if (key.model, key.user_key) == (model, user_key)]:
            del self.states[key]


class OwnAsyncCache(OwnCache, AsyncStateCache):
    """The same, with coroutines."""

    async def aget(self, key: StateKey) -> UserState | None:
        return self.get(key)

    async def aput(self, key: StateKey, state: UserState) -> None:
        self.put(key, state)

    async def ainvalidate(self, key: StateKey) -> None:
        self.invalidate(key)

    async def aforget_user(self, model: str, user_key: str) -> None:
        self.forget_user(model, user_key)


@pytest.fixture
def hung() -> Iterator[HungCache]:
    cache = HungCache()
    yield cache
    cache.go_on.set()


@pytest.mark.parametrize("blocking", [True, False])
def test_a_cache_that_raises(server: StubServer, connect: Connect, blocking: bool) -> None:
    with connect(server.target, timeout_seconds=300, cache=RaisingCache(blocking)) as client:
        for _ in range(4):
            assert right(client.rank(**REQUEST))
        assert client.counts["cache_failed"] == 5
        assert client.counts["cache_skipped"] == 3  # after three failures of `get` in a row, it is left alone
        assert client.counts["cache_miss"] == server.calls["user_tower"] == 4
        with pytest.raises(UnavailableError, match="u5 is still there"):
            client.forget_user("u5")


@pytest.mark.parametrize("kind", [OwnCache, OwnAsyncCache])
def test_a_cache_of_ones_own(server: StubServer, connect: Connect, kind: type[OwnCache]) -> None:
    cache = kind()
    with connect(server.target, timeout_seconds=300, cache=cache) as client:
        for user in ("u5", "u6", "u5"):
            assert right(client.rank(**{**REQUEST, "user_key": user}))
        assert client.counts == {"cache_hit": 1, "cache_miss": 2, "cache_put": 2, "score": 3, "user_tower": 2}
        client.forget_user("u5")
        assert [key.user_key for key in cache.states] == ["u6"]


class HalfCache(OwnCache):
    """One of `get` and `put` raises an error, or hangs until `go_on` is set; the other works."""

    def __init__(self, fails: str, hangs: bool):
        super().__init__()
        self.fails = fails
        self.hangs = hangs
        self.go_on = threading.Event()
        self.pause_seconds = 600

    def _fail(self, method: str) -> None:
        if method == self.fails and not self.hangs:
            raise OSError(f"{method} does not work")
        if method == self.fails:
            self.go_on.wait(60)

    def get(self, key: StateKey) -> UserState | None:
        self._fail("get")
        return super().get(key)

    def put(self, key: StateKey, state: UserState) -> None:
        self._fail("put")
        super().put(key, state)


@pytest.mark.parametrize("fails", ["get", "put"])
@pytest.mark.parametrize("hangs", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_cache_of_which_one_half_fails_is_paused(
    server: StubServer, connect: Connect, fails: str, hangs: bool
) -> None:
    cache = HalfCache(fails, hangs)
    try:
        with connect(server.target, timeout_seconds=4, cache=cache) as client:
            for version in range(6):
                assert right(client.rank(**{**REQUEST, "history_version": version}))
            assert client.counts["cache_late" if hangs else "cache_failed"] == 3
            assert client.counts["cache_skipped"] == (7 if fails == "get" else 6)
    finally:
        cache.go_on.set()


def test_a_cache_that_always_answers_something_else_is_paused(server: StubServer, connect: Connect) -> None:
    cache = OwnCache("a string")
    cache.pause_seconds = 600
    with connect(server.target, timeout_seconds=300, cache=cache) as client:
        for _ in range(5):
            assert right(client.rank(**REQUEST))
        assert client.counts["cache_failed"] == len(cache.calls) == 3


def test_a_state_that_was_not_stored_is_no_put(server: StubServer, connect: Connect) -> None:
    with connect(server.target, timeout_seconds=300, cache=MemoryStateCache(max_bytes=1)) as client:
        assert right(client.rank(**REQUEST))
        assert client.counts["cache_unstorable"] == 1
        assert "cache_put" not in client.counts


@pytest.mark.parametrize("wrong", ["a string", 7, UserState("ranking", 2, "another", {})])
def test_a_cache_that_answers_something_else(server: StubServer, connect: Connect, wrong: object) -> None:
    with connect(server.target, timeout_seconds=300, cache=OwnCache(wrong)) as client:
        assert right(client.rank(**REQUEST))
        assert client.counts["cache_failed"] == 1


def test_a_cache_that_works_again_is_used_again(server: StubServer, connect: Connect) -> None:
    cache = OwnCache("not a state")
    cache.pause_seconds = 0.3
    with connect(server.target, timeout_seconds=300, cache=cache) as client:
        for _ in range(6):
            assert right(client.rank(**REQUEST))
        cache.wrong = None
        until(lambda: right(client.rank(**REQUEST)) and client.counts.get("cache_hit", 0) > 0)


def test_half_of_an_asynchronous_cache_is_refused() -> None:
    class Half(OwnCache, AsyncStateCache):
        async def aget(self, key: StateKey) -> UserState | None:
            return None

    with pytest.raises(TypeError, match="aforget_user"):
        Half()


@pytest.mark.slow
def test_a_cache_that_hangs_is_waited_for_once(server: StubServer, connect: Connect, hung: HungCache) -> None:
    with connect(server.target, timeout_seconds=4, cache=hung) as client:
        client.served_model()
        requests = [{**REQUEST, "user_key": user} for user in range(CACHE_THREADS + 4)]
        assert all(map(right, client.together(requests)))
        assert client.counts["cache_late"] >= CACHE_THREADS
        late, busy = client.counts["cache_late"], client.counts.get("cache_busy", 0)
        assert right(client.rank(**REQUEST))
        assert client.counts["cache_late"] == late
        assert client.counts["cache_busy"] == busy + 2  # a get and a put


def test_forgetting_a_user_too_late_is_an_error(connect: Connect, hung: HungCache) -> None:
    with (
        connect("localhost:1", cache=hung) as client,
        pytest.raises(DeadlineError, match=r"within 0\.1 s that it forgot the user"),
    ):
        client.forget_user("u5", timeout_seconds=0.1)


@pytest.mark.slow
def test_many_requests_queue_for_a_slow_cache(server: StubServer, connect: Connect) -> None:
    with connect(server.target, timeout_seconds=300, cache=SlowCache()) as client:
        requests = [{**REQUEST, "user_key": user} for user in range(5 * CACHE_THREADS)]
        for _ in range(2):
            assert all(map(right, client.together(requests)))
        assert client.counts["cache_hit"] == client.counts["user_tower"] == len(requests)
        assert not {"cache_late", "cache_busy", "cache_failed"} & set(client.counts)


def test_an_event_loop_goes_on_while_a_cache_blocks(server: StubServer, hung: HungCache) -> None:
    async def scene() -> None:
        async with AsyncRankingClient(server.target, timeout_seconds=300, cache=hung) as client:
            ranking = asyncio.create_task(client.rank(**REQUEST))
            state = await client.user_state(USER)  # meanwhile, in the same event loop
            assert not ranking.done()
            hung.go_on.set()
            assert right(await ranking)
            np.testing.assert_allclose(await client.score(state, CANDIDATES, CONTEXT), EXPECTED, rtol=1e-6)

    asyncio.run(scene())


def test_a_task_of_a_cache_that_hangs_is_cancelled(server: StubServer) -> None:
    async def scene() -> None:
        cache = HungAsyncCache()
        async with AsyncRankingClient(server.target, timeout_seconds=4, cache=cache) as client:
            assert right(await client.rank(**REQUEST))
            assert client.counts["cache_late"] == client.counts["cache_failed"] == 1
        assert cache.given_up

    asyncio.run(scene())


def test_a_rejected_state_that_the_cache_does_not_remove(
    server: StubServer, toy_models: Path, connect: Connect
) -> None:
    """The version that computed the cached state was replaced by another model with the same version number."""
    with connect(server.target, timeout_seconds=300, cache=StubbornCache()) as client:
        assert right(client.rank(**REQUEST))
        server.load(1, toy_models / "2")
        ranked = client.rank(**REQUEST)
        fresh = client.score(client.user_state(USER), CANDIDATES, CONTEXT)
        np.testing.assert_array_equal([one.probability for one in ranked], np.sort(fresh)[::-1])


def test_forget_user(server: StubServer, connect: Connect) -> None:
    with connect(server.target, timeout_seconds=300) as client:
        for user in ("u5", 6):
            client.rank(**{**REQUEST, "user_key": user})
        client.forget_user("u5")
        client.forget_user(7)
        client.rank(**REQUEST)
        client.rank(**{**REQUEST, "user_key": "6"})
        assert client.counts["cache_hit"] == 1
        assert server.calls["user_tower"] == 3
    with connect(server.target, cache=None) as client:
        client.forget_user("u5")
