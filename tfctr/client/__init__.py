"""The ranking client: builds requests, keeps user states, asks TensorFlow Serving. Needs no TensorFlow."""

from tfctr.client.aio import AsyncRankingClient
from tfctr.client.cache import MemoryStateCache, StateCache
from tfctr.client.client import RankingClient
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
from tfctr.client.redis_cache import RedisStateCache
from tfctr.client.results import Ranked, VersionStatus
from tfctr.client.state import StateKey, UserState

__all__ = [
    "AsyncRankingClient",
    "BadRequestError",
    "BadRowError",
    "ClientError",
    "CodecError",
    "DeadlineError",
    "MemoryStateCache",
    "ModelNotFoundError",
    "ModelRefusedError",
    "OverloadedError",
    "Ranked",
    "RankingClient",
    "RedisStateCache",
    "ServerError",
    "StateCache",
    "StateKey",
    "StateRejectedError",
    "UnavailableError",
    "UnsupportedModelError",
    "UserState",
    "VersionStatus",
]
