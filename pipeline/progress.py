"""What a run prints: a line for each component. All other output, that of C++ code too, goes to a log file."""

from __future__ import annotations

import io
import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from rich.console import Console
from rich.table import Table

_NAME_WIDTH = 18


class Progress:
    """Prints a line for each component and keeps the times.

    Args:
        stream: Where people read.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._open = ""
        self._started = 0.0
        self.relaying = False
        self.times: list[tuple[str, str, float]] = []

    def say(self, text: str) -> None:
        """Print lines of text, below the line of the component that runs, if any."""
        if self._open:
            self._stream.write("\n")
            self._open = ""
        self._stream.write(f"{text}\n")
        self._stream.flush()

    def start(self, name: str) -> None:
        """Say that a component begins."""
        self._started = time.monotonic()
        self._open = f"{name:<{_NAME_WIDTH}} "
        self._stream.write(self._open)
        self._stream.flush()

    def finish(self, name: str, outcome: str) -> float:
        """Say that the component ended.

        Args:
            name: The component.
            outcome: "done", "cached" ...
        """
        seconds = time.monotonic() - self._started
        if not self._open:
            self._stream.write(f"{name:<{_NAME_WIDTH}} ")
        self._open = ""
        self._stream.write(f"{outcome:<8}{seconds:8.1f} s\n")
        self._stream.flush()
        self.times.append((name, outcome, seconds))
        return seconds

    def table(self, total: float) -> None:
        """Prints where the time went, longest first.

        Args:
            total: Seconds of the whole run; what no component took is shown as start-up.
        """
        table = Table("component", "", "seconds", "share", title="where the time went", title_justify="left")
        table.columns[2].justify = table.columns[3].justify = "right"
        rest = total - sum(seconds for _, _, seconds in self.times)
        for name, outcome, seconds in sorted([*self.times, ("start-up", "", rest)], key=lambda row: -row[2]):
            table.add_row(name, outcome, f"{seconds:.1f}", f"{seconds / total:.0%}")
        table.add_section()
        table.add_row("all", "", f"{total:.1f}", "")
        Console(file=self._stream, soft_wrap=True).print(table)


class _Relay(io.TextIOBase):
    """A stream during a run: it goes into the log, and where `Progress.relaying` says so to the terminal too.

    Args:
        log: The log.
        progress: What prints on the terminal.
        begins: What lines for the terminal begin with.
    """

    def __init__(self, log: TextIO, progress: Progress, begins: str = "") -> None:
        self._log, self._progress, self._begins = log, progress, begins
        self._line = ""

    def write(self, text: str) -> int:
        """See io.TextIOBase."""
        self._log.write(text)
        self._log.flush()
        *lines, self._line = (self._line + text).split("\n")
        for line in lines:
            if self._progress.relaying and line.strip() and line.startswith(self._begins):
                self._progress.say(f"  {line}")
        return len(text)

    def flush(self) -> None:
        """See io.TextIOBase."""
        self._log.flush()

    def fileno(self) -> int:
        """See io.TextIOBase."""
        return self._log.fileno()


def _move_handlers(old: io.TextIOBase, new: TextIO) -> None:
    """Let logging handlers of one stream write to another, because the first is about to be closed."""
    loggers = [logging.root, *logging.root.manager.loggerDict.values()]
    for logger in loggers:
        for handler in getattr(logger, "handlers", []):
            # The handler of absl wraps the handler that has the stream.
            inner = getattr(handler, "python_handler", handler)
            if isinstance(inner, logging.StreamHandler) and inner.stream is old:
                inner.setStream(new)


@contextmanager
def quiet(log: Path) -> Iterator[Progress]:
    """Sends everything that writes to standard output or error into a file, except what `Progress` prints.

    File descriptors are redirected, not Python objects alone: TensorFlow's C++ and Beam's worker processes write too.

    Args:
        log: The file; appended to.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    saved_out, saved_err = os.dup(1), os.dup(2)
    python_out, python_err = sys.stdout, sys.stderr
    with (
        log.open("a", encoding="utf-8", errors="replace") as file,
        os.fdopen(os.dup(saved_out), "w", encoding="utf-8", errors="replace") as person,
    ):
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        progress = Progress(person)
        # Of standard error, which libraries write to as well, people see our warnings.
        errors = _Relay(file, progress, "warning: ")
        sys.stdout, sys.stderr = _Relay(file, progress), errors
        try:
            yield progress
        finally:
            file.flush()
            sys.stdout, sys.stderr = python_out, python_err
            _move_handlers(errors, python_err)
            os.dup2(saved_out, 1)
            os.dup2(saved_err, 2)
            os.close(saved_out)
            os.close(saved_err)
