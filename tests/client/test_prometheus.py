"""The metrics of a client for Prometheus, in its text format and read back."""

import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from tests.client.connect import Connect
from tests.client.stub_server import StubServer
from tests.client.test_client import CANDIDATES, CONTEXT, USER
from tfctr.client import BadRequestError, MemoryStateCache, ModelNotFoundError, Observer, StateKey, UserState
from tfctr.client.prometheus import ClientCollector


class OldStates(MemoryStateCache):
    """Makes every state a hundred seconds older."""

    def put(self, key: StateKey, state: UserState) -> None:
        super().put(key, UserState(state.model, state.version, state.fingerprint, state.tensors, time.time() - 100))


def real(client: Any) -> Any:
    """The client itself, not the one for tests around an asyncio client."""
    return getattr(client, "_client", client)


def samples(registry: CollectorRegistry) -> Iterator[tuple[str, float]]:
    for family in text_string_to_metric_families(generate_latest(registry).decode()):
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            yield f"{sample.name}{{{labels}}}", sample.value


def test_what_a_dashboard_needs(server: StubServer, connect: Connect) -> None:
    registry = CollectorRegistry()
    with connect(server.target, timeout_seconds=300, cache=OldStates()) as client:
        registry.register(ClientCollector(real(client)))
        for _ in range(3):
            client.rank(USER, CANDIDATES, CONTEXT, user_key="u5", history_version=1)
        with pytest.raises(BadRequestError):
            client.rank({**USER, "age": "old"}, CANDIDATES, CONTEXT)
        found = dict(samples(registry))
    assert found["tfctr_client_request_seconds_count{method=rank,model=ranking,outcome=ok}"] == 3
    assert found["tfctr_client_request_seconds_count{method=rank,model=ranking,outcome=BadRequestError}"] == 1
    assert 0 < found["tfctr_client_request_seconds_sum{method=rank,model=ranking,outcome=ok}"] < 300
    for step, times in {"metadata": 1, "user_tower": 1, "score": 3}.items():
        assert found[f"tfctr_client_call_seconds_count{{model=ranking,outcome=ok,step={step}}}"] == times
    assert found["tfctr_client_state_age_seconds_count{model=ranking,version=1}"] == 3
    assert found["tfctr_client_state_age_seconds_bucket{le=60.0,model=ranking,version=1}"] == 1
    assert found["tfctr_client_state_age_seconds_bucket{le=300.0,model=ranking,version=1}"] >= 1
    assert found["tfctr_client_total{model=ranking,what=cache_hit}"] == 2
    assert found["tfctr_client_total{model=ranking,what=cache_miss}"] == 1


def test_a_failed_call_is_counted_with_its_error(server: StubServer, connect: Connect) -> None:
    registry = CollectorRegistry()
    with connect("localhost:1", timeout_seconds=2) as client:
        registry.register(ClientCollector(real(client)))
        with pytest.raises(Exception, match="localhost:1"):
            client.rank(USER, CANDIDATES, CONTEXT)
        found = dict(samples(registry))
    assert found["tfctr_client_call_seconds_count{model=ranking,outcome=UnavailableError,step=metadata}"] == 1


def test_an_observer_that_fails_costs_no_request(server: StubServer, connect: Connect) -> None:
    class Failing(Observer):
        def request_ended(self, method: str, outcome: str, seconds: float) -> None:
            raise KeyError(method)

        def call_ended(self, step: str, outcome: str, seconds: float) -> None:
            raise KeyError(step)

        def state_used(self, version: int, age_seconds: float) -> None:
            raise KeyError(version)

    with connect(server.target, timeout_seconds=300) as client:
        client.observe(Failing())
        assert len(client.rank(USER, CANDIDATES, CONTEXT)) == 3


def test_several_clients_and_observers(server: StubServer, connect: Connect) -> None:
    class Noting(Observer):
        def __init__(self) -> None:
            self.ended: list[str] = []

        def request_ended(self, method: str, outcome: str, seconds: float) -> None:
            self.ended.append(f"{method} {outcome}")

    registry, own = CollectorRegistry(), Noting()
    asks = {"user_key": "u5", "history_version": 1}
    with (
        connect(server.target, timeout_seconds=300) as first,
        connect(server.target, timeout_seconds=300) as second,
        connect(server.target, "other", timeout_seconds=300) as other,
    ):
        registry.register(ClientCollector(real(first), real(second), real(other)))
        first.observe(own)
        first.observe(own)
        for client in (first, second):
            client.rank(USER, CANDIDATES, CONTEXT, **asks)
        with pytest.raises(ModelNotFoundError):
            other.rank(USER, CANDIDATES, CONTEXT)
    found = dict(samples(registry))  # of clients that are closed
    assert own.ended == ["rank ok"]
    assert found["tfctr_client_request_seconds_count{method=rank,model=ranking,outcome=ok}"] == 2
    assert found["tfctr_client_request_seconds_count{method=rank,model=other,outcome=ModelNotFoundError}"] == 1
    assert found["tfctr_client_total{model=ranking,what=cache_miss}"] == 2
    assert found["tfctr_client_total{model=other,what=cache_miss}"] == 0


@pytest.mark.parametrize("wrong", [None, Observer, "observer", print])
def test_what_is_no_observer_or_client_is_refused(connect: Connect, wrong: Any) -> None:
    with (
        connect("localhost:1") as client,
        pytest.raises(BadRequestError, match=r"a subclass of tfctr\.client\.Observer"),
    ):
        client.observe(wrong)
    for clients in ((), (wrong,)):
        with pytest.raises(BadRequestError, match="ClientCollector takes one or more clients"):
            ClientCollector(*clients)


def test_without_prometheus_client_the_user_is_told_what_to_install() -> None:
    script = (
        "import sys; sys.modules['prometheus_client'] = None\n"
        "import tfctr.client\n"
        "try:\n    import tfctr.client.prometheus\n"
        "except tfctr.client.BadRequestError as error:\n    print(error)\n"
    )
    told = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout
    assert "pip install 'tfctr[metrics]'" in told
