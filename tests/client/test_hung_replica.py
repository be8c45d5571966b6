"""Two servers behind one target, of which one hangs: the client notices it and goes on with the other."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from grpc_health.v1.health import HealthServicer
from grpc_health.v1.health_pb2 import HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import add_HealthServicer_to_server

from tests.client.connect import Connect
from tests.client.replicas import DRIVERS, Outcomes, Replica, replicas
from tests.client.stub_server import StubServer
from tests.client.test_client import CANDIDATES, CONTEXT, USER
from tests.client.test_flight import until
from tfctr.client import Connection, Hedge, Retry

pytestmark = pytest.mark.e2e

LATE = 8.0
"""Seconds after which no request may fail any more: the promised two, and room for a machine that is busy."""


@pytest.fixture(scope="module")
def two(toy_models: Path) -> Iterator[list[Replica]]:
    with replicas(toy_models) as found:
        yield found


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("hedge", [None, Hedge(0.2)], ids=["plain", "hedged"])
def test_a_replica_that_is_stopped_is_left_out(two: list[Replica], driver: str, hedge: Hedge | None) -> None:
    def scene(_: Any, outcomes: Outcomes) -> None:
        until(lambda: len(outcomes.answered) > 50)
        two[0].pause()
        outcomes.mark()
        try:
            time.sleep(LATE + 4)
        finally:
            two[0].go_on()

    target = f"ipv4:{','.join(one.address for one in two)}"
    outcomes, counts = DRIVERS[driver](scene, target, hedge=hedge, cache=None)
    print(driver, hedge, len(outcomes.failed), "failed of", len(outcomes.answered), outcomes.failed[:20], counts)
    assert [one for one in outcomes.failed if one[0] > LATE] == []
    assert sum(when > LATE for when in outcomes.answered) > 20
    necessary = counts["user_tower"] + counts["score"]
    assert counts.get("hedge", 0) + counts.get("retry", 0) <= 10 + 0.1 * (necessary + 5)


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_replica_that_goes_on_is_used_again(two: list[Replica], driver: str) -> None:
    def scene(_: Any, outcomes: Outcomes) -> None:
        until(lambda: len(outcomes.answered) > 50)
        two[0].pause()
        time.sleep(4)
        two[0].go_on()
        outcomes.mark()
        until(lambda: len(outcomes.answered) > 50)
        two[1].pause()  # from now on, only the first one can answer
        outcomes.mark()
        try:
            until(lambda: sum(when > 2 for when in outcomes.answered) > 20)
        finally:
            two[1].go_on()

    target = f"ipv4:{','.join(one.address for one in two)}"
    outcomes, _ = DRIVERS[driver](scene, target, cache=None, connection=Connection(ejection_seconds=2))
    assert outcomes.answered


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_replica_that_signals_but_does_not_answer_is_left_out(toy_models: Path, driver: str) -> None:
    """Its connection lives, so that only the failed calls tell of it."""
    with StubServer() as first, StubServer() as second:
        for one in (first, second):
            one.load(1, toy_models / "1")

        def scene(_: Any, outcomes: Outcomes) -> None:
            until(lambda: len(outcomes.answered) > 50)
            first.hang = {signature: threading.Event() for signature in ("user_tower", "score")}
            outcomes.mark()
            time.sleep(LATE + 2)

        target = f"ipv4:127.0.0.1:{first.port},127.0.0.1:{second.port}"
        long = Connection(ejection_seconds=100)
        outcomes, _ = DRIVERS[driver](scene, target, cache=None, connection=long)
    print(driver, len(outcomes.failed), "failed of", len(outcomes.answered), outcomes.failed[:20])
    assert [one for one in outcomes.failed if one[0] > LATE] == []
    assert sum(when > LATE for when in outcomes.answered) > 20


# --- the servers' side: gRPC's default limits for pings


@pytest.mark.parametrize("seconds", [10, pytest.param(400, marks=pytest.mark.night)])
@pytest.mark.parametrize("connection", [Connection(ping_after_seconds=1), Connection(health_check=True)])
def test_a_server_with_default_limits_allows_the_pings(
    server: StubServer, connect: Connect, seconds: float, connection: Connection
) -> None:
    """After calls that last for several pings, and after an idle time, the first connection still is in use."""
    seen: set[str] = set()
    server.on_call = lambda context: seen.add(context.peer())
    with_health(server, HealthServicer())
    target = f"ipv4:127.0.0.1:{server.port}"  # localhost is two addresses
    with connect(target, timeout_seconds=300, connection=connection, retry=Retry(0)) as client:
        for _ in range(3):
            slow = threading.Event()
            server.script["score"] = [slow]
            threading.Timer(4, slow.set).start()
            client.rank(USER, CANDIDATES, CONTEXT)
        time.sleep(seconds)
        client.rank(USER, CANDIDATES, CONTEXT)
    assert len(seen) == 1, seen


# --- the health service


def with_health(server: StubServer, service: HealthServicer) -> None:
    """Gives a server that is running a health service; gRPC takes handlers at any time."""
    service.set("", HealthCheckResponse.SERVING)
    server.add(lambda grpc_server: add_HealthServicer_to_server(service, grpc_server))


def test_a_replica_whose_health_service_says_no_gets_no_calls(toy_models: Path, connect: Connect) -> None:
    with StubServer() as first, StubServer() as second:
        services = [HealthServicer(), HealthServicer()]
        for one, service in zip((first, second), services, strict=True):
            one.load(1, toy_models / "1")
            with_health(one, service)
        target = f"ipv4:127.0.0.1:{first.port},127.0.0.1:{second.port}"
        with connect(target, timeout_seconds=300, connection=Connection(health_check=True)) as client:

            def asked() -> tuple[bool, bool]:
                first.calls.clear()
                second.calls.clear()
                for _ in range(4):
                    client.rank(USER, CANDIDATES, CONTEXT)
                return bool(first.calls), bool(second.calls)

            until(lambda: asked() == (True, True))
            services[0].set("", HealthCheckResponse.NOT_SERVING)
            until(lambda: asked() == (False, True))
            services[0].set("", HealthCheckResponse.SERVING)
            until(lambda: asked() == (True, True))


def test_without_a_health_service_all_replicas_count_as_healthy(toy_models: Path, connect: Connect) -> None:
    with StubServer() as first, StubServer() as second:
        for one in (first, second):
            one.load(1, toy_models / "1")
        target = f"ipv4:127.0.0.1:{first.port},127.0.0.1:{second.port}"
        with connect(target, timeout_seconds=300, connection=Connection(health_check=True)) as client:

            def both_are_asked() -> bool:
                client.rank(USER, CANDIDATES, CONTEXT)
                return bool(first.calls) and bool(second.calls)

            until(both_are_asked)  # one may be connected later than the other
            for one in (first, second):
                one.calls.clear()
            for _ in range(10):
                client.rank(USER, CANDIDATES, CONTEXT)
        # In turn, so that one gets all user_tower and the other all score if the calls come one after the other.
        assert min(sum(one.calls.values()) for one in (first, second)) >= 10
