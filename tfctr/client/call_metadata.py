"""The metadata of calls: headers such as an authorization, the id of a request, or its trace."""

import re
from collections.abc import Callable, Mapping

from tfctr.client.errors import BadRequestError, ClientError

Metadata = Mapping[str, str | bytes]
"""Names and values of gRPC call metadata. Names are in lower case; a value is bytes only if its name ends in `-bin`."""

MetadataSource = Metadata | Callable[[], Metadata]
"""Metadata that is the same for all calls, or a function that makes it anew for each call.

The function runs in the thread or the task of the request, so that it sees the context variables of the request.
"""

_NAME = re.compile(r"[0-9a-z_.-]+")
_TEXT = re.compile(r"[ -~]*")


class CallMetadata:
    """What is sent with each call.

    Raises:
        BadRequestError: a name or a value is not allowed. Values are never shown, because they may be secret.
    """

    def __init__(self, source: MetadataSource):
        self._source = source if callable(source) else None
        self._fixed = () if callable(source) else _checked(source)

    def pairs(self) -> tuple[tuple[str, str | bytes], ...]:
        """The metadata of a call that is about to be sent."""
        if self._source is None:
            return self._fixed
        try:
            return _checked(self._source())
        except ClientError:
            raise
        except Exception as error:
            raise BadRequestError(f"metadata: the function of the client raised {type(error).__name__}.") from error


def _checked(given: Metadata) -> tuple[tuple[str, str | bytes], ...]:
    if not isinstance(given, Mapping):
        raise BadRequestError(f"metadata must be a mapping of names to values. Received: {type(given).__name__}")
    for name, value in given.items():
        if not isinstance(name, str) or not _NAME.fullmatch(name) or name.startswith("grpc-"):
            raise BadRequestError(
                "metadata: a name must have only lower-case letters, digits and -_. and not begin with grpc-. "
                f"Received: {name!r}"
            )
        binary = name.endswith("-bin")
        if not (isinstance(value, bytes) if binary else isinstance(value, str) and _TEXT.fullmatch(value)):
            raise BadRequestError(
                f"metadata: the value of '{name}' must be {'bytes' if binary else 'printable ASCII text'}. "
                f"Received: another value ({type(value).__name__})"
            )
    return tuple(given.items())


NO_METADATA = CallMetadata({})
