"""What goes wrong around the server, and what clients send that no client should: none of it may disturb another."""

from __future__ import annotations

import resource
import shutil
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2, types_pb2
from tensorflow_serving.apis import predict_pb2

from serving.server import Server
from tests.serving.conftest import NAME, Caller, eventually, predict_request
from tests.serving.model import HISTORY, WIDTH
from tests.serving.requests import ECHO, SCORE
from tests.serving.test_process import Process

Code = grpc.StatusCode
USER = {"user_id": np.array([3]), "history": np.arange(HISTORY)[None]}
# What a request may be refused with; anything else would say that the server, not the request, is at fault.
REFUSALS = {Code.INVALID_ARGUMENT, Code.FAILED_PRECONDITION, Code.NOT_FOUND}
SHAPES = ([], [0], [1], [1, WIDTH], [WIDTH, 1], [2, 3, 4], [-1], [2**40], [0, 2**62, 2**62], [1] * 100, [1] * 300)


def _resident_megabytes() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def _tensor(random: np.random.Generator) -> tensor_pb2.TensorProto:
    """A tensor with a type, a shape and a content that need not know of each other."""
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
    """A request that was right once: with a tensor replaced, a name changed, or some bytes flipped or cut off."""
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
            before = _resident_megabytes()
        raw = _malformed(random)
        try:
            call(raw, timeout=20)
            counted[Code.OK] += 1
        except grpc.RpcError as error:
            code = error.code()
            try:
                predict_pb2.PredictRequest.FromString(raw)
            except Exception:
                assert code is Code.INTERNAL  # no protobuf message
                code = "not a message"
            counted[code] += 1
            texts.setdefault(code, error.details())
    grown = _resident_megabytes() - before
    assert counted.keys() - {Code.OK, "not a message"} <= REFUSALS, (counted, texts)
    assert counted[Code.INVALID_ARGUMENT] > 2_000
    assert int(caller.run("user_tower", USER)["model_tag"][0]) == 1
    assert grown < 50, f"{grown:.0f} MB more after 8,000 requests"


@pytest.mark.parametrize("dtype", [types_pb2.DT_FLOAT, types_pb2.DT_STRING, types_pb2.DT_INT64])
def test_m3_a_small_message_cannot_make_a_huge_tensor(caller: Caller, server: Server, dtype: int) -> None:
    proto = tensor_pb2.TensorProto(dtype=dtype)
    proto.tensor_shape.dim.add(size=2**26)
    before = _resident_megabytes()
    with pytest.raises(grpc.RpcError, match="too many to fill up") as caught:
        caller.predict("score", {**SCORE, "user_vector": proto})
    assert caught.value.code() is Code.INVALID_ARGUMENT
    assert _resident_megabytes() - before < 100


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


def test_f3_versions_switched_under_load_are_never_mixed(
    tmp_path: Path, saved_models: dict[int, Path], caller: Caller
) -> None:
    """Every score is the whole score of the version that the reply names."""
    base = tmp_path / NAME
    base.mkdir()
    scored = {"user_id": USER["user_id"], "history": USER["history"]}
    known = {
        tag: tf.saved_model.load(str(saved_models[tag]))
        .signatures["user_tower"](**{name: tf.constant(value) for name, value in scored.items()})["user_vector"]
        .numpy()
        for tag in (1, 2)
    }
    shutil.copytree(saved_models[1], base / "1")
    with Server(base, NAME, num_versions=1, poll_seconds=0.02) as server:
        done = threading.Event()
        failures: list[str] = []
        seen: Counter[int] = Counter()

        def ask() -> None:
            own = Caller(server.address)
            while not done.is_set():
                try:
                    reply = own.predict("user_tower", scored)
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


def test_f6_a_disk_that_is_full_while_a_version_is_written(tmp_path: Path, saved_models: dict[int, Path]) -> None:
    """The writer stops in the middle of a file; the old version goes on, also when what was written is removed."""
    base = tmp_path / NAME
    shutil.copytree(saved_models[1], base / "1")
    shutil.copytree(saved_models[2], tmp_path / "2")
    data = tmp_path / "2" / "variables" / "variables.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:100])
    with Server(base, NAME, poll_seconds=0.02, retry_seconds=0.02) as server:
        caller = Caller(server.address)
        (tmp_path / "2").rename(base / "2")
        eventually(lambda: 2 in caller.status() and caller.status()[2].status.error_code != 0, "the refusal shows")
        assert int(caller.run("user_tower", USER)["model_tag"][0]) == 1
        shutil.rmtree(base / "2")
        shutil.copytree(saved_models[2], base / "3")
        eventually(lambda: int(caller.run("user_tower", USER)["model_tag"][0]) == 2, "a whole version follows")
        caller.channel.close()


@pytest.mark.e2e
def test_f2_killed_under_load_and_started_again(base_path: Path) -> None:
    """A client's channel finds the server again; in between it is told UNAVAILABLE, never anything else."""
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
