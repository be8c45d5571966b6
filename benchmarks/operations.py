"""Where a traced step spends its time, by kind of operation.

    python -m benchmarks.training --presets qnn-alpha --trace DIR
    python -m benchmarks.operations DIR/qnn-alpha

It adds up the times of the operations in the profiles that TensorBoard shows, of XLA's or of TensorFlow's. With several
threads the times of all of them are added, so that the sum may be more than the step took. XLA names a fused operation
for a few of its parts, so that kinds are rough. `python -m benchmarks.requests --trace DIR` writes profiles of models
with histories.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.report import say

KINDS = {
    "products of matrices": "dot|matmul|einsum|conv2d",
    "reductions": "reduce|sum|mean|max$|argmax|softmax",
    "rows of tables": "gather|scatter",
    "copies": "^copy|transpose|concat|slice|pack|reshape|broadcast$|tile",
    "random numbers": "random|rng",
}
"""What the name of an operation contains, by kind; the first one holds, and what has none is elementwise."""


def main(profiles: Annotated[list[Path], typer.Argument(help="Directories of profiles.")]) -> None:
    """Print a table of each profile."""
    for directory in profiles:
        found = sorted(directory.rglob("*.xplane.pb"))
        if not found:
            raise typer.BadParameter(f"{directory}: no profile (*.xplane.pb)")
        times, counts = operations(found[-1])
        say(f"\n{directory.name}\n\n| kind | ms | share | operations |\n|---|---|---|---|")
        total = sum(times.values())
        for kind in sorted(times, key=lambda kind: -times[kind]):
            say(f"| {kind} | {times[kind]:.1f} | {times[kind] / total:.0%} | {counts[kind]} |")
        say(f"| all | {total:.1f} | | {counts.total()} |")


def operations(path: Path) -> tuple[dict[str, float], Counter[str]]:
    """Milliseconds and numbers of the operations in a profile, by kind."""
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    space = xplane_pb2.XSpace()
    space.ParseFromString(path.read_bytes())
    times: defaultdict[str, float] = defaultdict(float)
    counts: Counter[str] = Counter()
    for plane in space.planes:
        for line in plane.lines:
            for event in line.events:
                if (operation := _operation(plane, event)) is not None:
                    kind = kind_of(operation)
                    times[kind] += event.duration_ps / 1e9
                    counts[kind] += 1
    return times, counts


def _operation(plane: Any, event: Any) -> str | None:
    """The operation of XLA or TensorFlow that an event is the run of."""
    name: str = plane.event_metadata[event.metadata_id].name
    if any(plane.stat_metadata[stat.metadata_id].name == "hlo_op" for stat in event.stats):
        return re.sub(r"[.\d]+$", "", name)
    # TensorFlow's are named place:type.
    found = re.fullmatch(r"[\w./-]+:(\w+)", name)
    return found[1] if found else None


def kind_of(operation: str) -> str:
    """The kind of an operation, by its name."""
    for kind, names in KINDS.items():
        if re.search(names, operation, re.IGNORECASE):
            return kind
    return "elementwise"


if __name__ == "__main__":
    typer.run(main)
