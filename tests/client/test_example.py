import re
import subprocess
import sys
from pathlib import Path

from tests.client.stub_server import StubServer

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "rank.py"


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, EXAMPLE, *arguments], capture_output=True, text=True, check=False)


def test_the_example_ranks(server: StubServer) -> None:
    ran = run(server.target)
    assert ran.returncode == 0, ran.stderr
    assert re.fullmatch(r"1\. item \d+: 0\.\d{4}\n2\. item \d+: 0\.\d{4}\n", ran.stdout)


def test_the_example_says_what_is_wrong(server: StubServer) -> None:
    ran = run(server.target, "other")
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr.startswith("error: metadata of model 'other' at ")


def test_it_stays_short() -> None:
    assert len(EXAMPLE.read_text().splitlines()) <= 30
