"""Progress and messages: rich on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

_PLAIN_INTERVAL_SECONDS = 5.0
_PLAIN_WIDTH = 140
_Item = TypeVar("_Item")


def console() -> Console:
    """A console on standard output. In a file or a pipe, tables may be up to 140 columns wide."""
    return Console(soft_wrap=True, width=None if sys.stdout.isatty() else _PLAIN_WIDTH)


def error_console() -> Console:
    """A console on standard error."""
    return Console(stderr=True, soft_wrap=True)


@contextmanager
def step(title: str) -> Iterator[None]:
    """Prints that a step begins, and at the end how long it took.

    Args:
        title: What the step does, in a few words.
    """
    started = time.monotonic()
    console().print(f"{title} ...", highlight=False, markup=False)
    yield
    console().print(f"{title}: done in {time.monotonic() - started:.1f} s", highlight=False, markup=False)


def track(items: Iterable[_Item], title: str, total: int | None = None) -> Iterator[_Item]:
    """Yields the items and shows how many are done.

    Args:
        items: The items to work on.
        title: What is done with them, in a few words.
        total: Number of items, if known.
    """
    if sys.stderr.isatty():
        text = TextColumn("{task.description}")
        columns = (SpinnerColumn(), text, BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=error_console(), transient=True) as progress:
            yield from progress.track(items, total=total, description=title)
        return
    last = time.monotonic()
    for count, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if now - last >= _PLAIN_INTERVAL_SECONDS:
            last = now
            of_total = f" of {total:,}" if total else ""
            error_console().print(f"{title}: {count:,}{of_total}", highlight=False, markup=False)
