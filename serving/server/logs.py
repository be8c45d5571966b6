"""The log of the server process, as text or with one JSON object on each line."""

from __future__ import annotations

import json
import logging
import sys
import time
from enum import StrEnum


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


def set_up(log_format: LogFormat) -> None:
    """Writes the log to stderr: of the server from INFO, of other packages from WARNING."""
    handler = logging.StreamHandler(sys.stderr)
    text = logging.Formatter("%(asctime)s %(levelname)s %(message)s")
    handler.setFormatter(_Json() if log_format is LogFormat.JSON else text)
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("serving.server").setLevel(logging.INFO)
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
