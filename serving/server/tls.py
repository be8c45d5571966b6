"""The keys and certificates of TLS, which are read again when their file changes."""

from __future__ import annotations

import logging
import ssl
import tempfile
import threading
from pathlib import Path
from typing import Any

import grpc

from serving.server.config import ConfigError, read_text_proto
from serving.text_protos import ssl_config

logger = logging.getLogger("serving.server")
_UNFIT = "the key and certificate are invalid or do not match, or custom_ca is invalid"


class Certificates:
    """The content of the file of `--ssl-config-file`: an `SSLConfig` in text format.

    A file that changes to something invalid is logged and not used.

    Args:
        path: The file.

    Raises:
        ConfigError: The file cannot be read, or a key or certificate is missing or does not fit.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._seen = _stamp(path)
        self._config = _read(path)
        self._logged = ""
        self.verifies_clients: bool = self._config.client_verify

    def current(self) -> Any:
        """The newest valid content."""
        with self._lock:
            stamp = _stamp(self._path)
            if stamp != self._seen:
                try:
                    config = _read(self._path)
                    if config.client_verify != self.verifies_clients:
                        raise ConfigError(f"{self._path}: client_verify changes only with a restart")
                    self._seen, self._config, self._logged = stamp, config, ""
                    logger.info("%s: the new certificate is in use", self._path)
                except ConfigError as error:
                    # It is read again each time, because a cause like a full disk does not change the file.
                    if str(error) != self._logged:
                        logger.error("%s. The certificate before it stays in use", error)
                    self._logged = str(error)
            return self._config

    def grpc_credentials(self) -> grpc.ServerCredentials:
        """Credentials that ask for the newest certificate with each connection."""
        return grpc.dynamic_ssl_server_credentials(
            _grpc_configuration(self.current()),
            lambda: _grpc_configuration(self.current()),
            require_client_authentication=self.verifies_clients,
        )


def context_of(config: Any) -> ssl.SSLContext:
    """The context with the keys and certificates of an `SSLConfig`.

    Raises:
        ssl.SSLError: They are invalid or do not match.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:  # which only its owner can read
        file.write(f"{config.server_cert}\n{config.server_key}\n")
        file.flush()
        context.load_cert_chain(file.name, password="")  # an encrypted key is an error, not a question
    if config.custom_ca:
        context.load_verify_locations(cadata=config.custom_ca)
    if config.client_verify:
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _grpc_configuration(config: Any) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration(
        [(config.server_key.encode(), config.server_cert.encode())], config.custom_ca.encode() or None
    )


def _read(path: Path) -> Any:
    config = read_text_proto(path, ssl_config(), secret=True)
    for name in ("server_key", "server_cert"):
        if "-----BEGIN" not in getattr(config, name):
            raise ConfigError(f"{path}: {name} must hold the contents of a PEM file")
    if config.client_verify and not config.custom_ca:
        raise ConfigError(f"{path}: client_verify needs custom_ca, which signs the clients' certificates")
    try:
        context_of(config)
    except ssl.SSLError as error:
        raise ConfigError(f"{path}: {_UNFIT}: {error.reason or error}") from None
    except OSError as error:
        raise ConfigError(f"{path}: a temporary file for the key cannot be written: {error.strerror}") from None
    except (TypeError, ValueError):
        raise ConfigError(f"{path}: {_UNFIT}: PEM is ASCII text") from None
    return config


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_ino, stat.st_size, stat.st_mtime_ns
