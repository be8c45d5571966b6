"""The replicas of a model server that a rollout changes."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_management_pb2,
    model_service_pb2_grpc,
    prediction_service_pb2_grpc,
)
from tensorflow_serving.config import model_server_config_pb2

from tfctr.errors import UserError

AVAILABLE = get_model_status_pb2.ModelVersionStatus.AVAILABLE
END = get_model_status_pb2.ModelVersionStatus.END
_DNS = "dns:///"
_STATUS_SECONDS = 10.0
_POLL_SECONDS = 0.2
_Reply = TypeVar("_Reply")


# A server that does not have a label says INVALID_ARGUMENT; NOT_FOUND if the version of the label is not available.
_NO_SUCH_LABEL = (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND)


@dataclass(frozen=True)
class Served:
    """What a server says that it serves of a model.

    Attributes:
        statuses: The status of each version.
        labels: The version that answers each label.
    """

    statuses: dict[int, get_model_status_pb2.ModelVersionStatus]
    labels: dict[str, int]

    @property
    def available(self) -> set[int]:
        """The versions that answer requests."""
        return {version for version, status in self.statuses.items() if status.state == AVAILABLE}


class Replica:
    """One model server.

    Args:
        address: HOST:PORT.
        timeout: How many seconds a version may take to load.
        credentials: gRPC channel credentials (TLS); plain text without.
        name: The host name that its certificate must have.
    """

    def __init__(
        self, address: str, timeout: float, credentials: grpc.ChannelCredentials | None = None, name: str = ""
    ) -> None:
        self.address = address
        self._timeout = timeout
        # The signatures of a version may be longer than gRPC's 4 MiB.
        options: list[tuple[str, Any]] = [("grpc.max_receive_message_length", -1)]
        if credentials is None:
            channel = grpc.insecure_channel(address, options)
        else:
            channel = grpc.secure_channel(address, credentials, [*options, ("grpc.ssl_target_name_override", name)])
        self._stub = model_service_pb2_grpc.ModelServiceStub(channel)
        self._prediction = prediction_service_pb2_grpc.PredictionServiceStub(channel)

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

    def served(self, model: str, labels: Iterable[str]) -> Served:
        """What the server serves of a model, and which version answers each of these labels.

        Raises:
            UserError: The server does not answer, or does not have the model.
        """
        found = {label: self._version_of(model, label) for label in labels}
        return Served(self.status(model), {label: version for label, version in found.items() if version is not None})

    def _version_of(self, model: str, label: str) -> int | None:
        """GetModelStatus does not know labels; the metadata says which version it is of."""
        request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
        request.model_spec.name = model
        request.model_spec.version_label = label
        try:
            reply = self._prediction.GetModelMetadata(request, timeout=_STATUS_SECONDS)
        except grpc.RpcError as error:
            if error.code() in _NO_SUCH_LABEL:
                return None
            raise self._problem(error.details()) from None
        return int(reply.model_spec.version.value)

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


def resolve(addresses: Sequence[str]) -> dict[str, str]:
    """The address of each replica, and the host name that it was given by, which stands in its certificate.

    dns:///HOST:PORT is replaced by all addresses of the host name.

    Raises:
        UserError: An address is malformed, or a host name cannot be resolved.
    """
    found: dict[str, str] = {}
    for address in addresses:
        host, _, port = address.removeprefix(_DNS).rpartition(":")
        if not host or "/" in host or not port.isdecimal():
            raise UserError(
                f"an address must be HOST:PORT, or {_DNS}HOST:PORT for all of a name. Received: {address!r}"
            )
        if not address.startswith(_DNS):
            found.setdefault(address, host.strip("[]"))
            continue
        try:
            # The name of a headless Kubernetes Service has one address for each pod that is ready.
            infos = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)
        except OSError as error:
            raise UserError(f"{address}: {host} has no address ({error.strerror})") from None
        hosts = sorted({str(info[4][0]) for info in infos})
        for one in hosts:
            found.setdefault(f"[{one}]:{port}" if ":" in one else f"{one}:{port}", host)
    return found
