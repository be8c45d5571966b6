"""Failures around the server, and malformed requests. They must not affect other requests."""

from __future__ import annotations

import os
import re
import resource
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2, types_pb2
from tensorflow_serving.apis import predict_pb2

from serving.server import Server
from tests.serving.conftest import NAME, PATIENCE, Caller, eventually, predict_request
from tests.serving.model import HISTORY, WIDTH
from tests.serving.process_resources import process_resources
from tests.serving.requests import ECHO, SCORE
from tests.serving.test_process import Process

pytestmark = pytest.mark.slow

Code = grpc.StatusCode
USER = {"user_id": np.array([3]), "history": np.arange(HISTORY)[None]}
# Codes for an invalid request. Other codes would mean that the server is at fault.
REFUSALS = {Code.INVALID_ARGUMENT, Code.FAILED_PRECONDITION, Code.NOT_FOUND}
SHAPES = ([], [0], [1], [1, WIDTH], [WIDTH, 1], [2, 3, 4], [-1], [2**40], [0, 2**62, 2**62], [1] * 100, [1] * 300)


def _tensor(random: np.random.Generator) -> tensor_pb2.TensorProto:
    """A tensor whose type, shape and content need not match."""
    proto = tensor_pb2.TensorProto(dtype=int(random.choice([*range(24), 101, 123])))
    for size in SHAPES[random.integers(len(SHAPES))]:
        proto.tensor_shape.dim.add(size=size)
    content = random.integers(6)
    if content == 0:
        proto.tensor_content = random.bytes(random.integers(80))
    elif content == 1:
        proto.float_val.extend(random.choice([np.nan, np.inf, 0.0, 1e38], random.integers(20)))
    elif content == 2:
        proto.int64_val.extend(random.choice([-1, 2**63 - 1, -(2**63), 0], random.integers(20)).tolist())
    elif content == 3:
        proto.string_val.extend([random.bytes(5) for _ in range(random.integers(5))])
    elif content == 4:
        proto.half_val.extend([-1, 2**31 - 1])
    return proto


def _malformed(random: np.random.Generator) -> bytes:
    """A valid request in which a tensor is replaced, a name changed, or bytes flipped or cut off."""
    signature, inputs = [("score", SCORE), ("user_tower", USER), ("echo", ECHO)][random.integers(3)]
    request = predict_request(signature, inputs)
    names = sorted(request.inputs)
    name = names[random.integers(len(names))]
    change = random.integers(6)
    if change <= 1:
        request.inputs[name].CopyFrom(_tensor(random))
    elif change == 2:
        del request.inputs[name]
    elif change == 3:
        request.inputs["../../etc/passwd"].CopyFrom(_tensor(random))
    elif change == 4:
        request.model_spec.name = ["", "x", "../../etc", "/", "\x00", "small/7", "caf\u00e9"][random.integers(7)]
    raw = bytearray(request.SerializeToString(deterministic=True))
    if change == 5:
        for _ in range(random.integers(1, 4)):
            raw[random.integers(len(raw))] ^= 1 << random.integers(8)
        if random.integers(2):
            raw = raw[: random.integers(len(raw))]
    return bytes(raw)


@pytest.mark.e2e
def test_m2_ten_thousand_malformed_requests(caller: Caller, server: Server) -> None:
    random = np.random.default_rng(0)
    call = caller.channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
    counted: Counter[Any] = Counter()
    texts: dict[Any, str] = {}
    for number in range(10_000):
        if number == 2_000:
            before = process_resources().megabytes
        raw = _malformed(random)
        try:
            call(raw, timeout=20)
            counted[Code.OK] += 1
        except grpc.RpcError as error:
            code = error.code()
            try:
                predict_pb2.PredictRequest.FromString(raw)
            except Exception:
                assert code is Code.INTERNAL  # not a protobuf message
                code = "not a message"
            counted[code] += 1
            texts.setdefault(code, error.details())
    grown = process_resources().megabytes - before
    assert counted.keys() - {Code.OK, "not a message"} <= REFUSALS, (counted, texts)
    assert counted[Code.INVALID_ARGUMENT] > 2_000
    assert int(caller.run("user_tower", USER)["model_tag"][0]) == 1
    assert grown < 50, f"{grown:.0f} MB more after 8,000 requests"


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"\x0a\x04\x0a\x02\xff\xfe", id="a model's name that is not UTF-8"),
        pytest.param(predict_request("score", SCORE).SerializeToString()[:-3], id="cut off"),
    ],
)
def test_m2_no_message_is_refused_and_nothing_else_happens(caller: Caller, raw: bytes) -> None:
    call = caller.channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
    with pytest.raises(grpc.RpcError) as caught:
        call(raw, timeout=20)
    assert caught.value.code() is Code.INTERNAL
    assert int(caller.run("user_tower", USER)["model_tag"][0]) == 1


@pytest.mark.parametrize("dtype", [types_pb2.DT_FLOAT, types_pb2.DT_STRING, types_pb2.DT_INT64])
@pytest.mark.parametrize(("shape", "limit"), [([100_000], "4096 rows"), ([1, 2**23], "4194304 elements")])
def test_m3_a_small_message_cannot_make_a_huge_tensor(
    caller: Caller, server: Server, dtype: int, shape: list[int], limit: str
) -> None:
    proto = tensor_pb2.TensorProto(dtype=dtype)
    for size in shape:
        proto.tensor_shape.dim.add(size=size)
    before = process_resources().megabytes
    with pytest.raises(grpc.RpcError, match=limit) as caught:
        caller.predict("score", {**SCORE, "user_vector": proto})
    assert caught.value.code() is Code.INVALID_ARGUMENT
    assert process_resources().megabytes - before < 30


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_m4_what_is_no_number_stays_in_its_row(caller: Caller, value: float) -> None:
    good = caller.run("score", SCORE)["probabilities"]
    vectors = np.concatenate([np.full((1, WIDTH), value, np.float32), SCORE["user_vector"]])
    both = {
        "user_vector": vectors,
        "model_tag": np.ones(2, np.int64),
        "item_id": np.repeat(SCORE["item_id"], 2, axis=0),
    }
    np.testing.assert_allclose(caller.run("score", both)["probabilities"][1:], good, atol=1e-6)


def _user_vector(directory: Path) -> np.ndarray:
    """The user vector of `USER` that a SavedModel computes."""
    signature = tf.saved_model.load(str(directory)).signatures["user_tower"]
    return signature(**{name: tf.constant(value) for name, value in USER.items()})["user_vector"].numpy()


def test_f3_versions_switched_under_load_are_never_mixed(
    tmp_path: Path, saved_models: dict[int, Path], caller: Caller
) -> None:
    """Each user vector is that of the version in the reply."""
    base = tmp_path / NAME
    base.mkdir()
    known = {tag: _user_vector(saved_models[tag]) for tag in (1, 2)}
    shutil.copytree(saved_models[1], base / "1")
    with Server(base, NAME, num_versions=1, poll_seconds=0.02) as server:
        done = threading.Event()
        failures: list[str] = []
        seen: Counter[int] = Counter()

        def ask() -> None:
            own = Caller(server.address)
            while not done.is_set():
                try:
                    reply = own.predict("user_tower", USER)
                except grpc.RpcError as error:
                    failures.append(str(error.details()))
                    return
                tag = reply.model_spec.version.value % 2 or 2
                if not np.array_equal(tf.make_ndarray(reply.outputs["user_vector"]), known[tag]):
                    failures.append(f"another score than that of version {reply.model_spec.version.value}")
                seen[reply.model_spec.version.value] += 1
            own.channel.close()

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        for version in (2, 3, 4):
            shutil.copytree(saved_models[version % 2 or 2], base / f"copying-{version}")
            (base / f"copying-{version}").rename(base / str(version))
            eventually(lambda version=version: seen[version] > 20 or bool(failures), f"version {version} answers")
        done.set()
        for thread in threads:
            thread.join()
        assert not failures, failures[0]
        assert seen.keys() == {1, 2, 3, 4}


def _can_mount() -> bool:
    """Whether a process may mount a file system here; containers may forbid it."""
    mount = ["unshare", "-rm", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    return shutil.which("unshare") is not None and subprocess.run(mount, capture_output=True).returncode == 0


def _copy(source: Path, target: Path, largest_file: int = resource.RLIM_INFINITY) -> str:
    """Copies a directory in another process. Returns the error output of that process."""
    script = (
        "import resource, shutil, sys;"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2);"
        "shutil.copytree(*sys.argv[2:])"
    )
    command = [sys.executable, "-c", script, str(largest_file), str(source), str(target)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode != 0) == bool(done.stderr)
    return done.stderr


def _fill(path: Path) -> None:
    """Appends to a file until the disk is full."""
    with path.open("ab", buffering=0) as file, suppress(OSError):
        while True:
            file.write(b"." * 4096)


@pytest.mark.e2e
@pytest.mark.parametrize("kind", ["largest file", *(["full disk"] if _can_mount() else [])])
def test_f6_a_disk_that_is_full_while_a_version_is_copied(
    tmp_path: Path, saved_models: dict[int, Path], kind: str
) -> None:
    """The old version stays available. The log and the temporary files of the server are on the full disk as well."""
    room = 16_384
    disk = tmp_path / "disk"
    disk.mkdir()
    known = {tag: _user_vector(saved_models[tag]) for tag in (1, 2)}
    start = 'mkdir "$0/small" && TMPDIR="$0" exec "$@" >>"$0/log" 2>&1'
    within = ["sh", "-c", start, str(disk)]
    if kind == "full disk":
        within = ["unshare", "-rm", "sh", "-c", f'mount -t tmpfs -o size=1m tmpfs "$0" && {start}', str(disk)]
    arguments = ("--model-base-path", f"{disk}/small", "--model-name", NAME, "--port", "0", "--poll-seconds", "0.05")
    process = Process(*arguments, within=within)
    try:
        seen = Path(f"/proc/{process.popen.pid}/root{disk}")  # the directory as the server process sees it
        base, log = seen / "small", seen / "log"
        eventually(base.is_dir, "the server's disk is there")
        assert not _copy(saved_models[1], base / "1")
        eventually(lambda: "ready: " in log.read_text(), "it serves")
        caller = Caller(re.findall(r"grpc://(\S+)", log.read_text())[0])

        def answers(tag: int) -> bool:
            return np.array_equal(caller.run("user_tower", USER)["user_vector"], known[tag])

        assert answers(1)
        if kind == "full disk":
            (seen / "room").write_bytes(b"." * room)
            _fill(log)
            (seen / "room").unlink()
            assert "No space left on device" in _copy(saved_models[2], base / "copying")
        else:
            assert "File too large" in _copy(saved_models[2], base / "copying", room)
        (base / "copying").rename(base / "2")
        eventually(lambda: 2 in caller.status() and caller.status()[2].status.error_code != 0, "the refusal shows")
        assert re.search(r"2/saved_model\.pb|2/variables", caller.status()[2].status.error_message)
        assert ("version 2" in log.read_text()) == (kind != "full disk")
        assert answers(1)
        shutil.rmtree(base / "2")
        os.truncate(log, 0)
        assert answers(1)
        assert not _copy(saved_models[2], base / "2")
        eventually(lambda: answers(2), "the whole version follows")
        eventually(lambda: "version 2 is available" in log.read_text(), "the log goes on")
        process.popen.terminate()
        assert process.popen.wait(PATIENCE) == 0
    finally:
        process.popen.kill()
        process.popen.wait()


@pytest.mark.e2e
def test_f2_killed_under_load_and_started_again(base_path: Path) -> None:
    """The channel of a client reconnects to the server. Until then, the only error is UNAVAILABLE."""
    arguments = ("--model-base-path", str(base_path), "--model-name", NAME)
    first = Process(*arguments, "--port", "0")
    address = first.wait_for(r"on grpc://(\S+)$")[1]
    caller = Caller(address)
    codes: Counter[Any] = Counter()
    done = threading.Event()

    def ask() -> None:
        while not done.is_set():
            try:
                caller.run("user_tower", USER)
                codes[Code.OK] += 1
            except grpc.RpcError as error:
                codes[error.code()] += 1
                time.sleep(0.01)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    second = None
    try:
        eventually(lambda: codes[Code.OK] > 20, "it answers")
        first.popen.kill()
        first.popen.wait()
        eventually(lambda: codes[Code.UNAVAILABLE] > 0, "the loss shows")
        answered = codes[Code.OK]
        second = Process(*arguments, "--port", address.rpartition(":")[2])
        second.wait_for("^ready: ")
        eventually(lambda: codes[Code.OK] > answered + 20, "it answers again")
    finally:
        done.set()
        for thread in threads:
            thread.join()
        for process in (first, second):
            if process is not None and process.popen.poll() is None:
                process.popen.kill()
                process.popen.wait()
    assert codes.keys() == {Code.OK, Code.UNAVAILABLE}
