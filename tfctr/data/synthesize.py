"""Writes synthetic impressions, with the columns of the real data and `position`."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tfctr.console import step, track
from tfctr.data.ceilings import TestRows
from tfctr.data.examples import bytes_item, example, varint
from tfctr.data.item_vectors import ItemVectors
from tfctr.data.manifest import SplitCount, require_rows, write_items, write_manifest
from tfctr.data.rows import (
    COLUMNS,
    HISTORY_ROLE,
    POSITION_COLUMN,
    ROLES,
    History,
    item_part,
    outcome_part,
    request_part,
    user_part,
)
from tfctr.data.splits import SPLITS, TRAIN, Terciles
from tfctr.data.staging import staged_directory
from tfctr.data.synthetic_world import AGES, GENRES, Block, Settings, World
from tfctr.data.tfrecord import ShardedWriter
from tfctr.errors import UserError

_FIRST_WORDS = (
    "Amber", "Broken", "Copper", "Distant", "Early", "Falling", "Golden", "Hidden", "Iron", "Jade", "Last", "Little",
    "Lonely", "Midnight", "Northern", "Open", "Paper", "Quiet", "Restless", "Scarlet", "Second", "Silent", "Silver",
    "Stolen", "Thirteen", "Velvet", "Wandering", "White", "Wild", "Winter",
)  # fmt: skip
_SECOND_WORDS = (
    "Archive", "Bridge", "Caravan", "Coast", "Daughter", "Engine", "Evening", "Ferry", "Garden", "Harbour", "Island",
    "Journey", "Kingdom", "Lantern", "Letter", "Machine", "Meadow", "Melody", "Mirror", "Orchard", "Parade",
    "Promise", "River", "Road", "Season", "Shadow", "Signal", "Station", "Summer", "Tide", "Tower",
)  # fmt: skip
_TIME_BYTES = 5  # The varint of any second from 1978 to 3058 has so many.


class Histories:
    """The latest events of every user, in ring buffers of fixed size, so that memory does not grow with the rows."""

    def __init__(self, world: World, item_bytes: list[bytes], genre_bytes: list[bytes]) -> None:
        users, self._length = world.settings.users, world.settings.history_length
        self._item_bytes, self._genre_bytes = item_bytes, genre_bytes
        self._items = np.zeros((users, self._length), np.int32)
        self._ratings = np.zeros((users, self._length), np.uint8)
        self._times = np.zeros((users, self._length, _TIME_BYTES), np.uint8)
        self._events = np.zeros(users, np.int64)
        for first, last in pairwise([*range(0, users, 1024), users]):
            for event in zip(*(column.tolist() for column in world.past(first, last)), strict=True):
                self.add(*event)

    def add(self, user: int, item: int, rating: int, time: int) -> None:
        """Appends an event, which must be newer than all before."""
        place = self._events[user] % self._length
        self._items[user, place] = item
        self._ratings[user, place] = rating
        self._times[user, place] = np.frombuffer(varint(time), np.uint8)
        self._events[user] += 1

    def of(self, user: int) -> History:
        """The events of a user, newest first."""
        events = int(self._events[user])
        places = (events - 1 - np.arange(min(events, self._length))) % self._length
        items = self._items[user, places].tolist()
        return History(
            b"".join([self._item_bytes[item] for item in items]),
            b"".join([self._genre_bytes[item] for item in items]),
            self._ratings[user, places].tobytes(),
            self._times[user, places].tobytes(),
        )


def synthesize(out: Path, settings: Settings, force: bool = False) -> dict[str, Any]:
    """Writes a synthetic data set.

    The requests are drawn twice, first to learn the slices of train and the ceilings of test, then to be written, so
    that memory does not grow with the rows. The first 80 % of the rows in time are train, the next 10 % valid, the
    rest test, or so are the users, with `settings.unseen_users`; a request is never cut. With `force`, a data set that
    stands at `out` is replaced. The column `topic` of items.csv is the planted group of an item.

    Returns:
        The content of dataset.json.

    Raises:
        UserError: The sizes are impossible, or `out` is taken. Then nothing is written.
    """
    if settings.items < settings.topics:
        raise UserError(f"--items must be at least {settings.topics}, one for each topic. Received: {settings.items}")
    if settings.items < settings.candidates_range[1]:
        raise UserError(
            f"--candidates: a request may have {settings.candidates_range[1]}, but --items are {settings.items}"
        )
    with staged_directory(out, force) as directory:
        with step("Drawing items, users and clicks"):
            world = World(settings)
            counts, user_rows, item_rows, test = _survey(world)
            rows = {name: count.rows for name, count in zip(SPLITS, counts, strict=True)}
            require_rows(rows, lambda split: "ask for more --rows or --users")
            activity, popularity = _terciles(user_rows), _terciles(item_rows)
            ceilings = test.ceilings(settings.seed)
        genres = _genres(world)
        _write_rows(directory, world, genres, activity, popularity)
        write_items(directory, _items(world, genres), "topic")
        ItemVectors(world.item_id, world.vectors).save(directory)
        manifest: dict[str, Any] = {
            "dataset": "synthetic",
            "source": "generated; the model is described in tfctr/data/synthetic_world.py",
            "arguments": asdict(settings),
            "splits": {name: count.describe() for name, count in zip(SPLITS, counts, strict=True)},
            "slices": {"user_activity": activity.levels.describe(), "item_popularity": popularity.levels.describe()},
            "columns": COLUMNS | POSITION_COLUMN,
            "roles": {**ROLES, "histories": {"history": {**HISTORY_ROLE, "length": settings.history_length}}},
            "item_vectors": {"width": settings.vector_width, "items": settings.items},
            "ceilings": ceilings,
        }
        write_manifest(directory, manifest)
    return manifest


def _split_of_requests(block: Block, rows_before: int, settings: Settings) -> npt.NDArray[np.int64]:
    """The split of each request of a block that has rows: the one in which its first row, or else its user, falls."""
    first_rows = np.flatnonzero(np.diff(block.request, prepend=-1))
    place, size = rows_before + first_rows, settings.rows
    if settings.unseen_users:
        place, size = block.user[: len(first_rows)], settings.users
    return np.searchsorted([size * 8 // 10, size * 9 // 10], place, side="right")


def _survey(world: World) -> tuple[list[SplitCount], npt.NDArray[np.int64], npt.NDArray[np.int64], TestRows]:
    settings = world.settings
    counts = [SplitCount() for _ in SPLITS]
    user_rows, item_rows, test = np.zeros(settings.users, np.int64), np.zeros(settings.items, np.int64), TestRows()
    rows = 0
    for block in world.blocks():
        split_of_request = _split_of_requests(block, rows, settings)
        split, user = split_of_request[block.request], block.user[block.request]
        rows += len(split)
        for number, count in enumerate(counts):
            mine = split == number
            count.rows += int(mine.sum())
            count.positives += int(block.label[mine].sum())
            count.requests += int((split_of_request == number).sum())
            count.users.update(np.unique(user[mine]).tolist())
        train, tests = split == TRAIN, split == len(SPLITS) - 1
        user_rows += np.bincount(user[train], minlength=settings.users)
        item_rows += np.bincount(block.item[train], minlength=settings.items)
        test.add(user[tests], block.relevance[tests], block.probability[tests], block.label[tests])
    return counts, user_rows, item_rows, test


def _terciles(rows: npt.NDArray[np.int64]) -> Terciles:
    return Terciles.of_counts({key: count for key, count in enumerate(rows.tolist()) if count})


def _genres(world: World) -> list[str]:
    pairs = zip(world.genre.tolist(), world.second_genre.tolist(), strict=True)
    return ["|".join(GENRES[genre] for genre in sorted({first, second})) for first, second in pairs]


def _items(world: World, genres: list[str]) -> list[tuple[int, str, str, int, int]]:
    rng = np.random.default_rng([world.settings.seed, 4])
    first = rng.integers(len(_FIRST_WORDS), size=len(genres))
    second = rng.integers(len(_SECOND_WORDS), size=len(genres))
    facts = zip(world.item_id.tolist(), genres, world.year.tolist(), world.topic.tolist(), strict=True)
    return sorted(
        (item_id, f"{_FIRST_WORDS[first[item]]} {_SECOND_WORDS[second[item]]} ({year})", genre, year, topic)
        for item, (item_id, genre, year, topic) in enumerate(facts)
    )


def _write_rows(directory: Path, world: World, genres: list[str], activity: Terciles, popularity: Terciles) -> None:
    histories = Histories(
        world, [varint(item_id) for item_id in world.item_id.tolist()], [bytes_item(genre.encode()) for genre in genres]
    )
    facts = zip(world.item_id.tolist(), genres, world.year.tolist(), strict=True)
    item_parts = [item_part(*fact, popularity.name(item)) for item, fact in enumerate(facts)]
    with ExitStack() as stack:
        writers = [stack.enter_context(ShardedWriter(directory / name)) for name in SPLITS]
        for split, row in track(_rows(world, histories, activity, item_parts), "Writing rows", world.settings.rows):
            writers[split].write(row)


def _rows(
    world: World, histories: Histories, activity: Terciles, item_parts: list[bytes]
) -> Iterator[tuple[int, bytes]]:
    """The split and the record of every row; the clicks of a request join the history after its last row."""
    rows_before = 0
    for block in world.blocks():
        splits = _split_of_requests(block, rows_before, world.settings).tolist()
        rows_before += len(block.item)
        ends = np.searchsorted(block.request, np.arange(len(splits) + 1)).tolist()
        columns = (block.item, block.position, block.label, block.rating)
        items, positions, labels, ratings = (column.tolist() for column in columns)
        for request, split in enumerate(splits):
            user, time = int(block.user[request]), int(block.time[request])
            gender, age, occupation = world.gender[user], world.age_group[user], int(world.occupation[user])
            shared = user_part(user + 1, "FM"[gender], AGES[age], occupation, activity.name(user))
            shared += request_part(user + 1, time, histories.of(user))
            rows = range(ends[request], ends[request + 1])
            for row in rows:
                outcome = outcome_part(labels[row], positions[row])
                yield split, example((shared, item_parts[items[row]], outcome))
            for row in rows:
                if labels[row]:
                    histories.add(user, items[row], ratings[row], time)
