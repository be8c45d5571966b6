"""Counters of events, and what else may be told of the work of a client."""

import logging
import threading
import time
from collections import Counter
from typing import Any

logger = logging.getLogger("tfctr.client")

WARNING_SECONDS = 10.0
"""A warning is logged at most once in this time."""


class Observer:
    """Is told of the work of a client: a base class whose methods do nothing. They are called from several threads."""

    def request_ended(self, method: str, outcome: str, seconds: float) -> None:
        """A request ended. `method` is the client's (rank), `outcome` is "ok" or the name of the error."""

    def call_ended(self, step: str, outcome: str, seconds: float) -> None:
        """A call to the server ended, with its retries and hedges. `step` is the signature, "metadata" or "status"."""

    def state_used(self, version: int, age_seconds: float) -> None:
        """A version scored candidates, with a state that was computed this long ago."""


class Counts:
    """Counters by name, safe to use from several threads, and the observers that are told of more than a count."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._observers: tuple[Observer, ...] = ()
        self._warnings = Warnings()

    def observe(self, observer: Observer) -> None:
        """Adds an observer, unless it is there already."""
        with self._lock:
            if not any(one is observer for one in self._observers):
                self._observers = (*self._observers, observer)

    def tell(self, what: str, *about: Any) -> None:
        """Calls a method of each observer. What it raises is logged, because no request may fail of it."""
        for observer in self._observers:
            try:
                getattr(observer, what)(*about)
            except Exception as error:
                self._warnings.log("an observer of the client failed (%s: %s)", type(error).__name__, error)

    def add(self, what: str, by: int = 1) -> None:
        """Adds to a counter."""
        with self._lock:
            self._counts[what] += by

    def snapshot(self) -> dict[str, int]:
        """A copy of all counters."""
        with self._lock:
            return dict(self._counts)


class Warnings:
    """Logs each text at most once in ten seconds, because a fault that lasts occurs with every request."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._logged: dict[str, tuple[float, int]] = {}  # text -> when it was logged last, times left out since

    def log(self, text: str, *arguments: object) -> None:
        """Logs the text, with how often it was left out since the last time."""
        now = time.monotonic()
        with self._lock:
            last, left_out = self._logged.get(text, (-WARNING_SECONDS, 0))
            due = now - last >= WARNING_SECONDS
            self._logged[text] = (now, 0) if due else (last, left_out + 1)
        if due:
            more = f" (and {left_out} times since the last such line)" if left_out else ""
            logger.warning(text + more, *arguments)
