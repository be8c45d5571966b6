"""The columns of an impression, encoded in four pieces: user, candidate, request and outcome.

Both data sets write these columns and no others. A missing value has no entry in the record.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from tfctr.data.examples import int64_feature, joined_bytes, packed_int64s, text_feature

COLUMNS: dict[str, str] = {
    "user_id": "user, int64",
    "gender": "user, F or M",
    "age": "user, int64",
    "occupation": "user, int64",
    "item_id": "candidate, int64",
    "genres": "candidate, values joined by |",
    "year": "candidate, int64, absent when unknown",
    "timestamp": "context, int64, seconds since 1970 (UTC)",
    "history_item_id": "history, int64 list, newest first",
    "history_genres": "history, list, each joined by |",
    "history_rating": "history, int64 list, 1 to 5",
    "history_time": "history, int64 list, seconds since 1970 (UTC)",
    "label": "0 or 1",
    "request_id": "rows of one request share it, and stand next to each other",
    "user_activity": "slice: low, medium, high, new (by train rows)",
    "item_popularity": "slice: low, medium, high, new (by train rows)",
    "hour": "slice: 00 to 23 (UTC)",
}
POSITION_COLUMN = {"position": "bias, int64, 0 is the first place"}
ROLES: dict[str, Any] = {
    "label": "label",
    "user": "user_id",
    "item": "item_id",
    "timestamp": "timestamp",
    "request": "request_id",
    "slices": ["user_activity", "item_popularity", "hour"],
    "sides": {
        **dict.fromkeys(("gender", "age", "occupation"), "user"),
        **dict.fromkeys(("genres", "year"), "candidate"),
        "position": "bias",
    },
    "item_vectors": "item_vectors.npz",
}
"""What `tfctr init` reads in the manifest: which column is what."""
HISTORY_ROLE: dict[str, Any] = {
    "columns": {
        "history_item_id": "item_id",
        "history_genres": "genres",
        "history_rating": None,
        "history_time": "timestamp",
    }
}
"""The columns of the history, each with the column of the row that holds the same."""


@dataclass(frozen=True)
class History:
    """The encoded values of the four history columns, newest event first."""

    items: bytes
    genres: bytes
    ratings: bytes
    times: bytes


def user_part(user_id: int, gender: str, age: int, occupation: int, activity: str) -> bytes:
    """The columns that all rows of a user share."""
    return _entries(user_id=user_id, gender=gender, age=age, occupation=occupation, user_activity=activity)


def item_part(item_id: int, genres: str, year: int | None, popularity: str) -> bytes:
    """The columns that all rows of a candidate share."""
    return _entries(item_id=item_id, genres=genres, year=year, item_popularity=popularity)


def request_part(user_id: int, timestamp: int, history: History) -> bytes:
    """The columns that all rows of a request share: a request is one user at one second."""
    hour = f"{datetime.fromtimestamp(timestamp, UTC).hour:02d}"
    return (
        _entries(timestamp=timestamp, request_id=f"{user_id}-{timestamp}", hour=hour)
        + packed_int64s("history_item_id", history.items)
        + joined_bytes("history_genres", history.genres)
        + packed_int64s("history_rating", history.ratings)
        + packed_int64s("history_time", history.times)
    )


def outcome_part(label: int, position: int | None = None) -> bytes:
    """The label, and the position at which the candidate was shown where that is known."""
    return _entries(label=label, position=position)


def _entries(**columns: int | str | None) -> bytes:
    """The map entries of columns with one value each; a column without a value has none."""
    given = {name: value for name, value in columns.items() if value is not None}
    return b"".join(
        text_feature(name, value) if isinstance(value, str) else int64_feature(name, value)
        for name, value in given.items()
    )
