"""Server processes that a test can stop, and requests of several callers at once."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.client.test_client import CANDIDATES, CONTEXT, USER
from tfctr.client import AsyncRankingClient, ClientError, RankingClient

CALLERS = 4


class Replica:
    """An embedded server in a process of its own."""

    def __init__(self, directory: Path):
        command = [sys.executable, "-m", "serving.server", "--model-base-path", str(directory)]
        self._process = subprocess.Popen(
            [*command, "--model-name", "ranking", "--port", "0"], stdout=subprocess.PIPE, text=True
        )
        self.address = ""

    def wait(self) -> None:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line.startswith("ready:"), line
        self.address = line.rsplit("grpc://", 1)[1].strip()

    def pause(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        os.kill(self._process.pid, signal.SIGKILL)
        self._process.wait()


@contextmanager
def replicas(directory: Path, count: int = 2) -> Iterator[list[Replica]]:
    found = [Replica(directory) for _ in range(count)]
    try:
        for one in found:
            one.wait()
        yield found
    finally:
        for one in found:
            one.kill()


class Outcomes:
    """When requests succeeded and failed, in seconds since `mark`."""

    def __init__(self) -> None:
        self._start = time.monotonic()
        self.answered: list[float] = []
        self.failed: list[tuple[float, str]] = []

    def mark(self) -> None:
        self._start = time.monotonic()
        self.answered, self.failed = [], []

    @property
    def now(self) -> float:
        return time.monotonic() - self._start

    def add(self, error: ClientError | None) -> None:
        if error is None:
            self.answered.append(self.now)
        else:
            self.failed.append((round(self.now, 1), type(error).__name__))


Scene = Callable[[Any, Outcomes], None]


def with_threads(scene: Scene, target: str, **options: Any) -> tuple[Outcomes, dict[str, int]]:
    """Callers in threads, while `scene` plays."""
    outcomes, stop = Outcomes(), threading.Event()
    with RankingClient(target, **options) as client:

        def work() -> None:
            while not stop.is_set():
                try:
                    client.rank(USER, CANDIDATES, CONTEXT)
                    outcomes.add(None)
                except ClientError as error:
                    outcomes.add(error)
                time.sleep(0.02)

        threads = [threading.Thread(target=work) for _ in range(CALLERS)]
        for thread in threads:
            thread.start()
        try:
            scene(client, outcomes)
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        return outcomes, client.counts


def with_asyncio(scene: Scene, target: str, **options: Any) -> tuple[Outcomes, dict[str, int]]:
    """Callers in tasks, while `scene` plays in a thread."""

    async def play() -> tuple[Outcomes, dict[str, int]]:
        outcomes = Outcomes()
        async with AsyncRankingClient(target, **options) as client:

            async def work() -> None:
                while not scenes.done():
                    try:
                        await client.rank(USER, CANDIDATES, CONTEXT)
                        outcomes.add(None)
                    except ClientError as error:
                        outcomes.add(error)
                    await asyncio.sleep(0.02)

            scenes = asyncio.create_task(asyncio.to_thread(scene, client, outcomes))
            await asyncio.gather(*(work() for _ in range(CALLERS)))
            await scenes
            return outcomes, client.counts

    return asyncio.run(play())


DRIVERS = {"threads": with_threads, "asyncio": with_asyncio}
