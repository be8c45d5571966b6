"""Public data sets as impressions: an adapter reads what the publisher wrote, a build file says the rest."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from tfctr.console import step
from tfctr.data.build.datasets import build_file, dataset_names
from tfctr.data.build.spec import build_of
from tfctr.data.item_vectors import FILE_NAME, ItemVectors, load_item_vectors
from tfctr.data.manifest import provenance, write_items
from tfctr.data.movielens import MovieLens, read_movielens
from tfctr.data.splits import USUAL_SHARES, Shares, Split
from tfctr.errors import UserError

Neutral = Literal["drop", "negative"]
_NEUTRAL_RATING = 3
_SHIPPED_VECTORS = "text_vectors.npz"
_MOVIELENS = "movielens-1m"


@dataclass(frozen=True)
class Options:
    """What may be another way than the build file of a data set says.

    Attributes:
        history_length: The most events in a history.
        neutral: What becomes of rows rated 3: `drop` leaves them out, `negative` labels them 0. Histories hold them in
            both cases.
        split: The rule of the splits.
        shares: The shares of train, valid and test, for a rule that has some.
        seed: Decides the random split, and which users `users` and `rows` keep.
        rows: Keep at most this many rows: all rows of some users and the earliest ones of one more.
        users: Keep at most this many users, drawn at random.
        history_ttl_seconds: How long a user's impressions have the histories of the first of them.
    """

    history_length: int = 50
    neutral: Neutral = "drop"
    split: Split = "user-time"
    shares: Shares = USUAL_SHARES
    seed: int = 17
    rows: int | None = None
    users: int | None = None
    history_ttl_seconds: int = 1


def prepare_movielens(
    source: Path, out: Path, options: Options, item_vectors: Path | None = None, force: bool = False
) -> dict[str, Any]:
    """Writes MovieLens-1M as impressions.

    Args:
        source: The publisher's directory.
        out: The directory to make, with train/, valid/, test/, items.csv, dataset.json and perhaps item_vectors.npz.
        options: What may be another way.
        item_vectors: The file with the vectors of the items. None takes `text_vectors.npz` of the source directory, if
            there is one.
        force: Whether a data set that stands at `out` is replaced.

    Returns:
        The content of dataset.json.

    Raises:
        UserError: The input is bad, or `out` is taken. Then nothing is written.
    """
    from tfctr.data.build.local import build_dataset

    with TemporaryDirectory(prefix="tfctr-") as temporary:
        directory = Path(temporary)
        with step(f"Reading {source}"):
            data = read_movielens(source)
            vectors = _vectors(source, item_vectors, data)
        _write_tables(directory, data, _kept(data, options))
        content = build_file(_MOVIELENS)
        content["histories"]["history"]["length"] = options.history_length
        content |= {"split": options.split, "seed": options.seed}
        content["history_ttl_seconds"] = options.history_ttl_seconds
        if options.shares != USUAL_SHARES:
            content["shares"] = options.shares
        if options.neutral == "negative":
            content["impressions"] = []
        if options.users is not None or options.rows is not None:
            content["impressions"] = [*content["impressions"], {"column": "kept", "one_of": [True]}]
        about: dict[str, Any] = {"dataset": _MOVIELENS, "source": data.provenance, "options": asdict(options)}
        if vectors is not None:
            vectors.save(directory)
            content["item_vectors"] = FILE_NAME
            items, width = vectors.vectors.shape
            covered = round(vectors.coverage(data.movies), 6)
            about["item_vectors"] = {"width": width, "items": items, "share_of_items_covered": covered}

        def items(directory: Path) -> None:
            write_items(directory, ((m.item_id, m.title, m.genres, m.year) for m in data.movies.values()))

        build = build_of(content, _MOVIELENS)
        return build_dataset(build, directory, out, force, about, items)


def prepare(name: str, source: Path, out: Path, force: bool = False, seed: int | None = None) -> dict[str, Any]:
    """Writes a public data set as its build file says.

    Args:
        name: One of `dataset_names`; `movielens-1m` is written with the options that it has by default.
        source: The directory with the publisher's files.
        out: The directory to make, with train/, valid/, test/ and dataset.json.
        force: Whether a data set that stands at `out` is replaced.
        seed: Decides a random split; None is the build file's.

    Returns:
        The content of dataset.json.

    Raises:
        UserError: There is no such data set, the input is bad, `out` is taken, or a seed is given for a split that is
            published. Then nothing is written.
    """
    from tfctr.data.build.local import build_dataset
    from tfctr.data.build.plan import files_read

    if name not in dataset_names():
        raise UserError(f"there is no public data set '{name}'; there are {', '.join(dataset_names())}")
    if name == _MOVIELENS:
        return prepare_movielens(source, out, Options() if seed is None else Options(seed=seed), force=force)
    content = build_file(name)
    build = build_of(content if seed is None else content | {"seed": seed}, name)
    if seed is not None and build.given_split:
        raise UserError(f"{name} is split as published, so it takes no seed")
    if not source.is_dir():
        raise UserError(f"{source} is not a directory; --source must hold the publisher's files")
    with TemporaryDirectory(prefix="tfctr-") as temporary:
        tables = _READERS.get(name)
        if tables is not None:
            base = Path(temporary)
            with step(f"Reading {source}"):
                found = tables(source, base)
        else:
            base = source
            paths = files_read(build, base)
            with step(f"Reading {source}"):
                found = [provenance(Path(path)) for path in paths]
        return build_dataset(build, base, out, force, {"dataset": name, "source": found})


def _vectors(source: Path, path: Path | None, data: MovieLens) -> ItemVectors | None:
    shipped = source / _SHIPPED_VECTORS
    if path is None and not shipped.is_file():
        return None
    path = path or shipped
    vectors = load_item_vectors(path)
    if vectors.coverage(data.movies) == 0:
        raise UserError(f"item vectors: none of the ids in {path} is in movies.dat")
    return vectors


def _movielens_tables(source: Path, directory: Path) -> list[dict[str, Any]]:
    data = read_movielens(source)
    _write_tables(directory, data, np.ones(len(data.user), bool))
    return data.provenance


_READERS: dict[str, Callable[[Path, Path], list[dict[str, Any]]]] = {"movielens-1m-ctr": _movielens_tables}
"""What writes the tables that a build file names, from a layout that no build reads, and says which files it read."""


def _write_tables(directory: Path, data: MovieLens, kept: npt.NDArray[np.bool_]) -> None:
    """The three tables that the build files of MovieLens-1M name."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    ratings = {
        "user_id": data.user,
        "item_id": data.item,
        "rating": data.rating,
        "timestamp": data.time,
        "kept": kept,
    }
    users = [
        {"user_id": u.user_id, "gender": u.gender, "age": u.age, "occupation": u.occupation}
        for u in data.users.values()
    ]
    movies = [{"item_id": m.item_id, "genres": m.genres, "year": m.year} for m in data.movies.values()]
    schema = pa.schema([("item_id", pa.int64()), ("genres", pa.string()), ("year", pa.int64())])
    pq.write_table(pa.table(ratings), directory / "ratings.parquet")
    pq.write_table(pa.Table.from_pylist(users), directory / "users.parquet")
    pq.write_table(pa.Table.from_pylist(movies, schema), directory / "items.parquet")


def _kept(data: MovieLens, options: Options) -> npt.NDArray[np.bool_]:
    """Which ratings may become rows, of those that `users` and `rows` leave."""
    kept = np.arange(len(data.user))
    if options.neutral == "drop":
        kept = kept[data.rating != _NEUTRAL_RATING]
    users = np.unique(data.user[kept])
    place = np.random.default_rng(options.seed).permutation(len(users))
    place_of_row = place[np.searchsorted(users, data.user[kept])]
    if options.users is not None:
        kept, place_of_row = kept[place_of_row < options.users], place_of_row[place_of_row < options.users]
    if options.rows is not None:
        kept = kept[np.argsort(place_of_row, kind="stable")[: options.rows]]
    chosen = np.zeros(len(data.user), bool)
    chosen[kept] = True
    return chosen
