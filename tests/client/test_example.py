import re
import subprocess
import sys
from pathlib import Path

from prometheus_client import CollectorRegistry, generate_latest

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


def test_the_metrics_of_the_page_are_what_a_client_gives(server: StubServer) -> None:
    page = (ROOT / "docs" / "client.md").read_text()
    code = re.findall(r"^```python\n(import prometheus_client.*?)^```", page, re.DOTALL | re.MULTILINE)[0]
    told = set(re.findall(r"^\| `(tfctr_client_\w+)`", page, re.MULTILINE))
    registry = CollectorRegistry()
    with RankingClient(server.target, timeout_seconds=300) as client:
        exec(code.replace("prometheus_client.REGISTRY", "registry"), {"client": client, "registry": registry})
        client.rank(USER, CANDIDATES, user_key="u5", history_version=1)
        text = generate_latest(registry).decode()
    given = set(re.findall(r"^# TYPE (tfctr_client\w*?)(?:_created)? ", text, re.MULTILINE))
    assert told == given
