"""MovieLens-1M as impressions with histories."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from tfctr.console import step, track
from tfctr.data.examples import bytes_item, example, varint
from tfctr.data.item_vectors import ItemVectors, load_item_vectors
from tfctr.data.manifest import SplitCount, require_rows, write_items, write_manifest
from tfctr.data.movielens import MovieLens, read_movielens
from tfctr.data.rows import COLUMNS, History, item_part, outcome_part, request_part, user_part
from tfctr.data.splits import SPLITS, TRAIN, Split, Terciles, assign_splits, runs
from tfctr.data.staging import staged_directory
from tfctr.data.tfrecord import ShardedWriter
from tfctr.errors import UserError

Neutral = Literal["drop", "negative"]
_Ints = npt.NDArray[np.int64]
_NEUTRAL_RATING = 3
_SHIPPED_VECTORS = "text_vectors.npz"


@dataclass(frozen=True)
class Options:
    """How ratings become impressions.

    Attributes:
        history_length: The most events in a history.
        neutral: What becomes of rows rated 3: `drop` leaves them out, `negative` labels them 0. Histories hold them in
            both cases.
        split: The rule of `assign_splits`.
        seed: Decides the random split, the order of the records, and which users `users` and `rows` keep.
        rows: Keep at most this many rows: all rows of some users and the earliest ones of one more.
        users: Keep at most this many users, drawn at random.
    """

    history_length: int = 50
    neutral: Neutral = "drop"
    split: Split = "user-time"
    seed: int = 17
    rows: int | None = None
    users: int | None = None


class Histories:
    """The events of all users, encoded once and newest first, so that any history is a slice of bytes."""

    def __init__(self, data: MovieLens, length: int) -> None:
        self._length = length
        self._first_of_user, self._last_of_user = runs(data.user)
        # Everything before this event is strictly older than the event's own second.
        self.first_of_second, _ = runs(data.user, data.time)
        items, ratings, times = (column[::-1].tolist() for column in (data.item, data.rating, data.time))
        genres = [bytes_item(data.movies[item].genres.encode()) for item in items]
        encoded = (map(varint, items), genres, map(varint, ratings), map(varint, times))
        self._columns = [_Slices(list(pieces)) for pieces in encoded]
        self._events = len(data.user)

    def before(self, event: int) -> History:
        """The history that was known before the second of an event, which is given by its index in the ratings."""
        end = int(self.first_of_second[event])
        begin = max(end - self._length, int(self._first_of_user[event]))
        return History(*(column.between(self._events - end, self._events - begin) for column in self._columns))


class _Slices:
    """Pieces of bytes, joined; can be cut between any two pieces."""

    def __init__(self, pieces: list[bytes]) -> None:
        self._joined = b"".join(pieces)
        self._ends = np.cumsum([0, *map(len, pieces)])

    def between(self, first: int, stop: int) -> bytes:
        return self._joined[self._ends[first] : self._ends[stop]]


def prepare_movielens(
    source: Path, out: Path, options: Options, item_vectors: Path | None = None, force: bool = False
) -> dict[str, Any]:
    """Writes MovieLens-1M as impressions.

    Args:
        source: The publisher's directory.
        out: The directory to make, with train/, valid/, test/, items.csv, dataset.json and perhaps item_vectors.npz.
        options: How ratings become impressions.
        item_vectors: The file with the vectors of the items. None takes `text_vectors.npz` of the source directory, if
            there is one.
        force: Whether a data set that stands at `out` is replaced.

    Returns:
        The content of dataset.json.

    Raises:
        UserError: The input is bad, or `out` is taken. Then nothing is written.
    """
    with staged_directory(out, force) as directory:
        with step(f"Reading {source}"):
            data = read_movielens(source)
            vectors = _vectors(source, item_vectors, data)
        kept = _kept_rows(data, options)
        split = assign_splits(options.split, data.user[kept], data.time[kept], options.seed)
        require_rows({name: int((split == number).sum()) for number, name in enumerate(SPLITS)})
        activity = Terciles.of(data.user[kept[split == TRAIN]])
        popularity = Terciles.of(data.item[kept[split == TRAIN]])
        counts = _write_splits(directory, data, options, kept, split, activity, popularity)
        write_items(directory, ((m.item_id, m.title, m.genres, m.year) for m in data.movies.values()))
        manifest: dict[str, Any] = {
            "dataset": "movielens-1m",
            "source": data.provenance,
            "arguments": asdict(options),
            "label": "1 when the rating is above 3",
            "history": "the user's ratings of any value, strictly before the second of the row",
            "splits": {name: count.describe() for name, count in counts.items()},
            "slices": {"user_activity": activity.describe(), "item_popularity": popularity.describe()},
            "columns": COLUMNS,
        }
        if vectors is not None:
            vectors.save(directory)
            items, width = vectors.vectors.shape
            covered = round(vectors.coverage(data.movies), 6)
            manifest["item_vectors"] = {"width": width, "items": items, "share_of_items_covered": covered}
        write_manifest(directory, manifest)
    return manifest


def _vectors(source: Path, path: Path | None, data: MovieLens) -> ItemVectors | None:
    shipped = source / _SHIPPED_VECTORS
    if path is None and not shipped.is_file():
        return None
    path = path or shipped
    vectors = load_item_vectors(path)
    if vectors.coverage(data.movies) == 0:
        raise UserError(f"item vectors: none of the ids in {path} is in movies.dat")
    return vectors


def _kept_rows(data: MovieLens, options: Options) -> _Ints:
    """Indices of the ratings that become rows, in order of user and time."""
    kept = np.arange(len(data.user))
    if options.neutral == "drop":
        kept = kept[data.rating != _NEUTRAL_RATING]
    if options.users is None and options.rows is None:
        return kept
    users = np.unique(data.user[kept])
    place = np.random.default_rng(options.seed).permutation(len(users))
    place_of_row = place[np.searchsorted(users, data.user[kept])]
    if options.users is not None:
        kept, place_of_row = kept[place_of_row < options.users], place_of_row[place_of_row < options.users]
    if options.rows is not None:
        kept = np.sort(kept[np.argsort(place_of_row, kind="stable")[: options.rows]])
    return kept


def _write_splits(
    directory: Path,
    data: MovieLens,
    options: Options,
    kept: _Ints,
    split: npt.NDArray[np.int8],
    activity: Terciles,
    popularity: Terciles,
) -> dict[str, SplitCount]:
    histories = Histories(data, options.history_length)
    user_parts = {
        key: user_part(key, user.gender, user.age, user.occupation, activity.name(key))
        for key, user in data.users.items()
    }
    item_parts = {
        key: item_part(key, movie.genres, movie.year, popularity.name(key)) for key, movie in data.movies.items()
    }
    outcome_parts = (outcome_part(0), outcome_part(1))
    counts = {}
    for number, name in enumerate(SPLITS):
        rows = _shuffled_requests(kept[split == number], histories.first_of_second, options.seed + number)
        starts = np.diff(histories.first_of_second[rows], prepend=-1) != 0
        count = counts[name] = SplitCount(requests=int(starts.sum()))
        with ShardedWriter(directory / name) as writer:
            for event, is_first in track(zip(rows, starts, strict=True), f"Writing {name}", len(rows)):
                user, item = int(data.user[event]), int(data.item[event])
                if is_first:
                    request = request_part(user, int(data.time[event]), histories.before(event))
                label = int(data.rating[event] > _NEUTRAL_RATING)
                writer.write(example((user_parts[user], item_parts[item], request, outcome_parts[label])))
                count.positives += label
        count.rows = writer.rows
        count.users.update(np.unique(data.user[rows]).tolist())
    return counts


def _shuffled_requests(rows: _Ints, first_of_second: _Ints, seed: int) -> _Ints:
    """Requests in random order, so that a batch holds many users; the rows of a request stay together."""
    requests, request_of_row = np.unique(first_of_second[rows], return_inverse=True)
    place = np.random.default_rng(seed).permutation(len(requests))
    return rows[np.argsort(place[request_of_row], kind="stable")]
