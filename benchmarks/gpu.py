"""How long a training step and the scoring of 500 candidates take on a GPU, for every preset, on the JAX backend.

    KERAS_BACKEND=jax JAX_ENABLE_X64=1 XLA_PYTHON_CLIENT_PREALLOCATE=false python -m benchmarks.gpu --out gpu.jsonl

The features are those of configs/synthetic.yaml with a history of 50 events, tables of 100,000 rows and one frozen
table of 128 numbers; ids are random. A step is forward, backward and Adam on 4,096 rows, metrics included. `score` is
one user with 500 candidates, inputs and weights on the device, from the call until its answer is there. Everything is
compiled first, by several processes; then one process at a time measures, so that none disturbs another; one that is
still compiling 20 seconds after `--compile-seconds` is not waited for. What is not measured is left out: run it again
with the same file, which skips what is in there. Needs neither TensorFlow nor data.

`--table gpu.jsonl` prints the Markdown table of such a file.
"""

from __future__ import annotations

import json
import multiprocessing
import queue
import statistics
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

app = typer.Typer(add_completion=False, rich_markup_mode=None)
FEATURES = Path(__file__).parents[1] / "configs" / "synthetic.yaml"
POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16", "float16": "mixed_float16"}
TABLE_ROWS, VECTOR_WIDTH, BATCH, CANDIDATES = 100_000, 128, 4096, 500
STEPS, SCORES = 20, 100
GRACE_SECONDS = 20.0


@app.command()
def main(
    out: Annotated[Path | None, typer.Option(help="The file of results, a line each.")] = None,
    presets: Annotated[str, typer.Option(help="Names, with commas; all of them if left out.")] = "",
    dtypes: Annotated[str, typer.Option(help="Types of numbers, with commas.")] = ",".join(POLICIES),
    workers: Annotated[int, typer.Option(help="Processes that compile.")] = 12,
    compile_seconds: Annotated[float, typer.Option(help="The time for that.")] = 330.0,
    table: Annotated[Path | None, typer.Option(help="Print the table of this file instead.")] = None,
) -> None:
    """Measure presets on the device that JAX finds, or print the table of a file of results."""
    if table is not None:
        print(markdown([json.loads(line) for line in table.read_text(encoding="utf-8").splitlines()]))
        return
    if out is None:
        raise typer.BadParameter("is needed", param_hint="--out")
    names = presets.split(",") if presets else in_order()
    found = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()] if out.exists() else []
    measured = {(one["preset"], one["dtype"]) for one in found if "error" not in one}
    context = multiprocessing.get_context("spawn")
    tasks = context.Queue()
    for name in names:
        for dtype in dtypes.split(","):
            if (name, dtype) not in measured:
                tasks.put((name, dtype))
    lock, compiled = context.Lock(), context.Barrier(workers)
    until = time.time() + compile_seconds
    started = [context.Process(target=_work, args=(tasks, lock, compiled, until, out)) for _ in range(workers)]
    for process in started:
        process.start()
    for process in started:
        process.join()


def in_order() -> list[str]:
    """Every preset, first one of each pair of interests and interaction."""
    from tfctr.models.presets import PRESETS

    seen: set[str] = set()
    first, rest = [], []
    for name, (_, config) in PRESETS.items():
        pair = json.dumps([[one["type"] for one in config.interests or ()], config.interaction["type"]])
        (rest if pair in seen else first).append(name)
        seen.add(pair)
    return first + rest


def markdown(found: list[dict[str, Any]]) -> str:
    """The table: a row a preset, milliseconds by type of numbers."""
    by_name: dict[str, dict[str, dict[str, Any]]] = {}
    for one in found:
        by_name.setdefault(one["preset"], {})[one["dtype"]] = one
    kinds = list(POLICIES)
    head = [*(f"step {kind}, ms" for kind in kinds), *(f"score {kind}, ms" for kind in kinds)]
    lines = [f"| preset | {' | '.join(head)} |", "|---|" + "---:|" * len(head)]
    for name, row in sorted(by_name.items()):
        cells = [_cell(row.get(kind, {}), what) for what in ("step_ms", "score_ms") for kind in kinds]
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(one: dict[str, Any], what: str) -> str:
    if "error" in one:
        return "error"
    return f"{one[what]:.2f}" if what in one else "not run"


def _work(tasks: Any, lock: Any, compiled: Any, until: float, out: Path) -> None:
    ready: list[tuple[str, str, Callable[[], dict[str, Any]]]] = []
    while time.time() < until:
        try:
            name, dtype = tasks.get(timeout=1)
        except queue.Empty:
            break
        try:
            ready.append((name, dtype, _prepare(name, dtype)))
        except Exception as error:
            traceback.print_exc(limit=3, file=sys.stdout)
            _write(out, lock, {"preset": name, "dtype": dtype, "error": f"{type(error).__name__}: {error}"[:300]})
    with suppress(threading.BrokenBarrierError):
        compiled.wait(timeout=max(until + GRACE_SECONDS - time.time(), 0.0))
    for name, dtype, measure in ready:
        with lock:
            found = measure()
        _write(out, lock, {"preset": name, "dtype": dtype, **found})


def _write(out: Path, lock: Any, found: dict[str, Any]) -> None:
    with lock, out.open("a", encoding="utf-8") as file:
        print(json.dumps(found), file=file)


def _prepare(name: str, dtype: str) -> Callable[[], dict[str, Any]]:
    """Builds and compiles a preset; returns what measures it."""
    import jax
    import keras

    from tfctr.features import load_feature_file, model_inputs
    from tfctr.models.model import RankingModel
    from tfctr.models.presets import PRESETS

    began = time.monotonic()
    keras.utils.set_random_seed(1)
    file = load_feature_file(FEATURES)
    fields = [field for feature in file.features for field in feature.kind.fields(feature)]
    rows = {field.table.name: TABLE_ROWS for field in fields if field.table is not None}
    frozen = dict.fromkeys(file.frozen_of_sequence("history"), (TABLE_ROWS, VECTOR_WIDTH))
    with jax.default_device(jax.devices("cpu")[0]):  # an operation by itself is compiled sooner there
        model = RankingModel(file, rows, frozen, PRESETS[name][1], dtype=POLICIES[dtype])
        model.build()
        model.compile(optimizer=keras.optimizers.Adam(1e-3, epsilon=1e-8), jit_compile=True)
        model.optimizer.build(model.trainable_variables)
    device = jax.devices()[0]
    for variable in (*model.variables, *model.optimizer.variables):
        variable._value = jax.device_put(variable.value, device)
    batch = jax.device_put(_inputs(model_inputs(file), BATCH, 1), device)
    labels = jax.device_put((np.arange(BATCH) % 4 == 0).astype("float32")[:, None], device)
    model.make_train_function()
    state = [
        model._get_jax_state(
            trainable_variables=True, non_trainable_variables=True, optimizer_variables=True, metrics_variables=True
        )
    ]

    def step() -> Any:
        logs, state[0] = model.train_function(state[0], iter([(batch, labels)]))
        return logs

    one = jax.device_put(_inputs(model_inputs(file), 1, CANDIDATES), device)
    of_side = {side: model._pick(side, one) for side in ("user", "candidate", "context")}
    trained, others = model.scorer.trainable_variables, model.scorer.non_trainable_variables
    values = ([v.value for v in trained], [v.value for v in others])
    user_state = jax.jit(lambda inputs: model.user_tower(inputs, training=False))(of_side["user"])
    packed = {"state": user_state, "candidate": of_side["candidate"], "context": of_side["context"], "bias": {}}

    @jax.jit
    def score(weights: Any, inputs: Any) -> Any:
        return jax.nn.sigmoid(model.scorer.stateless_call(*weights, inputs, training=False)[0])

    found = np.asarray(score(values, packed))
    assert found.shape == (1, CANDIDATES), found.shape
    # The step frees the buffers that it is given, so what `score` reads is a copy.
    values = jax.tree.map(lambda value: value.copy(), values)
    loss = float(jax.block_until_ready(step())["loss"])
    seconds = time.monotonic() - began

    def measure() -> dict[str, Any]:
        jax.block_until_ready(step())
        started = time.perf_counter()
        for _ in range(STEPS):
            logs = step()
        jax.block_until_ready((logs, state[0]))
        step_ms = 1e3 * (time.perf_counter() - started) / STEPS
        taken = []
        for _ in range(SCORES):
            started = time.perf_counter()
            score(values, packed).block_until_ready()
            taken.append(1e3 * (time.perf_counter() - started))
        return {
            "device": device.device_kind,
            "step_ms": round(step_ms, 4),
            "score_ms": round(statistics.median(taken), 4),
            "score_p99_ms": round(sorted(taken)[-2], 4),
            "finite": bool(np.isfinite(found).all() and np.isfinite(loss)),
            "prepared_s": round(seconds, 1),
        }

    return measure


def _inputs(specs: Any, rows: int, candidates: int) -> dict[str, Any]:
    """Random model inputs of the size of a request or batch."""
    generator = np.random.default_rng(1)

    def drawn(spec: Any) -> Any:
        shape = (rows, candidates) if spec.side in ("candidate", "bias") else (rows,)
        shape = (*shape, *spec.shape)
        if spec.dtype.startswith("float"):
            return generator.normal(size=shape).astype(spec.dtype)
        if spec.name.endswith("_length"):
            return np.full(shape, 50, spec.dtype)
        if spec.dtype == "int64":
            return generator.integers(1_600_000_000, 1_700_000_000, shape)
        return generator.integers(0, 4, shape).astype(spec.dtype)

    return {spec.name: drawn(spec) for spec in specs if spec.name != "candidate_mask"}


if __name__ == "__main__":
    app()
