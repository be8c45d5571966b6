"""The rollout against a real gRPC server that keeps TensorFlow Serving's rules for versions and labels."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from google.protobuf import text_format
from tensorflow_serving.apis import get_model_status_pb2, model_management_pb2, model_service_pb2_grpc
from tensorflow_serving.config import model_server_config_pb2
from typer.testing import CliRunner

from serving.rollout import AVAILABLE, END, Rollout, app
from tfctr.errors import UserError

START = 'model_config_list { config { name: "m" base_path: "/m" model_version_policy { specific { versions: 1 } } } }'
BROKEN = 9


class ModelService(model_service_pb2_grpc.ModelServiceServicer):
    """Versions 1 to 3 load, 9 does not; labels go to available versions only."""

    def __init__(self) -> None:
        self.loaded = {1}
        self.failed: set[int] = set()
        self.labels: dict[str, int] = {}
        self.reloads = 0

    def GetModelStatus(self, request, context):  # type: ignore[no-untyped-def]  # noqa: N802
        answer = get_model_status_pb2.GetModelStatusResponse()
        for version in sorted(self.loaded | self.failed):
            status = answer.model_version_status.add(
                version=version, state=END if version in self.failed else AVAILABLE
            )
            status.status.error_message = "bad weights" if version in self.failed else ""
        return answer

    def HandleReloadConfigRequest(self, request, context):  # type: ignore[no-untyped-def]  # noqa: N802
        (model,) = request.config.model_config_list.config
        self.reloads += 1
        versions = set(model.model_version_policy.specific.versions)
        self.loaded, self.failed = versions - {BROKEN}, versions & {BROKEN}
        for version in model.version_labels.values():
            if version not in self.loaded:
                context.abort(grpc.StatusCode.FAILED_PRECONDITION, f"Request to assign label to version {version}")
        self.labels = dict(model.version_labels)
        return model_management_pb2.ReloadConfigResponse()


@pytest.fixture
def service() -> ModelService:
    return ModelService()


@pytest.fixture
def address(service: ModelService) -> Iterator[str]:
    server = grpc.server(ThreadPoolExecutor(2))
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None).wait()


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "models.config"
    path.write_text(START)
    return path


def written(path: Path) -> tuple[list[int], dict[str, int]]:
    config = text_format.Parse(path.read_text(), model_server_config_pb2.ModelServerConfig())
    (model,) = config.model_config_list.config
    return list(model.model_version_policy.specific.versions), dict(model.version_labels)


def test_canary_promote_drop(config: Path, address: str, service: ModelService) -> None:
    Rollout(config, address).canary(2)
    assert written(config) == ([1, 2], {"stable": 1, "canary": 2})
    Rollout(config, address).promote()
    assert written(config) == ([1, 2], {"stable": 2, "canary": 2, "previous": 1})
    assert Rollout(config, address).promote() == ""
    with pytest.raises(UserError, match="live user states"):
        Rollout(config, address).drop(1, grace_seconds=3600)
    assert service.loaded == {1, 2}  # a client with a state of version 1 is still answered
    Rollout(config, address).drop(1, grace_seconds=0)
    assert (service.loaded, service.labels) == ({2}, {"stable": 2, "canary": 2})


def test_rollback_keeps_both_versions(config: Path, address: str, service: ModelService) -> None:
    Rollout(config, address).canary(2)
    Rollout(config, address).rollback()
    assert written(config) == ([1, 2], {"stable": 1, "canary": 1})
    assert service.labels == {"stable": 1, "canary": 1}


def test_a_promotion_is_taken_back(config: Path, address: str) -> None:
    Rollout(config, address).canary(2)
    Rollout(config, address).promote()
    Rollout(config, address).rollback()
    assert written(config) == ([1, 2], {"stable": 1, "canary": 1})
    assert Rollout(config, address).rollback() == ""
    Rollout(config, address).drop(2, grace_seconds=0)
    assert written(config) == ([1], {"stable": 1, "canary": 1})


def test_a_labelled_version_is_not_dropped(config: Path, address: str) -> None:
    Rollout(config, address).canary(2)
    with pytest.raises(UserError, match="labelled canary"):
        Rollout(config, address).drop(2, grace_seconds=0)


def test_a_version_that_does_not_load_changes_nothing(config: Path, address: str, service: ModelService) -> None:
    with pytest.raises(UserError, match="version 9 did not load: bad weights; the previous configuration is back"):
        Rollout(config, address).canary(BROKEN)
    assert config.read_text() == START
    assert service.loaded == {1}


def test_a_second_run_and_a_dry_run_send_nothing(config: Path, address: str, service: ModelService) -> None:
    assert "canary=2" in Rollout(config, address, dry_run=True).canary(2)
    assert (config.read_text(), service.reloads) == (START, 0)
    Rollout(config, address).canary(2)
    reloads = service.reloads
    assert Rollout(config, address).canary(2) == ""
    assert service.reloads == reloads


def test_the_command_line(config: Path, address: str) -> None:
    options = ["--config", str(config), "--address", address]
    assert CliRunner().invoke(app, ["canary", "2", *options]).exit_code == 0
    assert CliRunner().invoke(app, ["status", *options]).output.splitlines() == [
        "1 AVAILABLE stable",
        "2 AVAILABLE canary",
    ]
    result = CliRunner().invoke(app, ["fly", *options])
    assert (result.exit_code, "Allowed: status" in result.output) == (2, True)
