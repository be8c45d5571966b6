"""The ranking client: builds requests, keeps user states, asks TensorFlow Serving. Needs no TensorFlow."""

from tfctr.client.cache import MemoryStateCache, RedisStateCache, StateCache
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
from tfctr.client.results import Ranked, VersionStatus
from tfctr.client.state import StateKey, UserState

__all__ = [
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
