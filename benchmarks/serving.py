"""Cost of a ranking with the embedded server: latency, throughput, bytes and CPU time.

    python -m benchmarks.serving --work DIR [--presets din,dmf,ta-early,dmqn | --experiments FILE]
        [--histories 50,200,1000] [--candidates 100,500,1200] [--long 100,10000] [--seconds 4] [--processes 2]
        [--intra-op-threads 1] [--json FILE] [--plot FILE.svg]

FILE is YAML of names, each with the content of an experiment file; benchmarks/served_100.yaml is one.
Each model has a server process, and the clients are other processes. Each cell is measured twice: with requests one
after the other, and in an open loop whose rate is `--load` times the rate of the former. "warm" is `score` with a
cached state, "cold" is `user_tower` and `score`, "one call" is both in one graph with the user sent once, and "tiled"
is `serving_default` with the user in each example. The floor is the time of arithmetic and copies alone, at rates
that are measured at the start. At the end, ratios of results are compared with bars, the values that they should reach;
a missed bar is reported but is not an error. docs/benchmarks.md has the results.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
import yaml

from benchmarks.load import USERS, Mode, Requests, cpu_seconds, loopback_bytes, open_loop, sequential
from benchmarks.report import by_history, save, say, subplots
from benchmarks.served_models import ServedModel, batch_of_one, export

Cell = dict[str, Any]
TILED = 500
"""Candidates of the tiled request: more of them would only take longer to say the same."""


def main(
    work: Annotated[Path, typer.Option(help="Directory for models; existing ones are used again.")],
    presets: Annotated[str, typer.Option(help="Comma-separated.")] = "din,dmf,ta-early,dmqn",
    experiments: Annotated[Path | None, typer.Option(help="Models of this file instead: names, experiments.")] = None,
    histories: Annotated[str, typer.Option(help="Comma-separated.")] = "50,200,1000",
    candidates: Annotated[str, typer.Option(help="Comma-separated.")] = "100,500,1200",
    long: Annotated[str, typer.Option(help="More histories for dmqn; comma-separated or empty.")] = "100,10000",
    seconds: Annotated[float, typer.Option(help="Seconds of one measurement.")] = 4.0,
    processes: Annotated[int, typer.Option(min=1, help="Client processes of the open loop.")] = 2,
    load: Annotated[float, typer.Option(help="Rate of the open loop, as a share of the sequential rate.")] = 0.5,
    intra_op_threads: Annotated[int, typer.Option(help="Threads for one operation in the server.")] = 1,
    json_file: Annotated[Path | None, typer.Option("--json", help="JSON file for all numbers.")] = None,
    plot: Annotated[Path | None, typer.Option(help="SVG file for a plot.")] = None,
) -> None:
    """Measure, print the tables and the bars, plot."""
    rates = machine_rates()
    say(
        f"{platform.machine()}, {os.cpu_count()} cores; one thread: {rates['flops'] / 1e9:.0f} GFLOP/s in float32 "
        f"products, {rates['bytes'] / 1e9:.1f} GB/s copied.\n"
    )
    say(
        "| preset | L | C | form | p50 ms | open loop: rate | p50 | p99 | answered/s | failed | wire kB | "
        "server CPU s/1000 candidates | client CPU | floor ms |\n|" + "---|" * 14
    )
    sizes = [int(size) for size in candidates.split(",")]
    cells: list[Cell] = []
    models: dict[str, str | dict[str, Any]] = {preset: preset for preset in presets.split(",")}
    if experiments is not None:
        models = yaml.safe_load(experiments.read_text("utf-8"))
    for preset, model in models.items():
        more = f",{long}" if preset == "dmqn" and long else ""
        for length in sorted(set(map(int, f"{histories}{more}".split(",")))):
            served = exported(work / f"{preset.replace(' ', '-')}-{length}", model, length)
            with running_server(served.path.parent, intra_op_threads) as (address, process):
                for kind in ("warm", "cold", "one call", "tiled"):
                    for size in sizes if kind != "tiled" else [TILED]:
                        # The time of the tiled form grows with L times C, so longer histories are not measured.
                        if kind == "tiled" and (preset != "dmf" or length > 200):
                            continue
                        cell = _measure(address, process, served, Mode(kind, size), seconds, load, processes, rates)
                        cells.append({"preset": preset, "history": length, **cell})
                        _row(cells[-1])
                if 500 in sizes:
                    cells.append({"preset": preset, "history": length, **_in_process(served, seconds)})
    say("\n" + "\n".join(bars(cells)))
    if json_file is not None:
        json_file.parent.mkdir(parents=True, exist_ok=True)
        json_file.write_text(json.dumps({"machine": rates, "cells": cells}, indent=1), encoding="utf-8")
    if plot is not None:
        _draw(cells, plot)


def machine_rates() -> dict[str, float]:
    """Operations per second of a matrix product, and bytes per second of a copy, with one thread."""
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    square = tf.random.normal((1024, 1024))
    source = np.ones(1 << 25, np.float32)
    target = np.empty_like(source)
    product = min(_timed(lambda: tf.matmul(square, square).numpy()) for _ in range(10))
    copy = min(_timed(lambda: np.copyto(target, source)) for _ in range(10))
    return {"flops": 2 * 1024**3 / product, "bytes": 2 * source.nbytes / copy}


def bars(cells: list[Cell]) -> list[str]:
    """One line for each bar: whether it is met, and the measured ratio of medians over sequential requests."""
    found = {(one["preset"], one["history"], one["form"], one["candidates"]): one for one in cells}
    lines = []

    def bar(text: str, top: tuple[Any, ...], bottom: tuple[Any, ...], least: float = 0.0, most: float = 1e9) -> None:
        if top in found and bottom in found:
            ratio = found[top]["p50"] / found[bottom]["p50"]
            verdict = "told" if text.endswith("no bar") else "met" if least <= ratio <= most else "MISSED"
            both = "floor" in found[top] and "floor" in found[bottom]
            floors = f" (floors alone: {found[top]['floor'] / found[bottom]['floor']:.2f})" if both else ""
            lines.append(f"{verdict}: {text}: {ratio:.2f}{floors}")

    for length in sorted({one["history"] for one in cells}):
        dmf = ("dmf", length, "warm")
        bar(
            f"dmf, L = {length}: 500 tiled examples / warm, at least 10", ("dmf", length, "tiled", 500), (*dmf, 500), 10
        )
        bar(
            f"L = {length}: ta-early one call / dmf warm, C = 1200, at least 3",
            ("ta-early", length, "one call", 1200),
            (*dmf, 1200),
            3,
        )
        bar(f"dmf, L = {length}: one call / warm, C = 500, no bar", ("dmf", length, "one call", 500), (*dmf, 500))
        for preset in sorted({one["preset"] for one in cells}):
            bar(
                f"{preset}, L = {length}: warm / in process, C = 500, at most 1.5",
                (preset, length, "warm", 500),
                (preset, length, "in process", 500),
                most=1.5,
            )
    for (preset, length, form, size), cell in found.items():
        if (form, size) == ("warm", 500):
            # All CPU time of the client including gRPC: an upper bound for encoding and decoding.
            share = cell["client_cpu"] * size / 1000 / cell["p50"]
            verdict = "met" if share < 0.25 else "MISSED"
            lines.append(
                f"{verdict}: {preset}, L = {length}: client's CPU / time of a warm request, under 0.25: {share:.2f}"
            )
    bar(
        "dmqn, L = 1000: one call / warm, C = 100, at least 5",
        ("dmqn", 1000, "one call", 100),
        ("dmqn", 1000, "warm", 100),
        5,
    )
    bar(
        "dmqn, L = 1000: one call / warm, C = 500, at least 5",
        ("dmqn", 1000, "one call", 500),
        ("dmqn", 1000, "warm", 500),
        5,
    )
    bar(
        "dmqn, C = 500: warm at L = 10,000 / at L = 100, at most 1.2",
        ("dmqn", 10000, "warm", 500),
        ("dmqn", 100, "warm", 500),
        most=1.2,
    )
    return lines


def _measure(
    address: str,
    process: int,
    served: ServedModel,
    mode: Mode,
    seconds: float,
    load: float,
    processes: int,
    rates: dict[str, float],
) -> Cell:
    send = Requests(address, served, mode)
    sequential(send, 0.0)
    before = (loopback_bytes(), cpu_seconds(process), cpu_seconds(os.getpid()))
    taken = sequential(send, seconds)
    after = (loopback_bytes(), cpu_seconds(process), cpu_seconds(os.getpid()))
    send.close()
    sent = len(taken) + 3
    wire, server_cpu, client_cpu = ((b - a) / sent for a, b in zip(before, after, strict=True))
    rate = load / statistics.median(taken)
    outcome = open_loop(address, served, mode, rate, seconds, processes)
    cost = served.cost
    operations = cost.flops_per_request + cost.flops_per_candidate * mode.candidates
    operations += 0 if mode.kind == "warm" else cost.flops_per_user * (mode.candidates if mode.kind == "tiled" else 1)
    return {
        "form": mode.kind,
        "candidates": mode.candidates,
        "p50": statistics.median(taken),
        "rate": rate,
        "open_p50": float(np.percentile(outcome.latencies, 50)),
        "open_p99": float(np.percentile(outcome.latencies, 99)),
        "answered": outcome.answered,
        "failed": outcome.failures,
        "wire": wire,
        "server_cpu": server_cpu / mode.candidates * 1000,
        "client_cpu": client_cpu / mode.candidates * 1000,
        "floor": operations / rates["flops"] + 2 * wire / rates["bytes"],
    }


def _in_process(served: ServedModel, seconds: float) -> Cell:
    """The same `score` of 500 candidates in this process, with prepared inputs and one thread for an operation."""
    import tensorflow as tf

    loaded = tf.saved_model.load(str(served.path))
    user_tower, score = loaded.signatures["user_tower"], loaded.signatures["score"]
    inputs = []
    for seed in range(USERS):
        state = user_tower(**batch_of_one(user_tower, {**served.user(seed), "history_length": served.history}))
        inputs.append({**state, **batch_of_one(score, {**served.candidates(500, seed), **served.context()})})
    taken = sequential(lambda number: score(**inputs[number % USERS])["probabilities"].numpy(), seconds)
    return {"form": "in process", "candidates": 500, "p50": statistics.median(taken)}


def exported(directory: Path, model: str | dict[str, Any], length: int) -> ServedModel:
    """A model with random weights and the data of its requests, exported only if it is not in `directory` yet."""
    import pickle

    note = directory / "model.pickle"
    if not note.exists():
        note.parent.mkdir(parents=True, exist_ok=True)
        note.write_bytes(pickle.dumps(export(model, length, directory, one_call=True)))
    served: ServedModel = pickle.loads(note.read_bytes())
    return served


@contextlib.contextmanager
def running_server(directory: Path, intra_op_threads: int) -> Iterator[tuple[str, int]]:
    """Runs an embedded server and gives its address and process id."""
    command = [sys.executable, "-m", "serving.server", "--model-base-path", str(directory), "--model-name", "model"]
    with subprocess.Popen(
        [*command, "--port", "0", "--intra-op-threads", str(intra_op_threads)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as run:
        assert run.stdout is not None
        line = run.stdout.readline()
        if not line.startswith("ready:"):
            run.kill()
            raise SystemExit(f"error: the server did not start: {line or 'no output'}")
        try:
            yield line.rsplit("grpc://", 1)[1].strip(), run.pid
        finally:
            run.terminate()


def _timed(call: Any) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def _row(cell: Cell) -> None:
    ms = {name: f"{cell[name] * 1e3:.3g}" for name in ("p50", "open_p50", "open_p99", "floor")}
    say(
        f"| {cell['preset']} | {cell['history']:,} | {cell['candidates']:,} | {cell['form']} | {ms['p50']} | "
        f"{cell['rate']:.3g} | {ms['open_p50']} | {ms['open_p99']} | {cell['answered']:.3g} | {cell['failed']} | "
        f"{cell['wire'] / 1e3:.3g} | {cell['server_cpu']:.2g} | {cell['client_cpu']:.2g} | {ms['floor']} |"
    )


def _draw(cells: list[Cell], path: Path) -> None:
    presets = list(dict.fromkeys(cell["preset"] for cell in cells))
    figure, axes = subplots(len(presets), figsize=(3.2 * len(presets), 3.4), sharey=True)
    for ax, preset in zip(axes, presets, strict=True):
        for form in ("warm", "cold", "one call", "tiled"):
            points = [
                (one["history"], one["p50"] * 1e3)
                for one in cells
                if (one["preset"], one["form"], one["candidates"]) == (preset, form, 500)
            ]
            if points:
                ax.plot(*zip(*points, strict=True), marker="o", label=form)
        by_history(ax, preset)
    axes[0].set_ylabel("milliseconds a request of 500 candidates")
    axes[0].legend()
    save(figure, path)


if __name__ == "__main__":
    typer.run(main)
