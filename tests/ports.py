"""Ports on which nothing listens."""

from __future__ import annotations

import socket


def free_ports(count: int) -> list[int]:
    """Different ports, which were free a moment ago."""
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("localhost", 0))
    ports = [int(one.getsockname()[1]) for one in sockets]
    for one in sockets:
        one.close()
    return ports


def free_port() -> int:
    return free_ports(1)[0]
