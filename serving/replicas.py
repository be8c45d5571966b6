"""The replicas of a model server that a rollout changes."""

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
_Reply = TypeVar("_Reply")


class Replica:
    """One model server, called through its ModelService.

    Args:
        address: HOST:PORT.
        timeout: How many seconds a version may take to load.
    """

    def __init__(self, address: str, timeout: float) -> None:
        self.address = address
        self._timeout = timeout
        self._stub = model_service_pb2_grpc.ModelServiceStub(grpc.insecure_channel(address))

    def status(self, model: str) -> dict[int, get_model_status_pb2.ModelVersionStatus]:
        """The status of each version of a model.

        Raises:
            UserError: The server does not answer, or does not have the model.
        """
        request = get_model_status_pb2.GetModelStatusRequest()
        request.model_spec.name = model
        try:
            reply = self._stub.GetModelStatus(request, timeout=_STATUS_SECONDS)
        except grpc.RpcError as error:
            raise self._problem(error.details()) from None
        return {status.version: status for status in reply.model_version_status}

    def send(self, config: model_server_config_pb2.ModelServerConfig) -> None:
        """Replaces the configuration of the server.

        Raises:
            UserError: The server does not answer, or rejects the configuration.
        """
        request = model_management_pb2.ReloadConfigRequest(config=config)
        try:
            reply = self._stub.HandleReloadConfigRequest(request, timeout=self._timeout)
        except grpc.RpcError as error:
            raise self._problem(error.details()) from None
        if reply.status.error_code:
            raise self._problem(reply.status.error_message)

    def load(self, config: model_server_config_pb2.ModelServerConfig) -> None:
        """Replaces the configuration of the server and waits until all versions in it are available.

        Raises:
            UserError: The server rejects the configuration, or a version does not load in time.
        """
        self.send(config)
        (model,) = config.model_config_list.config
        missing = set(model.model_version_policy.specific.versions)
        deadline = time.monotonic() + self._timeout
        while missing:
            statuses = self.status(model.name)
            for version in sorted(missing & set(statuses)):
                status = statuses[version]
                # END without an error is from an earlier unload of the version, which is still reported for a moment.
                if status.state == END and status.status.error_code:
                    raise self._problem(f"version {version} did not load: {status.status.error_message}")
            missing -= {version for version, status in statuses.items() if status.state == AVAILABLE}
            if missing and time.monotonic() > deadline:
                numbers = ", ".join(map(str, sorted(missing)))
                raise self._problem(f"not available after {self._timeout:.0f} s: version {numbers}")
            if missing:
                time.sleep(_POLL_SECONDS)

    def _problem(self, what: str) -> UserError:
        return UserError(f"{self.address}: {what}")


def call_all(replicas: Sequence[Replica], call: Callable[[Replica], _Reply]) -> tuple[dict[str, _Reply], list[str]]:
    """Calls all replicas concurrently and waits for all of them.

    Returns:
        The replies by address, and a message with the address for each replica that failed.
    """
    with ThreadPoolExecutor(len(replicas)) as pool:
        futures = {replica.address: pool.submit(call, replica) for replica in replicas}
    replies, problems = {}, []
    for address, future in futures.items():
        try:
            replies[address] = future.result()
        except UserError as error:
            problems.append(str(error))
    return replies, problems


def resolve(addresses: Sequence[str]) -> list[str]:
    """The addresses of the replicas. dns:///HOST:PORT is replaced by all addresses of the host name.

    Raises:
        UserError: An address is malformed, or a host name cannot be resolved.
    """
    found = []
    for address in addresses:
        host, _, port = address.removeprefix(_DNS).rpartition(":")
        if not host or "/" in host or not port.isdecimal():
            raise UserError(
                f"an address must be HOST:PORT, or {_DNS}HOST:PORT for all of a name. Received: {address!r}"
            )
        if not address.startswith(_DNS):
            found.append(address)
            continue
        try:
            # The name of a headless Kubernetes Service has one address for each pod that is ready.
            infos = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)
        except OSError as error:
            raise UserError(f"{address}: {host} has no address ({error.strerror})") from None
        hosts = sorted({str(info[4][0]) for info in infos})
        found += [f"[{one}]:{port}" if ":" in one else f"{one}:{port}" for one in hosts]
    return list(dict.fromkeys(found))
