"""Two servers behind one target, of which one hangs: the client notices it and goes on with the other."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

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


@pytest.mark.parametrize("seconds", [12, pytest.param(200, marks=pytest.mark.night)])
@pytest.mark.parametrize("health_check", [False, True])
def test_a_server_with_default_limits_allows_the_pings(
    server: StubServer, connect: Connect, seconds: float, health_check: bool
) -> None:
    """After a call of several pings, and after an idle time, the first connection still is in use."""
    seen: set[str] = set()
    server.on_call = lambda context: seen.add(context.peer())
    slow = threading.Event()
    connection = Connection(ping_after_seconds=1, health_check=health_check)
    target = f"ipv4:127.0.0.1:{server.port}"  # localhost is two addresses
    with connect(target, timeout_seconds=300, connection=connection, retry=Retry(0)) as client:
        client.rank(USER, CANDIDATES, CONTEXT)
        server.script["score"] = [slow]
        timer = threading.Timer(5, slow.set)
        timer.start()
        client.rank(USER, CANDIDATES, CONTEXT)
        time.sleep(seconds)
        client.rank(USER, CANDIDATES, CONTEXT)
    assert health_check or len(seen) == 1, seen
