"""Several models, policies and labels, set by a file or by HandleReloadConfigRequest: cases C08, C32 and C33."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format
from tensorflow_serving.apis import get_model_status_pb2, model_management_pb2

from serving.server import Server, ServerError
from tests.serving.certificates import Authority, ssl_config
from tests.serving.conftest import NAME, Caller, eventually, predict_request, refused
from tests.serving.model import HISTORY

pytestmark = pytest.mark.slow

Code = grpc.StatusCode
State = get_model_status_pb2.ModelVersionStatus
USER = {"user_id": np.array([3]), "history": np.arange(HISTORY)[None]}


@pytest.fixture
def base(tmp_path: Path, saved_models: dict[int, Path]) -> Path:
    directory = tmp_path / NAME
    directory.mkdir()
    for version in (1, 2, 3):
        (directory / str(version)).symlink_to(saved_models[version])
    return directory


@pytest.fixture
def served(base: Path) -> Iterator[tuple[Server, Caller]]:
    with Server(base, NAME, poll_seconds=0.05, allow_reload=True) as server:
        caller = Caller(server.address)
        yield server, caller
        caller.channel.close()


def _model(base: Path, policy: str = "", labels: str = "", name: str = NAME) -> str:
    return (
        f'config {{ name: "{name}" base_path: "{base}" model_platform: "tensorflow" '
        f"model_version_policy {{ {policy} }} {labels} }}"
    )


def _list(*models: str) -> str:
    return f"model_config_list {{ {' '.join(models)} }}"


def _label(name: str, version: int) -> str:
    return f'version_labels {{ key: "{name}" value: {version} }}'


def _reload(caller: Caller, config: str) -> model_management_pb2.ReloadConfigResponse:
    request = model_management_pb2.ReloadConfigRequest()
    text_format.Parse(config, request.config)
    return caller.models.HandleReloadConfigRequest(request, timeout=60)


def _tag(caller: Caller, name: str = NAME, **version: Any) -> int:
    request = predict_request("user_tower", USER, output_filter=("model_tag",))
    request.model_spec.name = name
    if "label" in version:
        request.model_spec.version_label = version["label"]
    return int(tf.make_ndarray(caller.prediction.Predict(request, timeout=20).outputs["model_tag"])[0])


@pytest.fixture
def fields(base: Path) -> Iterator[tuple[Server, Caller]]:
    with Server(base, NAME, poll_seconds=0.05, tensor_content=False, allow_reload=True) as server:
        caller = Caller(server.address)
        yield server, caller
        caller.channel.close()


def test_c32_labels_and_specific_versions(base: Path, fields: tuple[Server, Caller]) -> None:
    server, caller = fields
    labels = _label("stable", 1) + _label("canary", 2)
    response = _reload(caller, _list(_model(base, "specific { versions: 1 versions: 2 }", labels)))
    assert (response.status.error_code, server.versions) == (0, [1, 2])
    assert (_tag(caller, label="stable"), _tag(caller, label="canary"), _tag(caller)) == (1, 2, 2)
    code, text = refused(lambda: _tag(caller, label="beta"))
    assert (code, text) == (Code.INVALID_ARGUMENT, "Unrecognized servable version label: beta")
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name, request.model_spec.version_label = NAME, "stable"
    assert [one.version for one in caller.models.GetModelStatus(request, timeout=20).model_version_status] == [1]

    # All labels are replaced. A label on a version that is not served is an error, and the labels stay.
    _reload(caller, _list(_model(base, "specific { versions: 1 versions: 2 }", _label("stable", 2))))
    assert _tag(caller, label="stable") == 2
    assert refused(lambda: _tag(caller, label="canary"))[0] is Code.INVALID_ARGUMENT
    wrong = _list(_model(base, "specific { versions: 1 versions: 2 }", _label("stable", 3)))
    code, text = refused(lambda: _reload(caller, wrong))
    assert code is Code.FAILED_PRECONDITION
    assert "Request to assign label to version 3" in text
    assert "which is not currently available for inference" in text
    assert _tag(caller, label="stable") == 2


@pytest.mark.parametrize(
    ("policy", "versions"), [("", [3]), ("latest { num_versions: 2 }", [2, 3]), ("all {}", [1, 2, 3])]
)
def test_c32_policies(base: Path, served: tuple[Server, Caller], policy: str, versions: list[int]) -> None:
    server, caller = served
    _reload(caller, _list(_model(base, policy)))
    assert server.versions == versions


def test_c33_a_model_comes_and_goes(base: Path, fields: tuple[Server, Caller], tmp_path: Path) -> None:
    server, caller = fields
    other = tmp_path / "other"
    shutil.copytree(base / "1", other / "5")
    _reload(caller, _list(_model(base), _model(other, name="other")))
    assert server.served == {NAME: [3], "other": [5]}
    assert (_tag(caller), _tag(caller, "other")) == (3, 1)
    _reload(caller, _list(_model(other, name="other")))
    code, text = refused(lambda: _tag(caller))
    assert code is Code.NOT_FOUND
    assert text.startswith(f"Servable not found for request: Latest({NAME})")
    assert {status.state for status in caller.status().values()} == {State.END}
    _reload(caller, _list(_model(base), _model(other, name="other")))
    assert _tag(caller) == 3
    _reload(caller, "model_config_list {}")
    assert server.served == {}


@pytest.mark.parametrize("options", [{}, {"rest_port": 0}])
def test_a_reload_is_off_unless_it_is_allowed(base: Path, options: dict[str, Any]) -> None:
    with Server(base, NAME, poll_seconds=0.05, **options) as server:
        caller = Caller(server.address)
        code, text = refused(lambda: _reload(caller, _list(_model(base))))
        assert code is Code.PERMISSION_DENIED
        assert "--allow-reload" in text
        assert server.versions == [2, 3]
        caller.channel.close()


def test_a_verified_caller_may_reload(base: Path, tmp_path: Path) -> None:
    authority = Authority()
    key, certificate = authority.issue()
    config = ssl_config(tmp_path / "ssl.config", key, certificate, authority.certificate)
    root = authority.certificate.encode()
    credentials = grpc.ssl_channel_credentials(root, key.encode(), certificate.encode())
    with Server(base, NAME, host="localhost", ssl_config_file=config) as server:
        caller = Caller(server.address, credentials)
        _reload(caller, _list(_model(base)))
        assert server.versions == [3]
        caller.channel.close()


def test_no_model_is_not_healthy(served: tuple[Server, Caller]) -> None:
    server, caller = served
    health = caller.channel.unary_unary("/grpc.health.v1.Health/Check")
    assert health(b"", timeout=20) == b"\x08\x01"
    _reload(caller, "model_config_list {}")
    assert server.served == {}
    assert health(b"", timeout=20) == b"\x08\x02"


def test_what_is_not_served_is_told_with_what_is(base: Path, served: tuple[Server, Caller]) -> None:
    _, caller = served
    code, text = refused(lambda: _tag(caller, "other"))
    assert (code, text) == (Code.NOT_FOUND, f"Servable not found for request: Latest(other). Served models: {NAME}")
    with pytest.raises(grpc.RpcError, match=r"Specific\(small, 9\). Available versions of small: 2, 3"):
        caller.run("user_tower", USER, version=9)


def test_tables_are_replaced_under_a_reader(base: Path, served: tuple[Server, Caller], tmp_path: Path) -> None:
    server, caller = served
    shutil.copytree(base / "1", tmp_path / "other" / "5")
    models, versions = iter(server._models.managers), iter(server._models.managers[NAME]._versions)
    next(models), next(versions)
    _reload(caller, _list(_model(base, "all {}"), _model(tmp_path / "other", name="other")))
    assert (list(models), sorted(versions)) == ([], [3])
    assert server.served == {NAME: [1, 2, 3], "other": [5]}


REFUSED = {
    "no list": ("", "ServerModelConfig type not supported by HandleReloadConfigRequest"),
    "custom": ("custom_model_config {}", "ServerModelConfig type not supported by HandleReloadConfigRequest"),
    "twice": (_list(_model(Path("BASE")), _model(Path("BASE"))), f"Illegal to list model {NAME} multiple times"),
    "relative": (_list(_model(Path("a/b"))), "to have an absolute path or URI; got base_path()=a/b"),
    "climbs out": (_list(_model(Path("../a"))), "to have an absolute path or URI; got base_path()=../a"),
    "no path": (_list(_model(Path("BASE/none"))), f"Could not find base path .*/none for servable {NAME}"),
    "no version at all": (_list(_model(Path("BASE/empty"))), "Could not find any version of servable small"),
    "no version": (_list(_model(Path("BASE"), "specific { versions: 9 }")), f"Version 9 of servable {NAME}"),
    "no name": (_list(_model(Path("BASE"), name="")), "has no name"),
    "platform": (_list(_model(Path("BASE"))).replace('"tensorflow"', '"pytorch"'), "'pytorch'; only 'tensorflow'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_c33_a_bad_configuration_changes_nothing(base: Path, served: tuple[Server, Caller], case: str) -> None:
    server, caller = served
    config, message = REFUSED[case]
    (base / "empty").mkdir()
    with pytest.raises(grpc.RpcError, match=message.replace("()", r"\(\)")) as caught:
        _reload(caller, config.replace("BASE", str(base)))
    assert caught.value.code() is Code.INVALID_ARGUMENT
    assert (server.versions, _tag(caller)) == ([2, 3], 3)


def test_c33_a_model_that_cannot_be_loaded_is_named(base: Path, fields: tuple[Server, Caller], tmp_path: Path) -> None:
    server, caller = fields
    broken = tmp_path / "broken"
    (broken / "1").mkdir(parents=True)
    code, text = refused(lambda: _reload(caller, _list(_model(base), _model(broken, name="broken"))))
    assert code is Code.UNKNOWN
    assert "1 model(s) did not become available: {broken: version 1: " in text
    assert _tag(caller) == 3
    # The version is still wanted, so it is loaded as soon as it is repaired.
    shutil.copytree(base / "1", broken / "1", dirs_exist_ok=True)
    eventually(lambda: server.served["broken"] == [1], "the repaired model serves")


def test_configuration_file_is_followed(base: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "models.config"
    file.write_text(_list(_model(base, "specific { versions: 1 }", _label("stable", 1))))
    with Server(model_config_file=file, poll_seconds=0.05, config_poll_seconds=0.05, tensor_content=False) as server:
        caller = Caller(server.address)
        assert _tag(caller, label="stable") == 1
        file.write_text("model_config_list { nonsense")
        eventually(lambda: "is no ModelServerConfig in text form" in caplog.text, "the bad file is told")
        file.write_text("")
        eventually(lambda: "names no models: nothing is changed" in caplog.text, "the empty file is told")
        assert _tag(caller, label="stable") == 1
        file.write_text(_list(_model(base, "specific { versions: 1 versions: 2 }", _label("stable", 2))))
        eventually(lambda: _tag(caller) == 2, "the new configuration serves")
        eventually(lambda: _tag(caller, label="stable") == 2, "so does its label")
        caller.channel.close()


def test_a_label_that_cannot_be_assigned_stops_the_start(base: Path, tmp_path: Path) -> None:
    file = tmp_path / "models.config"
    file.write_text(_list(_model(base, "specific { versions: 1 }", _label("stable", 2))))
    with pytest.raises(ServerError, match="Request to assign label to version 2"):
        Server(model_config_file=file).start()
