"""Errors with a gRPC status code, and the conversion of TensorFlow's errors."""

from __future__ import annotations

import asyncio

import grpc
import tensorflow as tf

# TensorFlow's error codes have the same numbers as gRPC's status codes.
CODES = {code.value[0]: code for code in grpc.StatusCode}
MAX_MESSAGE_LENGTH = 1024


class StatusError(Exception):
    """An error that is sent to the client.

    Args:
        code: The gRPC status code.
        message: What is wrong. If TensorFlow Serving has a message for it, it is that one.
    """

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def invalid_argument(message: str) -> StatusError:
    """A `StatusError` for a request that is invalid in itself."""
    return StatusError(grpc.StatusCode.INVALID_ARGUMENT, message)


def not_found(message: str) -> StatusError:
    """A `StatusError` for a model or version that is not served."""
    return StatusError(grpc.StatusCode.NOT_FOUND, message)


def exhausted(message: str) -> StatusError:
    """A `StatusError` for a request that the server has no room for."""
    return StatusError(grpc.StatusCode.RESOURCE_EXHAUSTED, message)


def unavailable(message: str) -> StatusError:
    """A `StatusError` for a request that another server may answer."""
    return StatusError(grpc.StatusCode.UNAVAILABLE, message)


def cancelled(message: str) -> StatusError:
    """A `StatusError` for a request whose caller does not wait any longer."""
    return StatusError(grpc.StatusCode.CANCELLED, message)


def deadline_exceeded(message: str) -> StatusError:
    """A `StatusError` for a request that took too long."""
    return StatusError(grpc.StatusCode.DEADLINE_EXCEEDED, message)


def as_status(error: BaseException) -> tuple[grpc.StatusCode, str]:
    """The gRPC code and the message for any exception. Long messages are truncated as in TensorFlow Serving."""
    if isinstance(error, StatusError):
        code, message = error.code, error.message
    elif isinstance(error, tf.errors.OpError):
        code, message = CODES.get(error.error_code, grpc.StatusCode.UNKNOWN), error.message
    elif isinstance(error, MemoryError):
        code, message = grpc.StatusCode.RESOURCE_EXHAUSTED, "out of memory"
    elif isinstance(error, TimeoutError):
        code, message = grpc.StatusCode.DEADLINE_EXCEEDED, "the request took too long"
    elif isinstance(error, asyncio.CancelledError):
        code, message = grpc.StatusCode.CANCELLED, "the caller left"
    else:
        code, message = grpc.StatusCode.INTERNAL, f"{type(error).__name__}: {error}"
    if len(message) > MAX_MESSAGE_LENGTH:
        message = message[:MAX_MESSAGE_LENGTH] + "...TRUNCATED"
    return code, message
