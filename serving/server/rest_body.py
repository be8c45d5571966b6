"""The body of an HTTP request, read within limits."""

from __future__ import annotations

import zlib

import grpc
from aiohttp import HttpVersion11, web

from serving.server.admission import Admission
from serving.server.status import StatusError, invalid_argument


class HttpError(StatusError):
    """An error with an HTTP status that no gRPC code stands for.

    Args:
        status: The HTTP status.
        message: What is wrong.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(grpc.StatusCode.INVALID_ARGUMENT, message)
        self.status = status


async def read_body(request: web.BaseRequest, admission: Admission) -> bytes:
    """The body of a request, inflated if it is gzip. Its bytes are reserved as they arrive; the caller releases them.

    Args:
        request: The request.
        admission: Limits the size of the body, and of all requests together.

    Raises:
        StatusError: The body is too large, gzipped or inflated, is not exactly one gzip stream, or has another
            encoding.
    """
    encoding = request.headers.get("Content-Encoding", "identity").lower()
    if encoding not in ("identity", "gzip"):
        raise HttpError(415, f"Content-Encoding must be gzip or identity. Received: {encoding[:40]}")
    inflate = zlib.decompressobj(16 + zlib.MAX_WBITS) if encoding == "gzip" else None
    limit, chunks, count, received = admission.limits.max_message_bytes, [], 0, 0
    too_large = HttpError(413, f"the body must have at most {limit} bytes")
    more = invalid_argument("the body goes on after the end of gzip")
    if (request.content_length or 0) > limit:
        raise too_large
    if request.version >= HttpVersion11 and request.headers.get("Expect", "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    try:
        async for chunk in request.content.iter_any():
            received += len(chunk)
            if received > limit:
                raise too_large
            if inflate is not None:
                if inflate.eof:
                    raise more
                chunk = inflate.decompress(chunk, limit - count + 1)
                if inflate.unused_data:
                    raise more
            if count + len(chunk) > limit:
                raise too_large
            admission.reserve(len(chunk))
            count += len(chunk)
            chunks.append(chunk)
        if inflate is not None and not inflate.eof:
            raise invalid_argument("the body is not complete gzip")
        return b"".join(chunks)
    except BaseException as error:
        admission.release(count)
        if isinstance(error, zlib.error):
            raise invalid_argument(f"the body is not gzip: {error}") from None
        raise
