"""The load of the soak test. It runs in a process of its own, which does not import TensorFlow."""

from __future__ import annotations

import logging
import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np

from tfctr.client import ClientError, MemoryStateCache, RankingClient, UserState

USERS, KEPT, THREADS = 300, 40, 4
USER = {"user_id": 5, "gender": "F", "age": 20.0, "history_item_id": [10, 20], "history_genres": ["War", "Drama"]}
CANDIDATES = {"item_id": np.arange(50), "price": np.linspace(0, 1, 50), "genres": ["Drama"] * 50}
CONTEXT = {"timestamp": 36}
SECONDS = 30.0


@cache
def _client(address: str) -> RankingClient:
    """The client that most requests of this process share."""
    logging.getLogger("tfctr.client").setLevel(logging.ERROR)
    return RankingClient(
        address, cache=MemoryStateCache(max_entries=KEPT), timeout_seconds=SECONDS, refresh_seconds=0.1
    )


def _one(address: str, number: int) -> str:
    """Makes one request, which is valid most of the time. Returns its outcome."""
    client = _client(address)
    kind = number % 10
    # A few users with many requests, and more other users than the cache can keep.
    kept = {"user_key": number % (USERS if number % 2 else 20), "history_version": 1}
    try:
        if kind == 0:
            with RankingClient(address, timeout_seconds=SECONDS) as own:
                own.rank(USER, CANDIDATES, CONTEXT)
        elif kind == 1:
            client.rank({**USER, "age": "old"}, CANDIDATES, CONTEXT)
        elif kind == 2:
            state = client.user_state(USER)
            short = {name: tensor[:, :-1] if tensor.ndim > 1 else tensor for name, tensor in state.tensors.items()}
            client.score(UserState(state.model, state.version, state.fingerprint, short), CANDIDATES, CONTEXT)
        elif kind == 3:
            client.rank(USER, CANDIDATES, CONTEXT, timeout_seconds=0.001)
        elif kind == 4:
            client.rank(USER, CANDIDATES, CONTEXT)
        else:
            client.rank(USER, CANDIDATES, CONTEXT, **kept)
    except ClientError as error:
        return type(error).__name__
    return "answered"


def load(address: str, requests: int) -> tuple[int, Counter[str], dict[str, int]]:
    """Makes requests from several threads. Returns the process id, the outcomes and the counts of the client."""
    with ThreadPoolExecutor(THREADS) as threads:
        ended = Counter(threads.map(lambda number: _one(address, number), range(requests)))
    return os.getpid(), ended, _client(address).counts
