"""What is told of requests and loads: metrics, logs and traces."""

from __future__ import annotations

import asyncio
import json
import logging
import shutil
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from serving.server import Server, logs, tracing
from serving.server.metrics import PATH
from tests.serving.conftest import NAME, Caller, eventually, predict_request
from tests.serving.model import HISTORY
from tests.serving.test_process import Process

pytestmark = pytest.mark.slow

USER = {"user_id": np.array([3]), "history": np.arange(HISTORY)[None]}
PREDICT = "/tensorflow.serving.PredictionService/Predict"


@pytest.fixture
def served(base_path: Path) -> Iterator[tuple[Server, Caller]]:
    with Server(base_path, NAME, rest_port=0, access_log=True) as server:
        caller = Caller(server.address)
        yield server, caller
        caller.channel.close()


def _page(server: Server) -> list[str]:
    url = f"http://127.0.0.1:{server.rest_port}{PATH}"
    return urllib.request.urlopen(url, timeout=20).read().decode().splitlines()


def test_requests_are_counted_by_version_and_signature(served: tuple[Server, Caller]) -> None:
    server, caller = served
    caller.run("user_tower", USER)
    with pytest.raises(grpc.RpcError):
        caller.run("invented", USER)
    line = (
        f'tfctr_server_requests_total{{model_name="{NAME}",version="7",signature="%s",API="Predict",'
        'entrypoint="GRPC",status="%s"} 1'
    )
    page = _page(server)
    assert line % ("user_tower", "OK") in page
    # A name that the caller invented is no label.
    assert line % ("", "FAILED_PRECONDITION") in page
    known = line.split(",status")[0] % "user_tower"
    assert f"{known.replace('requests_total', 'request_seconds_count')}}} 1" in page


def test_gauges(served: tuple[Server, Caller]) -> None:
    server, _ = served
    values = dict(line.rsplit(" ", 1) for line in _page(server) if not line.startswith("#"))
    assert [values[f"tfctr_server_{name}"] for name in ("queued", "running", "receiving", "bytes_in_flight")] == [
        "0"
    ] * 4
    assert float(values["process_resident_memory_bytes"]) > 1e8


def test_loads_are_counted(base_path: Path, tmp_path: Path) -> None:
    base = tmp_path / NAME
    shutil.copytree(base_path / "7", base / "1")
    (base / "2").mkdir()
    with Server(base, NAME, rest_port=0) as server:
        page = _page(server)
    count = f':tensorflow:cc:saved_model:load_attempt_count{{model_path="{NAME}",status="%s"}} 1'
    assert count % "success" in page
    assert count % "fail" in page
    assert any(line.startswith(f':tensorflow:cc:saved_model:load_latency{{model_path="{NAME}"}} ') for line in page)


def test_why_a_load_failed_is_in_the_first_line(
    base_path: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    base = tmp_path / NAME
    shutil.copytree(base_path / "7", base / "1")
    (base / "2").mkdir()
    with Server(base, NAME):
        pass
    (failed,) = [one.getMessage() for one in caplog.records if one.levelno == logging.ERROR]
    assert failed.startswith(f"{NAME}: version 2 cannot be loaded: OSError: SavedModel file does not exist at: ")
    assert "\n" not in failed


def test_each_request_is_logged_with_its_id(served: tuple[Server, Caller], caplog: pytest.LogCaptureFixture) -> None:
    _, caller = served
    caplog.set_level(logging.INFO, "serving.server.access")
    call = caller.channel.unary_unary(PREDICT)
    call(predict_request("user_tower", USER).SerializeToString(), timeout=20, metadata=[("x-request-id", "mine")])
    with pytest.raises(grpc.RpcError) as caught:
        call(predict_request("s", USER).SerializeToString(), timeout=20, metadata=[("x-request-id", "a b" * 99)])
    eventually(lambda: len(caplog.records) == 2, "both are logged")
    good, bad = [record.__dict__["fields"] for record in caplog.records]
    assert (good["request_id"], good["code"], good["signature"], good["version"]) == ("mine", "OK", "user_tower", 7)
    # An id that does not fit into a line is replaced, and the answer has the new one.
    assert dict(caught.value.trailing_metadata())["x-request-id"] == bad["request_id"]
    assert len(bad["request_id"]) == 16


def test_errors_of_the_event_loop_do_not_fill_the_log(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = iter((1000.0, 1009.0, 1009.9, 1010.0))
    monkeypatch.setattr(logs.time, "monotonic", lambda: next(times))
    loop = asyncio.new_event_loop()
    try:
        logs.quieten(loop)
        for _ in range(4):
            loop.call_exception_handler({"message": "no room", "exception": OSError(24, "Too many open files")})
    finally:
        loop.close()
    text = "no room: OSError(24, 'Too many open files')"
    assert [record.message for record in caplog.records] == [text, f"{text} (2 more such lines were left out)"]
    assert all(record.exc_info is None for record in caplog.records)


def test_log_lines_are_json(base_path: Path) -> None:
    options = ("--port", "0", "--rest-port", "0", "--log-format", "json", "--access-log")
    process = Process("--model-base-path", str(base_path), "--model-name", NAME, *options)
    try:
        ready = process.wait_for(r'"message": "ready: .* on grpc://(\S+), http://(\S+)"')
        Caller(ready[1]).run("user_tower", USER)
        urllib.request.urlopen(f"http://{ready[2]}/v1/models/{NAME}", timeout=20).read()
        process.wait_for('"method": "GetModelStatus"')
        process.popen.terminate()
        _, output = process.finish()
    finally:
        process.popen.kill()
        process.popen.wait()
    lines = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    assert {"time", "level", "logger", "message"} <= lines[0].keys()
    (predict,) = [line for line in lines if line.get("method") == "Predict"]
    assert (predict["code"], predict["model"], predict["signature"]) == ("OK", NAME, "user_tower")


def test_requests_are_spans_of_the_trace_of_the_caller(
    served: tuple[Server, Caller], monkeypatch: pytest.MonkeyPatch
) -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    monkeypatch.setattr(trace, "get_tracer", provider.get_tracer)
    server, caller = served
    parent = [("traceparent", f"00-{'a' * 32}-{'b' * 16}-01")]
    caller.channel.unary_unary(PREDICT)(
        predict_request("user_tower", USER).SerializeToString(), timeout=20, metadata=parent
    )
    url = f"http://127.0.0.1:{server.rest_port}/v1/models/other"
    with pytest.raises(urllib.error.HTTPError):
        urllib.request.urlopen(urllib.request.Request(url, headers=dict(parent)), timeout=20)
    eventually(lambda: len(exporter.get_finished_spans()) == 2, "both spans end")
    spans: list[Any] = list(exporter.get_finished_spans())
    assert {f"{span.context.trace_id:032x}" for span in spans} == {"a" * 32}
    assert [span.name for span in spans] == ["Predict", "GetModelStatus"]
    assert spans[0].attributes["tfctr.signature"] == "user_tower"
    assert [span.status.is_ok for span in spans] == [True, False]


def test_without_the_package_nothing_is_traced(served: tuple[Server, Caller], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "trace", None)
    _, caller = served
    caller.run("user_tower", USER)
