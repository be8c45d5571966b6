"""Every mistake in the input gives one clear error that says where it is, and leaves no files behind."""

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.data.helpers import MOVIES, RATINGS, USERS, write_movielens, write_vectors
from tfctr.data.item_vectors import load_item_vectors
from tfctr.data.prepare import Options, prepare_movielens
from tfctr.data.staging import staged_directory
from tfctr.data.synthesize import synthesize
from tfctr.data.synthetic_world import Settings
from tfctr.errors import UserError


def fails(tmp_path: Path, source: Path, match: str, vectors: Path | None = None) -> None:
    out = tmp_path / "results" / "out"
    with pytest.raises(UserError, match=match) as raised:
        prepare_movielens(source, out, Options(), vectors)
    assert "\n" not in str(raised.value)
    assert not list((tmp_path / "results").glob("*")), "something half-written was left"


@pytest.mark.parametrize("name", ["ratings.dat", "users.dat", "movies.dat"])
def test_missing_file(tmp_path: Path, name: str) -> None:
    source = write_movielens(tmp_path / "source")
    (source / name).unlink()
    fails(tmp_path, source, rf"{name} is missing \(and so is {name}.gz\)")


def test_missing_directory(tmp_path: Path) -> None:
    fails(tmp_path, tmp_path / "nowhere", "nowhere is not a directory")


@pytest.mark.parametrize(
    ("file", "content", "match"),
    [
        ("ratings", RATINGS + "1::2::3\n", r"ratings.dat, line 14: UserID::MovieID::Rating::Timestamp is expected"),
        ("ratings", "1::2::3::4::5\n" + RATINGS, r"ratings.dat, line 1: "),
        ("ratings", RATINGS + "\n", r"ratings.dat, line 14: "),
        ("ratings", RATINGS + "x::2::3::100\n", r"line 14: UserID must be a whole number. Received: 'x'"),
        ("ratings", RATINGS + "1::2::3::1e3\n", r"line 14: Timestamp must be a whole number"),
        ("ratings", RATINGS + "1::2::3::-5\n", r"line 14: Timestamp must be a whole number"),
        ("ratings", RATINGS + "1::2::6::100\n", r"line 14: Rating must be 1 to 5. Received: '6'"),
        ("ratings", RATINGS + "1::2::0::100\n", r"line 14: Rating must be 1 to 5"),
        ("ratings", RATINGS + "3::2::4::100\n", r"line 14: user 3 is not in users.dat"),
        ("ratings", RATINGS + "1::99::4::100\n", r"line 14: movie 99 is not in movies.dat"),
        ("ratings", "", r"ratings.dat is empty"),
        ("users", USERS + "1::M::25::1::1\n", r"users.dat, line 3: user 1 is there twice"),
        ("users", USERS + "3::X::25::1::1\n", r"users.dat, line 3: Gender must be F or M. Received: 'X'"),
        ("users", USERS + "3::M::25::1\n", r"users.dat, line 3: UserID::Gender::Age::Occupation::Zip-code"),
        ("movies", MOVIES + "5::Again (1999)::Drama\n", r"movies.dat, line 13: movie 5 is there twice"),
        ("movies", MOVIES + "13::No genres\n", r"movies.dat, line 13: MovieID::Title::Genres is expected"),
    ],
)
def test_malformed_line(tmp_path: Path, file: str, content: str, match: str) -> None:
    fails(tmp_path, write_movielens(tmp_path / "source", **{file: content}), match)


def test_damaged_gzip(tmp_path: Path) -> None:
    source = write_movielens(tmp_path / "source")
    (source / "ratings.dat").unlink()
    (source / "ratings.dat.gz").write_bytes(gzip.compress(RATINGS.encode() * 5000)[:-200])
    fails(tmp_path, source, r"ratings.dat.gz is damaged after line \d+")


def test_too_few_rows_for_three_splits(tmp_path: Path) -> None:
    fails(tmp_path, write_movielens(tmp_path / "source", ratings="1::1::5::100\n"), "the valid split would be empty")


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda path: write_vectors(path, [1, 2, 2]), "has item 2 more than once"),
        (lambda path: write_vectors(path, [1, 2], np.ones(2)), r"floats \[n, width\]\. Received: float64 \[2\]"),
        (lambda path: write_vectors(path, [1, 2], np.ones((2, 3, 4))), r"Received: float64 \[2, 3, 4\]"),
        (lambda path: write_vectors(path, [1, 2], np.ones((2, 0))), r"Received: float64 \[2, 0\]"),
        (lambda path: write_vectors(path, [1, 2], np.ones((2, 3), int)), r"Received: int64 \[2, 3\]"),
        (lambda path: write_vectors(path, [1, 2, 3], np.ones((2, 3))), "has 3 ids for 2 vectors"),
        (lambda path: write_vectors(path, [1.0, 2.0]), "ids .* must be integers"),
        (lambda path: write_vectors(path, [1, 2], np.array([[1.0], [np.nan]])), "NaN or infinity in .* item 2"),
        (lambda path: write_vectors(path, [1, 2], np.array([[np.inf], [1.0]])), "NaN or infinity in .* item 1"),
        (lambda path: write_vectors(path, [777]), "none of the ids"),
        (lambda path: np.savez(path, ids=[1], vectors=np.ones((1, 2)), extra=[1]), "it holds extra, ids, vectors"),
        (lambda path: path.write_bytes(b"not a zip"), "not a readable NumPy file"),
        (lambda path: None, "vectors.npz is missing"),
    ],
)
def test_bad_item_vectors(tmp_path: Path, make: Callable[[Path], object], match: str) -> None:
    make(tmp_path / "vectors.npz")
    fails(tmp_path, write_movielens(tmp_path / "source"), f"item vectors: .*{match}", tmp_path / "vectors.npz")


def test_vectors_without_ids_or_with_bad_ones(tmp_path: Path) -> None:
    source, path = write_movielens(tmp_path / "source"), tmp_path / "vectors.npy"
    np.save(path, np.ones((2, 3)))
    fails(tmp_path, source, r"must be in vectors.ids.npy or vectors.ids.txt beside it", path)
    (tmp_path / "vectors.ids.txt").write_text("1\nx\n")
    fails(tmp_path, source, r"vectors.ids.txt, line 2: not an integer id. Received: 'x'", path)


def test_vectors_of_another_width_than_expected(tmp_path: Path) -> None:
    path = write_vectors(tmp_path / "vectors.npz")
    assert load_item_vectors(path, width=4).vectors.shape == (12, 4)
    with pytest.raises(UserError, match="vectors of width 4; 384 is expected"):
        load_item_vectors(path, width=384)


def test_a_data_set_is_only_replaced_by_force(tmp_path: Path) -> None:
    out = tmp_path / "out"
    synthesize(out, Settings(rows=400, users=20, items=48))
    before = sorted(path.stat().st_mtime_ns for path in out.rglob("*"))
    with pytest.raises(UserError, match="holds a data set already; pass --force"):
        synthesize(out, Settings(rows=400, users=20, items=48))
    assert before == sorted(path.stat().st_mtime_ns for path in out.rglob("*"))
    synthesize(out, Settings(rows=500, users=20, items=48), force=True)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_force_replaces_nothing_but_data_sets(tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match=r"is not empty and holds no dataset.json"):
        synthesize(tmp_path / "precious", Settings(rows=400), force=True)
    assert (tmp_path / "precious" / "thesis.txt").read_text() == "mine"
    with pytest.raises(UserError, match="is a file"):
        synthesize(tmp_path / "precious" / "thesis.txt", Settings(rows=400), force=True)


def test_what_lies_in_a_data_set_and_is_not_of_it_is_not_replaced(tmp_path: Path) -> None:
    out = tmp_path / "out"
    settings = Settings(rows=400, users=20, items=48)
    synthesize(out, settings)
    strangers = [out / name for name in ("notes.txt", "runs/model/1", "source/train.csv", "train/more.csv")]
    for path in strangers:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("mine")
    told = r"out is not replaced, since .*: notes.txt, runs, source, train/more.csv; move that elsewhere, or name a new"
    for force in (False, True):
        with pytest.raises(UserError, match=told):
            synthesize(out, settings, force)
    assert [path.read_text() for path in strangers] == ["mine"] * 4
    for number in range(6):
        (out / f"a{number}").touch()
    with pytest.raises(UserError, match=r": a0, a1, a2, a3, a4 and 5 more; move"):
        synthesize(out, settings, force=True)


def test_what_is_put_into_a_data_set_while_another_one_is_made_stays(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(UserError, match=r"out is not empty and holds no dataset.json"), staged_directory(out, True):
        (out / "notes").mkdir(parents=True)
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "notes"]


def test_what_is_written_must_be_in_the_list_of_what_a_data_set_consists_of(tmp_path: Path) -> None:
    with (
        pytest.raises(RuntimeError, match=r"list of its content: more.txt"),
        staged_directory(tmp_path / "out") as made,
    ):
        (made / "more.txt").touch()
    assert not list(tmp_path.iterdir())


def test_an_old_data_set_survives_a_failed_replacement(tmp_path: Path) -> None:
    out = tmp_path / "out"
    synthesize(out, Settings(rows=400, users=20, items=48))
    source = write_movielens(tmp_path / "source", ratings=RATINGS + "nonsense\n")
    with pytest.raises(UserError, match="line 14"):
        prepare_movielens(source, out, Options(), force=True)
    assert (out / "dataset.json").is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "source"]


def test_the_root_of_the_disk_is_no_new_directory() -> None:
    with pytest.raises(UserError, match=r"^/ is not empty"), staged_directory(Path("/")):
        pass


def test_a_disk_that_refuses_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(UserError, match=r"cannot write .*out: .*file is a file"),
        staged_directory(tmp_path / "file" / "out"),
    ):
        pass


def test_too_few_items(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--items must be at least 48"):
        synthesize(tmp_path / "out", Settings(items=47))
    with pytest.raises(UserError, match="--candidates: a request may have 60"):
        synthesize(tmp_path / "out", Settings(items=59, candidates=40))
    assert not list(tmp_path.iterdir())
