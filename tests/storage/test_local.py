"""What `tfctr.storage` writes is there completely or not at all."""

import errno
import fcntl
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tfctr.errors import UserError
from tfctr.storage import discard_work, new_directory, only_one, unfinished_work, write_text
from tfctr.storage import local as storage

HELD = """
import sys, time
from pathlib import Path
from tfctr.storage import only_one
out = Path(sys.argv[1])
with only_one(out, out / ".lock"):
    print("held", flush=True)
    time.sleep(60)
"""
KILLED = """
import os, signal, sys
from pathlib import Path
from tfctr.storage import local as storage
def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)
os.rename = os.replace = die
path = Path(sys.argv[1])
if path.is_file():
    storage.write_text(path, "new")
else:
    with storage.new_directory(path, replace=True) as directory:
        (directory / "a").write_text("new")
"""


def content(directory: Path) -> dict[str, str]:
    return {
        str(path.relative_to(directory)): path.read_text() for path in sorted(directory.rglob("*")) if path.is_file()
    }


def test_a_text_replaces_another(tmp_path: Path) -> None:
    for text in ("old, longer", "n\u00e9w"):
        write_text(tmp_path / "sub" / "note", text)
    assert content(tmp_path) == {"sub/note": "n\u00e9w"}


def test_a_directory_gets_its_name_at_the_end(tmp_path: Path) -> None:
    with new_directory(tmp_path / "sub" / "out") as directory:
        (directory / "a").write_text("1")
        assert not (tmp_path / "sub" / "out").exists()
    assert content(tmp_path) == {"sub/out/a": "1"}
    assert [path.name for path in (tmp_path / "sub").iterdir()] == ["out"]


@pytest.mark.parametrize("replace", [False, True])
def test_a_block_that_raises_leaves_what_was_there(tmp_path: Path, replace: bool) -> None:
    write_text(tmp_path / "out" / "a", "old")
    with pytest.raises(ZeroDivisionError), new_directory(tmp_path / "out", replace) as directory:
        (directory / "a").write_text(str(1 / 0))
    assert content(tmp_path) == {"out/a": "old"}


def test_only_who_asks_replaces(tmp_path: Path) -> None:
    write_text(tmp_path / "out" / "a", "old")
    with pytest.raises(OSError, match="not empty"), new_directory(tmp_path / "out") as directory:
        (directory / "b").write_text("new")
    assert content(tmp_path) == {"out/a": "old"}
    with new_directory(tmp_path / "out", replace=True) as directory:
        (directory / "b").write_text("new")
    assert content(tmp_path) == {"out/b": "new"}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("name", ["note", "out/a"])
def test_a_kill_before_the_rename_leaves_what_was_there(tmp_path: Path, name: str) -> None:
    write_text(tmp_path / name, "old")
    done = subprocess.run([sys.executable, "-c", KILLED, tmp_path / Path(name).parts[0]], check=False)
    assert done.returncode == -9
    assert (tmp_path / name).read_text() == "old"


class TestOnlyOne:
    def hold(self, out: Path) -> None:
        with only_one(out, out / ".lock"):
            assert (out / ".lock").exists()

    def test_a_lock_ends_with_its_process(self, tmp_path: Path) -> None:
        with subprocess.Popen([sys.executable, "-c", HELD, tmp_path], stdout=subprocess.PIPE, text=True) as other:
            assert other.stdout is not None
            assert other.stdout.readline() == "held\n"
            with pytest.raises(UserError, match="another run is under way here"):
                self.hold(tmp_path)
            other.kill()
        self.hold(tmp_path)
        assert not list(tmp_path.iterdir())

    def test_a_directory_that_was_made_for_it_is_removed_with_it(self, tmp_path: Path) -> None:
        self.hold(tmp_path / "run")
        assert not list(tmp_path.iterdir())
        (tmp_path / "run").mkdir()
        self.hold(tmp_path / "run")
        assert list(tmp_path.iterdir()) == [tmp_path / "run"]

    def test_a_disk_without_locks_is_one_line(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def refused(*_: Any) -> None:
            raise OSError(errno.ENOLCK, "No locks available")

        monkeypatch.setattr(fcntl, "flock", refused)
        with pytest.raises(UserError, match=r"cannot write .*: No locks available"):
            self.hold(tmp_path)

    def test_a_lock_that_is_removed_while_it_is_taken(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        taken, flock = [], fcntl.flock

        def removed_once(file: Any, how: int) -> None:
            flock(file, how)
            taken.append(1)
            if len(taken) == 1:
                (tmp_path / ".lock").unlink()

        monkeypatch.setattr(fcntl, "flock", removed_once)
        self.hold(tmp_path)
        assert len(taken) == 2


class TestUnfinishedWork:
    def left(self, directory: Path, key: str) -> list[str]:
        """What a block finds."""
        with unfinished_work(directory, key):
            return sorted(path.name for path in directory.iterdir() if path.name != "key")

    @pytest.fixture
    def work(self, tmp_path: Path) -> Path:
        self.left(tmp_path / "work", "one")
        (tmp_path / "work" / "part").touch()
        return tmp_path / "work"

    def test_is_there_again_for_the_same_key(self, work: Path) -> None:
        assert self.left(work, "one") == ["part"]
        assert self.left(work, "two") == []

    def test_an_error_removes_it(self, work: Path) -> None:
        with pytest.raises(ZeroDivisionError), unfinished_work(work, "one"):
            print(1 / 0)
        assert not work.exists()

    def test_what_can_not_be_removed_is_not_gone_on_with(self, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def refused(directory: Path, **_: object) -> None:
            raise PermissionError(errno.EACCES, "Permission denied", str(directory))

        monkeypatch.setattr(storage.shutil, "rmtree", refused)
        with pytest.raises(PermissionError):
            self.left(work, "two")
        with pytest.raises(ZeroDivisionError), unfinished_work(work.with_name("other"), "one"):
            print(1 / 0)

    def test_a_kill_while_it_is_removed(self, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (work / "more").touch()

        def partly(directory: Path, **_: object) -> None:
            (directory / "more").unlink()
            raise KeyboardInterrupt

        with monkeypatch.context() as killed:
            killed.setattr(storage.shutil, "rmtree", partly)
            with pytest.raises(KeyboardInterrupt):
                discard_work(work)
        assert self.left(work, "one") == []
