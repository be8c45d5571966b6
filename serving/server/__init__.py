"""An embedded server with TensorFlow Serving's gRPC API, for development and tests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from serving.server.server import Server, ServerError

__all__ = ["Server", "ServerError"]


def __getattr__(name: str) -> Any:
    # Imported on first use, so that `--help` does not have to wait for the import of TensorFlow.
    if name in __all__:
        from serving.server import server

        return getattr(server, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
