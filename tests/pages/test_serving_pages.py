"""The README, and the pages about servers and clients, against a real server with a small model."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import keras
import kfp
import numpy as np
import pytest
from google.protobuf import text_format
from opentelemetry import trace
from prometheus_client import CollectorRegistry, generate_latest
from tensorflow_metadata.proto.v0 import schema_pb2

from serving.server import Server
from tests.client.redis_server import RedisServer
from tests.pages.page import ROOT, Reader, blocks
from tests.ports import free_port
from tests.serving.model import publish
from tests.workbench import Workbench
from tfctr.client import RankingClient
from tfctr.export.saved_model import export_model
from tfctr.training.experiment import Experiment

pytestmark = pytest.mark.e2e
PATIENCE = "timeout_seconds=300"
"""In place of the second that a page gives a request: this machine may be busy."""
WAIT = {"--wait 60": "--wait 300"}


@pytest.fixture(scope="module")
def models(workbench: Workbench, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Versions 1 and 2 of a model, below `ranking`, and the small model of the conformance tests."""
    directory = tmp_path_factory.mktemp("models")
    first = directory / "ranking" / "1"
    export_model(workbench.model("dmf"), workbench.assets, Experiment(preset="dmf"), first)
    shutil.copytree(first, directory / "ranking" / "2")
    publish(directory)
    return directory


@pytest.fixture(scope="module")
def server(models: Path) -> Iterator[Server]:
    with Server(models / "ranking", "ranking") as server:
        yield server


def test_readme(server: Server, reader: Reader) -> None:
    reader.reads("README.md", {"localhost:8500": server.address, "timeout_seconds=1": PATIENCE})

    rows = [np.ones((2, 50, 16)), np.array([3, 0]), np.ones((2, 5, 16))]
    logits = keras.ops.convert_to_numpy(reader.names["model"].predict(rows, verbose=0))
    assert logits.shape == (2, 5)
    assert np.isfinite(logits).all()
    assert sorted(one.candidate["item_id"] for one in reader.names["best"]) == [1, 6]


@pytest.fixture
def redis_server() -> Iterator[RedisServer]:
    redis_server = RedisServer()
    yield redis_server
    redis_server.kill()


def test_client(server: Server, redis_server: RedisServer, reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (ROOT / "docs" / "client.md").read_text(encoding="utf-8")
    reader.names["registry"] = registry = CollectorRegistry()

    told = reader.reads(
        "docs/client.md",
        {
            '"localhost:8500"': f'"{server.address}", {PATIENCE}',
            "localhost:8500": server.address,
            '"redis://localhost:6379/0"': f'"{redis_server.url}", {PATIENCE}',
            "prometheus_client.REGISTRY": "registry",  # that of this process outlives the test
        },
    )

    names = SimpleNamespace(**reader.names)
    assert [type(one).__name__ for one in names.best] == ["Ranked"]
    assert json.loads(told.splitlines()[-1])["state"] == "AVAILABLE"
    (counts,) = re.findall(r"`(\{\"cache_hit\".*?\})`", page)
    assert names.client.counts == json.loads(counts)

    names.client.rank(names.user, names.candidates, names.context, user_key=7, history_version=1700000300)
    given = re.findall(r"^# TYPE (tfctr_client\w*?)(?:_created)? ", generate_latest(registry).decode(), re.MULTILINE)
    assert set(given) == set(re.findall(r"^\| `(tfctr_client_\w+)`", page, re.MULTILINE))
    names.client.close()

    monkeypatch.setenv("RANKING_TOKEN", "secret")
    names.request_id.set("17")
    with trace.use_span(trace.NonRecordingSpan(trace.SpanContext(1, 2, is_remote=False))):
        metadata = names.metadata()
    assert metadata["authorization"] == "Bearer secret"
    assert metadata["x-request-id"] == "17"
    assert metadata["traceparent"].startswith("00-")


class Store(dict[bytes, bytes]):
    """What the page's own cache asks of a store."""

    set = dict.__setitem__

    def delete(self, name: bytes) -> None:
        self.pop(name, None)


def test_the_own_cache_of_the_client_page(server: Server) -> None:
    (block,) = (one for one in blocks(ROOT / "docs" / "client.md") if "class SharedCache" in one.text)
    names: dict[str, type] = {}
    exec(block.text, names)
    cache = names["SharedCache"](store := Store())

    with RankingClient(server.address, timeout_seconds=300, cache=cache) as client:

        def rank(user: str, history_version: int = 1) -> list[float]:
            row = {"user_id": int(user)}
            ranked = client.rank(row, {"item_id": [1, 2, 3]}, user_key=user, history_version=history_version)
            return [one.probability for one in ranked]

        first, other = rank("5"), rank("6")
        assert first != other
        np.testing.assert_allclose(rank("5"), first, atol=1e-3)  # its state was rounded to float16
        assert client.counts["cache_hit"] == 1
        store.update(dict(zip(store, reversed(store.values()), strict=True)))  # each has the other's record
        assert rank("5") == first
        assert rank("5", history_version=2) == first
        assert client.counts["cache_hit"] == 1
        client.forget_user("5")
        assert len(store) == 1
        assert "cache_failed" not in client.counts


def test_serving(models: Path, reader: Reader) -> None:
    assert "AVAILABLE" in reader.reads("docs/serving.md", _one_server(models))


def test_the_readme_of_serving(models: Path, reader: Reader) -> None:
    assert "AVAILABLE" in reader.reads("serving/README.md", _one_server(models))


def _one_server(models: Path) -> dict[str, str]:
    address, port = _address()
    return {"DIR": str(models / "ranking"), "localhost:8500": address, "--port 8500": f"--port {port}", **WAIT}


def test_server(models: Path, reader: Reader) -> None:
    (one, one_port), (several, several_port), (_, rest_port) = _address(), _address(), _address()
    _write_configuration(reader.directory / "models.config", models, "ranking", "small")
    told = reader.reads(
        "docs/server.md",
        {
            "DIR": str(models / "ranking"),
            "localhost:8500": one,
            "--port 8500": f"--port {one_port}",
            "--rest-port 8501": f"--rest-port {rest_port}",
            "localhost:8600": several,
            "--port 8600": f"--port {several_port}",
            **WAIT,
        },
    )
    assert told.count("AVAILABLE") == 3  # two of the directory, and the newest of the file, which has no policy


def test_deployment(models: Path, reader: Reader) -> None:
    shutil.copytree(ROOT / "configs", reader.directory / "configs")
    shutil.copytree(ROOT / "serving", reader.directory / "serving", ignore=shutil.ignore_patterns("__pycache__"))
    file = reader.directory / "models.config"
    _write_configuration(file, models, "ranking", policy="model_version_policy { specific { versions: 1 } }")

    with Server(model_config_file=file, allow_reload=True) as server:
        told = reader.reads(
            "docs/deployment.md",
            {
                "dns:///ranking:8500": f"dns:///{server.address}",
                "--grace-seconds 3600": "--grace-seconds 0",  # a test can't wait for an hour
            },
        )
        with RankingClient(server.address, version_label="stable", timeout_seconds=300) as client:
            assert [one.version for one in client.model_status() if one.state == "AVAILABLE"] == [2]
            assert client.served_model().version == 2
    assert "stable" in told


def test_production(models: Path, reader: Reader) -> None:
    written = reader.directory / "written"
    requests = {
        "user.json": {"user_id": 7},
        "context.json": {"timestamp": 1700000360},
        "candidates.jsonl": {"item_id": 1},
    }
    for name, content in requests.items():
        (reader.directory / name).write_text(json.dumps(content), encoding="utf-8")
    file = reader.directory / "models.config"
    _write_configuration(file, models, "ranking", "small")
    other, port = _address()

    with Server(model_config_file=file, rest_port=0) as server:
        told = reader.reads(
            "docs/production.md",
            {
                "/tmp/models": str(written),
                "python -m pytest": f"cd {ROOT} && python -m pytest -q -p no:cacheprovider",  # "from a clone"
                "HOST:8500": server.address,
                "HOST:8501": f"127.0.0.1:{server.rest_port}",
                "OUT/serving/ranking": str(models / "ranking"),
                "localhost:8600": other,
                "--port 8600": f"--port {port}",
                **WAIT,
            },
        )
    assert (written / "small" / "7" / "saved_model.pb").exists()
    assert (written / "small" / "monitoring.config").exists()
    (passed, skipped) = (int(re.findall(rf"(\d+) {word}", told)[-1]) for word in ("passed", "skipped"))
    assert passed > 50
    assert skipped > 0
    first, second = (json.loads(line) for line in told.splitlines() if '"probability"' in line)
    assert abs(first["probability"] - second["probability"]) < 1e-5


def test_kubeflow(reader: Reader) -> None:
    """For the one block that speaks to a cluster, the client has kfp's names and arguments, and does nothing."""
    from pipeline.schema import curate
    from tests.pipeline.logs import write_experiment, write_features
    from tfctr.features import load_feature_file

    features = load_feature_file(write_features(reader.directory / "features.yaml"))
    write_experiment(reader.directory / "experiment.yaml")
    schema = text_format.MessageToString(curate(schema_pb2.Schema(), features))
    (reader.directory / "schema.pbtxt").write_text(schema, encoding="utf-8")
    shutil.copytree(ROOT / "configs", reader.directory / "configs")

    with mock.patch.object(kfp, "Client", autospec=True) as cluster:
        told = reader.reads("docs/kubeflow.md", {"sha256:...": f"sha256:{'0' * 64}"})

    assert "cat pipeline.yaml pipeline.kubernetes.yaml > pipeline.package.yaml" in told
    ((_, given),) = cluster.return_value.create_recurring_run.call_args_list
    assert (reader.directory / given["pipeline_package_path"]).exists()
    (anew,) = re.findall(r"a run may give anew: ([\w, ]+)", told)
    assert given["params"].keys() <= set(anew.split(", "))


def _address() -> tuple[str, int]:
    port = free_port()
    return f"localhost:{port}", port


def _write_configuration(path: Path, models: Path, *names: str, policy: str = "") -> None:
    configs = (
        f'config {{ name: "{name}" base_path: "{models / name}" model_platform: "tensorflow" {policy} }}'
        for name in names
    )
    path.write_text(f"model_config_list {{ {' '.join(configs)} }}", encoding="utf-8")
