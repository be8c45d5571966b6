"""The metadata that a client sends with its calls, with both clients."""

import asyncio
import contextvars
from collections import Counter
from typing import Any

import pytest

from tests.client.connect import Connect
from tests.client.stub_server import StubServer
from tests.client.test_client import CANDIDATES, CONTEXT, USER
from tfctr.client import AsyncRankingClient, BadRequestError

REQUEST_ID: contextvars.ContextVar[str] = contextvars.ContextVar("request_id", default="none")


@pytest.fixture
def received(server: StubServer) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    server.on_call = lambda context: found.append(dict(context.invocation_metadata()))
    return found


def test_every_call_carries_it(server: StubServer, received: list[dict[str, Any]], connect: Connect) -> None:
    fixed = {"authorization": "Bearer abc", "trace-bin": b"\0\xff"}
    with connect(server.target, timeout_seconds=300, metadata=fixed, chunk_size=1) as client:
        client.rank(USER, CANDIDATES, CONTEXT)
        client.model_status()
    assert len(received) == 1 + 1 + 3 + 1
    assert all(one.items() >= fixed.items() for one in received)


def test_a_function_makes_it_for_each_call(
    server: StubServer, received: list[dict[str, Any]], connect: Connect
) -> None:
    tokens = iter(range(100))
    with connect(server.target, timeout_seconds=300, metadata=lambda: {"x-token": str(next(tokens))}) as client:
        client.rank(USER, CANDIDATES, CONTEXT)
    assert [one["x-token"] for one in received] == ["0", "1", "2"]


def test_it_sees_the_context_of_the_request(server: StubServer, received: list[dict[str, Any]]) -> None:
    async def one(client: AsyncRankingClient, name: str) -> None:
        REQUEST_ID.set(name)
        await client.rank(USER, CANDIDATES, CONTEXT)

    async def scene() -> None:
        def source() -> dict[str, str]:
            return {"x-request-id": REQUEST_ID.get()}

        async with AsyncRankingClient(server.target, timeout_seconds=300, metadata=source, cache=None) as client:
            await client.served_model()
            received.clear()
            await asyncio.gather(*(one(client, f"request-{number}") for number in range(5)))

    asyncio.run(scene())
    assert Counter(one["x-request-id"] for one in received) == {f"request-{number}": 2 for number in range(5)}


@pytest.mark.parametrize(
    "wrong",
    [
        {"Authorization": "secret"},
        {"": "secret"},
        {"grpc-timeout": "secret"},
        {5: "secret"},
        {"authorization": "secret\n"},
        {"authorization": "secrét"},
        {"authorization": b"secret"},
        {"trace-bin": "secret"},
        {"authorization": None},
        "secret",
        None,
    ],
)
def test_what_grpc_would_not_send_is_refused(server: StubServer, connect: Connect, wrong: Any) -> None:
    if wrong is not None:
        with pytest.raises(BadRequestError, match="metadata") as caught:
            connect(server.target, metadata=wrong)
        assert "secr" not in str(caught.value)
    client = connect(server.target, timeout_seconds=300, metadata=lambda: wrong)
    with client, pytest.raises(BadRequestError, match="metadata") as caught:
        client.rank(USER, CANDIDATES, CONTEXT)
    assert "secr" not in str(caught.value)


def test_too_long_a_value_is_no_want_of_servers(server: StubServer, connect: Connect) -> None:
    with (
        connect(server.target, timeout_seconds=300, metadata={"x-long": "a" * 20_000}) as client,
        pytest.raises(BadRequestError, match=r"The metadata of the client .* is too long for the server") as caught,
    ):
        client.rank(USER, CANDIDATES, CONTEXT)
    assert "aaaa" not in str(caught.value)


def test_a_function_that_fails_is_an_error_of_the_client(server: StubServer, connect: Connect) -> None:
    def fail() -> dict[str, str]:
        raise KeyError("no token")

    with (
        connect(server.target, timeout_seconds=300, metadata=fail) as client,
        pytest.raises(BadRequestError, match="metadata: the function of the client raised KeyError"),
    ):
        client.rank(USER, CANDIDATES, CONTEXT)
