"""Places on every kind of store: read and written alike, whole or not at all."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.storage.stores import new_place, s3_store
from tests.workbench import ROOT
from tfctr.errors import UserError
from tfctr.storage import (
    Mirror,
    check_place,
    digest,
    exists,
    is_remote,
    join,
    local_copy,
    local_path,
    names,
    new_version,
    places,
    read_bytes,
    state_of,
)

SCHEMES = ("", "file", "ram", "memory", "s3", "minio")


@pytest.fixture(scope="module")
def store() -> Iterator[None]:
    with s3_store():
        yield


@pytest.fixture(params=SCHEMES)
def place(request: pytest.FixtureRequest, store: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    local = {"": str(tmp_path / "store"), "file": f"file://{tmp_path / 'store'}"}
    return local.get(request.param) or new_place(request.param)


def make(directory: Path, **contents: str) -> Path:
    for name, content in contents.items():
        path = directory / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return directory


def write(place: str, **contents: str) -> None:
    with new_version(place, last="z") as unfinished:
        make(unfinished, z="last", **contents)


def no_folder_is_named_after_a_scheme(directory: Path) -> bool:
    return not [path for path in directory.rglob("*") if ":" in path.name]


class TestReadingAndWriting:
    def test_a_directory(self, place: str, tmp_path: Path) -> None:
        assert not exists(place)
        assert names(place) == []
        write(place, a="one", sub__b="two")
        assert exists(place)
        assert names(place) == ["a", "sub", "z"]
        assert read_bytes(join(place, "sub", "b")) == b"two"
        with local_copy(place) as copy:
            expected = make(tmp_path / "expected", a="one", sub__b="two", z="last")
            assert digest(copy) == digest(expected)
        assert no_folder_is_named_after_a_scheme(tmp_path)

    def test_a_file(self, place: str) -> None:
        write(place, a="one")
        with local_copy(join(place, "a")) as copy:
            assert copy.name == "a"
            assert copy.read_text() == "one"

    def test_some_files_of_a_directory(self, place: str) -> None:
        write(place, a="one", sub__b="two")
        with local_copy(place, only=["sub/b", "missing"]) as copy:
            assert (copy / "sub" / "b").read_text() == "two"
            assert not (copy / "missing").exists()

    def test_a_name_may_begin_with_the_name_of_a_directory(self, place: str) -> None:
        with new_version(place) as unfinished:
            for name in ("assets", "assets.extra"):
                (unfinished / name).mkdir()
                (unfinished / name / "file").write_text(name)
        with local_copy(place) as copy:
            assert [(copy / name / "file").read_text() for name in names(place)] == ["assets", "assets.extra"]

    def test_a_copy_is_removed(self, place: str) -> None:
        write(place, a="one")
        with local_copy(place) as copy:
            pass
        assert copy.exists() == (not is_remote(place))

    def test_state_changes_with_the_content(self, place: str) -> None:
        write(place, a="one")
        before = state_of(join(place, "a"))
        if is_remote(place):
            places.send_file(make(Path("other"), a="three") / "a", join(place, "a"))
        else:
            local_path(join(place, "a"), "the file").write_text("three")
        assert state_of(join(place, "a")) != before


class TestWholeOrNotAtAll:
    def test_an_error_leaves_nothing(self, place: str) -> None:
        def failing() -> None:
            with new_version(place) as unfinished:
                make(unfinished, a="one")
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            failing()
        assert names(place) == []

    def test_a_taken_name_is_refused(self, place: str) -> None:
        write(place, a="one")
        with pytest.raises(OSError, match=r"exist|not empty"):
            write(place, a="two")
        assert read_bytes(join(place, "a")) == b"one"

    def test_the_last_file_comes_last(self, store: None, monkeypatch: pytest.MonkeyPatch) -> None:
        sent: list[str] = []
        send_file = places.send_file
        monkeypatch.setattr(places, "send_file", lambda path, at: (sent.append(at), send_file(path, at)))
        place = new_place("s3")
        with new_version(place) as unfinished:
            make(unfinished, saved_model__pb="", a="", zz__variables="")
            (unfinished / "saved_model.pb").write_text("graph")
        assert sent[-1] == join(place, "saved_model.pb")
        assert len(sent) == 4

    @pytest.mark.parametrize("fault", ["half", "lost"])
    def test_what_is_read_back_must_be_what_was_sent(
        self, store: None, monkeypatch: pytest.MonkeyPatch, fault: str
    ) -> None:
        place = new_place("memory")
        system, _ = places._at(place)
        opened = type(system).open

        def failing(self: Any, path: str, mode: str = "rb", **options: Any) -> Any:
            file = opened(self, path, mode, **options)
            if mode == "wb" and path.endswith("/a"):
                write = file.write
                file.write = lambda block: write(block[: len(block) // 2] if fault == "half" else b"")
            return file

        monkeypatch.setattr(type(system), "open", failing)
        with pytest.raises(UserError, match=f"{place}/a: not written; what the store gives back is not what was sent"):
            write(place, a="whole content")
        assert names(place) == []


class TestErrors:
    def test_an_unknown_scheme(self) -> None:
        with pytest.raises(UserError, match=r"gss://: no store has this scheme\. Allowed: a local path, gs://, s3://"):
            check_place("gss://bucket/x")

    def test_what_is_not_there(self, place: str) -> None:
        with pytest.raises((UserError, FileNotFoundError), match="a"):
            read_bytes(join(place, "a"))
        if is_remote(place):
            with pytest.raises(UserError, match=f"{place}: not there"), local_copy(place):
                pass

    def test_a_bucket_that_is_not_there(self, store: None) -> None:
        with pytest.raises(UserError, match="s3://nobody/x/a: not there"):
            write("s3://nobody/x", a="one")

    def test_an_error_names_the_place_and_not_the_copy(self, store: None) -> None:
        place = new_place("s3")
        write(place, a="one")
        with pytest.raises(UserError, match=f"^{place}/a: damaged$"), local_copy(place) as copy:
            raise UserError(f"{copy / 'a'}: damaged")

    def test_a_path_that_must_be_local(self, tmp_path: Path) -> None:
        assert local_path(f"file://{tmp_path}", "--out") == tmp_path
        with pytest.raises(UserError, match=r"--out: must be a local directory\. Received: gs://b/x"):
            local_path("gs://b/x", "--out")


class TestMirror:
    def test_another_machine_goes_on(self, place: str, tmp_path: Path) -> None:
        here = make(tmp_path / "here", checkpoints__one="1")
        mirror = Mirror(here, place, "progress.json")
        mirror.fetch()
        make(here, **{"progress.json": "first"})
        mirror.send()
        (here / "checkpoints" / "one").unlink()
        make(here, checkpoints__two="2", **{"progress.json": "second"})
        mirror.send()
        there = tmp_path / "there"
        Mirror(there, place, "progress.json").fetch()
        assert digest(there) == digest(here)
        assert (there / "progress.json").read_text() == "second"

    def test_what_the_directory_has_is_kept(self, tmp_path: Path) -> None:
        place = new_place("memory")
        Mirror(make(tmp_path / "old", **{"progress.json": "old"}), place, "progress.json").send()
        Mirror(make(tmp_path / "new", **{"progress.json": "new"}), place, "progress.json").fetch()
        assert (tmp_path / "new" / "progress.json").read_text() == "new"


def test_no_path_is_made_of_an_address() -> None:
    """Components give an artifact's address to the room of storage, and never to pathlib, which would make it local."""
    address = re.compile(r"\bPath\(\s*(?:str\()?\w*(?:\.uri|destination|serving_model_dir|transform_graph|pushed)\b")
    allowed = {("pipeline/local_runner.py", 'Path(latest["schema"].uri')}
    found = set()
    for path in sorted((ROOT / "pipeline").glob("*.py")):
        text = path.read_text(encoding="utf-8")
        found |= {(path.relative_to(ROOT).as_posix(), one) for one in address.findall(text)}
    assert found <= allowed
