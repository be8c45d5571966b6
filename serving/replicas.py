"""The servers of a rollout: one asked by itself, or all at once."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import grpc
from tensorflow_serving.apis import get_model_status_pb2, model_management_pb2, model_service_pb2_grpc
from tensorflow_serving.config import model_server_config_pb2

from tfctr.errors import UserError

AVAILABLE = get_model_status_pb2.ModelVersionStatus.AVAILABLE
END = get_model_status_pb2.ModelVersionStatus.END
_DNS = "dns:///"
_STATUS_SECONDS = 10.0
_POLL_SECONDS = 0.2
_Answer = TypeVar("_Answer")


class Replica:
    """One server, asked through its ModelService.

    Args:
        address: HOST:PORT.
        timeout: Seconds that a version may take to load.
    """

    def __init__(self, address: str, timeout: float) -> None:
        self.address = address
        self._timeout = timeout
        self._stub = model_service_pb2_grpc.ModelServiceStub(grpc.insecure_channel(address))

    def status(self, model: str) -> dict[int, get_model_status_pb2.ModelVersionStatus]:
        """What the server says of each version of a model.

        Raises:
            UserError: It does not answer, or does not know the model.
        """
        request = get_model_status_pb2.GetModelStatusRequest()
        request.model_spec.name = model
        try:
            answer = self._stub.GetModelStatus(request, timeout=_STATUS_SECONDS)
        except grpc.RpcError as error:
            raise self._problem(error.details()) from None
        return {status.version: status for status in answer.model_version_status}

    def send(self, config: model_server_config_pb2.ModelServerConfig) -> None:
        """Replaces the server's configuration.

        Raises:
            UserError: It does not answer, or refuses.
        """
        request = model_management_pb2.ReloadConfigRequest(config=config)
        try:
            answer = self._stub.HandleReloadConfigRequest(request, timeout=self._timeout)
        except grpc.RpcError as error:
            raise self._problem(error.details()) from None
        if answer.status.error_code:
            raise self._problem(answer.status.error_message)

    def load(self, config: model_server_config_pb2.ModelServerConfig) -> None:
        """Replaces the server's configuration and waits until the versions that it names are available.

        Raises:
            UserError: It refuses, or one of them does not load in time.
        """
        self.send(config)
        (model,) = config.model_config_list.config
        missing = set(model.model_version_policy.specific.versions)
        deadline = time.monotonic() + self._timeout
        while missing:
            statuses = self.status(model.name)
            for version in sorted(missing & set(statuses)):
                status = statuses[version]
                # Without an error it is the end of a former life, which the server still tells for a moment.
                if status.state == END and status.status.error_code:
                    raise self._problem(f"version {version} did not load: {status.status.error_message}")
            missing -= {version for version, status in statuses.items() if status.state == AVAILABLE}
            if missing and time.monotonic() > deadline:
                numbers = ", ".join(map(str, sorted(missing)))
                raise self._problem(f"not available after {self._timeout:.0f} s: version {numbers}")
            if missing:
                time.sleep(_POLL_SECONDS)

    def _problem(self, why: str) -> UserError:
        return UserError(f"{self.address}: {why}")


def ask_all(
    replicas: Sequence[Replica], question: Callable[[Replica], _Answer]
) -> tuple[dict[str, _Answer], list[str]]:
    """Asks all replicas at once and waits for every one.

    Returns:
        The answers by address, and what went wrong, each problem with its address.
    """
    with ThreadPoolExecutor(len(replicas)) as pool:
        futures = {replica.address: pool.submit(question, replica) for replica in replicas}
    answers, problems = {}, []
    for address, future in futures.items():
        try:
            answers[address] = future.result()
        except UserError as error:
            problems.append(str(error))
    return answers, problems


def resolve(addresses: Sequence[str]) -> list[str]:
    """The replicas' addresses; dns:///HOST:PORT stands for every address that the name has now.

    Raises:
        UserError: One is no address, or a name that nobody knows.
    """
    found = []
    for address in addresses:
        host, _, port = address.removeprefix(_DNS).rpartition(":")
        if not host or "/" in host or not port.isdecimal():
            raise UserError(f"`{address}` must be HOST:PORT, or {_DNS}HOST:PORT for every address of a name")
        if not address.startswith(_DNS):
            found.append(address)
            continue
        try:
            # Of a headless Service the name has one address for each pod that is ready.
            infos = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)
        except OSError as error:
            raise UserError(f"`{address}`: {host} has no address ({error.strerror})") from None
        hosts = sorted({str(info[4][0]) for info in infos})
        found += [f"[{one}]:{port}" if ":" in one else f"{one}:{port}" for one in hosts]
    return list(dict.fromkeys(found))
