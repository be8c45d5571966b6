"""A rollout under load, with the embedded server and clients that request the label `stable`."""

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
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
IN_TURN = [("grpc.lb_policy_name", "round_robin")]
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
def servers(config: Path) -> Iterator[list[Server]]:
    with ExitStack() as stack:
        yield [
            stack.enter_context(Server(model_config_file=config, poll_seconds=0.1, allow_reload=True)) for _ in range(2)
        ]


class Load:
    """Clients that request `stable` from the servers in turn. One of them caches the state."""

    def __init__(self, addresses: list[str]):
        self._target = f"ipv4:{','.join(addresses)}"
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
        with RankingClient(self._target, version_label="stable", options=IN_TURN, **OPTIONS) as client:
            while not self._stop.is_set():
                try:
                    ranked = sorted(client.rank(USER, CANDIDATES, CONTEXT, **key), key=lambda one: one.index)
                    self.answers.append(np.array([one.probability for one in ranked], np.float32))
                except Exception as error:
                    self.errors.append(error)
                time.sleep(0.005)

    def wait_for(self, *expected: np.ndarray) -> None:
        """Waits until each of these answers is among the last 20, and no other answer is."""
        end = time.monotonic() + 300
        while True:
            found = [[np.array_equal(one, answer) for answer in expected] for one in self.answers[-20:]]
            if found and all(map(any, found)) and all(any(column) for column in zip(*found, strict=True)):
                return
            assert time.monotonic() < end, f"still another version; errors: {self.errors[:1]}"
            time.sleep(0.05)


def _of(address: str) -> Callable[[int], np.ndarray]:
    def of(version: int) -> np.ndarray:
        with RankingClient(address, version=version, **OPTIONS) as client:
            return client.score(client.user_state(USER), CANDIDATES, CONTEXT)

    return of


def test_no_answer_is_of_two_versions(config: Path, servers: list[Server]) -> None:
    addresses = [server.address for server in servers]
    of = _of(addresses[-1])

    def step() -> Rollout:
        return Rollout(config, addresses)

    with Load(addresses) as load:
        old = of(1)
        load.wait_for(old)
        step().canary(2)
        new = of(2)
        assert not np.array_equal(old, new)
        load.wait_for(old)  # `canary` is another label
        with pytest.raises(UserError, match=r"the previous configuration is back$"):
            Rollout(config, addresses, timeout=60).canary(9)
        assert step().labels == {"stable": 1, "canary": 2}
        # A state that is normally short: one server has the new label and the other does not.
        half = shutil.copy(config, config.with_name("half.config"))
        Rollout(half, addresses[:1]).promote()
        load.wait_for(old, new)
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
    assert [server.served for server in servers] == [{"ranking": [2]}] * 2
    whole = [np.array_equal(one, old) or np.array_equal(one, new) for one in load.answers]
    assert all(whole)
