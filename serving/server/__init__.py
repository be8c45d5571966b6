"""An embedded server that speaks TensorFlow Serving's gRPC API, for development and tests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from serving.server.server import Server, ServerError

__all__ = ["Server", "ServerError"]


def __getattr__(name: str) -> Any:
    # Imported when asked for: the command line tells its options without waiting for TensorFlow.
    if name in __all__:
        from serving.server import server

        return getattr(server, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
