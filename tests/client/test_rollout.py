"""A rollout by label, under load: `serving.rollout`, the embedded server and a client that asks for `stable`."""

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from serving.rollout import Rollout
from serving.server import Server
from tests.client.test_client import CANDIDATES, CONTEXT, USER
from tfctr.client import RankingClient
from tfctr.errors import UserError

pytestmark = pytest.mark.e2e
OPTIONS = {"timeout_seconds": 30, "refresh_seconds": 0.1, "chunk_size": 2}
START = """model_config_list {{ config {{
  name: "ranking" base_path: "{base}" model_platform: "tensorflow"
  model_version_policy {{ specific {{ versions: 1 }} }}
  version_labels {{ key: "stable" value: 1 }}
}} }}
"""


@pytest.fixture
def config(tmp_path: Path, toy_models: Path) -> Path:
    base = tmp_path / "ranking"
    for version in (1, 2):
        shutil.copytree(toy_models / str(version), base / str(version))
    (base / "9").mkdir()
    (base / "9" / "saved_model.pb").write_bytes(b"half a copy")
    path = tmp_path / "models.config"
    path.write_text(START.format(base=base))
    return path


@pytest.fixture
def server(config: Path) -> Iterator[Server]:
    with Server(model_config_file=config, poll_seconds=0.1) as server:
        yield server


class Load:
    """Clients that ask for `stable` all the time, one of them with a cached state."""

    def __init__(self, address: str):
        self._address = address
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._work, args=(cached,)) for cached in (True, False)]
        self.answers: list[np.ndarray] = []
        self.errors: list[Exception] = []

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _work(self, cached: bool) -> None:
        key = {"user_key": "u5", "history_version": 1} if cached else {}
        with RankingClient(self._address, version_label="stable", **OPTIONS) as client:
            while not self._stop.is_set():
                try:
                    ranked = sorted(client.rank(USER, CANDIDATES, CONTEXT, **key), key=lambda one: one.index)
                    self.answers.append(np.array([one.probability for one in ranked], np.float32))
                except Exception as error:
                    self.errors.append(error)
                time.sleep(0.005)

    def wait_for(self, expected: np.ndarray) -> None:
        """Until both clients have answered so for a while."""
        end = time.monotonic() + 60
        while not self.answers[-20:] or not all(np.array_equal(one, expected) for one in self.answers[-20:]):
            assert time.monotonic() < end, f"still another version; errors: {self.errors[:1]}"
            time.sleep(0.05)


def _of(address: str) -> Callable[[int], np.ndarray]:
    def of(version: int) -> np.ndarray:
        with RankingClient(address, version=version, **OPTIONS) as client:
            return client.score(client.user_state(USER), CANDIDATES, CONTEXT)

    return of


def test_no_answer_is_of_two_versions(config: Path, server: Server) -> None:
    of = _of(server.address)

    def step() -> Rollout:
        return Rollout(config, server.address)

    with Load(server.address) as load:
        old = of(1)
        load.wait_for(old)
        step().canary(2)
        new = of(2)
        assert not np.array_equal(old, new)
        load.wait_for(old)  # the canary is another label
        with pytest.raises(UserError, match=r"the previous configuration is back"):
            Rollout(config, server.address, timeout=20).canary(9)
        assert step().labels == {"stable": 1, "canary": 2}
        step().promote()
        load.wait_for(new)
        step().rollback()
        load.wait_for(old)
        step().canary(2)
        step().promote()
        load.wait_for(new)
        step().drop(1, grace_seconds=0)
        load.wait_for(new)
    assert not load.errors, load.errors[0]
    assert server.served == {"ranking": [2]}
    whole = [np.array_equal(one, old) or np.array_equal(one, new) for one in load.answers]
    assert all(whole)
