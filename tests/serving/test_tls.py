"""TLS and client certificates, on both ports."""

from __future__ import annotations

import http.client
import re
import socket
import ssl
import tempfile
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from serving.server import Server, ServerError, rest_connections
from serving.server.config import ConfigError
from serving.server.tls import Certificates, context_of
from tests.serving.certificates import Authority, ssl_config
from tests.serving.conftest import NAME, PATIENCE, Caller, eventually, refused, serve
from tests.serving.model import HISTORY

pytestmark = pytest.mark.slow

Code = grpc.StatusCode
USER = {"user_id": np.array([3]), "history": np.arange(HISTORY)[None]}


def _context(authority: Authority, issuer: Authority | None, tmp_path: Path) -> ssl.SSLContext:
    """The context of a client that trusts an authority, with a certificate of its own if there is an issuer."""
    context = ssl.create_default_context(cadata=authority.certificate)
    if issuer:
        file = tmp_path / "client.pem"
        file.write_text("".join(issuer.issue()))
        context.load_cert_chain(file)
    return context


def _status(server: Server, context: ssl.SSLContext) -> int:
    connection = http.client.HTTPSConnection("localhost", server.rest_port or 0, context=context, timeout=20)
    try:
        connection.request("GET", f"/v1/models/{NAME}")
        return connection.getresponse().status
    finally:
        connection.close()


def test_rest_has_the_tls_of_grpc(base_path: Path, tmp_path: Path) -> None:
    authority = Authority()
    config = ssl_config(tmp_path / "ssl.config", *authority.issue())
    with serve(base_path, ssl_config_file=config, host="localhost", rest_port=0) as (server, _):
        assert _status(server, _context(authority, None, tmp_path)) == 200
        with pytest.raises(ssl.SSLCertVerificationError):
            _status(server, _context(Authority(), None, tmp_path))
        plain = http.client.HTTPConnection("localhost", server.rest_port or 0, timeout=20)
        plain.request("GET", f"/v1/models/{NAME}")
        with pytest.raises((http.client.HTTPException, OSError)):
            plain.getresponse()


def test_rest_asks_for_the_client_certificates_of_grpc(base_path: Path, tmp_path: Path) -> None:
    authority = Authority()
    config = ssl_config(tmp_path / "ssl.config", *authority.issue(), authority.certificate)
    with serve(base_path, ssl_config_file=config, host="localhost", rest_port=0) as (server, _):
        assert _status(server, _context(authority, authority, tmp_path)) == 200
        for issuer in (None, Authority()):
            with pytest.raises((ssl.SSLError, http.client.HTTPException, OSError)):
                _status(server, _context(authority, issuer, tmp_path))


def _presented(port: int) -> str:
    """The certificate that a port presents to a new connection."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    with socket.create_connection(("localhost", port), timeout=20) as plain, context.wrap_socket(plain) as secure:
        return ssl.DER_cert_to_PEM_cert(secure.getpeercert(binary_form=True) or b"")


def test_a_new_certificate_is_used_without_a_restart(
    base_path: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    authority = Authority()
    first, second = authority.issue(), authority.issue()
    file = ssl_config(tmp_path / "ssl.config", *first)
    with serve(base_path, ssl_config_file=file, host="localhost", rest_port=0) as (server, _):
        ports = (server.port, server.rest_port or 0)
        assert [_presented(port).split() for port in ports] == [first[1].split()] * 2
        trusting = Caller(server.address, grpc.ssl_channel_credentials(authority.certificate.encode()))
        assert int(trusting.run("user_tower", USER)["model_tag"][0]) == 1
        # What is not valid is told and not used.
        file.write_text("server_key: 'half of a fi")
        eventually(lambda: _presented(server.port) and "stays in use" in caplog.text, "the bad file is told")
        assert [_presented(port).split() for port in ports] == [first[1].split()] * 2
        ssl_config(file, *second)
        for port in ports:
            eventually(lambda port=port: _presented(port).split() == second[1].split(), "the new certificate is used")
        # A connection of before goes on.
        assert int(trusting.run("user_tower", USER)["model_tag"][0]) == 1
        trusting.channel.close()


def test_tls(base_path: Path, tmp_path: Path) -> None:
    authority = Authority()
    config = ssl_config(tmp_path / "ssl.config", *authority.issue())
    with serve(base_path, ssl_config_file=config, host="localhost") as (server, plain):
        trusting = grpc.ssl_channel_credentials(authority.certificate.encode())
        assert int(Caller(server.address, trusting).run("user_tower", USER)["model_tag"][0]) == 1
        assert refused(lambda: plain.run("user_tower", USER))[0] is Code.UNAVAILABLE
        stranger = grpc.ssl_channel_credentials(Authority().certificate.encode())
        turned_away = refused(lambda: Caller(server.address, stranger).run("user_tower", USER))
        assert turned_away[0] is Code.UNAVAILABLE


def test_mutual_tls(base_path: Path, tmp_path: Path) -> None:
    authority = Authority()
    config = ssl_config(tmp_path / "ssl.config", *authority.issue(), authority.certificate)
    root = authority.certificate.encode()

    def credentials(issuer: Authority | None) -> grpc.ChannelCredentials:
        key, certificate = issuer.issue() if issuer else (None, None)
        return grpc.ssl_channel_credentials(root, key and key.encode(), certificate and certificate.encode())

    with serve(base_path, ssl_config_file=config, host="localhost") as (server, _):
        known = Caller(server.address, credentials(authority))
        assert int(known.run("user_tower", USER)["model_tag"][0]) == 1
        for issuer in (None, Authority()):
            caller = Caller(server.address, credentials(issuer))
            assert refused(lambda caller=caller: caller.run("user_tower", USER))[0] is Code.UNAVAILABLE


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("server_key: 'server.key'", "server_key must hold the contents of a PEM file"),
        ("nothing: 1", "is no SSLConfig in text form"),
        (
            "server_key: '-----BEGIN' server_cert: '-----BEGIN' client_verify: true",
            "client_verify needs custom_ca",
        ),
        ("server_key: '-----BEGIN' server_cert: '-----BEGIN'", "key and certificate"),
    ],
)
def test_badssl_config(base_path: Path, tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "ssl.config"
    file.write_text(text)
    with pytest.raises(ServerError, match=message):
        Server(base_path, NAME, ssl_config_file=file).start()


def test_an_error_in_the_file_does_not_tell_the_key(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    key, certificate = Authority().issue()
    file = ssl_config(tmp_path / "ssl.config", key, certificate)
    certificates = Certificates(file)
    text, secret = file.read_text(), key.splitlines()[1][:10]
    file.write_text(text[: text.index(secret) + 60])
    certificates.current()
    assert re.search(r"is no SSLConfig in text form: see line \d+, column \d+", caplog.text)
    assert secret not in caplog.text
    with pytest.raises(ConfigError) as caught:
        Certificates(file)
    assert secret not in str(caught.value)


def test_what_cannot_be_used_leaves_the_certificate_before_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority()
    file = ssl_config(tmp_path / "ssl.config", *authority.issue())
    certificates = Certificates(file)
    first, text = certificates.current(), file.read_text()
    file.write_text(text.replace("custom_ca: ''", "custom_ca: 'é'"), "utf-8")
    for _ in range(3):
        assert certificates.current() is first
    assert len(caplog.records) == 1
    ssl_config(file, *authority.issue())
    with monkeypatch.context() as patched:
        patched.setattr(tempfile, "tempdir", str(tmp_path / "none"))
        assert certificates.current() is first
    assert "a temporary file for the key cannot be written: No such file" in caplog.text
    # It is tried again.
    assert certificates.current() is not first


def test_rest_follows_certificates_also_after_an_error(
    base_path: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority()
    config = ssl_config(tmp_path / "ssl.config", *authority.issue())
    errors: list[Exception] = [OSError("no room"), OSError("no room"), ValueError("odd")]

    def fails(content: Any) -> ssl.SSLContext:
        if errors:
            raise errors.pop(0)
        return context_of(content)

    with serve(base_path, ssl_config_file=config, host="localhost", rest_port=0) as (server, _):
        monkeypatch.setattr(rest_connections, "context_of", fails)
        monkeypatch.setattr(rest_connections, "_FOLLOW_SECONDS", 0.01)
        key, certificate = authority.issue()
        ssl_config(config, key, certificate)
        eventually(lambda: _presented(server.rest_port or 0) == certificate, "the new one is in use", PATIENCE / 10)
    assert [record.message for record in caplog.records if "tries it again" in record.message] == [
        "REST cannot use the new certificate, and tries it again: OSError: no room",
        "REST cannot use the new certificate, and tries it again: ValueError: odd",
    ]
