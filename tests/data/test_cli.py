"""`tfctr data`, run as a command in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.data.helpers import RATINGS, write_movielens

pytestmark = pytest.mark.slow


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from tfctr.cli import main; main()", "data", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_prepare_says_what_it_wrote(tmp_path: Path) -> None:
    source = write_movielens(tmp_path / "source")
    result = run("prepare", "movielens-1m", "--source", source, "--out", tmp_path / "out", "--neutral", "negative")
    assert result.returncode == 0, result.stderr
    assert "train: 11 rows of 2 users, 63.64% positive" in result.stdout
    assert (tmp_path / "out" / "test" / "part-00000.parquet").is_file()


def test_synthesize_reports_the_ceilings_in_seconds(tmp_path: Path) -> None:
    before = os.times()
    result = run("synthesize", "--out", tmp_path / "out")
    assert result.returncode == 0, result.stderr
    after = os.times()
    # The limit is in processor time, since a busy machine takes longer by the clock.
    assert after.children_user + after.children_system - before.children_user - before.children_system < 30
    assert "best any model can reach on test, position unknown: AUC 0." in result.stdout
    assert "best any model can reach on test, position known: AUC 0." in result.stdout


def test_a_tiny_set_without_a_defined_ceiling_still_works(tmp_path: Path) -> None:
    result = run("synthesize", "--out", tmp_path / "out", "--rows", 60, "--users", 5, "--items", 48)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("prepare", "movielens-1m", "--source", "BAD"), "ratings.dat, line 14: UserID::MovieID::Rating::Timestamp"),
        (("prepare", "movielens-1m", "--source", "NONE"), "is not a directory"),
        (("prepare", "movielens-1m", "--source", "GOOD", "--item-vectors", "NONE"), "NONE is missing"),
        (("synthesize", "--rows", "5"), "split would be empty"),
        (("synthesize", "--items", "10"), "--items must be at least 48"),
    ],
)
def test_bad_input_is_one_line_and_status_2(tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    write_movielens(tmp_path / "GOOD")
    write_movielens(tmp_path / "BAD", ratings=RATINGS + "nonsense\n")
    places = [str(tmp_path / part) if part in ("GOOD", "BAD", "NONE") else part for part in arguments]
    result = run(*places, "--out", tmp_path / "results" / "out")
    assert result.returncode == 2
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert message in result.stderr
    assert not list((tmp_path / "results").glob("*"))


def test_a_second_run_needs_force(tmp_path: Path) -> None:
    arguments = ("synthesize", "--rows", 400, "--users", 20, "--items", 48, "--out", tmp_path / "out")
    assert run(*arguments).returncode == 0
    again = run(*arguments)
    assert (again.returncode, "pass --force" in again.stderr) == (2, True)
    assert run(*arguments, "--force").returncode == 0


def test_it_needs_no_tensorflow(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['tensorflow'] = sys.modules['keras'] = None\n"
        "from pathlib import Path; from tfctr.data.synthesize import synthesize\n"
        "from tfctr.data.synthetic_world import Settings; import tfctr.cli.data\n"
        f"synthesize(Path({str(tmp_path / 'out')!r}), Settings(rows=400, users=20, items=48))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
