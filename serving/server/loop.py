"""The event loop of the process, in a thread of its own."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Coroutine
from functools import cache
from typing import Any, TypeVar

logger = logging.getLogger("serving.server")
Result = TypeVar("Result")


def call(coroutine: Coroutine[Any, Any, Result]) -> Result:
    """Runs a coroutine in the event loop and waits for its result. Not for use in the loop itself."""
    return asyncio.run_coroutine_threadsafe(coroutine, _loop()).result()


@cache
def _loop() -> asyncio.AbstractEventLoop:
    # One for all servers of the process, because gRPC has one queue of events for the process, and every loop that
    # uses it is woken for the events of all others.
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(_log)
    threading.Thread(target=loop.run_forever, name="event loop", daemon=True).start()
    return loop


def _log(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    error = context.get("exception")
    # The event that woke this loop was that of another loop, for example of a client in the same process.
    if not isinstance(error, BlockingIOError):
        logger.error("in the event loop: %s", context["message"], exc_info=error)
