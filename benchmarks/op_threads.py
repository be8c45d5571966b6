"""Latency of `score` in the embedded server with one thread for an operation, and with one per core.

    python -m benchmarks.op_threads --work DIR [--presets din,dmf,dmqn] [--histories 50,200] [--candidates 100,500,1200]
        [--rounds 30]

Two servers of the same model run at the same time. A client sends a few requests to each of them in turn, so that other
load on the machine affects both. The first requests of a turn do not count. docs/server.md has the results.
"""

from __future__ import annotations

import contextlib
import statistics
import time
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.load import Mode, Requests
from benchmarks.report import say
from benchmarks.serving import exported, running_server

THREADS = (0, 1)
SKIPPED, COUNTED = 3, 8


def main(
    work: Annotated[Path, typer.Option(help="Directory for models; existing ones are used again.")],
    presets: Annotated[str, typer.Option(help="Comma-separated.")] = "din,dmf,dmqn",
    histories: Annotated[str, typer.Option(help="Comma-separated.")] = "50,200",
    candidates: Annotated[str, typer.Option(help="Comma-separated.")] = "100,500,1200",
    rounds: Annotated[int, typer.Option(min=1, help="Turns of each server.")] = 30,
) -> None:
    """Measure and print a table."""
    say("| preset | L | C | one thread a core, p50 ms | one thread | ratio |\n|---|---|---|---|---|---|")
    for preset in presets.split(","):
        for length in map(int, histories.split(",")):
            served = exported(work / f"{preset}-{length}", preset, length)
            with contextlib.ExitStack() as stack:
                directory = served.path.parent
                addresses = [stack.enter_context(running_server(directory, threads))[0] for threads in THREADS]
                for size in map(int, candidates.split(",")):
                    senders = [Requests(address, served, Mode("warm", size)) for address in addresses]
                    per_core, one = _medians(senders, rounds)
                    say(f"| {preset} | {length} | {size:,} | {per_core:.3g} | {one:.3g} | {one / per_core:.2f} |")
                    for send in senders:
                        send.close()


def _medians(senders: list[Requests], rounds: int) -> list[float]:
    taken: list[list[float]] = [[] for _ in senders]
    for turn in range(rounds):
        for send, times in zip(senders, taken, strict=True):
            for number in range(SKIPPED + COUNTED):
                started = time.perf_counter()
                send(turn * (SKIPPED + COUNTED) + number)
                if number >= SKIPPED:
                    times.append(time.perf_counter() - started)
    return [statistics.median(times) * 1e3 for times in taken]


if __name__ == "__main__":
    typer.run(main)
