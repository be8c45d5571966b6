"""The command line of the server: its output, its errors, and how it stops."""

from __future__ import annotations

import os
import queue
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import grpc
import numpy as np
import pytest
from typer.testing import CliRunner

from serving.server import Server, ServerError
from serving.server.__main__ import app
from tests.serving.conftest import NAME, PATIENCE, Caller, eventually
from tests.serving.model import HISTORY

USER = {"user_id": np.array([3]), "history": np.arange(HISTORY)[None]}


class Process:
    """`python -m serving.server`, whose output is read while it runs. `within` is a command that starts the process."""

    def __init__(self, *arguments: str, within: Sequence[str] = ()) -> None:
        command = [*within, sys.executable, "-m", "serving.server", *arguments]
        environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "3"}
        self.popen = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
        )
        self.lines: list[str] = []
        self._queue: queue.Queue[str | None] = queue.Queue()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self.popen.stdout is not None
        for line in self.popen.stdout:
            self._queue.put(line)
        self._queue.put(None)

    def wait_for(self, pattern: str, seconds: float = PATIENCE) -> re.Match[str]:
        deadline = time.monotonic() + seconds
        while True:
            line = self._queue.get(timeout=max(0.1, deadline - time.monotonic()))
            assert line is not None, f"ended without {pattern!r}: {self.lines}"
            self.lines.append(line)
            if match := re.search(pattern, line):
                return match

    def finish(self) -> tuple[int, str]:
        code = self.popen.wait(timeout=PATIENCE)
        self._thread.join()
        while (line := self._queue.get()) is not None:
            self.lines.append(line)
        return code, "".join(self.lines)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    directory = tmp_path / NAME
    directory.mkdir()
    return directory


@pytest.fixture
def started(base: Path) -> Iterator[list[Process]]:
    processes: list[Process] = []
    yield processes
    for process in processes:
        if process.popen.poll() is None:
            process.popen.kill()
            process.popen.wait()


def _refusal(address: str) -> grpc.StatusCode:
    """Sends requests until the server refuses one. Returns the code of that refusal."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        try:
            Caller(address).run("user_tower", USER)
        except grpc.RpcError as error:
            # gRPC cancels a request that arrives just as the server stops. The client treats that like UNAVAILABLE.
            if error.code() is not grpc.StatusCode.CANCELLED:
                return error.code()
        time.sleep(0.05)
    raise AssertionError("it still takes requests")


@pytest.mark.e2e
def test_waits_for_a_version_serves_and_drains(
    base: Path, tmp_path: Path, saved_models: dict[int, Path], started: list[Process]
) -> None:
    options = ("--port", "0", "--poll-seconds", "0.1", "--drain-seconds", "600")
    process = Process("--model-base-path", str(base), "--model-name", NAME, *options)
    started.append(process)
    process.wait_for(rf"waiting for a version: {NAME}: no numeric directory .*{base} yet")
    shutil.copytree(saved_models[1], base / "copying")
    (base / "copying").rename(base / "12")
    match = process.wait_for(rf"^ready: {NAME} \(versions 12\) on grpc://(127\.0\.0\.1:\d+)$")
    caller = Caller(match[1])
    assert int(caller.run("user_tower", USER)["model_tag"][0]) == 1

    # A request is running when the signal comes. It is answered, a new one is refused, and the exit status is 0.
    begun, release = tmp_path / "begun", tmp_path / "release"
    answers: list[object] = []
    running = threading.Thread(target=lambda: answers.append(caller.run("held", {"files": [str(begun), str(release)]})))
    running.start()
    eventually(begun.exists, "the request runs")
    process.popen.send_signal(signal.SIGTERM)
    assert _refusal(match[1]) is grpc.StatusCode.UNAVAILABLE
    assert running.is_alive()
    release.touch()
    running.join()
    code, output = process.finish()
    assert len(answers) == 1
    assert (code, "Traceback" in output) == (0, False)


def test_stopped_while_it_waits(base: Path) -> None:
    server = Server(base, NAME, poll_seconds=0.05)
    starting = threading.Thread(target=server.start, kwargs={"timeout_seconds": None})
    starting.start()
    server.request_stop()
    starting.join(timeout=PATIENCE)
    assert not starting.is_alive()
    server.wait()
    server.stop()
    with pytest.raises(grpc.RpcError):
        Caller(server.address).run("user_tower", USER, timeout=0.5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model-base-path", "nowhere"], r"'nowhere' does not exist"),
        (["--model-base-path", ".", "--port", "70000"], r"Invalid value for '--port'.*65535"),
        ([], r"error: a model's directory or a configuration file is needed, and not both"),
        (["--model-config-file", __file__], r"error: .*test_process.py is no ModelServerConfig in text form"),
    ],
)
def test_wrong_arguments(arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"})
    assert result.exit_code == 2
    assert re.search(message, result.output), result.output


def test_not_a_directory(tmp_path: Path) -> None:
    with pytest.raises(ServerError, match="nowhere is not a directory: it must hold one numeric directory per model"):
        Server(tmp_path / "nowhere")


def test_port_in_use(base: Path, saved_models: dict[int, Path]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ServerError, match=f"cannot listen on 127.0.0.1:{port}: the port is in use"):
            Server(base, NAME, port).start(timeout_seconds=1)


def test_two_servers_do_not_share_a_port(server: Server, base: Path) -> None:
    with pytest.raises(ServerError, match="the port is in use"):
        Server(base, NAME, server.port).start(timeout_seconds=1)


def test_no_version_in_time(base: Path) -> None:
    with pytest.raises(ServerError, match=r"no version became available in 0.3 s: small: no numeric directory"):
        Server(base, NAME, poll_seconds=0.05).start(timeout_seconds=0.3)


def test_repeated_fields_as_the_real_server_sends_them(base: Path, saved_models: dict[int, Path]) -> None:
    (base / "1").symlink_to(saved_models[1])
    with Server(base, NAME, tensor_content=False) as server:
        caller = Caller(server.address)
        proto = caller.predict("user_tower", USER).outputs["user_vector"]
        assert (len(proto.float_val), proto.tensor_content) == (8, b"")
        half = np.array([0.5, -2.0], np.float16)
        inputs = {"int32": np.int32(1), "half": half, "text": b"a", "flag": True}
        outputs = caller.run("echo", {**inputs, "bfloat16": half.astype("bfloat16")})
        np.testing.assert_array_equal(outputs["half"], half)
        np.testing.assert_array_equal(outputs["bfloat16"].astype(np.float16), half)
        caller.channel.close()
