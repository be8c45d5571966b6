"""The ranking client: builds requests, keeps user states, asks TensorFlow Serving. Needs no TensorFlow."""

from tfctr.client.aio import AsyncRankingClient
from tfctr.client.cache import AsyncStateCache, MemoryStateCache, StateCache
from tfctr.client.client import RankingClient
from tfctr.client.counts import Observer
from tfctr.client.errors import (
    BadRequestError,
    BadRowError,
    ClientError,
    CodecError,
    DeadlineError,
    ModelNotFoundError,
    ModelRefusedError,
    OverloadedError,
    ServerError,
    StateRejectedError,
    UnavailableError,
    UnsupportedModelError,
)
from tfctr.client.policies import Connection, Hedge, Retry
from tfctr.client.redis_cache import RedisStateCache
from tfctr.client.results import Ranked, VersionStatus
from tfctr.client.state import StateKey, UserState

__all__ = [
    "AsyncRankingClient",
    "AsyncStateCache",
    "BadRequestError",
    "BadRowError",
    "ClientError",
    "CodecError",
    "Connection",
    "DeadlineError",
    "Hedge",
    "MemoryStateCache",
    "ModelNotFoundError",
    "ModelRefusedError",
    "Observer",
    "OverloadedError",
    "Ranked",
    "RankingClient",
    "RedisStateCache",
    "Retry",
    "ServerError",
    "StateCache",
    "StateKey",
    "StateRejectedError",
    "UnavailableError",
    "UnsupportedModelError",
    "UserState",
    "VersionStatus",
]
