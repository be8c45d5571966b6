"""A real redis-server for tests."""

import os
import shutil
import signal
import subprocess
import time
from typing import Any

import redis

from tests.ports import free_port


class RedisServer:
    """A redis-server on a free port. Without redis-server on the machine, the test fails.

    Its arguments are `--port` or others, with `{port}` for the port and `{bus}` for another free one; `client` are
    those of `plain`, a client.
    """

    def __init__(self, *arguments: str, client: dict[str, Any] | None = None) -> None:
        self.port, bus = free_port(), free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._arguments = [one.format(port=self.port, bus=bus) for one in arguments or ("--port", "{port}")]
        self._client = client or {}
        self.start()

    def start(self) -> None:
        binary = shutil.which("redis-server")
        assert binary, "redis-server is not installed: apt-get install redis-server"
        self.process = subprocess.Popen(
            [binary, *self._arguments, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"],
            stdout=subprocess.DEVNULL,
        )
        self.plain = redis.Redis(port=self.port, **self._client)
        try:
            self._wait_until_it_answers()
        except BaseException:
            self.kill()
            raise

    def _wait_until_it_answers(self) -> None:
        end = time.monotonic() + 300
        while True:
            try:
                self.plain.ping()
                return
            except redis.ConnectionError as error:
                assert self.process.poll() is None, "redis-server has ended"
                if time.monotonic() >= end:
                    raise AssertionError("redis-server does not answer") from error
                time.sleep(0.05)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def pause(self) -> None:
        os.kill(self.process.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        os.kill(self.process.pid, signal.SIGCONT)
