"""Speed of training by requests, and by users, against row by row, and of its input.

    python -m benchmarks.requests [--presets din,dmf,hstu,dmqn] [--lengths 50,200,1000] [--input]

Rows have the features of configs/synthetic.yaml with full histories of random events. A request has 1, 4 or 16 of them,
and a state of a user 16, each with a context of its own. The step is that of `tfctr train` on one batch again and
again, row by row, by requests and by users in turns, after the compilation; the input is what comes out of a columnar
copy. Rows per second are the best of `--rounds`, since other work on a machine only ever takes time away.
docs/benchmarks.md has the results.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from benchmarks.report import say

FEATURES = Path(__file__).parents[1] / "configs" / "synthetic.yaml"
CANDIDATES = (1, 4, 16)
ITEMS, VECTOR = 2000, 64
BATCHES = {50: 512, 200: 256}
"""Rows in a batch by length of the histories; 64 for longer ones, whose attention of all pairs takes the memory."""

INPUT_ROWS = 4096


def main(
    presets: Annotated[str, typer.Option(help="Presets, with commas between them.")] = "din,dmf,hstu,dmqn",
    lengths: Annotated[str, typer.Option(help="Events in a history.")] = "50,200,1000",
    rounds: Annotated[int, typer.Option(min=1, help="Times each step is measured.")] = 3,
    with_input: Annotated[bool, typer.Option("--input", help="Measure the input too.")] = False,
    trace: Annotated[Path | None, typer.Option(help="Only write TensorBoard profiles of steps, row by row.")] = None,
) -> None:
    """Print the tables."""
    say(
        f"{os.cpu_count()} cores, load before it {os.getloadavg()[0]:.1f}, {_products():.0f} GFLOP/s in matrix products"
    )
    by_request = [*(f"{count} a request" for count in CANDIDATES), f"{CANDIDATES[-1]} a user"]
    found = [int(length) for length in lengths.split(",")]
    with tempfile.TemporaryDirectory() as work:
        copies = {length: _copies(Path(work), length) for length in found}
        for name, length in [] if trace is None else product(presets.split(","), found):
            _trace(name, length, copies[length][0], trace / f"{name}-{length}")
        if trace is not None:
            return
        if with_input:
            _table(["input, events", "row by row", *by_request])
            for length, splits in copies.items():
                speeds = _best([_reader(data, length) for data in splits], rounds, INPUT_ROWS)
                say(_line([f"{length:,}", *(f"{speed:,.0f}" for speed in speeds)]))
        _table(["step", "events", "row by row", *by_request, "GFLOP/s of the products, row by row"])
        for name in filter(None, presets.split(",")):
            for length, splits in copies.items():
                _step(name, length, splits, rounds)
    say(f"\nload after it {os.getloadavg()[0]:.1f}, {_products():.0f} GFLOP/s in matrix products")


def _model(name: str, file: Any) -> Any:
    """A preset for the features of a file, compiled."""
    import keras

    from tfctr.models import RankingModel, preset

    model = RankingModel(file, _tables(file), {"item_vector": (ITEMS + 1, VECTOR)}, preset(name))
    model.build()
    model.embeddings.frozen_tables["item_vector"].assign(_vectors())
    model.compile(keras.optimizers.Adam(1e-3, epsilon=1e-8, global_clipnorm=10.0), jit_compile=True)
    return model


def _trace(name: str, length: int, data: Any, directory: Path) -> None:
    """Write a profile of one step."""
    import tensorflow as tf

    model = _model(name, data.file)
    batches = tf.data.Dataset.from_tensors(next(iter(data.batches(BATCHES.get(length, 64), 0)))).repeat()
    model.fit(batches, steps_per_epoch=1, verbose=0)  # It makes the step that is traced.
    iterator = iter(batches)
    model.train_function(iterator)
    tf.profiler.experimental.start(str(directory))
    float(model.train_function(iterator)["loss"])
    tf.profiler.experimental.stop()


def _step(name: str, length: int, splits: list[Any], rounds: int) -> None:
    import keras
    import tensorflow as tf

    from tfctr.export.cost import model_cost

    size = BATCHES.get(length, 64)
    model = _model(name, splits[0].file)

    def step(batch: Any) -> Callable[[], Any]:
        return lambda: model.fit(tf.data.Dataset.from_tensors(batch).repeat(3), verbose=0, shuffle=False)

    batches = [next(iter(data.batches(size, 0))) for data in splits]
    rows = [int(np.sum(batch[2])) for batch in batches]
    speeds = _best([step(batch) for batch in batches], rounds, [3 * count for count in rows])
    cost = model_cost(model)
    # A backward pass has two products for each of the forward pass.
    flops = 3 * (cost.flops_per_user + cost.flops_per_request + cost.flops_per_candidate)
    cells = [f"{speeds[0]:,.0f}", *(f"{speed:,.0f} ({speed / speeds[0]:.1f}x)" for speed in speeds[1:])]
    say(_line([name, f"{length:,}", *cells, f"{flops * speeds[0] / 1e9:.0f}"]))
    keras.backend.clear_session()


def _copies(work: Path, length: int) -> list[Any]:
    """The same number of rows row by row, by requests of each size, and by users."""
    from tfctr.data.columnar import LABEL, WEIGHT, write_copy
    from tfctr.features import FeatureFile, load_feature_file
    from tfctr.features.columns import length_name
    from tfctr.features.inputs import model_inputs
    from tfctr.training.dataset import RankingData
    from tfctr.training.requests import RequestData, UserData

    content = load_feature_file(FEATURES).model_dump(mode="json", exclude_unset=True)
    content["sequences"]["history"]["max_length"] = length
    file = FeatureFile.model_validate(content)
    tables = _tables(file)
    owners = {
        field.input: tables[field.table.name]
        for feature in file.features
        for field in feature.kind.fields(feature)
        if field.table is not None
    }
    found = []
    for kind, count in [*((RequestData, count) for count in CANDIDATES), (UserData, CANDIDATES[-1])]:
        generator = np.random.default_rng(0)
        rows: dict[str, Any] = {}
        for spec in model_inputs(file):
            shared = spec.side in kind.shared
            shape = (INPUT_ROWS // count if shared else INPUT_ROWS, *spec.shape)
            values = generator.integers(1, owners.get(spec.name, ITEMS), shape)
            if spec.name == length_name("history"):
                values = np.full(shape, length)
            rows[spec.name] = np.repeat(values, count if shared else 1, axis=0).astype(spec.dtype)
        rows[LABEL] = generator.integers(0, 2, INPUT_ROWS).astype(np.float32)
        rows[WEIGHT] = np.ones(INPUT_ROWS, np.float32)
        copy = work / f"{length}-{len(found)}"
        write_copy(copy, file, [rows])
        found.append(kind(copy, file))
    return [RankingData(found[-1].copy, file), *found]


def _tables(file: Any) -> dict[str, int]:
    """Rows of the trained tables: those of the items are many, all others few."""
    fields = [field for feature in file.features for field in feature.kind.fields(feature)]
    names = {field.table.name for field in fields if field.table is not None}
    return {name: ITEMS if name in ("user_id", "item_id") else 24 for name in names}


def _vectors() -> Any:
    vectors = np.random.default_rng(1).normal(size=(ITEMS + 1, VECTOR)).astype("float32")
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _reader(data: Any, length: int) -> Callable[[], Any]:
    return lambda: sum(1 for _ in data.batches(BATCHES.get(length, 64), 0))


def _best(actions: list[Callable[[], Any]], rounds: int, rows: int | list[int]) -> list[float]:
    """Rows per second of each action, in turns; the first time, which compiles, doesn't count."""
    seconds = [float("inf")] * len(actions)
    for number in range(rounds + 1):
        for place, action in enumerate(actions):
            started = time.perf_counter()
            action()
            if number:
                seconds[place] = min(seconds[place], time.perf_counter() - started)
    counts = [rows] * len(actions) if isinstance(rows, int) else rows
    return [count / one for count, one in zip(counts, seconds, strict=True)]


def _products() -> float:
    """What the machine gives at this moment, in GFLOP/s: other work on it shows here first."""
    import tensorflow as tf

    side = 1024
    left, right = tf.random.normal([side, side]), tf.random.normal([side, side])
    product = tf.function(lambda: tf.linalg.matmul(left, right))
    return max(_best([product], 20, 1)) * 2 * side**3 / 1e9


def _table(heads: list[str]) -> None:
    say("\n" + _line(heads) + "\n" + _line(["---"] * len(heads)))


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    typer.run(main)
