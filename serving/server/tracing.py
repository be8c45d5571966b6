"""Traces by OpenTelemetry, where its package is installed and a tracer is set up, else none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

try:
    from opentelemetry import propagate, trace
except ImportError:
    trace = None  # type: ignore[assignment]


def start(name: str, headers: Mapping[str, str]) -> Any:
    """A span for a request, as a part of the trace that its headers name; None if nobody takes traces."""
    # Without a tracer a span of the package says nothing, but takes as long as the rest of the bookkeeping.
    if trace is None or isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        return None
    tracer = trace.get_tracer("serving.server")
    return tracer.start_span(
        name, propagate.extract({key.lower(): value for key, value in headers.items()}), trace.SpanKind.SERVER
    )


def end(span: Any, attributes: Mapping[str, Any], error: str) -> None:
    """Ends a span.

    Args:
        span: The span of `start`.
        attributes: What is known of the request; None is left out.
        error: Why the request failed, or "".
    """
    span.update_name(attributes["method"])  # that of a REST request is known only when its path was read
    span.set_attributes({f"tfctr.{name}": value for name, value in attributes.items() if value is not None})
    if error:
        span.set_status(trace.Status(trace.StatusCode.ERROR, error))
    span.end()
