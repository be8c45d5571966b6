"""Retrieves 500 candidates for a user and ranks them, with two models on one server.

    python examples/retrieve_and_rank.py DATA RANKER OUT

DATA is a data set with the columns of `tfctr data synthesize`, RANKER a directory with versions of a model that tfctr
trained on it, and OUT, which is made, takes the index of a TensorFlow Recommenders model that `two_tower.py` trains.
For each user of the test split, the first request of the split is answered; the clicks from there on are to be found.
"""

import argparse
import csv
import itertools
import json
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from tfctr import MODEL_NAME
from tfctr.client import ClientError, RankingClient
from tfctr.data.sources import serialized, split_files
from tfctr.errors import UserError
from tfctr.export.describe import describe
from tfctr.features import FeatureFile, raw_inputs
from tfctr.features.parsing import outcomes, parse_examples
from tfctr.features.row_checks import column_rules

TOP, LIKED = 10, 4
NEEDED = {"user_id", "history_item_id", "history_rating", "item_id", "timestamp"}


def feature_file(ranker: Path) -> FeatureFile:
    """What the newest version of the ranker was trained with."""
    versions = [path for path in ranker.glob("*") if path.name.isdigit()]
    if not versions:
        raise UserError(f"{ranker}: no version of a model; `make demo` or `tfctr export` makes one")
    file = describe(max(versions, key=lambda path: int(path.name))).feature_file
    if missing := NEEDED - {spec.name for spec in raw_inputs(file)}:
        raise UserError(f"{ranker}: this example needs the features {', '.join(sorted(missing))}")
    return file


def read(data: Path, split: str, file: FeatureFile) -> Iterator[dict[str, Any]]:
    """The rows of a split as a service has them: raw values, and histories without padding."""
    logged = (row for path in split_files(data, split) for row in serialized(path, column_rules(file), file.csv))
    while batch := list(itertools.islice(logged, 4096)):
        columns = {n: c.numpy() for n, c in parse_examples(tf.constant(batch), file, outcomes(file)).items()}
        for values in zip(*columns.values(), strict=True):
            row = dict(zip(columns, values, strict=True))
            length = row.pop("history_length")
            yield {name: value[:length] if np.ndim(value) else value for name, value in row.items()}


def choices(data: Path, file: FeatureFile) -> dict[str, np.ndarray]:
    """What users chose in the training split, and their histories then.

    These are the clicks, and the liked events in the newest history of each user, with the events before them.
    """
    (label,) = file.labels.columns
    newest: dict[int, dict[str, Any]] = {}
    found = []
    for row in read(data, "train", file):
        user, history = row["user_id"], row["history_item_id"]
        if row[label] > 0:
            found.append((user, history, row["item_id"]))
        if row["timestamp"] >= newest.get(user, row)["timestamp"]:
            newest[user] = row
    for user, row in newest.items():
        history = row["history_item_id"]
        found += [(user, history[i + 1 :], history[i]) for i in np.flatnonzero(row["history_rating"] >= LIKED)]
    if not found:
        raise UserError(f"{data}: the training split has neither a click nor a liked event")
    users, histories, items = zip(*found, strict=True)
    padded = np.zeros((len(found), max(map(len, histories))), np.int64)
    for line, history in zip(padded, histories, strict=True):
        line[: len(history)] = history
    lengths = [len(history) for history in histories]
    named = {"user_id": users, "history_item_id": padded, "history_length": lengths, "item_id": items}
    return {name: np.array(values, np.int64) for name, values in named.items()}


def train_index(data: Path, file: FeatureFile, catalogue: list[int], out: Path, seed: int) -> None:
    """Writes the choices for `two_tower.py`, which needs a process of its own, and runs it."""
    np.savez(out / "choices.npz", catalogue=np.array(catalogue, np.int64), **choices(data, file))
    command = [
        sys.executable,
        Path(__file__).with_name("two_tower.py"),
        out / "choices.npz",
        out / "retrieval",
        str(seed),
    ]
    ran = subprocess.run(command, env={**os.environ, "TF_USE_LEGACY_KERAS": "1"}, capture_output=True, text=True)
    if ran.returncode:
        hint = "; install the extra `retrieval`" if "No module named 'tensorflow_recommenders'" in ran.stderr else ""
        raise UserError(f"training the index failed{hint}:\n{ran.stderr[-2000:]}")


@contextmanager
def serve(ranker: Path, out: Path) -> Iterator[str]:
    """One server with both models, in a process of its own; yields its address."""
    paths = {"retrieval": out / "retrieval", MODEL_NAME: ranker}
    models = "".join(
        f'  config {{ name: "{name}" base_path: {json.dumps(str(path.resolve()))} model_platform: "tensorflow" }}\n'
        for name, path in paths.items()
    )
    (out / "models.config").write_text(f"model_config_list {{\n{models}}}\n")
    command = [sys.executable, "-m", "serving.server", "--port", "0", "--model-config-file", out / "models.config"]
    with (
        (out / "server.log").open("w") as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True) as server,
    ):
        try:
            ready = re.search("grpc://(.+)$", server.stdout.readline() if server.stdout else "")
            if ready is None:
                raise UserError(f"the server did not start: {(out / 'server.log').read_text()[-2000:]}")
            yield ready[1]
        finally:
            server.terminate()


def retrieve(stub: Any, user: dict[str, Any]) -> list[int]:
    """The items that the index gives for a user, best first."""
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "retrieval"
    history = user["history_item_id"]
    for name, value in {"user_id": user["user_id"], "history_item_id": history, "history_length": len(history)}.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(np.array([value], np.int64)))
    try:
        reply = stub.Predict(request, timeout=30)
    except grpc.RpcError as error:
        raise UserError(f"the index did not answer: {error.details()}") from error
    return tf.make_ndarray(reply.outputs["item_id"])[0].tolist()


@dataclass
class Request:
    """A user's first request of the test split, and what became of the items that the split shows to this user."""

    user: dict[str, Any]
    context: dict[str, Any]
    clicked: set[int]
    passed_over: set[int]


def requests(data: Path, file: FeatureFile) -> list[Request]:
    """A request of each user of the test split who clicked in it."""
    (label,) = file.labels.columns
    sides = {spec.name: spec.side for spec in raw_inputs(file)}
    by_user: dict[int, list[dict[str, Any]]] = {}
    for row in read(data, "test", file):
        by_user.setdefault(row["user_id"], []).append(row)
    found = []
    for rows in by_user.values():
        first = min(rows, key=lambda row: row["timestamp"])
        user, context = ({n: v for n, v in first.items() if sides.get(n) == side} for side in ("user", "context"))
        clicked = {int(row["item_id"]) for row in rows if row[label] > 0}
        found.append(Request(user, context, clicked, {int(row["item_id"]) for row in rows} - clicked))
    if not any(request.clicked for request in found):
        raise UserError(f"{data}: the test split has no click to find")
    return [request for request in found if request.clicked]


class Order:
    """How well a way to order the candidates finds the clicks, over many requests."""

    def __init__(self) -> None:
        self.hits: list[bool] = []
        self.right: list[bool] = []

    def add(self, items: list[int], request: Request) -> None:
        """Looks where the clicked items are, and the ones that were passed over."""
        place = {item: at for at, item in enumerate(items)}
        self.hits += [place.get(item, TOP) < TOP for item in request.clicked]
        pairs = itertools.product(request.clicked & place.keys(), request.passed_over & place.keys())
        self.right += [place[clicked] < place[passed] for clicked, passed in pairs]

    def __str__(self) -> str:
        return f"hit rate@{TOP} {np.mean(self.hits):.4f}; clicked before passed over {np.mean(self.right):.4f}"


def main() -> None:
    """Trains the index, serves both models, and prints what they find."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("data", "ranker", "out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--users", type=int, default=200)
    parser.add_argument("--seed", type=int, default=7)
    given = parser.parse_args()
    if given.users < 1:
        raise UserError(f"--users must be at least 1. Received: {given.users}")
    file = feature_file(given.ranker)
    with (given.data / "items.csv").open(encoding="utf-8", newline="") as lines:
        table = {int(row["item_id"]): row for row in csv.DictReader(lines)}
    items = {
        item: {"item_id": item, "genres": row["genres"], **({"year": int(row["year"])} if row["year"] else {})}
        for item, row in table.items()
    }
    if given.out.exists():
        raise UserError(f"{given.out} exists; name a new directory, or remove it")
    given.out.mkdir(parents=True)
    started = time.perf_counter()
    train_index(given.data, file, list(items), given.out, given.seed)
    print(f"two towers trained, {len(items)} items in the index: {time.perf_counter() - started:.0f} s")

    before, after, found, seconds = Order(), Order(), [], []
    with serve(given.ranker, given.out) as address, grpc.insecure_channel(address) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        with RankingClient(address, timeout_seconds=30) as client:
            for request in requests(given.data, file)[: given.users]:
                times = [time.perf_counter()]
                retrieved = retrieve(stub, request.user)
                times.append(time.perf_counter())
                ranked = client.rank(request.user, [items[item] for item in retrieved], request.context)
                times.append(time.perf_counter())
                if not seconds:
                    print(f"user {request.user['user_id']}: the best {TOP} of {len(retrieved)} candidates")
                    for one in ranked[:TOP]:
                        item = one.candidate["item_id"]
                        place = retrieved.index(item) + 1
                        print(f"  {one.probability:.3f}  retrieved as {place:3d}  {table[item]['title']}")
                seconds.append(np.diff(times))
                found += [item in retrieved for item in request.clicked]
                before.add(retrieved, request)
                after.add([one.candidate["item_id"] for one in ranked], request)
    share = np.mean(found)
    print(f"{share:.3f} of {len(found)} clicks of {len(seconds)} users are among the {len(retrieved)} candidates")
    print(f"as retrieved: {before}")
    print(f"as ranked:    {after}")
    print(f"at random:    hit rate@{TOP} {share * TOP / len(retrieved):.4f}; clicked before passed over 0.5")
    retrieving, ranking = (1000 * statistics.median(step) for step in np.transpose(seconds))
    print(f"median over gRPC: retrieve {retrieving:.1f} ms, rank {ranking:.1f} ms")


if __name__ == "__main__":
    try:
        main()
    except (UserError, ClientError, OSError) as error:
        sys.exit(f"error: {error}")
