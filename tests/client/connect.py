"""Both clients behind the same calls, so that one test holds for both."""

import asyncio
import inspect
from collections.abc import Callable
from typing import Any, cast

from tfctr.client import AsyncRankingClient, RankingClient

Connect = Callable[..., RankingClient]


class Awaited:
    """An `AsyncRankingClient` in an event loop of its own that runs while a call does."""

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


CLIENTS: dict[str, Connect] = {"threads": RankingClient, "asyncio": cast(Connect, Awaited)}
