"""Progress and messages: rich on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

_PLAIN_INTERVAL_SECONDS = 5.0
_PLAIN_WIDTH = 140
_Item = TypeVar("_Item")
_hushed = False


def console() -> Console:
    """A console on standard output, which prints text as it is. In a file or a pipe, tables may be 140 columns wide."""
    width = None if sys.stdout.isatty() else _PLAIN_WIDTH
    return Console(soft_wrap=True, width=width, highlight=False, markup=False, emoji=False, quiet=_hushed)


def hush() -> None:
    """Leaves out, from now on, what this process would print but errors: another one prints the same."""
    global _hushed
    _hushed = True


def error_console() -> Console:
    """A console on standard error, which prints text as it is."""
    return Console(stderr=True, soft_wrap=True, highlight=False, markup=False, emoji=False)


@contextmanager
def resumable() -> Iterator[None]:
    """Ends an interrupted command in words and with status 130, when the same command goes on where it was."""
    try:
        yield
    except KeyboardInterrupt:
        error_console().print("interrupted; the same command resumes")
        sys.exit(130)


@contextmanager
def step(title: str) -> Iterator[None]:
    """Prints that a step begins, and at the end how long it took."""
    started = time.monotonic()
    console().print(f"{title} ...")
    yield
    console().print(f"{title}: done in {time.monotonic() - started:.1f} s")


def track(
    items: Iterable[_Item], title: str, total: int | None = None, size: Callable[[_Item], int] = lambda item: 1
) -> Iterator[_Item]:
    """Yields the items and shows how many are done, of how many if `total` is known.

    Args:
        items: The items.
        title: What is done with them.
        total: How many there are.
        size: How many an item counts for.
    """
    if _hushed:
        yield from items
        return
    if sys.stderr.isatty():
        text = TextColumn("{task.description}")
        columns = (SpinnerColumn(), text, BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=error_console(), transient=True) as progress:
            task = progress.add_task(title, total=total)
            for item in items:
                yield item
                progress.advance(task, size(item))
        return
    last = time.monotonic()
    count = 0
    for item in items:
        yield item
        count += size(item)
        now = time.monotonic()
        if now - last >= _PLAIN_INTERVAL_SECONDS:
            last = now
            of_total = f" of {total:,}" if total else ""
            error_console().print(f"{title}: {count:,}{of_total}")
