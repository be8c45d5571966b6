"""Concurrent calls with retries and hedges."""

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
from tfctr.client.errors import ClientError
from tfctr.client.policies import Hedge, Retry
from tfctr.client.transport import Call, Deadline

logger = logging.getLogger("tfctr.client")

DEFAULT_RETRY = Retry()

BUDGET_SHARE = 0.1
BUDGET_RESERVE = 10.0


class Budget:
    """Limits retries and hedges to a tenth of the necessary calls, plus ten at the start.

    Without a limit, retries and hedges would multiply the load of a server that is already overloaded.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tokens = BUDGET_RESERVE

    def earn(self) -> None:
        """Records a necessary call."""
        with self._lock:
            self._tokens = min(BUDGET_RESERVE, self._tokens + BUDGET_SHARE)

    def spend(self) -> bool:
        """Whether one additional call may be sent; if so, the budget pays for it."""
        with self._lock:
            if self._tokens < 1.0:
                return False
            self._tokens -= 1.0
            return True


class Caller:
    """Makes calls through a driver.

    Counts `retry`, `hedge`, `hedge_won` and `over_budget`.

    Args:
        retry: when a call is sent again.
        hedge: when a `hedged` call is sent a second time; `None` for never.
    """

    def __init__(self, driver: Driver, counts: Counts, retry: Retry = DEFAULT_RETRY, hedge: Hedge | None = None):
        self.driver = driver
        self._counts = counts
        self._retry = retry
        self._hedge = hedge
        self._budget = Budget()

    async def one(self, call: Call, deadline: Deadline, hedged: bool = False) -> Any:
        """Makes one call, as `all` does."""
        return (await self.all([call], deadline, hedged))[0]

    async def all(self, calls: Sequence[Call], deadline: Deadline, hedged: bool = False) -> list[Any]:
        """Makes calls concurrently and waits for all replies. The first call that fails cancels the others.

        Raises:
            ClientError: one of them failed.
        """
        hedge_after = self._hedge.after_seconds if hedged and self._hedge is not None else None
        alone = len(calls) == 1 and hedge_after is None
        replies: dict[int, Any] = {}
        running: dict[Future, tuple[int, bool]] = {}
        due: list[tuple[float, int, bool]] = []  # (time, call, whether it is a hedge) of copies still to be sent
        retried = [0] * len(calls)
        begun = time.perf_counter()

        def ended(index: int, outcome: str) -> None:
            self._counts.tell("call_ended", calls[index].kind, outcome, time.perf_counter() - begun)

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
                        ended(index, "ok")
                        if is_hedge:
                            self._counts.add("hedge_won")
                    elif all(other != index for other, _ in running.values()):
                        # A hedge that is not sent yet would repeat the failed call, which only a retry may do.
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
        except ClientError as error:
            for index in set(range(len(calls))) - set(replies):
                ended(index, type(error).__name__)
            raise
        finally:
            for future in running:
                future.cancel()
        return [replies[index] for index in range(len(calls))]

    def _error(self, future: Future, call: Call, deadline: Deadline) -> ClientError | None:
        raised: Exception | None = None
        if not future.cancelled():  # by a closed channel; a call that was cancelled here has left `running`
            try:
                future.result()
                return None
            except (grpc.RpcError, grpc.FutureCancelledError, grpc.aio.UsageError, ValueError) as error:
                raised = error
        explained = call.explain(None if self.driver.closed else raised, self.driver.target, deadline.seconds)
        explained.__cause__ = raised
        return explained

    def _pause(self, error: ClientError, failures: int, deadline: Deadline) -> float:
        """Seconds until the call may be sent again. Raises the error if it may not."""
        if not error.retryable or failures > self._retry.times:
            raise error
        seconds: float = self._retry.wait_seconds * 2 ** (failures - 1) * random.uniform(0.5, 1.5)
        if seconds >= deadline.left or not self._spend("retry"):
            raise error
        logger.info("trying again: %s", error)
        return seconds

    def _spend(self, what: str) -> bool:
        allowed = self._budget.spend()
        self._counts.add(what if allowed else "over_budget")
        return allowed
