"""The errors of the client. Each message says what is wrong and what to do."""

from collections.abc import Sequence

from tfctr.errors import UserError


class ClientError(UserError):
    """Base class of all errors of the client. If `retryable`, the same call may succeed when sent again at once."""

    retryable = False


class BadRequestError(ClientError):
    """The request cannot be sent, or the server refused it. The caller has to change it."""


class ModelNotFoundError(ClientError):
    """The server does not have this model, or no longer has this version of it."""


class UnsupportedModelError(ClientError):
    """The server has the model, but not with the signatures that this client uses (`user_tower`, `score`)."""


class UnavailableError(ClientError):
    """The server cannot be reached or does not accept requests. Try again later, or another server."""

    retryable = True


class OverloadedError(UnavailableError):
    """The server is out of resources (queue, threads or message size). Send less; a retry at once makes it worse."""

    retryable = False


class DeadlineError(ClientError):
    """The time budget of the request is used up."""


class ServerError(ClientError):
    """The server had an internal error; its log says why."""


class ModelRefusedError(ClientError):
    """The model answered NaN, which is how a served model rejects a row.

    Attributes:
        rows: indices of the rejected candidates.
    """

    def __init__(self, message: str, rows: Sequence[int]):
        super().__init__(message)
        self.rows = tuple(rows)


class StateRejectedError(ModelRefusedError):
    """Every candidate was rejected: the state comes from another model, or a user or context value is bad."""


class BadRowError(ModelRefusedError):
    """Some candidates were rejected because they have bad values."""


class CodecError(ClientError):
    """A tensor in a message is malformed or of a type that this client does not support."""
