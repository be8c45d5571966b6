"""The log of the server process, as text or with one JSON object on each line."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import time
from enum import StrEnum
from typing import Any


class LogFormat(StrEnum):
    """How log lines are written."""

    TEXT = "text"
    JSON = "json"


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line = {
            "time": f"{stamp}.{int(record.msecs):03d}Z",
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


_PAUSE_SECONDS = 10.0


class _Quiet:
    """Logs what asyncio tells as a line without a traceback, at most one in ten seconds."""

    def __init__(self) -> None:
        self._next = 0.0
        self._left_out = 0

    def __call__(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        now = time.monotonic()
        if now < self._next:
            self._left_out += 1
            return
        error = context.get("exception")
        text = context["message"] if error is None else f"{context['message']}: {error!r}"
        more = f" ({self._left_out} more such lines were left out)" if self._left_out else ""
        logging.getLogger("serving.server").error("%s%s", text, more)
        self._next, self._left_out = now + _PAUSE_SECONDS, 0


def quieten(loop: asyncio.AbstractEventLoop) -> None:
    """Makes an event loop log its errors in single lines, and not one for each of thousands of connections."""
    loop.set_exception_handler(_Quiet())


def set_up(log_format: LogFormat) -> None:
    """Writes the log to stderr: of the server from INFO, of other packages from WARNING."""
    handler = logging.StreamHandler(sys.stderr)
    text = logging.Formatter("%(asctime)s %(levelname)s %(message)s")
    handler.setFormatter(_Json() if log_format is LogFormat.JSON else text)
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("serving.server").setLevel(logging.INFO)
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
