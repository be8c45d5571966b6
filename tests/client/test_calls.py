"""Retries, hedges and chunks, each with both clients."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from tests.client.connect import Connect
from tests.client.stub_server import StubServer
from tests.client.test_client import CANDIDATES, CONTEXT, EXPECTED, USER
from tfctr.client import (
    BadRequestError,
    BadRowError,
    CodecError,
    Connection,
    Hedge,
    OverloadedError,
    Retry,
    ServerError,
    UnavailableError,
)

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
BEST = EXPECTED[[2, 0, 1]]


def probabilities(ranked: Any) -> np.ndarray:
    return np.array([one.probability for one in ranked], np.float32)


# --- retries


@pytest.mark.parametrize("step", ["metadata", "user_tower", "score"])
def test_unavailable_is_tried_again_once(server: StubServer, connect: Connect, step: str) -> None:
    server.script[step] = [UNAVAILABLE]
    with connect(server.target, timeout_seconds=300) as client:
        np.testing.assert_allclose(probabilities(client.rank(USER, CANDIDATES, CONTEXT)), BEST, rtol=1e-6)
        assert server.calls[step] == 2
        assert client.counts["retry"] == 1


@pytest.mark.parametrize("times", [0, 2])
def test_as_often_as_asked_for(server: StubServer, connect: Connect, times: int) -> None:
    server.script["score"] = [UNAVAILABLE] * 9
    with connect(server.target, timeout_seconds=300, retry=Retry(times)) as client, pytest.raises(UnavailableError):
        client.rank(USER, CANDIDATES, CONTEXT)
    assert server.calls["score"] == 1 + times


def test_a_full_queue_is_overload(server: StubServer, connect: Connect) -> None:
    """An overloaded TensorFlow Serving answers UNAVAILABLE, which also means that a server cannot be reached."""
    message = "The batch scheduling queue to which this task was submitted is full; currently 10 batches enqueued"
    server.fail["score"] = (UNAVAILABLE, message)
    with connect(server.target, timeout_seconds=300) as client, pytest.raises(OverloadedError, match="queue"):
        client.rank(USER, CANDIDATES, CONTEXT)
    assert server.calls["score"] == 1


def test_no_time_for_a_retry(server: StubServer, connect: Connect) -> None:
    """The error of the call is raised at once."""
    server.script["score"] = [UNAVAILABLE]
    patient = Retry(wait_seconds=1000)
    with (
        connect(server.target, timeout_seconds=300, retry=patient) as client,
        pytest.raises(UnavailableError, match="as the test"),
    ):
        client.rank(USER, CANDIDATES, CONTEXT)
    assert server.calls["score"] == 1


def test_retries_stop_when_their_budget_is_spent(server: StubServer, connect: Connect) -> None:
    """Retries add at most 10 % of the calls plus ten, so that a server that is down does not get twice the calls."""
    with connect(server.target, timeout_seconds=300) as client:
        state = client.user_state(USER)
        server.fail["score"] = (UNAVAILABLE, "down")
        for _ in range(40):
            with pytest.raises(UnavailableError):
                client.score(state, CANDIDATES)
        assert 10 <= client.counts["retry"] <= 10 + 0.1 * 42
        assert client.counts["over_budget"] == 40 - client.counts["retry"]
    assert server.calls["score"] == 40 + client.counts["retry"]


# --- hedges


def test_the_first_answer_wins_and_the_slow_call_is_cancelled(server: StubServer, connect: Connect) -> None:
    with connect(server.target, timeout_seconds=300, hedge=Hedge(0.05)) as client:
        client.served_model()
        won = client.counts.get("hedge_won", 0)
        never = threading.Event()
        server.script = {"user_tower": [never], "score": [never]}
        np.testing.assert_allclose(probabilities(client.rank(USER, CANDIDATES, CONTEXT)), BEST, rtol=1e-6)
        assert client.counts["hedge"] >= 2
        assert client.counts["hedge_won"] == won + 2
        client.model_status()  # runs the event loop, so that the cancellation is sent
        end = time.monotonic() + 300
        while server.cancelled != {"user_tower": 1, "score": 1}:
            assert time.monotonic() < end, server.cancelled
            time.sleep(0.01)


def test_a_fast_answer_is_not_hedged(server: StubServer, connect: Connect) -> None:
    with connect(server.target, timeout_seconds=300, hedge=Hedge(15)) as client:
        client.rank(USER, CANDIDATES, CONTEXT)
        assert server.calls == {"metadata": 1, "user_tower": 1, "score": 1}
        assert "hedge" not in client.counts


def test_one_of_two_copies_may_fail(server: StubServer, connect: Connect) -> None:
    second_came = threading.Event()

    def fail() -> None:
        second_came.wait(20)
        raise ValueError("an error in the server")

    def answer() -> None:
        second_came.set()
        time.sleep(0.1)

    with connect(server.target, timeout_seconds=300, hedge=Hedge(0.02)) as client:
        state = client.user_state(USER)
        server.script["score"] = [fail, answer]
        np.testing.assert_allclose(client.score(state, CANDIDATES, CONTEXT), EXPECTED, rtol=1e-6)
        assert server.calls["score"] == 2


def test_a_failed_call_is_not_hedged(server: StubServer, connect: Connect) -> None:
    """A hedge sent after an error would retry a call that must not be retried."""
    with connect(server.target, timeout_seconds=300, hedge=Hedge(15)) as client:
        server.script["user_tower"] = [grpc.StatusCode.INTERNAL]
        with pytest.raises(ServerError):
            client.rank(USER, CANDIDATES, CONTEXT)
        assert server.calls["user_tower"] == 1


def test_hedges_stop_when_their_budget_is_spent(server: StubServer, connect: Connect) -> None:
    with connect(server.target, timeout_seconds=300, hedge=Hedge(0)) as client:
        state = client.user_state(USER)
        for _ in range(40):
            np.testing.assert_allclose(client.score(state, CANDIDATES, CONTEXT), EXPECTED, rtol=1e-6)
        assert 5 <= client.counts["hedge"] <= 10 + 0.1 * 42


# --- chunks


def test_ten_thousand_candidates_as_in_one_call(server: StubServer, connect: Connect) -> None:
    candidates = {"item_id": np.arange(10_000) % 700, "price": np.arange(10_000) % 3 / 10}
    with connect(server.target, timeout_seconds=300, chunk_size=1_000_000) as whole:
        expected = whole.rank(USER, candidates, CONTEXT)
    assert server.calls["score"] == 1
    with connect(server.target, timeout_seconds=300) as client:
        ranked = client.rank(USER, candidates, CONTEXT)
        assert ranked == expected
        assert server.calls == {"metadata": 2, "user_tower": 2, "score": 11}
        server.calls.clear()
        assert len(client.rank(USER, {"item_id": np.arange(1001)}, CONTEXT)) == 1001
        assert server.calls["score"] == 2


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7])
def test_chunks_of_any_number(server: StubServer, connect: Connect, count: int) -> None:
    candidates = [{"item_id": item, "price": item % 2} for item in range(count)]
    with connect(server.target, timeout_seconds=300, chunk_size=3) as client:
        state = client.user_state(USER)
        found = client.score(state, candidates, CONTEXT)
        alone = [client.score(state, [one], CONTEXT)[0] for one in candidates]
        np.testing.assert_allclose(found, alone, rtol=1e-6)
    assert server.calls["score"] == -(-count // 3) + count


def test_bad_rows_are_counted_over_all_chunks(server: StubServer, connect: Connect) -> None:
    candidates = [{"item_id": item, "price": -1.0 if item in (2, 3) else 0.5} for item in range(8)]
    with (
        connect(server.target, timeout_seconds=300, chunk_size=2) as client,
        pytest.raises(BadRowError, match="2 of 8") as caught,
    ):
        client.rank(USER, candidates, CONTEXT)
    assert caught.value.rows == (2, 3)


def test_one_failed_chunk_fails_the_request(server: StubServer, connect: Connect) -> None:
    server.script["score"] = [None, None, grpc.StatusCode.INTERNAL]
    with connect(server.target, timeout_seconds=300, chunk_size=1) as client, pytest.raises(ServerError):
        client.rank(USER, CANDIDATES, CONTEXT)


def test_one_retried_chunk_is_sent_again_alone(server: StubServer, connect: Connect) -> None:
    server.script["score"] = [None, UNAVAILABLE]
    with connect(server.target, timeout_seconds=300, chunk_size=1) as client:
        np.testing.assert_allclose(probabilities(client.rank(USER, CANDIDATES, CONTEXT)), BEST, rtol=1e-6)
    assert server.calls["score"] == 4


def test_chunks_are_of_one_version(server: StubServer, toy_models: Path, connect: Connect) -> None:
    """The version is unloaded while it scores chunks. All chunks are then scored by the next version."""
    with connect(server.target, timeout_seconds=300, chunk_size=1) as client:
        client.rank(USER, CANDIDATES, CONTEXT, user_key="u5", history_version=1)
        server.load(2, toy_models / "2")
        server.versions_asked.clear()
        server.script["score"] = [None, grpc.StatusCode.NOT_FOUND]
        ranked = client.rank(USER, CANDIDATES, CONTEXT, user_key="u5", history_version=1)
        assert client.counts["recomputed"] == 1
        fresh = client.score(client.user_state(USER), CANDIDATES, CONTEXT)
    np.testing.assert_array_equal(probabilities(ranked), np.sort(fresh)[::-1])
    assert server.versions_asked["score"][-6:] == [2] * 6


def test_an_answer_of_another_version_is_refused(server: StubServer, toy_models: Path, connect: Connect) -> None:
    with connect(server.target, timeout_seconds=300) as client:
        state = client.user_state(USER)
        server.load(2, toy_models / "2")
        server.ignore_pin = True
        with pytest.raises(CodecError, match=r"version 1 of 'ranking' must answer .*Received: an answer of version 2"):
            client.score(state, CANDIDATES, CONTEXT)


WRONG: list[dict[str, Any]] = [
    {"chunk_size": 0},
    {"chunk_size": True},
    {"refresh_seconds": float("nan")},
    {"refresh_seconds": "often"},
    {"version": -1},
    {"version": "newest"},
    {"timeout_seconds": 10**400},
    {"cache": "redis"},
    {"cache": {}},
    {"model_name": None},
    {"version_label": 5},
    {"retry": 2},
    {"hedge": 0.1},
    {"connection": None},
    {"metadata": "Bearer secret"},
    {"options": [("grpc.max_reconnect_backoff_ms", 0.5)]},
    {"options": ["grpc.enable_retries"]},
    {"feature_file": "no/such/file.yaml"},
]


@pytest.mark.parametrize("wrong", WRONG)
def test_bad_arguments(connect: Connect, wrong: dict[str, Any]) -> None:
    with pytest.raises(BadRequestError, match=next(iter(wrong))) as caught:
        connect("localhost:1", **wrong)
    assert "secret" not in str(caught.value)


WRONG_TARGETS = [
    *("http://localhost:8500", "https://a:1", "a:1,b:1", "dns:///a:1,b:1", "localhost", "dns:///localhost", "::1"),
    *("localhost:", "localhost:0", "localhost:65536", "localhost:-1", "localhost:http", "a b:1", "ipv4:1.2.3.4:99999"),
]


@pytest.mark.parametrize("target", [None, 8500, b"localhost:1", *WRONG_TARGETS])
def test_a_bad_target(connect: Connect, target: Any) -> None:
    with pytest.raises(BadRequestError, match=r"^target: .* Allowed: HOST:PORT"):
        connect(target)


@pytest.mark.parametrize(
    "target", ["[::1]:85", "dns:a.b:1", "dns://9.9.9.9/a:1", "ipv4:1.2.3.4:5,1.2.3.5:5", "unix:/a"]
)
def test_a_good_target(connect: Connect, target: str) -> None:
    with connect(target) as client:
        assert client.counts == {}


@pytest.mark.parametrize(
    ("policy", "wrong"),
    [
        (Retry, {"times": -1}),
        (Retry, {"times": 1.5}),
        (Retry, {"wait_seconds": float("inf")}),
        (Hedge, {"after_seconds": -1}),
        (Hedge, {"after_seconds": "soon"}),
        (Connection, {"ping_after_seconds": 0}),
        (Connection, {"ping_timeout_seconds": "long"}),
        (Connection, {"ejection_seconds": -1}),
        (Connection, {"ejection_share": 1.5}),
    ],
)
def test_bad_policies(policy: Callable[..., Any], wrong: dict[str, Any]) -> None:
    with pytest.raises(BadRequestError, match=next(iter(wrong))):
        policy(**wrong)
