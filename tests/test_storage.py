"""What `tfctr.storage` writes is there completely or not at all."""

import subprocess
import sys
from pathlib import Path

import pytest

from tfctr.storage import new_directory, write_text

KILLED = """
import os, signal, sys
from pathlib import Path
from tfctr import storage
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
