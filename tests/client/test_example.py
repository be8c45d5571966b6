import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.client.stub_server import StubServer
from tests.client.test_client import CANDIDATES, USER
from tfctr.client import RankingClient

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


def test_the_metrics_of_the_page_are_prometheus_text(server: StubServer) -> None:
    page = (ROOT / "docs" / "client.md").read_text()
    names: dict[str, Any] = {}
    exec(re.findall(r"^```python\n(def client_metrics.*?)^```", page, re.DOTALL | re.MULTILINE)[0], names)
    with RankingClient(server.target, timeout_seconds=300) as client:
        for _ in range(2):
            client.rank(USER, CANDIDATES, user_key="u5", history_version=1)
        lines = names["client_metrics"](client).splitlines(keepends=True)
    assert lines[0] == "# TYPE tfctr_client_total counter\n"
    assert all(re.fullmatch(r'tfctr_client_total\{what="[a-z_]+"\} \d+\n', line) for line in lines[1:])
    assert 'tfctr_client_total{what="score"} 2\n' in lines
    assert 'tfctr_client_total{what="cache_hit"} 1\n' in lines
