"""Counts of what happened, that several threads may add to."""

import threading
from collections import Counter


class Counts:
    """Named counts."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()

    def add(self, what: str, by: int = 1) -> None:
        """Counts something."""
        with self._lock:
            self._counts[what] += by

    def snapshot(self) -> dict[str, int]:
        """What was counted so far."""
        with self._lock:
            return dict(self._counts)
