"""Both clients with the same blocking methods, so that a test can run with each of them."""

import asyncio
import inspect
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

from tfctr.client import AsyncRankingClient, RankingClient


class Awaited:
    """An `AsyncRankingClient` with blocking methods. Its event loop runs only during a call."""

    def __init__(self, *arguments: Any, **options: Any):
        self._loop = asyncio.Runner()
        self._client = AsyncRankingClient(*arguments, **options)

    def __enter__(self) -> "Awaited":
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.run(self._client.close())
        self._loop.close()

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._client, name)
        if not inspect.iscoroutinefunction(found):
            return found
        return lambda *arguments, **options: self._loop.run(found(*arguments, **options))

    def together(self, requests: list[dict[str, Any]]) -> list[Any]:
        """Makes concurrent requests. Returns a result or an error for each of them."""

        async def run() -> list[Any]:
            return await asyncio.gather(*(self._client.rank(**r) for r in requests), return_exceptions=True)

        return self._loop.run(run())


class Threaded(RankingClient):
    """A `RankingClient` with a method for concurrent requests."""

    def together(self, requests: list[dict[str, Any]]) -> list[Any]:
        """Makes concurrent requests. Returns a result or an error for each of them."""

        def one(request: dict[str, Any]) -> Any:
            try:
                return self.rank(**request)
            except Exception as error:
                return error

        with ThreadPoolExecutor(len(requests)) as threads:
            return list(threads.map(one, requests))


Connect = Callable[..., Threaded]
CLIENTS: dict[str, Connect] = {"threads": Threaded, "asyncio": cast(Connect, Awaited)}
