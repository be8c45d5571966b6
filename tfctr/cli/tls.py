"""The options of commands that may connect over TLS."""

import ssl
from pathlib import Path
from typing import Annotated, Any

import typer

from tfctr.errors import UserError

Tls = Annotated[bool, typer.Option("--tls", help="use TLS, and trust the certificate authorities of this system")]
Ca = Annotated[Path | None, typer.Option(help="use TLS, and trust the certificate authority in this PEM file")]
Certificate = Annotated[Path | None, typer.Option(help="PEM file with the certificate of this client; needs --key")]
Key = Annotated[Path | None, typer.Option(help="PEM file with the private key of --certificate")]


def channel_credentials(tls: bool, ca: Path | None, certificate: Path | None, key: Path | None) -> Any:
    """Channel credentials of gRPC for the options, or None for plain text.

    Raises:
        UserError: A file cannot be read or is none of its kind, or of certificate and key there is only one.
    """
    if (certificate is None) != (key is None):
        raise UserError("--certificate and --key go together.")
    if not tls and ca is None and certificate is None:
        return None
    import grpc

    given = (_content("--ca", ca), _content("--key", key), _content("--certificate", certificate))
    _check_files(ca, certificate, key)
    return grpc.ssl_channel_credentials(*given)


def _check_files(ca: Path | None, certificate: Path | None, key: Path | None) -> None:
    """Checks what gRPC would not refuse: it would fail to connect, as if the server were at fault."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if ca is not None:
        try:
            context.load_verify_locations(ca)
        except ssl.SSLError:
            raise UserError(f"--ca: {ca}: must be a PEM file with certificates (BEGIN CERTIFICATE)") from None
    if certificate is not None:
        try:
            context.load_cert_chain(certificate, key, password=lambda: b"")
        except ssl.SSLError as error:
            raise UserError(
                f"--certificate: {certificate}, --key: {key}: must be a certificate and its private key, without a "
                f"password, each a PEM file ({error.reason or error})"
            ) from None


def _content(option: str, path: Path | None) -> bytes | None:
    try:
        return None if path is None else path.read_bytes()
    except OSError as error:
        raise UserError(f"{option}: {path}: can't be read ({error.strerror})") from None
