"""Prometheus metrics with the names and labels of TensorFlow Serving.

They are not written by `prometheus-client`, because it appends `_total` to the names of counters, and dashboards for
TensorFlow Serving would not find them.
"""

from __future__ import annotations

import bisect
import threading
from collections.abc import Iterator

PATH = "/monitoring/prometheus/metrics"
# In microseconds: 10 * 1.8^k, as in TensorFlow Serving.
_LATENCY_BOUNDS = [10 * 1.8**k for k in range(33)]
_SIZE_BOUNDS = [float(2**k) for k in range(15)]
Labels = tuple[tuple[str, str], ...]


class Histogram:
    """The number of values in each bucket, for one set of labels.

    Args:
        bounds: The upper bounds of the buckets, in increasing order.
    """

    def __init__(self, bounds: list[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Adds one value."""
        self._counts[bisect.bisect_left(self._bounds, value)] += 1
        self._sum += value

    def lines(self, name: str, labels: Labels) -> Iterator[str]:
        """The lines of the histogram in Prometheus' text format."""
        total = 0
        for bound, count in zip([*self._bounds, float("inf")], self._counts, strict=True):
            total += count
            shown = "+Inf" if bound == float("inf") else f"{bound:g}"
            yield f"{name}_bucket{_braces((*labels, ('le', shown)))} {total}"
        yield f"{name}_sum{_braces(labels)} {self._sum:.6g}"
        yield f"{name}_count{_braces(labels)} {total}"


class Metrics:
    """Counters and histograms of all models of a server."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counters: dict[str, dict[Labels, int]] = {}
        self._histograms: dict[str, dict[Labels, Histogram]] = {}

    def request(self, model: str, status: str, api: str, entrypoint: str, seconds: float) -> None:
        """Counts a request. As in TensorFlow Serving, only the latency of successful requests is recorded.

        Args:
            model: The name of a served model, or "" for an unknown one, so that requests cannot add labels.
            status: Name of the status code.
            api: Predict, Classify or Regress.
            entrypoint: GRPC or REST.
            seconds: Duration of the request.
        """
        self._count(":tensorflow:serving:request_count", (("model_name", model), ("status", status)))
        if status == "OK":
            labels = (("model_name", model), ("API", api), ("entrypoint", entrypoint))
            self._observe(":tensorflow:serving:request_latency", labels, 1e6 * seconds, _LATENCY_BOUNDS)

    def run(self, model: str, api: str, seconds: float) -> None:
        """Records the time that TensorFlow took for a request."""
        labels = (("model_name", model), ("API", api), ("runtime", "TF1"))
        self._observe(":tensorflow:serving:runtime_latency", labels, 1e6 * seconds, _LATENCY_BOUNDS)

    def warm_up(self, model: str, status: str, seconds: float) -> None:
        """Records the duration of the warm-up of a version."""
        labels = (("model_path", model), ("status", status))
        self._observe(":tensorflow:serving:model_warmup_latency", labels, 1e6 * seconds, _LATENCY_BOUNDS)

    def batch(self, rows: int, padded: int, queued_seconds: list[float]) -> None:
        """Records one batch: its rows, the rows of padding, and how long each of its requests waited in the queue."""
        prefix = ":tensorflow:serving:batching_session:"
        self._observe(prefix + "processed_batch_size", (), rows, _SIZE_BOUNDS)
        self._observe(prefix + "padding_size", (), padded, _SIZE_BOUNDS)
        for seconds in queued_seconds:
            self._observe(prefix + "queuing_latency", (), 1e6 * seconds, _LATENCY_BOUNDS)

    def page(self) -> str:
        """All metrics in Prometheus' text format."""
        lines: list[str] = []
        with self._lock:
            for name, counters in self._counters.items():
                lines.append(f"# TYPE {name} counter")
                lines += [f"{name}{_braces(labels)} {count}" for labels, count in counters.items()]
            for name, histograms in self._histograms.items():
                lines.append(f"# TYPE {name} histogram")
                for labels, histogram in histograms.items():
                    lines += histogram.lines(name, labels)
        return "\n".join(lines) + "\n"

    def _count(self, name: str, labels: Labels) -> None:
        with self._lock:
            counters = self._counters.setdefault(name, {})
            counters[labels] = counters.get(labels, 0) + 1

    def _observe(self, name: str, labels: Labels, value: float, bounds: list[float]) -> None:
        with self._lock:
            self._histograms.setdefault(name, {}).setdefault(labels, Histogram(bounds)).observe(value)


def _braces(labels: Labels) -> str:
    if not labels:
        return ""
    escaped = ((name, value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")) for name, value in labels)
    return "{" + ",".join(f'{name}="{value}"' for name, value in escaped) + "}"
