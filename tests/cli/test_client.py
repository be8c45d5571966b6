"""`tfctr client` with a server in this process."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
from typer.testing import CliRunner

from serving.server import Server
from tests.cli.conftest import Ran
from tests.client.stub_server import StubServer
from tests.client.test_client import CANDIDATES, CONTEXT, EXPECTED, USER
from tests.client.toy_model import export_toy_model
from tests.serving.certificates import Authority, ssl_config
from tfctr import console
from tfctr.cli import app, client

Call = Callable[..., Ran]


@pytest.fixture(scope="module")
def server_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("toy")
    export_toy_model(directory / "1")
    return directory


@pytest.fixture(scope="module")
def server(server_directory: Path) -> Iterator[StubServer]:
    with StubServer() as stub:
        stub.load(1, server_directory / "1")
        yield stub


@pytest.fixture
def asked(server: StubServer, tmp_path: Path) -> list[str]:
    """The options of a request whose user and candidates are in files."""
    user, candidates = tmp_path / "user.json", tmp_path / "candidates.jsonl"
    user.write_text(json.dumps(USER))
    candidates.write_text("\n".join(map(json.dumps, CANDIDATES)) + "\n\n")
    found = ["--target", server.target, "--model", "ranking", "--user", str(user), "--candidates", str(candidates)]
    return [*found, "--context", json.dumps(CONTEXT), "--timeout", "20"]


def test_rank_prints_json_lines(tfctr: Call, asked: list[str]) -> None:
    lines = [json.loads(line) for line in tfctr("client", "rank", *asked, "--json").output.splitlines()]
    assert [line["index"] for line in lines] == [2, 0, 1]
    assert [line["probability"] for line in lines] == pytest.approx(EXPECTED[[2, 0, 1]], rel=1e-6)
    assert lines[0]["candidate"] == CANDIDATES[2]


def test_rank_prints_a_table_of_the_best(tfctr: Call, asked: list[str]) -> None:
    printed = tfctr("client", "rank", *asked, "-k", 2).output
    assert "Action|War" in printed
    assert f"{EXPECTED[2]:.6f}" in printed
    assert f"{EXPECTED[1]:.6f}" not in printed


def test_features_beyond_the_room_of_a_terminal_are_told(
    tfctr: Call, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "more features" not in tfctr("client", "rank", *asked).output
    monkeypatch.setattr(client, "_SHOWN_FEATURES", 1)
    printed = tfctr("client", "rank", *asked).output
    assert "Action|War" not in printed
    assert re.search(r"^[1-9] more features of the candidates: --json shows them$", printed, re.MULTILINE)


def test_a_probability_can_be_read_however_little_room_there_is(
    tfctr: Call, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "_PLAIN_WIDTH", 44)
    printed = tfctr("client", "rank", *asked, "-k", 1).output
    assert "probability" in printed
    assert f"{EXPECTED[2]:.6f}" in printed


def test_candidates_as_columns_and_the_user_from_standard_input(server: StubServer, tmp_path: Path) -> None:
    columns = tmp_path / "candidates.json"
    columns.write_text(json.dumps({"item_id": [1, 2], "genres": [["a", "b"], None]}))
    options = ["--target", server.target, "--model", "ranking", "--timeout", "20", "--json"]
    ran = CliRunner().invoke(
        app, ["client", "rank", *options, "--user", "-", "--candidates", str(columns)], input=json.dumps(USER)
    )
    assert ran.exit_code == 0, ran.output
    assert len(ran.stdout.splitlines()) == 2
    assert server.requests["user_tower"].inputs["user_id"].tensor_content == (5).to_bytes(8, "little")


def test_status(tfctr: Call, server: StubServer) -> None:
    target = ("--target", server.target, "--model", "ranking", "--timeout", 20)
    assert "AVAILABLE" in tfctr("client", "status", *target).output
    found = [json.loads(line) for line in tfctr("client", "status", *target, "--json").output.splitlines()]
    assert found == [{"version": 1, "state": "AVAILABLE", "error_code": 0, "error_message": ""}]


def test_status_waits_for_a_server_that_starts(tfctr: Call, server: StubServer) -> None:
    server.script["status"] = [grpc.StatusCode.NOT_FOUND] * 2
    target = ("--target", server.target, "--model", "ranking", "--timeout", 20)

    assert "AVAILABLE" in tfctr("client", "status", *target, "--wait", 60).output
    assert server.script["status"] == []


def test_status_waits_no_longer_than_it_may(tfctr: Call) -> None:
    error = tfctr("client", "status", "--target", "localhost:1", "--timeout", 2, "--wait", 0.3).error
    assert error is not None
    assert "at localhost:1" in error


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (["--target", "localhost:1", "--timeout", "2"], "at localhost:1: UNAVAILABLE"),
        (["--model", "other"], "model 'other' at"),
        (["--user", "nowhere.json"], "--user: nowhere.json: can't be read (No such file or directory)"),
        (["--user", "{'user_id': 1}"], "--user: not JSON"),
        (["--user", "[1]"], "user must be a mapping of features"),
        (["--candidates", '{"item_id": 1}'], "candidates.item_id must be a list"),
        (["--user", "-", "--candidates", "-"], "only one of"),
        (["--timeout", "-1"], "timeout_seconds must be a positive number"),
        (["--features", "nowhere.yaml"], "nowhere.yaml: can't be read"),
        (["--version", "7"], "version 7"),
    ],
)
def test_what_is_wrong_is_told(tfctr: Call, asked: list[str], changed: list[str], message: str) -> None:
    ran = tfctr("client", "rank", *asked, *changed)
    assert ran.error is not None
    assert message in ran.error
    assert "\n" not in ran.error


def test_the_line_of_a_bad_candidate_is_named(tfctr: Call, asked: list[str], tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text('{"item_id": 1}\n{"item_id": }\n')
    assert f"{path}, line 2: not JSON" in str(tfctr("client", "rank", *asked, "--candidates", path).error)


def test_mutual_tls(tfctr: Call, server_directory: Path, asked: list[str], tmp_path: Path) -> None:
    authority = Authority()
    files = {"ca": tmp_path / "ca.pem", "key": tmp_path / "key.pem", "certificate": tmp_path / "certificate.pem"}
    for file, text in zip(files.values(), (authority.certificate, *authority.issue()), strict=True):
        file.write_text(text)
    config = ssl_config(tmp_path / "ssl.config", *authority.issue(), authority.certificate)
    with Server(server_directory, "ranking", host="localhost", ssl_config_file=config) as secure:
        asked[asked.index("--target") + 1] = secure.address
        options = [part for name, file in files.items() for part in (f"--{name}", file)]
        assert json.loads(tfctr("client", "rank", *asked, *options, "--json").output.splitlines()[0])["index"] == 2
        without = tfctr("client", "rank", *asked, "--ca", files["ca"], "--timeout", 3)
        assert "Check that the server runs" in str(without.error)
    half = tfctr("client", "rank", *asked, "--key", files["key"])
    assert half.error == "--certificate and --key go together."


def test_nothing_is_available(tfctr: Call, server: StubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "state", "LOADING")
    ran = tfctr("client", "status", "--target", server.target, "--model", "ranking", "--timeout", 20)
    assert "LOADING" in ran.output
    assert ran.error == f"no version of model 'ranking' at {server.target} is available."


@pytest.mark.slow
def test_the_process_needs_no_tensorflow(asked: list[str]) -> None:
    script = (
        "import sys\n"
        "for name in ('tensorflow', 'keras', 'pandas', 'tfx'):\n    sys.modules[name] = None\n"
        "from tfctr.cli import main\n"
        "main()\n"
    )
    command = [sys.executable, "-c", script, "client", "rank", *asked, "--json"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert json.loads(ran.stdout.splitlines()[0])["index"] == 2
    ran = subprocess.run([*command, "--model", "other"], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.startswith("error: ")
    assert ran.stderr.count("\n") == 1
