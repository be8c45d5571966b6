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
    MARKER,
    Mirror,
    check_place,
    check_writable,
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
    version_numbers,
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
    with new_version(place) as unfinished:
        make(unfinished, **{MARKER: "graph"}, **contents)


def no_folder_is_named_after_a_scheme(directory: Path) -> bool:
    return not [path for path in directory.rglob("*") if ":" in path.name]


class TestReadingAndWriting:
    def test_a_directory(self, place: str, tmp_path: Path) -> None:
        assert not exists(place)
        assert names(place) == []
        write(place, a="one", sub__b="two")
        assert exists(place)
        assert names(place) == ["a", MARKER, "sub"]
        assert read_bytes(join(place, "sub", "b")) == b"two"
        with local_copy(place) as copy:
            expected = make(tmp_path / "expected", a="one", sub__b="two", **{MARKER: "graph"})
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
            make(unfinished, **{MARKER: "graph", "assets/file": "assets", "assets.extra/file": "assets.extra"})
        assert names(place) == ["assets", "assets.extra", MARKER]
        with local_copy(place) as copy:
            for name in ("assets", "assets.extra"):
                assert (copy / name / "file").read_text() == name

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
        with pytest.raises((UserError, OSError), match=r"exist|not empty"):
            write(place, a="two")
        assert read_bytes(join(place, "a")) == b"one"
        with new_version(place, replace=True) as unfinished:
            make(unfinished, **{MARKER: "graph"}, b="two")
        assert names(place) == ["b", MARKER]

    def test_what_is_no_model_is_no_version(self, place: str) -> None:
        with (
            pytest.raises(UserError, match=r"not written; .* no SavedModel: it has no saved_model\.pb"),
            new_version(place) as unfinished,
        ):
            make(unfinished, a="one")
        assert names(place) == []

    def test_what_a_killed_process_has_sent_is_replaced(self, store: None, tmp_path: Path) -> None:
        place = new_place("s3")
        places.send_file(make(tmp_path, old="half") / "old", join(place, "old"))
        write(place, a="one")
        assert names(place) == ["a", MARKER]

    @pytest.mark.parametrize("removable", [True, False])
    def test_what_makes_it_a_version_is_removed_first(
        self, store: None, monkeypatch: pytest.MonkeyPatch, removable: bool
    ) -> None:
        place, removed = new_place("s3"), []
        send, remove = places.send, places.remove_files

        def torn(directory: Path, at: str) -> None:
            send(directory, at)
            monkeypatch.setattr(places, "remove_files", watched)
            raise UserError("torn")

        def watched(at: str, which: Any) -> None:
            which = list(which)
            removed.extend(which)
            if not removable:
                raise UserError("no right to remove")
            remove(at, which)

        monkeypatch.setattr(places, "send", torn)
        said = "^torn$" if removable else "^torn; what was sent could not be removed: no right to remove$"
        with pytest.raises(UserError, match=said):
            write(place, a="one", b="two")
        assert removed[0] == MARKER
        assert names(place) == ([] if removable else ["a", "b", MARKER])

    def test_a_store_must_list_what_was_sent(self, store: None, monkeypatch: pytest.MonkeyPatch) -> None:
        listed = places.files
        monkeypatch.setattr(places, "files", lambda at: [name for name in listed(at) if name != "a"])
        with pytest.raises(UserError, match=r"not written; after sending, the store does not list a$"):
            write(new_place("s3"), a="one")

    def test_an_interrupt_leaves_nothing(self, place: str) -> None:
        def interrupted() -> None:
            with new_version(place) as unfinished:
                make(unfinished, **{MARKER: "graph"})
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            interrupted()
        assert names(place) == []

    def test_the_last_file_comes_last(self, store: None, monkeypatch: pytest.MonkeyPatch) -> None:
        sent: list[str] = []
        send_file = places.send_file
        monkeypatch.setattr(places, "send_file", lambda path, at: (sent.append(at), send_file(path, at)))
        place = new_place("s3")
        write(place, a="", zz__variables="")
        assert sent[-1] == join(place, MARKER)
        assert len(sent) == 3

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

    @pytest.mark.parametrize(
        "place",
        ["", "s3:/bucket/x", "file:/x", "file://host/x", "C:\\models", "s3://", "s3:///", "memory://", "gs:/b"],
    )
    @pytest.mark.parametrize("ask", [is_remote, exists, names, check_place, lambda place: join(place, "x")])
    def test_what_is_neither_a_path_nor_an_address(
        self, place: str, ask: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        with pytest.raises(UserError, match=r"neither a path nor an address|three slashes|names no bucket"):
            ask(place)
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize("place", ["ram://x/y", "memory://x"])
    def test_what_is_gone_with_the_process(self, place: str) -> None:
        check_place(place)
        with pytest.raises(UserError, match="is gone when this process ends"):
            check_place(place, lasting=True)

    def test_a_place_is_tried_before_the_work(self, place: str, store: None) -> None:
        check_writable(place)
        assert names(place) == []
        with pytest.raises(UserError, match="s3://nobody/x"):
            check_writable("s3://nobody/x")

    def test_only_whole_numbers_are_versions(self, tmp_path: Path) -> None:
        for name in ("1", "20", "3", "007", "²", "-4", "1.5", "v1", "9" * 30):
            (tmp_path / name).mkdir()
        assert version_numbers(tmp_path) == [1, 3, 20]

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

    def test_the_file_that_names_the_others_comes_last(
        self, store: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sent: list[str] = []
        monkeypatch.setattr("tfctr.storage.mirror.send_file", lambda path, at: sent.append(path.name))
        here = make(tmp_path, zz="1", aa="1", progress="last")
        Mirror(here, new_place("s3"), "progress").send()
        assert sent == ["aa", "zz", "progress"]

    def test_a_file_that_a_killed_process_has_sent_is_sent_anew(self, place: str, tmp_path: Path) -> None:
        first = make(tmp_path / "first", checkpoints__one="1", **{"progress.json": "one"})
        Mirror(first, place, "progress.json").send()
        # A second checkpoint is sent, and the process killed before the file that names it.
        places.send_file(
            make(first, checkpoints__two="of the killed") / "checkpoints/two", join(place, "checkpoints/two")
        )
        second = tmp_path / "second"
        mirror = Mirror(second, place, "progress.json")
        mirror.fetch()
        make(second, checkpoints__two="of the retry", **{"progress.json": "two"})
        mirror.send()
        third = tmp_path / "third"
        Mirror(third, place, "progress.json").fetch()
        assert (third / "checkpoints" / "two").read_text() == "of the retry"

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
