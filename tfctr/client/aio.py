"""The asyncio client."""

from tfctr.client.base import ClientBase
from tfctr.client.codec import Array
from tfctr.client.drivers import AsyncioDriver
from tfctr.client.metadata import ServedModel
from tfctr.client.requests import Candidates, Features
from tfctr.client.results import Ranked, VersionStatus
from tfctr.client.state import HistoryVersion, UserKey, UserState


class AsyncRankingClient(ClientBase):
    """`RankingClient` with coroutines over grpc.aio. It belongs to one event loop, the one of the first call.

    Arguments, results and errors are those of the methods of the same names there. Redis is used through redis.asyncio,
    any other blocking cache through a few threads of the client. Cancelling a request cancels its calls.

    Example:

        async with AsyncRankingClient("localhost:8500") as client:
            best = await client.rank({"user_id": 7}, [{"item_id": 1}, {"item_id": 2}], {"timestamp": 1700000000}, k=1)
    """

    _driver_type = AsyncioDriver

    async def __aenter__(self) -> "AsyncRankingClient":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the channel and the cache."""
        await self._close()

    async def rank(
        self,
        user: Features | None,
        candidates: Candidates,
        context: Features | None = None,
        k: int | None = None,
        *,
        user_key: UserKey | None = None,
        history_version: HistoryVersion | None = None,
        timeout_seconds: float | None = None,
    ) -> list[Ranked]:
        """Orders candidates by predicted click-through rate, as `RankingClient.rank`."""
        seconds = self._seconds(timeout_seconds)
        return await self._timed(
            "rank", self._ranking.rank(user, candidates, context, k, user_key, history_version, seconds)
        )

    async def user_state(self, user: Features, *, timeout_seconds: float | None = None) -> UserState:
        """Computes the state of one user, as `RankingClient.user_state`."""
        return await self._timed("user_state", self._ranking.user_state(user, self._seconds(timeout_seconds)))

    async def score(
        self,
        state: UserState | None,
        candidates: Candidates,
        context: Features | None = None,
        *,
        timeout_seconds: float | None = None,
    ) -> Array:
        """Probabilities of the candidates in the given order, as `RankingClient.score`."""
        return await self._timed(
            "score", self._ranking.score(state, candidates, context, self._seconds(timeout_seconds))
        )

    async def forget_user(self, user_key: UserKey, *, timeout_seconds: float | None = None) -> None:
        """Deletes all cached states of a user, as `RankingClient.forget_user`."""
        await self._timed("forget_user", self._forget_user(user_key, timeout_seconds))

    async def model_status(self, *, timeout_seconds: float | None = None) -> list[VersionStatus]:
        """The versions that the server knows, as `RankingClient.model_status`."""
        return await self._timed("model_status", self._ranking.model_status(self._seconds(timeout_seconds)))

    async def served_model(self, *, timeout_seconds: float | None = None) -> ServedModel:
        """The version that new requests use, as `RankingClient.served_model`."""
        return await self._timed("served_model", self._ranking.served_model(self._seconds(timeout_seconds)))
