"""Counters of events."""

import threading
from collections import Counter


class Counts:
    """Counters by name, safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()

    def add(self, what: str, by: int = 1) -> None:
        """Adds to a counter."""
        with self._lock:
            self._counts[what] += by

    def snapshot(self) -> dict[str, int]:
        """A copy of all counters."""
        with self._lock:
            return dict(self._counts)
