"""Prometheus metrics: those of TensorFlow Serving with its names and labels, and more of this server (`tfctr_server_`).

They are not written by `prometheus-client`, because it appends `_total` to the names of counters, and dashboards for
TensorFlow Serving would not find them.
"""

from __future__ import annotations

import bisect
import resource
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from serving.server.calls import Call

INFERENCE = ("Predict", "Classify", "Regress")
PATH = "/monitoring/prometheus/metrics"
# In microseconds: 10 * 1.8^k, as in TensorFlow Serving.
_LATENCY_BOUNDS = [10 * 1.8**k for k in range(33)]
_SECOND_BOUNDS = [0.0005 * 2**k for k in range(16)]
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
        self._gauges: dict[str, Callable[[], float]] = {"process_resident_memory_bytes": _resident_memory}

    def request(self, call: Call, status: str, seconds: float) -> None:
        """Counts a request that ended, also one that was refused or came too late.

        As in TensorFlow Serving, only the latency of successful requests is recorded, and only requests that run a
        model are in its counters.

        Args:
            call: The request. Its model is a served one or "", so that requests cannot add labels.
            status: Name of the status code.
            seconds: Duration of the request.
        """
        known = (
            ("model_name", call.model),
            ("version", "" if call.version is None else str(call.version)),
            ("signature", call.signature),
            ("API", call.method),
            ("entrypoint", call.entrypoint),
        )
        self._count("tfctr_server_requests_total", (*known, ("status", status)))
        if status == "OK":
            self._observe("tfctr_server_request_seconds", known, seconds, _SECOND_BOUNDS)
        if call.method not in INFERENCE:
            return
        self._count(":tensorflow:serving:request_count", (("model_name", call.model), ("status", status)))
        if status == "OK":
            labels = (("model_name", call.model), ("API", call.method), ("entrypoint", call.entrypoint))
            self._observe(":tensorflow:serving:request_latency", labels, 1e6 * seconds, _LATENCY_BOUNDS)

    def load(self, model: str, seconds: float, failed: bool) -> None:
        """Counts an attempt to load a version, and the time it took with its warm-up."""
        prefix = ":tensorflow:cc:saved_model:"
        labels = (("model_path", model), ("status", "fail" if failed else "success"))
        self._count(prefix + "load_attempt_count", labels)
        self._count(prefix + "load_latency", labels[:1], int(1e6 * seconds))

    def gauge(self, name: str, value: Callable[[], float]) -> None:
        """Adds a value that is read when the page is."""
        self._gauges[name] = value

    def run(self, model: str, api: str, seconds: float) -> None:
        """Records the time that TensorFlow took for a request."""
        labels = (("model_name", model), ("API", api), ("runtime", "TF1"))
        self._observe(":tensorflow:serving:runtime_latency", labels, 1e6 * seconds, _LATENCY_BOUNDS)

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
        for name, value in self._gauges.items():
            lines += [f"# TYPE {name} gauge", f"{name} {value():g}"]
        return "\n".join(lines) + "\n"

    def _count(self, name: str, labels: Labels, by: int = 1) -> None:
        with self._lock:
            counters = self._counters.setdefault(name, {})
            counters[labels] = counters.get(labels, 0) + by

    def _observe(self, name: str, labels: Labels, value: float, bounds: list[float]) -> None:
        with self._lock:
            self._histograms.setdefault(name, {}).setdefault(labels, Histogram(bounds)).observe(value)


def _resident_memory() -> float:
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    except OSError:  # not Linux
        return 0.0


def _braces(labels: Labels) -> str:
    if not labels:
        return ""
    escaped = ((name, value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")) for name, value in labels)
    return "{" + ",".join(f'{name}="{value}"' for name, value in escaped) + "}"
