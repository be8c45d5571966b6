"""Makes calls: several at once, again after a failure where that is safe, twice when the first is slow."""

import logging
import random
import threading
import time
from collections.abc import Sequence
from typing import Any

import grpc
import grpc.aio

from tfctr.client.counts import Counts
from tfctr.client.drivers import Driver, Future
from tfctr.client.errors import BadRequestError, ClientError, OverloadedError, UnavailableError
from tfctr.client.transport import Call, Deadline

logger = logging.getLogger("tfctr.client")

BACKOFF_SECONDS = 0.02
"""Mean wait before the first retry; it doubles, and is drawn between half and three halves of it."""

BUDGET_SHARE = 0.1
BUDGET_RESERVE = 10.0


class Budget:
    """How many calls may be sent beyond the ones that are needed: a tenth of those, and ten to begin with.

    Retries and hedges multiply the load of a server that already has too much; this bounds what they add.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tokens = BUDGET_RESERVE

    def earn(self) -> None:
        """A call that was needed."""
        with self._lock:
            self._tokens = min(BUDGET_RESERVE, self._tokens + BUDGET_SHARE)

    def spend(self) -> bool:
        """Whether one call more may be sent."""
        with self._lock:
            if self._tokens < 1.0:
                return False
            self._tokens -= 1.0
            return True


class Caller:
    """Makes calls through a driver.

    Args:
        driver: the connection.
        counts: `retry`, `hedge`, `hedge_won` and `over_budget` are counted there.
        retries: how often a call that failed with UNAVAILABLE is sent again. Nothing else is: a server that is out of
            room or time would only have more to do, and every other error would come again.
        hedge_after_seconds: send a `hedged` call a second time when there is no answer after so long.
    """

    def __init__(self, driver: Driver, counts: Counts, retries: int = 1, hedge_after_seconds: float | None = None):
        if isinstance(retries, bool) or not isinstance(retries, int) or retries < 0:
            raise BadRequestError(f"retries must be a whole number, 0 or more. Received: {retries!r}")
        if hedge_after_seconds is not None and not 0 <= hedge_after_seconds < float("inf"):
            raise BadRequestError(
                f"hedge_after_seconds must be a number of seconds, 0 or more. Received: {hedge_after_seconds!r}"
            )
        self.driver = driver
        self._counts = counts
        self._retries = retries
        self._hedge_after = hedge_after_seconds
        self._budget = Budget()

    async def one(self, call: Call, deadline: Deadline, hedged: bool = False) -> Any:
        """Makes one call; see `all`."""
        return (await self.all([call], deadline, hedged))[0]

    async def all(self, calls: Sequence[Call], deadline: Deadline, hedged: bool = False) -> list[Any]:
        """Makes calls at once and waits for all the replies; the first one that fails ends the others.

        Raises:
            ClientError: one of them failed.
        """
        hedge_after = self._hedge_after if hedged else None
        alone = len(calls) == 1 and hedge_after is None
        replies: dict[int, Any] = {}
        running: dict[Future, tuple[int, bool]] = {}
        due: list[tuple[float, int, bool]] = []  # when to send which call again, and whether as a hedge
        retried = [0] * len(calls)

        def start(index: int, is_hedge: bool) -> None:
            seconds = deadline.remaining(calls[index].step)
            running[self.driver.start(calls[index], seconds, alone)] = (index, is_hedge)

        try:
            for index in range(len(calls)):
                self._budget.earn()
                start(index, False)
                if hedge_after is not None:
                    due.append((time.monotonic() + hedge_after, index, True))
            while len(replies) < len(calls):
                wake = min((when for when, _, _ in due), default=None)
                await self.driver.wait(running, None if wake is None else max(0.0, wake - time.monotonic()))
                for future in [future for future in running if future.done()]:
                    index, is_hedge = running.pop(future)
                    if index in replies:
                        continue
                    error = self._error(future, calls[index], deadline)
                    if error is None:
                        replies[index] = future.result()
                        due = [entry for entry in due if entry[1] != index]
                        if is_hedge:
                            self._counts.add("hedge_won")
                    elif all(other != index for other, _ in running.values()):
                        # A hedge that is still to come would be a retry of whatever went wrong.
                        due = [entry for entry in due if entry[1] != index]
                        retried[index] += 1
                        due.append((time.monotonic() + self._pause(error, retried[index], deadline), index, False))
                for entry in [entry for entry in due if entry[0] <= time.monotonic()]:
                    due.remove(entry)
                    _, index, is_hedge = entry
                    if not is_hedge:
                        start(index, False)
                    elif self._spend("hedge"):
                        start(index, True)
        finally:
            for future in running:
                future.cancel()
        return [replies[index] for index in range(len(calls))]

    def _error(self, future: Future, call: Call, deadline: Deadline) -> ClientError | None:
        if future.cancelled():  # not by us: those are no longer looked at
            return call.explain(None, self.driver.target, deadline.seconds)
        try:
            future.result()
        except (grpc.RpcError, grpc.FutureCancelledError, grpc.aio.UsageError, ValueError) as error:
            explained = call.explain(error, self.driver.target, deadline.seconds)
            explained.__cause__ = error
            return explained
        return None

    def _pause(self, error: ClientError, failures: int, deadline: Deadline) -> float:
        """Seconds until the call may be sent again; raises the error if it may not."""
        seconds: float = BACKOFF_SECONDS * 2 ** (failures - 1) * random.uniform(0.5, 1.5)
        safe = isinstance(error, UnavailableError) and not isinstance(error, OverloadedError)
        if not safe or failures > self._retries or seconds >= deadline.left or not self._spend("retry"):
            raise error
        logger.info("trying again: %s", error)
        return seconds

    def _spend(self, what: str) -> bool:
        allowed = self._budget.spend()
        self._counts.add(what if allowed else "over_budget")
        return allowed
