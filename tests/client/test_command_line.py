"""The options of `tfctr client` that say what is asked, and of whom."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.client.stub_server import StubServer
from tests.client.test_client import CANDIDATES, CONTEXT, USER
from tests.serving.certificates import Authority
from tfctr.cli import app
from tfctr.errors import UserError

ASKED = ["--model", "ranking", "--timeout", "20", "--json", "--context", json.dumps(CONTEXT)]


def rank(*options: object, user: str = json.dumps(USER), candidates: str = json.dumps(CANDIDATES)) -> str:
    """What `tfctr client rank` prints, or the message of its error."""
    arguments = ["client", "rank", *ASKED, "--user", user, "--candidates", candidates, *map(str, options)]
    ran = CliRunner().invoke(app, arguments)
    assert isinstance(ran.exception, UserError | None), ran.exception
    return ran.stdout if ran.exception is None else str(ran.exception)


def test_a_label(server: StubServer, toy_models: Path) -> None:
    server.load(2, toy_models / "2")
    server.labels = {"stable": 1}
    target = ("--target", server.target)
    assert len(rank(*target, "--label", "stable").splitlines()) == 3
    assert server.versions_asked["score"] == [1]
    assert rank(*target, "--label", "canary").endswith("Available versions: 1, 2.")
    assert "either --version or --label" in rank(*target, "--label", "stable", "--version", 1)


@pytest.mark.parametrize(
    "given", [{"user": '{"user_id": 1, "user_id": 2}'}, {"candidates": '[{"item_id": 1, "user_id": 2, "user_id": 3}]'}]
)
def test_a_name_that_stands_twice_is_refused(server: StubServer, given: dict[str, str]) -> None:
    told = rank("--target", server.target, **given)
    assert "a name may stand only once in an object. Received twice: user_id" in told
    assert not server.calls


def test_files_that_are_no_certificates_are_not_blamed_on_the_server(tmp_path: Path) -> None:
    key, certificate = Authority().issue()
    texts = {"key": key, "certificate": certificate, "other": Authority().issue()[0], "junk": "junk"}
    paths = {name: tmp_path / f"{name}.pem" for name in texts}
    for name, text in texts.items():
        paths[name].write_text(text)
    nowhere = ("--target", "localhost:1")
    assert "--ca: " in rank(*nowhere, "--ca", paths["junk"])
    assert "must be a PEM file with certificates" in rank(*nowhere, "--ca", paths["key"])
    for certificate_file, key_file in (("certificate", "other"), ("junk", "key"), ("certificate", "junk")):
        told = rank(*nowhere, "--certificate", paths[certificate_file], "--key", paths[key_file])
        assert "must be a certificate and its private key" in told
