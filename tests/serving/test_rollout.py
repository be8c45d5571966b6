"""The rollout with gRPC servers that follow TensorFlow Serving's rules for versions and labels."""

from __future__ import annotations

import os
import re
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import grpc
import pytest
from google.protobuf import text_format
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_management_pb2,
    model_service_pb2_grpc,
    prediction_service_pb2_grpc,
)
from tensorflow_serving.config import model_server_config_pb2
from typer.testing import CliRunner

from serving.replicas import AVAILABLE, END, resolve
from serving.rollout import Rollout, app
from tests.serving.certificates import Authority
from tfctr.errors import UserError

START = 'model_config_list { config { name: "m" base_path: "/m" model_version_policy { specific { versions: 1 } } } }'
BROKEN = 9
UNKNOWN = 2


class ModelService(model_service_pb2_grpc.ModelServiceServicer, prediction_service_pb2_grpc.PredictionServiceServicer):
    """All versions load except 9. A label can only name a version that was available before the request."""

    def __init__(self, credentials: grpc.ServerCredentials | None = None) -> None:
        self.loaded = {1}
        self.failed: set[int] = set()
        self.labels: dict[str, int] = {}
        self.reloads = 0
        self.polls_to_load = 0
        self.before_labels: Callable[[dict[str, int]], None] = lambda labels: None
        self._server = grpc.server(ThreadPoolExecutor(2))
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(self, self._server)
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(self, self._server)
        if credentials is None:
            port = self._server.add_insecure_port("127.0.0.1:0")
        else:
            port = self._server.add_secure_port("127.0.0.1:0", credentials)
        self.address = f"127.0.0.1:{port}"
        self._server.start()
        self._waited = 0

    def die(self) -> None:
        self._server.stop(None)

    def GetModelStatus(self, request, context):  # type: ignore[no-untyped-def]  # noqa: N802
        answer = get_model_status_pb2.GetModelStatusResponse()
        self._waited += 1
        for version in sorted(self.loaded | self.failed):
            # Until a version is loaded again, a server can still report the END of its earlier unload.
            available = self.ready and version not in self.failed
            status = answer.model_version_status.add(version=version, state=AVAILABLE if available else END)
            if version in self.failed:
                status.status.error_code, status.status.error_message = UNKNOWN, "bad weights"
        return answer

    def GetModelMetadata(self, request, context):  # type: ignore[no-untyped-def]  # noqa: N802
        label = request.model_spec.version_label
        if label not in self.labels:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"Unrecognized servable version label: {label}")
        if self.labels[label] not in self.loaded:
            context.abort(grpc.StatusCode.NOT_FOUND, "Servable not found for request")
        answer = get_model_metadata_pb2.GetModelMetadataResponse()
        answer.model_spec.version.value = self.labels[label]
        return answer

    def HandleReloadConfigRequest(self, request, context):  # type: ignore[no-untyped-def]  # noqa: N802
        (model,) = request.config.model_config_list.config
        labels = dict(model.version_labels)
        self.reloads += 1
        versions = set(model.model_version_policy.specific.versions)
        try:
            self.before_labels(labels)
        except ValueError as error:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(error))
        available = self.loaded & versions
        self.loaded, self.failed = versions - {BROKEN}, versions & {BROKEN}
        for version in labels.values():
            if version not in available:
                context.abort(grpc.StatusCode.FAILED_PRECONDITION, f"Request to assign label to version {version}")
        self.labels = labels
        return model_management_pb2.ReloadConfigResponse()

    @property
    def ready(self) -> bool:
        return self._waited > self.polls_to_load


@pytest.fixture
def services() -> Iterator[list[ModelService]]:
    services = [ModelService(), ModelService()]
    yield services
    for service in services:
        service.die()


@pytest.fixture
def service(services: list[ModelService]) -> ModelService:
    return services[0]


@pytest.fixture
def address(service: ModelService) -> list[str]:
    return [service.address]


@pytest.fixture
def addresses(services: list[ModelService]) -> list[str]:
    return [service.address for service in services]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "models.config"
    path.write_text(START)
    return path


def written(path: Path) -> tuple[list[int], dict[str, int]]:
    config = text_format.Parse(path.read_text(), model_server_config_pb2.ModelServerConfig())
    (model,) = config.model_config_list.config
    return list(model.model_version_policy.specific.versions), dict(model.version_labels)


def test_canary_promote_drop(config: Path, address: list[str], service: ModelService) -> None:
    Rollout(config, address).canary(2)
    assert written(config) == ([1, 2], {"stable": 1, "canary": 2})
    Rollout(config, address).promote()
    assert written(config) == ([1, 2], {"stable": 2, "canary": 2, "previous": 1})
    assert Rollout(config, address).promote() == ""
    with pytest.raises(UserError, match="live user states"):
        Rollout(config, address).drop(1, grace_seconds=3600)
    assert service.loaded == {1, 2}  # a client with a state of version 1 can still score it
    Rollout(config, address).drop(1, grace_seconds=0)
    assert (service.loaded, service.labels) == ({2}, {"stable": 2, "canary": 2})


def test_rollback_keeps_both_versions(config: Path, address: list[str], service: ModelService) -> None:
    Rollout(config, address).canary(2)
    Rollout(config, address).rollback()
    assert written(config) == ([1, 2], {"stable": 1, "canary": 1})
    assert service.labels == {"stable": 1, "canary": 1}


def test_a_promotion_is_taken_back(config: Path, address: list[str]) -> None:
    Rollout(config, address).canary(2)
    Rollout(config, address).promote()
    Rollout(config, address).rollback()
    assert written(config) == ([1, 2], {"stable": 1, "canary": 1})
    assert Rollout(config, address).rollback() == ""
    Rollout(config, address).drop(2, grace_seconds=0)
    assert written(config) == ([1], {"stable": 1, "canary": 1})


def test_a_labelled_version_is_not_dropped(config: Path, address: list[str]) -> None:
    Rollout(config, address).canary(2)
    with pytest.raises(UserError, match="labelled canary"):
        Rollout(config, address).drop(2, grace_seconds=0)


def test_a_version_that_does_not_load_changes_nothing(config: Path, address: list[str], service: ModelService) -> None:
    with pytest.raises(UserError, match="version 9 did not load: bad weights; the previous configuration is back"):
        Rollout(config, address).canary(BROKEN)
    assert config.read_text() == START
    assert service.loaded == {1}


def test_a_second_run_and_a_dry_run_send_nothing(config: Path, address: list[str], service: ModelService) -> None:
    assert "canary=2" in Rollout(config, address, dry_run=True).canary(2)
    assert (config.read_text(), service.reloads) == (START, 0)
    Rollout(config, address).canary(2)
    reloads = service.reloads
    assert Rollout(config, address).canary(2) == ""
    assert service.reloads == reloads


def test_every_replica_has_a_version_before_a_label_leads_to_it(
    config: Path, addresses: list[str], services: list[ModelService]
) -> None:
    fast, slow = services
    slow.polls_to_load = 3
    seen = []

    def before_labels(labels: dict[str, int]) -> None:
        if 2 in labels.values():
            seen.append(slow.ready and 2 in slow.loaded)

    fast.before_labels = before_labels
    Rollout(config, addresses).canary(2)
    assert seen == [True]
    assert fast.labels == slow.labels == {"stable": 1, "canary": 2}
    assert written(config) == ([1, 2], {"stable": 1, "canary": 2})


def test_a_replica_that_refuses_takes_all_back(
    config: Path, addresses: list[str], services: list[ModelService]
) -> None:
    Rollout(config, addresses).canary(2)
    before = config.read_text()

    def refuse(labels: dict[str, int]) -> None:
        if labels.get("stable") == 2:
            raise ValueError("no")

    services[1].before_labels = refuse
    with pytest.raises(UserError, match=f"^{addresses[1]}: no; the previous configuration is back$"):
        Rollout(config, addresses).promote()
    assert config.read_text() == before
    assert [service.labels for service in services] == [{"stable": 1, "canary": 2}] * 2


def test_a_replica_that_dies_at_the_labels_is_named_and_the_other_is_taken_back(
    config: Path, addresses: list[str], services: list[ModelService]
) -> None:
    def die(labels: dict[str, int]) -> None:
        if "canary" in labels:
            services[1].die()

    services[1].before_labels = die
    with pytest.raises(UserError) as error:
        Rollout(config, addresses).canary(2)
    why, _, rest = str(error.value).partition("; the previous configuration is not back on ")
    assert why.startswith(addresses[1])
    assert rest.startswith(addresses[1])
    assert addresses[0] not in str(error.value)
    assert config.read_text() == START
    assert (services[0].loaded, services[0].labels) == ({1}, {})


def test_a_version_dropped_on_one_replica_comes_back_with_its_label(
    config: Path, addresses: list[str], services: list[ModelService]
) -> None:
    Rollout(config, addresses).canary(2)
    Rollout(config, addresses).promote()
    old = services[0].labels

    def refuse_once(labels: dict[str, int]) -> None:
        services[1].before_labels = lambda labels: None
        raise ValueError("no")

    services[1].before_labels = refuse_once
    with pytest.raises(UserError, match=r"no; the previous configuration is back$"):
        Rollout(config, addresses).drop(1, grace_seconds=0)
    assert [(service.loaded, service.labels) for service in services] == [({1, 2}, old)] * 2


def test_a_file_that_cannot_be_written_takes_all_back(config: Path, address: list[str], service: ModelService) -> None:
    (config.parent / f".models.config.{os.getpid()}.partial").mkdir()
    with pytest.raises(UserError, match=r"models.config cannot be written: .*; the previous configuration is back"):
        Rollout(config, address).canary(2)
    assert (config.read_text(), service.labels) == (START, {})


def test_each_version_has_its_own_clock(config: Path, address: list[str], service: ModelService) -> None:
    now = 0.0

    def step() -> Rollout:
        return Rollout(config, address, clock=lambda: now)

    step().canary(2)
    now = 1000.0
    step().promote()  # retires 1
    assert "# version 1 retired since 1970-01-01T00:16:40+00:00\n" in config.read_text()
    now = 4000.0
    step().canary(3)
    step().rollback()  # retires 3, and does not change the time of 1
    with pytest.raises(UserError, match="for 600 s more"):
        step().drop(1, grace_seconds=3600)
    now = 4600.0
    step().drop(1, grace_seconds=3600)
    with pytest.raises(UserError, match="version 3 may have live user states for 3000 s more"):
        step().drop(3, grace_seconds=3600)
    now = 7600.0
    step().drop(3, grace_seconds=3600)
    assert service.loaded == {2}
    assert "retired" not in config.read_text()


def test_a_label_that_comes_back_starts_the_clock_again(config: Path, address: list[str]) -> None:
    now = 0.0

    def step() -> Rollout:
        return Rollout(config, address, clock=lambda: now)

    step().canary(2)
    step().promote()
    step().rollback()
    assert "# version 2 retired since 1970-01-01T00:00:00+00:00\n" in config.read_text()
    step().pin(2)
    now = 5000.0
    step().pin(1)
    with pytest.raises(UserError, match="for 3600 s more"):
        step().drop(2, grace_seconds=3600)


def test_a_file_by_hand_is_as_old_as_it_is(config: Path, address: list[str], service: ModelService) -> None:
    parsed = text_format.Parse(START, model_server_config_pb2.ModelServerConfig())
    (model,) = parsed.model_config_list.config
    model.model_version_policy.specific.versions.append(2)
    model.version_labels["stable"] = 2
    config.write_text(text_format.MessageToString(parsed))
    os.utime(config, (1000, 1000))
    service.loaded = {1, 2}
    with pytest.raises(UserError, match="for 100 s more"):
        Rollout(config, address, clock=lambda: 1500.0).drop(1, grace_seconds=600)
    Rollout(config, address, clock=lambda: 1600.0).drop(1, grace_seconds=600)
    assert service.loaded == {2}


def test_nothing_is_dropped_from_a_file_that_follows_the_directory(config: Path, address: list[str]) -> None:
    config.write_text(START.replace("specific { versions: 1 }", "latest { num_versions: 2 }"))
    with pytest.raises(UserError, match="names no versions"):
        Rollout(config, address).drop(1, grace_seconds=0)


def test_a_note_that_is_no_time_is_told(config: Path, address: list[str]) -> None:
    config.write_text(f"# version 1 retired since yesterday\n{START}")
    with pytest.raises(UserError, match=f"{re.escape(str(config))}: .*yesterday"):
        Rollout(config, address)


def test_a_name_stands_for_its_addresses() -> None:
    assert resolve(["127.0.0.1:1", "127.0.0.1:1", "[::1]:2"]) == {"127.0.0.1:1": "127.0.0.1", "[::1]:2": "::1"}
    assert resolve(["dns:///localhost:8500"])["127.0.0.1:8500"] == "localhost"  # which stands in the certificate
    with pytest.raises(UserError, match=r"nobody.invalid has no address"):
        resolve(["dns:///nobody.invalid:8500"])
    for wrong in ("localhost", ":8500", "localhost:http", "http://localhost:8500", ""):
        with pytest.raises(UserError, match="must be HOST:PORT"):
            resolve([wrong])


def test_the_command_line(config: Path, addresses: list[str], services: list[ModelService]) -> None:
    options = ["--config", str(config), *(f"--address={address}" for address in addresses)]
    assert CliRunner().invoke(app, ["canary", "2", *options]).exit_code == 0
    status = [f"{address} {rest}" for address in addresses for rest in ("1 AVAILABLE stable", "2 AVAILABLE canary")]
    assert CliRunner().invoke(app, ["status", *options]).output.splitlines() == status
    services[1].die()
    result = CliRunner().invoke(app, ["status", *options])
    assert result.exit_code == 2
    assert result.output.splitlines()[:2] == status[:2]
    assert f"error: {addresses[1]}: " in result.output
    result = CliRunner().invoke(app, ["fly", *options])
    assert (result.exit_code, "Allowed: status" in result.output) == (2, True)


def test_status_is_what_each_replica_says(config: Path, addresses: list[str], services: list[ModelService]) -> None:
    Rollout(config, addresses).canary(2)
    Rollout(config, addresses).promote()
    services[1].loaded, services[1].labels = {1}, {"stable": 1}  # it started again, from an older file
    options = ["--config", str(config), *(f"--address={address}" for address in addresses)]
    result = CliRunner().invoke(app, ["status", *options])
    assert result.exit_code == 2
    first, second = addresses
    assert result.output.splitlines() == [
        f"{first} 1 AVAILABLE previous",
        f"{first} 2 AVAILABLE canary stable",
        f"{second} 1 AVAILABLE stable",
        f"error: {second}: canary is version none, not 2, previous is version none, not 1, stable is version 1, not 2, "
        "version 2 is not available; `pin 2` gives all what the file says",
    ]


def test_a_pin_brings_a_replica_to_what_the_file_says(
    config: Path, addresses: list[str], services: list[ModelService]
) -> None:
    Rollout(config, addresses).canary(2)
    Rollout(config, addresses).promote()
    services[1].loaded, services[1].labels = {1}, {"stable": 1}
    seen: list[dict[str, int]] = []
    services[1].before_labels = lambda labels: seen.append(dict(labels))
    change = Rollout(config, addresses).pin(2)
    assert change.startswith(f"{addresses[1]}: canary is version none, not 2, ")
    # It keeps its own label until it has the version.
    assert seen == [{"stable": 1}, {"stable": 2, "canary": 2, "previous": 1}]
    assert services[0].labels == services[1].labels == {"stable": 2, "canary": 2, "previous": 1}
    assert Rollout(config, addresses).pin(2) == ""


def test_only_one_step_changes_a_file(config: Path, addresses: list[str], services: list[ModelService]) -> None:
    Rollout(config, addresses).canary(2)
    waiting, go = threading.Event(), threading.Event()

    def wait(labels: dict[str, int]) -> None:
        services[0].before_labels = lambda labels: None
        waiting.set()
        assert go.wait(300)

    services[0].before_labels = wait
    with ThreadPoolExecutor(1) as pool:
        promotion = pool.submit(Rollout(config, addresses).promote)
        assert waiting.wait(300)
        try:
            with pytest.raises(UserError, match=f"^{re.escape(str(config))}: another rollout is changing it"):
                Rollout(config, addresses).rollback()
            assert "canary=1" in Rollout(config, addresses, dry_run=True).rollback()
        finally:
            go.set()
        assert "stable=2" in promotion.result()
    labels = {"stable": 2, "canary": 2, "previous": 1}
    assert written(config) == ([1, 2], labels)
    assert [service.labels for service in services] == [labels] * 2
    assert not list(config.parent.glob(".*"))


def test_a_step_starts_from_what_the_last_one_left(config: Path, addresses: list[str]) -> None:
    first, second = Rollout(config, addresses), Rollout(config, addresses)
    first.canary(2)
    assert "stable=2" in second.promote()


@pytest.mark.parametrize("mutual", [False, True])
def test_tls(config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mutual: bool) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", partial(socket.getaddrinfo, family=socket.AF_INET))  # as it listens
    authority = Authority()
    files = {"ca": tmp_path / "ca.pem", "key": tmp_path / "key.pem", "certificate": tmp_path / "certificate.pem"}
    for file, text in zip(files.values(), (authority.certificate, *authority.issue()), strict=True):
        file.write_text(text)
    key, certificate = (text.encode() for text in authority.issue())
    root = authority.certificate.encode()
    service = ModelService(grpc.ssl_server_credentials([(key, certificate)], root, mutual))
    # The name of the service is that of the certificate, and what it stands for is addresses.
    options = ["--config", str(config), f"--address=dns:///localhost:{service.address.rpartition(':')[2]}"]
    own = ["--key", str(files["key"]), "--certificate", str(files["certificate"])] if mutual else []
    try:
        result = CliRunner().invoke(app, ["canary", "2", *options, "--ca", str(files["ca"]), *own])
        assert result.exit_code == 0, result.output
        assert service.labels == {"stable": 1, "canary": 2}
        refused = [options] + ([[*options, "--ca", str(files["ca"])]] if mutual else [])
        for arguments in refused:
            assert CliRunner().invoke(app, ["promote", *arguments]).exit_code == 2
        assert service.labels == {"stable": 1, "canary": 2}
    finally:
        service.die()


def test_a_file_that_is_no_certificate_is_not_blamed_on_the_server(tmp_path: Path) -> None:
    path = tmp_path / "models.config"
    path.write_text('model_config_list { config { name: "ranking" base_path: "/models/ranking" } }')
    (tmp_path / "ca.pem").write_text("junk")
    command = ["status", "--config", str(path), "--address", "127.0.0.1:1", "--ca", str(tmp_path / "ca.pem")]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 2
    assert "must be a PEM file with certificates" in " ".join(result.output.split())
