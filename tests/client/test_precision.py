"""Scores of real SavedModels with a state in reduced precision."""

from pathlib import Path

import numpy as np
import pytest

from serving.server import Server
from tests.workbench import Workbench
from tfctr.client import RankingClient, StateKey
from tfctr.client.record import Precision, from_bytes, to_bytes

pytestmark = pytest.mark.e2e

BOUNDS: dict[Precision, float] = {"float32": 0.0, "float16": 1e-4, "int8": 2e-3}


@pytest.mark.parametrize("preset", ["din", "dmf"])
def test_error_of_the_scores_is_bounded(exported: dict[str, Path], workbench: Workbench, preset: str) -> None:
    raw = workbench.raw("test", 40)
    file = workbench.file
    candidates = {name: raw[name].tolist() for name in file.candidate if name in raw}
    largest = dict.fromkeys(BOUNDS, 0.0)
    with Server(exported[preset].parent, "ranking") as server, RankingClient(server.address) as client:
        for row in range(len(raw["history_length"])):
            user = {n: raw[n][row] for n in (*file.user, *file.sequences["history"].fields, "history_length")}
            state = client.user_state(user, timeout_seconds=30)
            context = {"timestamp": int(raw["timestamp"][row])}
            exact = client.score(state, candidates, context)
            assert exact.std() > 0.01  # with equal scores, an error could not be seen
            key = StateKey(state.model, state.version, state.fingerprint, str(row), "1")
            for precision in BOUNDS:
                kept = from_bytes(key, to_bytes(key, state, precision))
                assert kept is not None
                error = float(np.abs(client.score(kept, candidates, context) - exact).max())
                largest[precision] = max(largest[precision], error)
    print(preset, largest)
    assert all(largest[precision] <= bound for precision, bound in BOUNDS.items()), largest
    assert 0 < largest["float16"] < largest["int8"]
