"""The REST API and the Prometheus page: cases C44 and C46."""

from __future__ import annotations

import base64
import gzip
import http.client
import json
import math
import re
import socket
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.serving.conftest import NAME, Caller, predict_request
from tests.serving.model import HISTORY, WIDTH
from tests.serving.requests import ECHO, EXAMPLES, SCORE

Rest = Callable[..., tuple[int, Any]]
MODEL = f"/v1/models/{NAME}"
SCORE_ROW = {"user_vector": SCORE["user_vector"][0].tolist(), "model_tag": 1, "item_id": [5, 6, 7]}
SCORE_COLUMNS = {name: array.tolist() for name, array in SCORE.items()}
EXAMPLE = {"b64": base64.b64encode(EXAMPLES["examples"][0]).decode()}


@pytest.fixture
def ask(rest_address: str) -> Rest:
    def ask(method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> tuple[int, Any]:
        connection = http.client.HTTPConnection(rest_address, timeout=20)
        content = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        connection.request(method, path, content, headers or {})
        response = connection.getresponse()
        text = response.read()
        connection.close()
        return response.status, json.loads(text) if response.headers.get_content_subtype() == "json" else text.decode()

    return ask


def _score(**body: Any) -> dict[str, Any]:
    return {"signature_name": "score", **body}


def test_c44_by_row_and_by_column_equal_grpc(ask: Rest, caller: Caller) -> None:
    expected = caller.run("score", SCORE)["probabilities"]
    status, by_row = ask("POST", f"{MODEL}:predict", _score(instances=[SCORE_ROW, SCORE_ROW]))
    assert (status, list(by_row)) == (200, ["predictions"])
    np.testing.assert_array_equal(np.float32(by_row["predictions"]), np.repeat(expected, 2, axis=0))
    status, by_column = ask("POST", f"{MODEL}/versions/7:predict", _score(inputs=SCORE_COLUMNS))
    assert (status, list(by_column)) == (200, ["outputs"])
    np.testing.assert_array_equal(np.float32(by_column["outputs"]), expected)


def test_c44_several_outputs_are_named(ask: Rest) -> None:
    row = {"user_id": 3, "history": list(range(HISTORY))}
    body = {"signature_name": "user_tower", "instances": [row]}
    _, by_row = ask("POST", f"{MODEL}:predict", body)
    assert by_row["predictions"][0].keys() == {"user_vector", "model_tag"}
    assert len(by_row["predictions"][0]["user_vector"]) == WIDTH
    columns = {name: [value] for name, value in row.items()}
    _, by_column = ask("POST", f"{MODEL}:predict", {"signature_name": "user_tower", "inputs": columns})
    assert by_column["outputs"]["model_tag"] == [by_row["predictions"][0]["model_tag"]]


def test_c44_base64_and_the_default_signature(ask: Rest, caller: Caller) -> None:
    expected = caller.run("", EXAMPLES)["probabilities"][:1]
    for instances in ([EXAMPLE], [{"examples": EXAMPLE}]):
        status, reply = ask("POST", f"{MODEL}:predict", {"instances": instances})
        assert status == 200
        np.testing.assert_array_equal(np.float32(reply["predictions"]), expected)


def test_c44_nan_both_ways(ask: Rest) -> None:
    row = {**SCORE_ROW, "user_vector": [math.nan] * WIDTH}
    status, reply = ask("POST", f"{MODEL}:predict", _score(instances=[row]))
    assert status == 200
    assert all(math.isnan(score) for score in reply["predictions"][0])


def test_c44_types(ask: Rest) -> None:
    inputs = {"int32": [1, -2], "half": [0.5, -2], "bfloat16": [0.5, math.inf], "text": ["café", {"b64": "/w=="}]}
    status, reply = ask("POST", f"{MODEL}:predict", {"signature_name": "echo", "inputs": {**inputs, "flag": [True]}})
    assert status == 200
    assert reply["outputs"] == {**inputs, "text": ["café", "\ufffd"], "flag": [True]}
    assert reply["outputs"].keys() == ECHO.keys()


REFUSED = {
    "C06": (f"{MODEL}x:predict", _score(instances=[SCORE_ROW]), 404, r"Servable not found for request: Latest"),
    "C07": (f"{MODEL}/versions/99:predict", _score(instances=[SCORE_ROW]), 404, r"Specific\(small, 99\)"),
    "C08": (f"{MODEL}/labels/l:predict", _score(instances=[SCORE_ROW]), 400, "Unrecognized servable version label: l"),
    "C09": (
        f"{MODEL}:predict",
        {"signature_name": "s", "instances": [1]},
        400,
        'Serving signature name: "s" not found in signature def',
    ),
    "C10 row": (f"{MODEL}:predict", _score(instances=[{"model_tag": 1}]), 400, "does not have named input: "),
    "C10 column": (f"{MODEL}:predict", _score(inputs={"model_tag": [1]}), 400, "does not have named input: "),
    "C11": (f"{MODEL}:predict", _score(instances=[{**SCORE_ROW, "other": 1}]), 400, "does not know: other"),
    "both": (f"{MODEL}:predict", _score(instances=[], inputs=[]), 400, "exactly one of the keys"),
    "neither": (f"{MODEL}:predict", {}, 400, "exactly one of the keys"),
    "uneven": (f"{MODEL}:predict", _score(inputs={**SCORE_COLUMNS, "item_id": [[1, 2], [3]]}), 400, "tensor size: 2"),
    "deeper": (f"{MODEL}:predict", _score(inputs={**SCORE_COLUMNS, "item_id": [1, [2]]}), 400, "unexpected level"),
    "text": (f"{MODEL}:predict", _score(inputs={**SCORE_COLUMNS, "item_id": [["1"]]}), 400, "Type: String is not of"),
    "fraction": (
        f"{MODEL}:predict",
        _score(inputs={**SCORE_COLUMNS, "item_id": [[1.5]]}),
        400,
        "of expected type: int",
    ),
    "too big": (f"{MODEL}:predict", _score(inputs={**SCORE_COLUMNS, "item_id": [[2**70]]}), 400, "item_id"),
    "base64": (f"{MODEL}:predict", {"instances": [{"b64": "?"}]}, 400, "base64 decode"),
    "C15": (f"{MODEL}:predict", _score(inputs={**SCORE_COLUMNS, "user_vector": [[0.5]]}), 400, ""),
    "bad JSON": (f"{MODEL}:predict", b"{", 400, "JSON Parse error"),
    "not UTF-8": (f"{MODEL}:predict", b"\xff\xfe\xfa", 400, "JSON Parse error"),
    "deep JSON": (f"{MODEL}:predict", b"[" * 100_000, 400, "JSON Parse error"),
    "deep value": (
        f"{MODEL}:predict",
        b'{"instances": ' + b"[" * 900 + b"]" * 900 + b"}",
        400,
        "tensor parsing error|JSON Parse error",
    ),
    "no object": (f"{MODEL}:predict", b"3", 400, "an object is expected, not Number"),
    "bad call": (f"{MODEL}:nothing", {}, 400, f"Malformed request: POST {MODEL}:nothing"),
    "bad path": ("/nothing", {}, 404, "Not Found"),
    "huge version": (f"{MODEL}/versions/{'9' * 5000}:predict", {}, 400, "Failed to convert version"),
    "climbs out": ("/v1/models/../etc:predict", {}, 400, "Malformed request"),
    "encoded": ("/v1/models/..%2Fetc:predict", {}, 404, "Servable not found"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_c44_refused(ask: Rest, case: str, target: str | None) -> None:
    path, body, status, text = REFUSED[case]
    got, reply = ask("POST", path, body)
    assert (got, list(reply)) == (status, ["error"]), reply
    # In the cases without a number, TensorFlow Serving has other messages.
    assert re.search(text, reply["error"]) or (target and not case.startswith("C")), reply


@pytest.mark.usefixtures("embedded")
@pytest.mark.parametrize(("length", "status"), [("10000000000", 413), ("x", 400), ("9" * 30, 400)])
def test_the_body_has_a_limit_that_is_told_before_it_is_read(ask: Rest, length: str, status: int) -> None:
    assert ask("POST", f"{MODEL}:predict", None, {"Content-Length": length})[0] == status


def test_status(ask: Rest) -> None:
    one = {"version": "7", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    assert ask("GET", MODEL) == (200, {"model_version_status": [one]})
    assert ask("GET", f"{MODEL.upper().replace(NAME.upper(), NAME)}/versions/7")[0] == 200
    assert ask("GET", f"{MODEL}/versions/9") == (404, {"error": f"Could not find version 9 of model {NAME}"})
    status, told = ask("GET", "/v1/models/x")
    assert (status, told["error"].split(". ")[0]) == (404, "Could not find any versions of model x")
    assert ask("GET", "/v1/models") == (400, {"error": "Missing model name in request."})


def test_metadata(ask: Rest) -> None:
    status, told = ask("GET", f"{MODEL}/metadata")
    assert (status, told["model_spec"]["name"], told["model_spec"]["version"]) == (200, NAME, "7")
    (signatures,) = told["metadata"]["signature_def"].values()
    assert signatures["score"]["inputs"]["item_id"]["dtype"] == "DT_INT64"


def test_c45_classify_and_regress(ask: Rest, caller: Caller) -> None:
    expected = caller.run("", EXAMPLES)["probabilities"]
    examples = [{"user_id": 1, "item_id": 2}, {"user_id": [3], "item_id": [4]}]
    status, reply = ask("POST", f"{MODEL}:regress", {"signature_name": "regress", "examples": examples})
    assert status == 200
    np.testing.assert_array_equal(np.float32(reply["results"]), expected)
    body = {"signature_name": "classify", "context": {"user_id": 1}, "examples": [{"item_id": 2}]}
    status, reply = ask("POST", f"{MODEL}:classify", body)
    assert status == 200
    ((no, click),) = reply["results"]
    assert (no[0], click[0], np.float32(click[1])) == ("no", "click", expected[0])
    for bad in ({}, {"examples": []}, {"examples": [3]}, {"examples": [{"user_id": {"x": 1}}]}):
        assert ask("POST", f"{MODEL}:classify", bad)[0] == 400


def _value(page: str, line: str) -> int:
    found = re.search(rf"^{re.escape(line)} (\d+)$", page, re.MULTILINE)
    return int(found[1]) if found else 0


def test_c46_prometheus_page(ask: Rest) -> None:
    good, bad = _score(instances=[SCORE_ROW]), _score(instances=[{**SCORE_ROW, "user_vector": [1.0]}])
    ok = f':tensorflow:serving:request_count{{model_name="{NAME}",status="OK"}}'
    failed = ok.replace("OK", "INVALID_ARGUMENT")
    latency = f':tensorflow:serving:request_latency_count{{model_name="{NAME}",API="Predict",entrypoint="REST"}}'
    before = ask("GET", "/monitoring/prometheus/metrics")[1]
    for body in (good, bad, bad):
        ask("POST", f"{MODEL}:predict", body)
    after = ask("GET", "/monitoring/prometheus/metrics")[1]
    # An error counts as a request, but its latency is not recorded.
    rises = [_value(after, line) - _value(before, line) for line in (ok, failed, latency)]
    assert rises == [1, 2, 1]
    assert (
        f':tensorflow:serving:request_latency_bucket{{model_name="{NAME}",API="Predict",entrypoint="REST",le="18"}}'
        in after
    )
    assert "# TYPE :tensorflow:serving:runtime_latency histogram" in after


@pytest.mark.usefixtures("embedded")
def test_c46_names_that_are_not_served_do_not_grow_the_page(ask: Rest, caller: Caller) -> None:
    for name in ("x1", "x2"):
        request = predict_request("score", SCORE)
        request.model_spec.name = name
        with pytest.raises(Exception, match="Servable not found"):
            caller.prediction.Predict(request, timeout=20)
    page = ask("GET", "/monitoring/prometheus/metrics")[1]
    assert _value(page, ':tensorflow:serving:request_count{model_name="",status="NOT_FOUND"}') >= 2
    assert "x1" not in page


@pytest.mark.usefixtures("embedded")
@pytest.mark.parametrize("call", ["predict", "classify", "regress"])
@pytest.mark.parametrize(
    "body",
    [
        rb'{"signature_name": "score", "inputs": {"\ud800": [1]}}',
        rb'{"examples": [{"\udc00": 1}]}',
        rb'{"signature_name": "\ud800", "instances": [1]}',
    ],
)
def test_half_of_a_surrogate_pair_is_a_bad_request(ask: Rest, call: str, body: bytes) -> None:
    status, reply = ask("POST", f"{MODEL}:{call}", body)
    assert (status, "JSON Parse error" in reply["error"]) == (400, True)


@pytest.mark.usefixtures("embedded")
@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b'{"signature_name": "classify", "examples": [{"a": [1.5, 1' + b"0" * 400 + b"]}]}", "feature a must be"),
        (b'{"signature_name": "classify", "examples": [{"\xed\xa0\x80": 1}]}', "JSON Parse error"),
        (b'{"signature_name": "\xed\xa0\x80", "examples": [{"a": 1}]}', "JSON Parse error"),
        (r'{"signature_name": "\ud800", "examples": [{"a": 1}]}'.encode("utf-16-le"), "JSON Parse error"),
        (r'{"signature_name": "classify", "examples": [{"\ud800": 1}]}'.encode("utf-16-le"), "JSON Parse error"),
    ],
)
def test_what_no_example_can_hold_is_a_bad_request(ask: Rest, body: bytes, text: str) -> None:
    status, reply = ask("POST", f"{MODEL}:classify", body)
    assert (status, text in reply["error"]) == (400, True), reply


@pytest.mark.usefixtures("embedded")
def test_gzip_has_an_end(ask: Rest) -> None:
    good = gzip.compress(json.dumps(_score(instances=[SCORE_ROW])).encode())
    path, gzipped = f"{MODEL}:predict", {"Content-Encoding": "gzip"}
    for rest in (b"z", b"z" * 2**20, good):
        status, reply = ask("POST", path, good + rest, gzipped)
        assert (status, "after the end" in reply["error"]) == (400, True)


@pytest.mark.usefixtures("embedded")
def test_gzip_that_inflates_to_nothing_counts_too(rest_address: str) -> None:
    host, _, port = rest_address.rpartition(":")
    head = f"POST {MODEL}:predict HTTP/1.1\r\nHost: x\r\nContent-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n"
    nothing = b"\0\0\0\xff\xff" * 2**20  # empty blocks
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(head.encode() + b"a\r\n\x1f\x8b\x08\0\0\0\0\0\0\x03\r\n")
        for _ in range(13):
            connection.sendall(b"%x\r\n%b\r\n" % (len(nothing), nothing))
        assert connection.recv(4096).startswith(b"HTTP/1.1 413 ")


@pytest.mark.usefixtures("embedded")
def test_a_client_of_http_1_0_is_not_told_to_continue(rest_address: str) -> None:
    host, _, port = rest_address.rpartition(":")
    head = f"POST {MODEL}:predict HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n{{}}"
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(head.encode())
        assert b" 400 " in connection.recv(4096).split(b"\r\n")[0]


@pytest.mark.usefixtures("embedded")
def test_gzip_within_the_limit(ask: Rest) -> None:
    good = json.dumps(_score(instances=[SCORE_ROW])).encode()
    path, gzipped = f"{MODEL}:predict", {"Content-Encoding": "gzip"}
    assert ask("POST", path, gzip.compress(good), gzipped)[0] == 200
    assert ask("POST", path, gzip.compress(good)[:-4], gzipped)[0] == 400
    assert ask("POST", path, good, gzipped)[0] == 400
    assert ask("POST", path, good, {"Content-Encoding": "br"})[0] == 415
    assert ask("POST", path, gzip.compress(b" " * 2**27), gzipped)[0] == 413


def test_a_large_body_waits_for_the_word_of_the_server(rest_address: str) -> None:
    """As curl does it."""
    host, _, port = rest_address.rpartition(":")
    body = json.dumps(_score(instances=[SCORE_ROW])).encode()
    head = f"POST {MODEL}:predict HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(head.encode())
        assert connection.recv(4096).startswith(b"HTTP/1.1 100 ")
        connection.sendall(body)
        assert connection.recv(4096).startswith(b"HTTP/1.1 200 ")


@pytest.mark.usefixtures("embedded")
def test_too_many_values_are_refused_before_they_are_parsed(ask: Rest) -> None:
    status, reply = ask("POST", f"{MODEL}:predict", b'{"instances": [' + b"0," * 2**22 + b"0]}")
    assert (status, "4194304 values" in reply["error"]) == (400, True)


@pytest.mark.usefixtures("embedded")
def test_a_get_with_a_body_has_one_answer(rest_address: str) -> None:
    host, _, port = rest_address.rpartition(":")
    body = f"POST {MODEL}:predict HTTP/1.1\r\nContent-Length: 0\r\n\r\n"
    head = f"GET {MODEL} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    last = f"GET {MODEL} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall((head + body + last).encode())
        with connection.makefile("rb") as stream:
            answer = stream.read()
    assert re.findall(rb"HTTP/1\.\d (\d+)", answer) == [b"200", b"200"]


@pytest.mark.usefixtures("embedded")
@pytest.mark.parametrize("request_line", [f"GET {MODEL} HTTP/1.1", "GET /nothing HTTP/1.1", "nonsense"])
def test_no_answer_tells_versions(rest_address: str, request_line: str) -> None:
    host, _, port = rest_address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(f"{request_line}\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        with connection.makefile("rb") as stream:
            answer = stream.read()
    assert b"Server: tfctr\r\n" in answer
    assert not re.search(rb"aiohttp|Python", answer)
