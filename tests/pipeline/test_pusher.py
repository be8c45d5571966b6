"""A pushed version appears complete or not at all."""

import os
import re
import threading
import time
from pathlib import Path

import pytest

from pipeline import push as pushing
from tfctr.errors import UserError


@pytest.fixture
def model(tmp_path: Path) -> Path:
    directory = tmp_path / "model"
    (directory / "variables").mkdir(parents=True)
    (directory / "saved_model.pb").write_bytes(b"graph")
    for index in range(200):
        (directory / "variables" / f"{index}").write_bytes(b"weights" * 100)
    return directory


def push(source: Path, destination: Path) -> tuple[Path, bool]:
    version, is_new = pushing.push(source, destination)
    return Path(version), is_new


def files(directory: Path) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()}


def test_push_copies_everything_to_a_number(model: Path, tmp_path: Path) -> None:
    version, is_new = push(model, tmp_path / "serving")

    assert is_new
    assert version.name.isdigit()
    assert files(version) == files(model)
    assert (version / "saved_model.pb").read_bytes() == b"graph"
    assert [path.name for path in (tmp_path / "serving").iterdir()] == [version.name]


def test_a_version_is_whole_whenever_a_poll_sees_it(model: Path, tmp_path: Path) -> None:
    serving = tmp_path / "serving"
    expected, seen, stop = files(model), [], threading.Event()

    def poll() -> None:
        while not stop.is_set():
            for path in serving.glob("*"):
                if path.name.isdigit():
                    seen.append(files(path) == expected)

    watcher = threading.Thread(target=poll)
    watcher.start()
    try:
        push(model, serving)
        while not seen:
            pass
    finally:
        stop.set()
        watcher.join()

    assert all(seen)


def test_a_push_that_dies_leaves_no_version(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", die)
    with pytest.raises(OSError, match="no space"):
        push(model, tmp_path / "serving")
    assert not [path for path in (tmp_path / "serving").iterdir() if path.name.isdigit()]

    monkeypatch.undo()
    version, _ = push(model, tmp_path / "serving")
    assert [path.name for path in (tmp_path / "serving").iterdir()] == [version.name]


def test_what_is_no_model_is_not_pushed(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    with pytest.raises(UserError, match=f"{re.escape(str(tmp_path / 'model'))}: not pushed; it is no SavedModel"):
        push(tmp_path / "model", tmp_path / "serving")
    assert not (tmp_path / "serving").exists()


def test_only_what_a_killed_push_has_left_is_removed(model: Path, tmp_path: Path) -> None:
    serving = tmp_path / "serving"
    left = [serving / name for name in (".17.1.partial", ".18.1.partial", ".mine.partial")]
    for path in left:
        path.mkdir(parents=True)
        os.utime(path, (0, 0))
    os.utime(left[1], (time.time(), time.time()))  # a push that is under way
    (serving / ".19.1.partial").write_text("a file")

    version, _ = push(model, serving)

    assert {path.name for path in serving.iterdir()} == {
        *(path.name for path in left[1:]),
        ".19.1.partial",
        version.name,
    }


def test_everything_is_on_disk_before_the_name_appears(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    rename, fsync = os.rename, os.fsync
    monkeypatch.setattr(os, "fsync", lambda descriptor: (calls.append("fsync"), fsync(descriptor))[1])
    monkeypatch.setattr(os, "rename", lambda *paths: (calls.append("rename"), rename(*paths))[1])

    push(model, tmp_path / "serving")

    # The directory of versions, the version itself, and all files and directories in it.
    entries = 1 + 1 + sum(1 for _ in (model).rglob("*"))
    assert calls == ["fsync"] * (entries - 1) + ["rename", "fsync"]


def test_the_same_model_is_not_pushed_twice(model: Path, tmp_path: Path) -> None:
    first, _ = push(model, tmp_path / "serving")
    again, is_new = push(model, tmp_path / "serving")

    assert (again, is_new) == (first, False)


def test_versions_rise_even_when_the_clock_does_not(model: Path, tmp_path: Path) -> None:
    far = tmp_path / "serving" / "99999999999"
    far.mkdir(parents=True)

    version, _ = push(model, tmp_path / "serving")

    assert version.name == "100000000000"
