"""What is known of a request, and what is told of it when it ends: metrics, the access log, and a trace."""

from __future__ import annotations

import logging
import random
import re
import time
from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import grpc

from serving.server import tracing
from serving.server.metrics import Metrics
from serving.server.status import StatusError, as_status, deadline_exceeded

logger = logging.getLogger("serving.server")
access_logger = logging.getLogger("serving.server.access")
REQUEST_ID = "x-request-id"
_ID = re.compile(r"[\w.:-]{1,64}", re.ASCII)
_UNEXPECTED = (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN)


@dataclass
class Call:
    """One request. `model`, `version` and `signature` are filled in when they are known.

    Args:
        method: Predict, Classify, Regress, GetModelStatus and so on.
        entrypoint: GRPC or REST.
        seconds: How long until the caller does not wait any longer.
        id: The id that the caller sent, or a new one.
        peer: The address of the caller.
    """

    method: str
    entrypoint: str
    seconds: float
    id: str = ""
    peer: str = ""
    model: str = ""
    version: int | None = None
    signature: str = ""
    size: int = 0
    started: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        # An id is copied to logs, where it must not look like another field.
        if not _ID.fullmatch(self.id):
            self.id = f"{random.getrandbits(64):016x}"

    @property
    def expired(self) -> bool:
        """Whether the caller does not wait any longer."""
        return time.monotonic() - self.started >= self.seconds

    def remaining_ms(self) -> int:
        """The milliseconds that are left, at least 1, because 0 means no deadline to TensorFlow.

        Raises:
            StatusError: None are left.
        """
        left = self.seconds - (time.monotonic() - self.started)
        if left <= 0:
            raise deadline_exceeded("Deadline exceeded before the request was run")
        return max(1, int(1000 * left))


class Calls:
    """Observes requests.

    Args:
        metrics: Where they are counted.
        served: Returns the names of the served models. Other names do not become labels, because callers invent them.
        access_log: Whether a line is logged for each request.
    """

    def __init__(self, metrics: Metrics, served: Callable[[], Container[str]], access_log: bool = False) -> None:
        self._metrics = metrics
        self._served = served
        self._access_log = access_log

    @contextmanager
    def observe(self, call: Call, headers: Mapping[str, str]) -> Iterator[None]:
        """Observes a request during a block that answers it or raises an exception.

        Args:
            call: The request.
            headers: Its headers, which may name the trace that it belongs to.
        """
        span = tracing.start(call.method, headers)
        code, message = grpc.StatusCode.OK, ""
        try:
            yield
        except BaseException as error:
            code, message = as_status(error)
            if code is grpc.StatusCode.CANCELLED and call.expired:
                code = grpc.StatusCode.DEADLINE_EXCEEDED
            if code in _UNEXPECTED and not isinstance(error, StatusError):
                logger.error("request %s failed: %s", call.id, message, exc_info=error)
            raise
        finally:
            seconds = time.monotonic() - call.started
            if call.model not in self._served():
                call.model = ""
            self._metrics.request(call, code.name, seconds)
            told = {
                "request_id": call.id,
                "method": call.method,
                "entrypoint": call.entrypoint,
                "peer": call.peer,
                "model": call.model,
                "version": call.version,
                "signature": call.signature,
                "code": code.name,
                "milliseconds": round(1e3 * seconds, 3),
                "bytes": call.size,
            }
            if self._access_log:
                text = " ".join(f"{name}={value}" for name, value in told.items() if value not in ("", None))
                access_logger.info("%s", text, extra={"fields": told})
            if span is not None:
                tracing.end(span, told, message)
