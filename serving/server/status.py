"""Errors with a gRPC status code, and the mapping of TensorFlow's own errors to them."""

from __future__ import annotations

import grpc
import tensorflow as tf

# Both number their codes alike: TensorFlow's are gRPC's.
CODES = {code.value[0]: code for code in grpc.StatusCode}
MAX_MESSAGE_LENGTH = 1024


class StatusError(Exception):
    """A failed request: the code and the text that the client gets.

    Args:
        code: The gRPC status code.
        message: What is wrong, in TensorFlow Serving's words where it has some.
    """

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def invalid_argument(message: str) -> StatusError:
    """A `StatusError` for a request that is wrong whatever the state of the server."""
    return StatusError(grpc.StatusCode.INVALID_ARGUMENT, message)


def not_found(message: str) -> StatusError:
    """A `StatusError` for a model or version that is not served."""
    return StatusError(grpc.StatusCode.NOT_FOUND, message)


def as_status(error: Exception) -> tuple[grpc.StatusCode, str]:
    """The gRPC code and the text (cut as TensorFlow Serving cuts it) for any exception."""
    if isinstance(error, StatusError):
        code, message = error.code, error.message
    elif isinstance(error, tf.errors.OpError):
        code, message = CODES.get(error.error_code, grpc.StatusCode.UNKNOWN), error.message
    elif isinstance(error, MemoryError):
        code, message = grpc.StatusCode.RESOURCE_EXHAUSTED, "out of memory"
    else:
        code, message = grpc.StatusCode.INTERNAL, f"{type(error).__name__}: {error}"
    if len(message) > MAX_MESSAGE_LENGTH:
        message = message[:MAX_MESSAGE_LENGTH] + "...TRUNCATED"
    return code, message
