"""Reads MovieLens-1M in its publisher's layout: `::`-separated Latin-1 files, plain or gzip."""

import gzip
import re
import zlib
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tfctr.data.manifest import provenance
from tfctr.errors import UserError

_YEAR = re.compile(r"\((\d{4})\)\s*$")
_LAYOUT = {
    "ratings.dat": "UserID::MovieID::Rating::Timestamp",
    "users.dat": "UserID::Gender::Age::Occupation::Zip-code",
    "movies.dat": "MovieID::Title::Genres",
}


@dataclass(frozen=True)
class User:
    """One line of users.dat."""

    user_id: int
    gender: str
    age: int
    occupation: int


@dataclass(frozen=True)
class Movie:
    """One line of movies.dat; `year` comes from the end of the title and is None when it has none."""

    item_id: int
    title: str
    genres: str
    year: int | None


@dataclass(frozen=True)
class MovieLens:
    """The three files.

    Attributes:
        users: The users by their id.
        movies: The movies by their id.
        user, item, rating, time: int64 [n], one entry for each rating, sorted by user, time and place in the file.
        provenance: Name, bytes and SHA-256 of the files.
    """

    users: dict[int, User]
    movies: dict[int, Movie]
    user: npt.NDArray[np.int64]
    item: npt.NDArray[np.int64]
    rating: npt.NDArray[np.int64]
    time: npt.NDArray[np.int64]
    provenance: list[dict[str, Any]]


def read_movielens(source: Path) -> MovieLens:
    """Reads and checks the directory.

    Args:
        source: Directory with `ratings.dat`, `users.dat` and `movies.dat`, each plain or with `.gz`.

    Raises:
        UserError: A file is missing or damaged, or a line is malformed; the message names the file and the line.
    """
    if not source.is_dir():
        raise UserError(f"{source} is not a directory; --source must hold {', '.join(_LAYOUT)} (plain or .gz)")
    paths = {name: _find(source, name) for name in _LAYOUT}
    users = _read_users(paths["users.dat"])
    movies = _read_movies(paths["movies.dat"])
    user, item, rating, time = _read_ratings(paths["ratings.dat"], users, movies)
    order = np.lexsort((time, user))
    return MovieLens(
        users, movies, user[order], item[order], rating[order], time[order], [provenance(p) for p in paths.values()]
    )


def _find(source: Path, name: str) -> Path:
    for path in (source / name, source / f"{name}.gz"):
        if path.is_file():
            return path
    raise UserError(f"{source / name} is missing (and so is {name}.gz); MovieLens-1M has {', '.join(_LAYOUT)}")


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The number and the fields of each line; the number of fields is checked."""
    layout = _LAYOUT[path.name.removesuffix(".gz")]
    width = layout.count("::") + 1
    number = 0
    try:
        with gzip.open(path, "rt", encoding="latin-1") if path.suffix == ".gz" else path.open(encoding="latin-1") as f:
            for number, line in enumerate(f, start=1):
                fields = line.rstrip("\r\n").split("::")
                if len(fields) != width:
                    raise _malformed(path, number, f"{layout} is expected. Received: {line.rstrip()[:80]!r}")
                yield number, fields
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UserError(f"{path} is damaged after line {number}: {error}") from error
    if number == 0:
        raise UserError(f"{path} is empty")


def _malformed(path: Path, number: int, what: str) -> UserError:
    return UserError(f"{path}, line {number}: {what}")


def _integer(path: Path, number: int, name: str, text: str) -> int:
    # int() alone would take "1_0", " 1" and digits of other scripts.
    if not (text.isascii() and text.isdigit()) or len(text) > 18:
        raise _malformed(path, number, f"{name} must be a whole number. Received: {text!r}")
    return int(text)


def _read_users(path: Path) -> dict[int, User]:
    users: dict[int, User] = {}
    for number, (user_id, gender, age, occupation, _) in _lines(path):
        facts = {"UserID": user_id, "Age": age, "Occupation": occupation}
        key, years, job = (_integer(path, number, name, text) for name, text in facts.items())
        if gender not in ("F", "M"):
            raise _malformed(path, number, f"Gender must be F or M. Received: {gender!r}")
        if key in users:
            raise _malformed(path, number, f"user {user_id} is there twice")
        users[key] = User(key, gender, years, job)
    return users


def _read_movies(path: Path) -> dict[int, Movie]:
    movies: dict[int, Movie] = {}
    for number, (item_id, title, genres) in _lines(path):
        year = _YEAR.search(title)
        movie = Movie(_integer(path, number, "MovieID", item_id), title, genres, int(year[1]) if year else None)
        if movie.item_id in movies:
            raise _malformed(path, number, f"movie {item_id} is there twice")
        movies[movie.item_id] = movie
    return movies


def _read_ratings(path: Path, users: dict[int, User], movies: dict[int, Movie]) -> tuple[npt.NDArray[np.int64], ...]:
    values = array("q")
    for number, (user_text, item_text, rating_text, time_text) in _lines(path):
        user = _integer(path, number, "UserID", user_text)
        item = _integer(path, number, "MovieID", item_text)
        if rating_text not in ("1", "2", "3", "4", "5"):
            raise _malformed(path, number, f"Rating must be 1 to 5. Received: {rating_text!r}")
        if user not in users:
            raise _malformed(path, number, f"user {user} is not in users.dat")
        if item not in movies:
            raise _malformed(path, number, f"movie {item} is not in movies.dat")
        values.extend((user, item, int(rating_text), _integer(path, number, "Timestamp", time_text)))
    return tuple(np.frombuffer(values, np.int64).reshape(-1, 4).T)
