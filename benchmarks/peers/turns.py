"""A process that measures one side of a comparison whenever it is its turn: `python -m benchmarks.peers.SIDE TASK`.

TASK is JSON. On standard output the side writes a line of JSON when it is ready, one for each turn (a line "turn" on
standard input), and a last one when the input ends. It needs no package but its own library and NumPy, so that peers
run in environments of their own.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[2]
PRODUCT = 1024
"""The side of the matrices whose product tells what the machine gives."""


class Side(NamedTuple):
    """What a side measures.

    Attributes:
        step: what is timed; it returns when its result is there.
        product: a product of two matrices of side `PRODUCT` by the side's own library.
        facts: what is known of the side, for the first answer.
    """

    step: Callable[[], Any]
    product: Callable[[], Any]
    facts: dict[str, Any]


def serve(prepare: Callable[[dict[str, Any]], Side]) -> None:
    """Prepare the side that the task of the command line describes, and answer turns until the input ends."""
    task = json.loads(sys.argv[1])
    # Libraries that print must not disturb the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(**found: Any) -> None:
        print(json.dumps(found), file=answers, flush=True)

    side = prepare(task)
    for _ in range(3):  # The first calls compile and allocate.
        side.step()
    built_mb = status("VmHWM")
    # Linux takes the most that the process ever had back to what it has now.
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    answer(**side.facts, gflops=_gflops(side.product))
    for _ in sys.stdin:
        began = time.perf_counter()
        taken: list[float] = []
        while len(taken) < 3 or time.perf_counter() - began < task["seconds"]:
            started = time.perf_counter()
            side.step()
            taken.append(time.perf_counter() - started)
        answer(seconds=taken)
    step_mb = status("VmHWM")
    answer(peak_mb=max(built_mb, step_mb), step_mb=step_mb, gflops=_gflops(side.product))


def status(key: str) -> float:
    """A size in MB that Linux knows of this process: VmRSS is the memory it has, VmHWM the most it ever had."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    (found,) = (line for line in lines if line.startswith(f"{key}:"))
    return float(found.split()[1]) / 1024


def _gflops(product: Callable[[], Any]) -> float:
    taken = []
    for _ in range(20):
        started = time.perf_counter()
        product()
        taken.append(time.perf_counter() - started)
    return 2 * PRODUCT**3 / statistics.median(taken) / 1e9


class Player:
    """The other end: a side's process, seen from the process that compares.

    Attributes:
        facts: the side's first answer; after `end`, its last one too.
        seconds: the time of every step so far.

    Raises:
        RuntimeError: if the process ends before it answers.
    """

    def __init__(self, side: str, task: dict[str, Any], python: str = sys.executable, **environment: str) -> None:
        threads = str(task["threads"])
        own = {"OMP_NUM_THREADS": threads, "TF_CPP_MIN_LOG_LEVEL": "3", **environment}
        # A file, since a pipe that nobody reads would fill up and stop the process.
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  it lives as long as the process
        self._process = subprocess.Popen(
            [python, "-m", f"benchmarks.peers.{side}", json.dumps(task)],
            cwd=ROOT,
            env={**os.environ, **own},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        self.seconds: list[float] = []
        self.facts = self._answer()

    def turn(self) -> None:
        """Let the side run its steps."""
        assert self._process.stdin is not None
        print("turn", file=self._process.stdin, flush=True)
        self.seconds += self._answer()["seconds"]

    def end(self) -> None:
        """Close the process, which says what memory it took."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        last = self._answer()
        rate = max(self.facts["gflops"], last["gflops"])
        self.facts |= {**last, "gflops": rate, "gflops_before": self.facts["gflops"], "gflops_after": last["gflops"]}
        self._process.wait()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._errors.seek(0)
            raise RuntimeError((self._errors.read().strip().splitlines() or ["the process ended"])[-1])
        found: dict[str, Any] = json.loads(line)
        return found
