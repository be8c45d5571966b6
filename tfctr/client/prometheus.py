"""What clients do, for Prometheus. Needs prometheus-client: `pip install 'tfctr[metrics]'`."""

from collections import Counter
from collections.abc import Iterator

from typing_extensions import override

from tfctr.client.base import ClientBase
from tfctr.client.counts import Observer
from tfctr.client.errors import BadRequestError

try:
    from prometheus_client import Histogram, Metric
    from prometheus_client.core import CounterMetricFamily
    from prometheus_client.registry import Collector
except ImportError:
    raise BadRequestError(
        "metrics for Prometheus need prometheus-client. Install it with: pip install 'tfctr[metrics]'"
    ) from None

SECONDS = (0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1, 2, 5)
"""Upper ends of the buckets of latencies."""

FROM_ZERO = (
    *("cache_hit", "cache_miss", "cache_failed", "cache_late", "cache_busy", "cache_skipped"),
    *("retry", "hedge", "over_budget", "recomputed"),
)
"""Counts that are there before the first event, which a rate would miss otherwise."""

AGES = (1, 10, 60, 300, 600, 1800, 3600, 14400)
"""Upper ends of the buckets of the ages of states, in seconds."""


class _Histograms(Observer):
    """Tells the histograms of what the clients of one model do."""

    def __init__(self, model: str, requests: Histogram, calls: Histogram, ages: Histogram):
        self._model = model
        self._requests = requests
        self._calls = calls
        self._ages = ages

    @override
    def request_ended(self, method: str, outcome: str, seconds: float) -> None:
        self._requests.labels(self._model, method, outcome).observe(seconds)

    @override
    def call_ended(self, step: str, outcome: str, seconds: float) -> None:
        self._calls.labels(self._model, step, outcome).observe(seconds)

    @override
    def state_used(self, version: int, age_seconds: float) -> None:
        self._ages.labels(self._model, str(version)).observe(age_seconds)


class ClientCollector(_Histograms, Collector):
    """Collects the metrics of the clients of a process, each with the label `model`; those of one model are added up.

    A registry takes one collector, so give it all clients. A client that is closed may stay: its counts stand still.

    - `tfctr_client_request_seconds`: requests by `method` and `outcome` ("ok" or the name of the error).
    - `tfctr_client_call_seconds`: calls to the server with their retries and hedges, by `step` and `outcome`.
    - `tfctr_client_state_age_seconds`: how old a state was when it was scored, by `version`; its count tells which
      versions are in use.
    - `tfctr_client_total`: the counts of the client by `what`, the cache's hits and misses among them.

    Example:

        prometheus_client.REGISTRY.register(ClientCollector(films, books))

    Args:
        clients: clients of either kind.

    Raises:
        BadRequestError: there is none, or one of them is no client.
    """

    def __init__(self, *clients: ClientBase):
        if not clients or not all(isinstance(client, ClientBase) for client in clients):
            received = [type(client).__name__ for client in clients]
            raise BadRequestError(
                f"ClientCollector takes one or more clients: ClientCollector(films, books). Received: {received}"
            )
        self._clients = tuple({id(client): client for client in clients}.values())
        requests, calls, ages = (
            Histogram(f"tfctr_client_{name}", about, ("model", *labels), registry=None, buckets=buckets)
            for name, about, labels, buckets in (
                ("request_seconds", "Time of a request.", ("method", "outcome"), SECONDS),
                ("call_seconds", "Time of a call, with its retries and hedges.", ("step", "outcome"), SECONDS),
                ("state_age_seconds", "Age of the states that were scored.", ("version",), AGES),
            )
        )
        super().__init__(clients[0].model_name, requests, calls, ages)
        for client in self._clients:
            is_first = client.model_name == self._model
            client.observe(self if is_first else _Histograms(client.model_name, requests, calls, ages))

    @override
    def collect(self) -> Iterator[Metric]:
        """The metrics as they are now."""
        for histogram in (self._requests, self._calls, self._ages):
            yield from histogram.collect()
        counts = CounterMetricFamily("tfctr_client", "Events of the clients.", labels=("model", "what"))
        found: dict[str, Counter[str]] = {}
        for client in self._clients:
            found.setdefault(client.model_name, Counter(dict.fromkeys(FROM_ZERO, 0))).update(client.counts)
        for model, events in found.items():
            for what, times in events.items():
                counts.add_metric((model, what), times)
        yield counts
