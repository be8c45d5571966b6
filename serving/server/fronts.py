"""The two ports of the server."""

from __future__ import annotations

import resource
import socket
from concurrent import futures

import grpc

from serving.server.admission import Admission
from serving.server.loop import call
from serving.server.rest import RestServer
from serving.server.rest_connections import MAX_CONNECTIONS
from serving.server.services import Services
from serving.server.tls import Certificates

MAX_REPLY_BYTES = 2**31 - 1
_CANCEL_SECONDS = 1.0
_IDLE_MINUTES = 5.0
_OTHER_FILES = 128
_FEWEST_CONNECTIONS = 16
_IN_USE = "the port is in use or not allowed; choose another one, or 0 for any free port"


class PortError(Exception):
    """A port cannot be opened."""


def listen(host: str, port: int) -> socket.socket:
    """A listening TCP socket for the REST API.

    Raises:
        PortError: The port is taken, or the address is not one of this machine.
    """
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(address[:2], family=family)
    except OSError as error:
        raise PortError(f"cannot listen on {host}:{port}: {error.strerror}") from None


def _most_connections() -> int:
    """How many gRPC connections leave enough file descriptors for REST and the files of models."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files == resource.RLIM_INFINITY:
        return 2**31 - 1
    return max(_FEWEST_CONNECTIONS, min(files, 2**31 - 1) - MAX_CONNECTIONS - _OTHER_FILES)


class Fronts:
    """The gRPC server and, if wanted, the REST server.

    Args:
        services: Answers gRPC calls.
        rest: Answers HTTP requests.
        admission: Decides which requests are received and run.
        certificates: For TLS, if given.
    """

    def __init__(
        self, services: Services, rest: RestServer | None, admission: Admission, certificates: Certificates | None
    ) -> None:
        limits = admission.limits
        options = [
            # With SO_REUSEPORT, two servers could use the same port.
            ("grpc.so_reuseport", 0),
            ("grpc.max_receive_message_length", limits.max_message_bytes),
            ("grpc.max_send_message_length", MAX_REPLY_BYTES),
            # For connections that do not say anything.
            ("grpc.server_handshake_timeout_ms", int(1000 * limits.receive_seconds)),
            # Those that are open and ask nothing keep a file descriptor. A client connects again when it asks.
            ("grpc.max_connection_idle_ms", int(60_000 * _IDLE_MINUTES)),
            ("grpc.max_allowed_incoming_connections", _most_connections()),
        ]
        # Threads are cheap, and those of incomplete or waiting calls only wait. `Admission` says how many may run.
        pool = futures.ThreadPoolExecutor(admission.most_calls, thread_name_prefix="call")
        self._grpc = grpc.server(pool, services.handlers(), options=options)
        self._rest = rest
        self._admission = admission
        self._certificates = certificates

    def open(self, host: str, port: int) -> int:
        """Opens the gRPC port, whose calls wait until `start`. Returns its number.

        Raises:
            PortError: The port is in use.
        """
        address = f"{host}:{port}"
        try:
            if self._certificates is None:
                opened: int = self._grpc.add_insecure_port(address)
            else:
                opened = self._grpc.add_secure_port(address, self._certificates.grpc_credentials())
        except RuntimeError:
            raise PortError(f"cannot listen on {address}: {_IN_USE}") from None
        return opened

    def start(self) -> None:
        """Begins to answer requests."""
        self._admission.start()
        self._grpc.start()
        if self._rest is not None:
            call(self._rest.start())

    def stop(self, grace_seconds: float) -> None:
        """Refuses new requests, lets those in progress finish, and drops what is then left.

        Args:
            grace_seconds: How long requests in progress may take.
        """
        self._admission.drain()
        stopped = self._grpc.stop(grace_seconds)
        if self._rest is not None:
            call(self._rest.stop(grace_seconds))
        stopped.wait(grace_seconds)
        self._admission.stop()
        # Calls that ran out of time are cancelled; their threads may still be computing, and are not waited for.
        stopped.wait(_CANCEL_SECONDS)
