"""What a client does when a server is slow, hung or gone: retries, hedges, and the care of its connections."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfctr.client.errors import BadRequestError


def number(name: str, value: Any, positive: bool = True) -> float:
    """A finite number that is positive, or at least 0.

    Raises:
        BadRequestError: it is not; the message begins with the name.
    """
    # A whole number that is too large for a float is no duration either.
    plain = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
    if not plain or not 0 <= value < 1e9 or (positive and value == 0):
        shown = "a number past a billion" if plain and value >= 1e9 else repr(value)
        raise BadRequestError(
            f"{name} must be a {'positive number' if positive else 'number, 0 or more'}. Received: {shown}"
        )
    return float(value)


def whole(name: str, value: Any, least: int) -> int:
    """A whole number that is at least `least`.

    Raises:
        BadRequestError: it is not; the message begins with the name.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise BadRequestError(f"{name} must be a whole number, {least} or more. Received: {value!r}")
    return int(value)


@dataclass(frozen=True)
class Retry:
    """Sends a call that failed with UNAVAILABLE again. All calls only read, so that sending one twice is safe.

    After other errors a call is not sent again: a server that is out of resources or time would only get more work, and
    the rest would occur again.

    Attributes:
        times: how often, at most.
        wait_seconds: mean wait before the first retry. It doubles with each one, and has jitter of a half.

    Raises:
        BadRequestError: a value is not allowed.
    """

    times: int = 1
    wait_seconds: float = 0.02

    def __post_init__(self) -> None:
        whole("times of Retry", self.times, 0)
        number("wait_seconds of Retry", self.wait_seconds, positive=False)


@dataclass(frozen=True)
class Hedge:
    """Sends a second copy of a call that is not answered in time, and takes the first answer.

    This pays with several servers behind the target and a time that few calls exceed, near the 95th percentile.

    Attributes:
        after_seconds: how long the first copy may take.

    Raises:
        BadRequestError: a value is not allowed.
    """

    after_seconds: float

    def __post_init__(self) -> None:
        number("after_seconds of Hedge", self.after_seconds, positive=False)


@dataclass(frozen=True)
class Connection:
    """How the client finds out that a server hangs, and goes round it.

    Calls go to the servers behind the target in turn. Two things take a server out: a connection on which nothing
    arrives is asked for a sign of life (an HTTP/2 ping) and closed without one, which finds a machine or a process that
    is gone or stopped; and a server most of whose calls fail gets none for a while, which finds one that still signals
    but does not answer.

    Attributes:
        ping_after_seconds: how long nothing may arrive while calls wait, before the connection is asked. `None`: as
            long as a request of the client may take, and at least a second; with `health_check`, five minutes. A
            server with the default limits of gRPC allows that.
        ping_timeout_seconds: how long the sign of life may take. `None`: as long as a request may take, and at least a
            second.
        ejection_seconds: how long a server whose calls fail gets none, the first time; later for longer, at most six
            times that. 0 turns this off.
        ejection_share: the share of failed calls in a second, of at least two, that takes a server out.
        health_check: ask the servers' health service (`grpc.health.v1.Health/Watch`) which of them are in order. A
            server without it counts as healthy; gRPC then writes a line to the standard error for each connection.
            TensorFlow Serving's says that all is well whatever its models do, so this is off.

    Raises:
        BadRequestError: a value is not allowed.
    """

    ping_after_seconds: float | None = None
    ping_timeout_seconds: float | None = None
    ejection_seconds: float = 10.0
    ejection_share: float = 0.8
    health_check: bool = False

    def __post_init__(self) -> None:
        if self.ping_after_seconds is not None:
            number("ping_after_seconds of Connection", self.ping_after_seconds)
        if self.ping_timeout_seconds is not None:
            number("ping_timeout_seconds of Connection", self.ping_timeout_seconds)
        number("ejection_seconds of Connection", self.ejection_seconds, positive=False)
        if number("ejection_share of Connection", self.ejection_share) > 1:
            raise BadRequestError(f"ejection_share of Connection must be at most 1. Received: {self.ejection_share!r}")

    def options(self, timeout_seconds: float) -> list[tuple[str, Any]]:
        """The gRPC channel options of a client whose requests may take this long."""
        # A health check is a call that never ends, and without answers a server allows one ping in five minutes.
        after = self.ping_after_seconds or (310.0 if self.health_check else max(1.0, timeout_seconds))
        timeout = _milliseconds(self.ping_timeout_seconds or max(1.0, timeout_seconds))
        config: dict[str, Any] = {"loadBalancingConfig": [self._balancing()]}
        if self.health_check:
            config["healthCheckConfig"] = {"serviceName": ""}
        return [
            ("grpc.service_config", json.dumps(config)),
            ("grpc.keepalive_time_ms", _milliseconds(after)),
            ("grpc.keepalive_timeout_ms", timeout),
            # Newer gRPC gives every ping a minute unless told otherwise, the keepalive's too.
            ("grpc.http2.ping_timeout_ms", timeout),
        ]

    def _balancing(self) -> dict[str, Any]:
        in_turn: dict[str, Any] = {"round_robin": {}}
        if not self.ejection_seconds:
            return in_turn
        return {
            "outlier_detection_experimental": {
                "interval": "1s",
                "baseEjectionTime": f"{self.ejection_seconds:.3f}s",
                "maxEjectionTime": f"{6 * self.ejection_seconds:.3f}s",
                # gRPC takes out one server whatever the share. With more, an overload of all would become worse.
                "maxEjectionPercent": 30,
                "failurePercentageEjection": {
                    "threshold": round(100 * self.ejection_share),
                    "enforcementPercentage": 100,
                    "minimumHosts": 2,
                    "requestVolume": 2,
                },
                "childPolicy": [in_turn],
            }
        }


def _milliseconds(seconds: float) -> int:
    return min(max(1, round(1000 * seconds)), 2**31 - 1)


def merged(*given: Sequence[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """Channel options, of which later ones replace earlier ones of the same name.

    Raises:
        BadRequestError: one of them is not a name with a value.
    """
    found: dict[str, Any] = {}
    for options in given:
        for option in options:
            match option:
                case (str() as name, int() | str() | bytes() as value):
                    found[name] = value
                case _:
                    raise BadRequestError(
                        "options must be pairs of a gRPC channel option and a value (a whole number or text), such as "
                        f"('grpc.max_reconnect_backoff_ms', 500). Received: {option!r}"
                    )
    return list(found.items())
