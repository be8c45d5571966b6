"""Loading and unloading of versions (cases C27 to C31), warm-up, and failures that must not affect other versions."""

from __future__ import annotations

import gc
import re
import shutil
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import get_model_status_pb2, prediction_log_pb2

from serving.server import Server
from serving.server.config import one_model
from serving.server.directory import latest
from serving.server.engine import LoadedModel
from serving.server.metrics import Metrics
from serving.server.models import Models
from serving.server.versions import VersionManager
from tests.serving.conftest import NAME, Caller, eventually, predict_request
from tests.serving.model import HISTORY, WIDTH

pytestmark = pytest.mark.slow

State = get_model_status_pb2.ModelVersionStatus
USER = {"user_id": np.array([3]), "history": np.arange(HISTORY)[None]}
SCORE = {"user_vector": np.ones((1, WIDTH), np.float32), "model_tag": np.array([1]), "item_id": np.array([[5]])}


@pytest.fixture
def base(tmp_path: Path) -> Path:
    directory = tmp_path / NAME
    directory.mkdir()
    return directory


@contextmanager
def _serve(base: Path, **options: Any) -> Iterator[tuple[Server, Caller]]:
    with Server(base, NAME, poll_seconds=0.05, **options) as server:
        caller = Caller(server.address)
        yield server, caller
        caller.channel.close()


def _publish(source: Path, base: Path, name: str) -> None:
    """Copies a version under another name and renames it, as a publisher should."""
    shutil.copytree(source, base / f"copying-{name}")
    (base / f"copying-{name}").rename(base / name)


def _tag(caller: Caller, version: int | None = None) -> int:
    return int(caller.run("user_tower", USER, version=version)["model_tag"][0])


def _spec(version: int) -> Any:
    return predict_request("", {}, version=version).model_spec


def _code(call: Callable[[], Any]) -> grpc.StatusCode:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value.code()


def test_c27_new_versions_without_a_failed_request(base: Path, saved_models: dict[int, Path]) -> None:
    _publish(saved_models[1], base, "1")
    with _serve(base) as (server, caller):
        done = threading.Event()
        failures: list[Exception] = []
        seen: list[tuple[int, int]] = []

        def ask() -> None:
            own = Caller(server.address)
            while not done.is_set():
                try:
                    response = own.predict("user_tower", USER)
                except grpc.RpcError as error:
                    failures.append(error)
                    continue
                tag = int(tf.make_ndarray(response.outputs["model_tag"])[0])
                seen.append((response.model_spec.version.value, tag))
            own.channel.close()

        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        try:
            for number in (2, 3):
                _publish(saved_models[number], base, str(number))
                eventually(lambda number=number: _tag(caller) == number, f"version {number} answers")
            eventually(lambda: server.versions == [2, 3], "two versions serve")
        finally:
            done.set()
            for thread in threads:
                thread.join()
        assert not failures
        # The version in the reply is always the one whose weights were used.
        assert set(seen) == {(1, 1), (2, 2), (3, 3)}
        assert _tag(caller, 2) == 2
        assert _code(lambda: _tag(caller, 1)) is grpc.StatusCode.NOT_FOUND
        eventually(lambda: caller.status()[1].state == State.END, "version 1 is unloaded")
        assert caller.status()[3].state == State.AVAILABLE


def test_only_the_newest_when_asked(base: Path, saved_models: dict[int, Path]) -> None:
    _publish(saved_models[1], base, "1")
    _publish(saved_models[2], base, "2")
    with _serve(base, num_versions=1) as (server, caller):
        assert server.versions == [2]
        assert _code(lambda: _tag(caller, 1)) is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("missing", ["variables", "saved_model.pb", "half of the variables"])
def test_c28_half_a_copy(base: Path, saved_models: dict[int, Path], missing: str) -> None:
    _publish(saved_models[1], base, "1")
    with _serve(base) as (server, caller):
        half, staged = base / "2", base / "staged"
        shutil.copytree(saved_models[2], staged)
        if missing == "half of the variables":
            data = staged / "variables" / "variables.data-00000-of-00001"
            data.write_bytes(data.read_bytes()[: data.stat().st_size // 2])
        elif missing == "variables":
            shutil.rmtree(staged / missing)
        else:
            (staged / missing).unlink()
        staged.rename(half)
        eventually(lambda: 2 in caller.status() and caller.status()[2].status.error_code != 0, "the refusal shows")
        assert caller.status()[2].state == State.LOADING
        assert caller.status()[2].status.error_message
        assert (server.versions, _tag(caller)) == ([1], 1)
        # The copy is completed in place, so it is tried again at once.
        shutil.copytree(saved_models[2], half, dirs_exist_ok=True)
        eventually(lambda: _tag(caller) == 2, "the completed version answers")
        assert caller.status()[2].status.error_code == 0


def test_c28_retries_end(base: Path, saved_models: dict[int, Path], caplog: pytest.LogCaptureFixture) -> None:
    _publish(saved_models[1], base, "1")
    with _serve(base, retry_seconds=0.05) as (server, caller):
        (base / "2").mkdir()
        eventually(lambda: 2 in caller.status() and caller.status()[2].state == State.END, "the retries end")
        assert server.versions == [1]
    told = [record.getMessage() for record in caplog.records if "cannot be loaded" in record.getMessage()]
    assert len(told) == 6  # the first attempt and five retries
    assert "Still serving version 1" in told[0]


def test_a_bad_version_keeps_both_others(base: Path, saved_models: dict[int, Path]) -> None:
    _publish(saved_models[1], base, "1")
    _publish(saved_models[2], base, "2")
    with _serve(base) as (server, caller):
        (base / "3").mkdir()
        eventually(lambda: 3 in caller.status(), "version 3 is seen")
        eventually(lambda: caller.status()[3].status.error_code != 0, "version 3 is refused")
        assert server.versions == [1, 2]
        assert (_tag(caller, 1), _tag(caller, 2)) == (1, 2)


def test_c29_deleting_the_new_version_goes_back(base: Path, saved_models: dict[int, Path]) -> None:
    _publish(saved_models[1], base, "1")
    _publish(saved_models[2], base, "2")
    with _serve(base, num_versions=1) as (server, caller):
        assert _tag(caller) == 2
        shutil.rmtree(base / "2")
        eventually(lambda: server.versions == [1], "version 1 is back alone")
        assert _tag(caller) == 1
        _publish(saved_models[3], base, "2")
        eventually(lambda: server.versions == [2], "another version 2 follows")
        assert _tag(caller) == 3


def test_c30_all_versions_deleted(base: Path, saved_models: dict[int, Path]) -> None:
    _publish(saved_models[1], base, "1")
    with _serve(base) as (server, caller):
        shutil.rmtree(base / "1")
        eventually(lambda: not server.versions, "nothing serves")
        assert _code(lambda: _tag(caller)) is grpc.StatusCode.NOT_FOUND
        assert caller.channel.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=20) == b"\x08\x02"
        _publish(saved_models[1], base, "1")
        eventually(lambda: server.versions == [1], "it serves again")
        assert _tag(caller) == 1


@pytest.fixture
def _no_collection_by_chance() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("_no_collection_by_chance")
def test_no_graph_stays_of_a_version_that_failed_or_ended(base: Path, saved_models: dict[int, Path]) -> None:
    graphs: dict[str, Any] = {}

    def load(directory: Path) -> LoadedModel:
        model = LoadedModel(directory)
        graphs[directory.name] = weakref.ref(model.session.graph)
        if directory.name == "2":
            raise ValueError("broken")
        return model

    manager = VersionManager(NAME, base, load, policy=latest(1))
    _publish(saved_models[1], base, "1")
    manager.poll()
    _publish(saved_models[2], base, "2")
    manager.poll()
    manager.poll()
    assert (graphs["1"]() is None, graphs["2"]() is None) == (False, True)
    _publish(saved_models[3], base, "3")
    manager.poll()
    manager.poll()
    assert (graphs["1"]() is None, graphs["3"]() is None) == (True, False)


@pytest.mark.usefixtures("_no_collection_by_chance")
def test_no_graph_stays_of_a_model_that_is_no_longer_configured(base: Path, saved_models: dict[int, Path]) -> None:
    graphs = []

    def load(directory: Path) -> LoadedModel:
        model = LoadedModel(directory)
        graphs.append(weakref.ref(model.session.graph))
        return model

    _publish(saved_models[1], base, "1")
    models = Models(one_model("old", base, 1), load, Metrics(), poll_seconds=60.0, retry_seconds=60.0)
    models.start()
    assert models.managers["old"].wait_until_ready(30)
    models.apply(one_model("new", base, 1))
    assert [graph() is None for graph in graphs] == [True, False]
    models.stop()


def test_the_whole_base_path_gone_changes_nothing(base: Path, saved_models: dict[int, Path]) -> None:
    _publish(saved_models[1], base, "1")
    with _serve(base) as (server, caller):
        base.rename(base.with_name("elsewhere"))
        server._models.managers[NAME].poll()
        assert _tag(caller) == 1


def test_c31_what_counts_as_a_version(base: Path, saved_models: dict[int, Path]) -> None:
    for name in ("tmp-3", ".x", "9.partial", "-5", "\u0667"):
        _publish(saved_models[1], base, name)
    (base / "8").write_text("a file")
    _publish(saved_models[2], base, "00004")
    with _serve(base) as (server, caller):
        assert server.versions == [4]
        assert _tag(caller, 4) == 2


def test_a_request_keeps_its_version(base: Path, saved_models: dict[int, Path]) -> None:
    _publish(saved_models[1], base, "1")
    with _serve(base, num_versions=1) as (server, caller):
        with server._models.managers[NAME].use(_spec(1)) as (_, model):
            _publish(saved_models[2], base, "2")
            eventually(lambda: caller.status()[1].state == State.UNLOADING, "version 1 waits for its request")
            assert _code(lambda: _tag(caller, 1)) is grpc.StatusCode.NOT_FOUND
            inputs = {name: tf.make_tensor_proto(value) for name, value in USER.items()}
            assert model.predict("user_tower", inputs, [])["model_tag"][0] == 1
        assert caller.status()[1].state == State.END
        with pytest.raises(tf.errors.CancelledError, match="closed"):
            model.predict("user_tower", inputs, [])


def _with_warmup(source: Path, target: Path, records: list[bytes]) -> None:
    shutil.copytree(source, target)
    (target / "assets.extra").mkdir()
    with tf.io.TFRecordWriter(str(target / "assets.extra" / "tf_serving_warmup_requests")) as writer:
        for record in records:
            writer.write(record)


def _record(signature: str, inputs: dict[str, Any]) -> bytes:
    log = prediction_log_pb2.PredictionLog()
    log.predict_log.request.CopyFrom(predict_request(signature, inputs))
    return log.SerializeToString()


def test_c34_warm_up_runs_before_the_version_answers(
    base: Path, saved_models: dict[int, Path], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "serving.server")
    _with_warmup(saved_models[1], base / "1", [_record("user_tower", USER), _record("score", SCORE)])
    with _serve(base) as (_, caller):
        assert _tag(caller) == 1
    assert "2 warm-up requests" in caplog.text


@pytest.mark.parametrize(
    ("records", "reason"),
    [
        ([_record("user_tower", USER), _record("nothing", USER)], 'record 2 .*Serving signature key "nothing"'),
        ([_record("user_tower", USER)] * 1001, "more than 1000 records"),
        (
            [prediction_log_pb2.PredictionLog(multi_inference_log={}).SerializeToString()],
            "multi_inference_log cannot be run",
        ),
        ([b"\xff\xff"], "record 1"),
    ],
    ids=["failing", "too many", "kind", "garbage"],
)
def test_c34_bad_warm_up_is_a_load_error(
    base: Path, saved_models: dict[int, Path], records: list[bytes], reason: str
) -> None:
    _with_warmup(saved_models[1], base / "1", records)
    manager = VersionManager(NAME, base)
    manager.poll()
    assert manager.available() == []
    assert re.search(f"^version 1: warm-up .*{reason}", manager.problems()[0])
