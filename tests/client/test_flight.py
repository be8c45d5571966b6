"""Concurrent requests for the same user, with both clients."""

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from tests.client.connect import Connect
from tests.client.stub_server import StubServer
from tests.client.test_client import CANDIDATES, CONTEXT, EXPECTED, USER
from tfctr.client import (
    AsyncRankingClient,
    BadRequestError,
    DeadlineError,
    RankingClient,
    ServerError,
    StateRejectedError,
)

REQUEST: dict[str, Any] = {
    "user": USER,
    "candidates": CANDIDATES,
    "context": CONTEXT,
    "user_key": "u5",
    "history_version": 1,
}


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < end, "the condition was never true"
        time.sleep(0.005)


def joined(client: RankingClient, count: int) -> Callable[[], None]:
    """Returns a function for `script`. It waits until this many requests share the call that the server answers."""
    return lambda: until(lambda: client.counts.get("joined", 0) >= count)


def right(ranked: Any) -> bool:
    return isinstance(ranked, list) and np.allclose([one.probability for one in ranked], EXPECTED[[2, 0, 1]], rtol=1e-6)


def wrong(found: list[Any]) -> list[Any]:
    """What is not the right answer, so that a failure tells it."""
    return [one for one in found if not right(one)]


@pytest.mark.slow
def test_a_hundred_misses_make_one_state(server: StubServer, connect: Connect) -> None:
    with connect(server.target, timeout_seconds=300) as client:
        client.served_model()
        server.script["user_tower"] = [joined(client, 99)]
        assert wrong(client.together([REQUEST] * 100)) == []
        assert server.calls["user_tower"] == client.counts["user_tower"] == 1
        assert client.counts["cache_miss"] == 1


def test_without_a_cache_too(server: StubServer, connect: Connect) -> None:
    with connect(server.target, timeout_seconds=300, cache=None) as client:
        client.served_model()
        server.script["user_tower"] = [joined(client, 9)]
        assert wrong(client.together([REQUEST] * 10)) == []
        assert server.calls["user_tower"] == 1


def test_the_first_look_at_the_model_is_one_call(server: StubServer, connect: Connect) -> None:
    with connect(server.target, timeout_seconds=300, cache=None) as client:
        server.script["metadata"] = [joined(client, 9)]
        anonymous = {name: REQUEST[name] for name in ("user", "candidates", "context")}
        assert wrong(client.together([anonymous] * 10)) == []
        assert server.calls["metadata"] == 1


@pytest.mark.slow
def test_other_users_do_not_wait(server: StubServer, connect: Connect) -> None:
    with connect(server.target, timeout_seconds=300) as client:
        client.together([{**REQUEST, "user_key": user} for user in range(10)])
        assert server.calls["user_tower"] == 10


def test_an_error_of_the_leader_is_not_shared(server: StubServer, connect: Connect) -> None:
    with connect(server.target, timeout_seconds=300) as client:
        client.served_model()
        wait = joined(client, 9)

        def fail() -> None:
            wait()
            raise ValueError("an error in the server")

        server.script["user_tower"] = [fail]
        found = client.together([REQUEST] * 10)
        assert sum(map(right, found)) == 9
        assert sum(isinstance(one, ServerError) for one in found) == 1
        assert server.calls["user_tower"] == 2


def test_a_rejected_state_of_the_leader_is_not_shared(server: StubServer, connect: Connect) -> None:
    with connect(server.target, timeout_seconds=300) as client:
        client.served_model()
        wait = joined(client, 9)

        def break_the_tag() -> None:
            wait()
            server.replace_output["model_tag"] = np.array([-1])

        server.script["user_tower"] = [break_the_tag, server.replace_output.clear]
        found = client.together([REQUEST] * 10)
        assert sum(map(right, found)) == 9
        assert sum(isinstance(one, StateRejectedError) for one in found) == 1
        assert client.counts["recomputed"] == 9


@pytest.mark.slow
def test_each_waits_no_longer_than_its_own_deadline(server: StubServer) -> None:
    given_up = threading.Event()
    with RankingClient(server.target, timeout_seconds=300) as client, ThreadPoolExecutor(1) as threads:
        client.served_model()
        server.script["user_tower"] = [given_up]
        patient = threads.submit(lambda: client.rank(**REQUEST))
        until(lambda: server.calls["user_tower"] == 1)
        with pytest.raises(DeadlineError, match="user_tower: not ready within 2000 ms in another request"):
            client.rank(**REQUEST, timeout_seconds=2)
        given_up.set()
        assert right(patient.result())


@pytest.mark.slow
def test_each_task_waits_no_longer_than_its_own_deadline(server: StubServer) -> None:
    async def scene() -> None:
        given_up = threading.Event()
        async with AsyncRankingClient(server.target, timeout_seconds=300) as client:
            await client.served_model()
            server.script["user_tower"] = [given_up]
            patient = asyncio.create_task(client.rank(**REQUEST))
            while server.calls["user_tower"] < 1:
                await asyncio.sleep(0.01)
            with pytest.raises(DeadlineError, match="user_tower: not ready within 2000 ms in another request"):
                await client.rank(**REQUEST, timeout_seconds=2)
            given_up.set()
            assert right(await patient)

    asyncio.run(scene())


def test_a_client_that_is_closed_ends_its_requests(server: StubServer) -> None:
    async def scene() -> None:
        client = AsyncRankingClient(server.target, timeout_seconds=300)
        server.script["user_tower"] = [threading.Event()]
        request = asyncio.create_task(client.rank(**REQUEST))
        while server.calls["user_tower"] < 1:
            await asyncio.sleep(0.01)
        await client.close()
        with pytest.raises(BadRequestError, match="the client is closed"):
            await request

    asyncio.run(asyncio.wait_for(scene(), 30))


def test_a_cancelled_leader_leaves_the_work_to_the_next(server: StubServer) -> None:
    async def scene() -> None:
        async with AsyncRankingClient(server.target, timeout_seconds=300) as client:
            await client.served_model()
            server.script["user_tower"] = [threading.Event()]
            leader = asyncio.create_task(client.rank(**REQUEST))
            while server.calls["user_tower"] < 1:
                await asyncio.sleep(0.01)
            others = [asyncio.create_task(client.rank(**REQUEST)) for _ in range(5)]
            while client.counts.get("joined", 0) < 5:
                await asyncio.sleep(0.01)
            leader.cancel()
            assert all(map(right, await asyncio.gather(*others)))
            assert leader.cancelled()
            while server.cancelled["user_tower"] < 1:
                await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(scene(), 30))
    assert server.calls["user_tower"] == 2
