"""What can go wrong between a caller and a served model, each with what to do about it."""

from collections.abc import Sequence

from tfctr.errors import UserError


class ClientError(UserError):
    """Any failure of a ranking request. Everything the client raises is one of these."""


class BadRequestError(ClientError):
    """The request cannot be sent or was refused by the server: the caller has to change it. Never worth a retry."""


class ModelNotFoundError(ClientError):
    """The server does not have this model, or no longer has this version of it."""


class UnsupportedModelError(ClientError):
    """The server has the model, but not with the signatures (`user_tower`, `score`) this client speaks."""


class UnavailableError(ClientError):
    """The server cannot be reached or turns requests away: try again later, or elsewhere."""


class OverloadedError(UnavailableError):
    """The server is out of room (queue, threads or message size): back off, do not retry at once."""


class DeadlineError(ClientError):
    """The time budget of the request is used up."""


class ServerError(ClientError):
    """The server failed inside; its log knows why."""


class ModelRefusedError(ClientError):
    """The model answered NaN, which is how a served model refuses a row.

    Attributes:
        rows: indices of the refused candidates.
    """

    def __init__(self, message: str, rows: Sequence[int]):
        super().__init__(message)
        self.rows = tuple(rows)


class StateRejectedError(ModelRefusedError):
    """Every candidate was refused: the state is of another model, or a value of the user or the context is bad."""


class BadRowError(ModelRefusedError):
    """Some candidates were refused: a value in those rows is bad."""


class CodecError(ClientError):
    """A tensor on the wire is malformed, or of a type that this client does not carry."""
