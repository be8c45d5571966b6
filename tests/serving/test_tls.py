"""TLS and client certificates, on both ports."""

from __future__ import annotations

import http.client
import socket
import ssl
from pathlib import Path

import grpc
import numpy as np
import pytest

from serving.server import Server, ServerError
from tests.serving.certificates import Authority, ssl_config
from tests.serving.conftest import NAME, Caller, eventually, refused, serve
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
