"""One training step of every interaction, beside plain PyTorch networks and the layers of other libraries.

    python -m benchmarks.training --torch-python DIR/bin/python --out training.jsonl

A step is forward, backward, clipped gradients and Adam on one batch of random ids of Frappe's ten fields. Each side is
a process of its own with as many threads, and the sides run in turns, so that other load slows down both. The page
docs/benchmarks.md says what is compared with what, and how to make the environment of PyTorch.

- `check`: weights are copied into the PyTorch network, and loss and gradients are compared.
- `steps`: the time and memory of a step.
- `layers`: the cross layer and the inner products, against TensorFlow Recommenders and keras-rs.
- `vocabulary`: the step of an MLP with larger tables, and the cost of reading and writing the batch's rows alone.

Rows that are in the file already are not measured again. Without `--out` nothing is kept.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from benchmarks.peers.turns import Player
from benchmarks.report import say
from benchmarks.training_tables import TABLES, markdown

FRAPPE = {
    "user": 942,
    "item": 4084,
    "daytime": 9,
    "weekday": 9,
    "isweekend": 4,
    "homework": 5,
    "cost": 4,
    "weather": 11,
    "country": 82,
    "city": 233,
}
"""Rows of the tables of Frappe, missing and unknown values included."""
OVERRIDES: dict[str, dict[str, Any]] = {"qnn-alpha": {"rows": 13}}
"""The authors' best run on Frappe, where a preset has another size."""
PRESETS = (
    "qnn-alpha",
    "mlp",
    "dcn",
    "dcnv2",
    "xdeepfm",
    "fm",
    "deepfm",
    "dlf",
    "qin",
    "autoint",
    "pnn",
    "opnn",
    "afm",
    "afn",
    "masknet-serial",
    "masknet-parallel",
    "finalmlp",
    "final-1b",
    "final-2b",
    "edcn",
    "gdcn",
    "wukong",
    "dlrm",
    "fcn",
    "ecn",
    "sam",
    "eulernet",
    "rfm",
)
VOCABULARY_ROWS = (10**4, 10**6, 10**7)
LIBRARIES = {"TFRS": {"TF_USE_LEGACY_KERAS": "1"}, "keras-rs": {}}
CHECKED_ROWS = 512
DIFFERENT_BATCHES = 16
TABLE_OPTIMIZERS = ("adam", "lazy_adam", "rowwise_adagrad")


def main(
    torch_python: Annotated[str, typer.Option(help="A Python with PyTorch; without it only tfctr runs.")] = "",
    out: Annotated[Path | None, typer.Option(help="File of results, a line each; added to.")] = None,
    tables: Annotated[str, typer.Option(help="What to measure, with commas.")] = ",".join(TABLES),
    presets: Annotated[str, typer.Option(help="Presets, with commas.")] = ",".join(PRESETS),
    batch: Annotated[int, typer.Option(min=2, help="Rows of a step.")] = 4096,
    width: Annotated[int, typer.Option(min=2, help="Width of the fields.")] = 16,
    rounds: Annotated[int, typer.Option(min=1, help="Turns of each side.")] = 5,
    seconds: Annotated[float, typer.Option(help="The least duration of a turn.")] = 0.5,
    threads: Annotated[int, typer.Option(min=1, help="Threads of each side.")] = 2,
    jit: Annotated[str, typer.Option(help="XLA for tfctr: on, off, or auto, which is what training does.")] = "auto",
    fused: Annotated[bool, typer.Option(help="PyTorch's fused Adam in place of its default one.")] = False,
    trace: Annotated[Path | None, typer.Option(help="Only write a TensorBoard profile of a step.")] = None,
) -> None:
    """Measure, and print the tables."""
    common = {"threads": threads, "seconds": seconds, "width": width, "jit": jit, "fused": fused}
    with tempfile.TemporaryDirectory() as directory:
        bench = Bench(common, batch, rounds, torch_python, Path(directory), out)
        if trace is not None:
            for name in presets.split(","):
                bench.trace(name, trace / name)
            return
        for table in tables.split(","):
            bench.measure(table, presets.split(","))
    say(markdown(bench.rows))


class Bench:
    """Everything that is measured in one run.

    Attributes:
        rows: the results, those of the file first.
    """

    def __init__(
        self, common: dict[str, Any], batch: int, rounds: int, torch_python: str, directory: Path, out: Path | None
    ) -> None:
        self.common, self.batch, self.rounds, self.torch_python = common, batch, rounds, torch_python
        self.directory, self.out = directory, out
        lines = out.read_text(encoding="utf-8").splitlines() if out is not None and out.exists() else []
        self.rows: list[dict[str, Any]] = [json.loads(line) for line in lines]

    def measure(self, table: str, presets: list[str]) -> None:
        """Add the rows of one table."""
        measured = {
            "check": lambda: ((name, {}, self._check) for name in presets if self.torch_python),
            "steps": lambda: ((name, {}, self._step) for name in presets),
            "layers": self._layers,
            "vocabulary": self._vocabularies,
        }
        for name, options, measure in measured[table]():
            key = {"table": table, "name": name, **options, "batch": self.batch, **self.common}
            if any(key.items() <= row.items() for row in self.rows):
                continue
            before = os.getloadavg()[0]
            try:
                found = measure(name, **options)
            except RuntimeError as error:
                found = {"error": str(error)}
            self._keep({**key, **found, "load_before": before, "load_after": os.getloadavg()[0]})

    def trace(self, name: str, directory: Path) -> None:
        """Write a profile of one step of a preset."""
        Player("tfctr_side", {**self._task(name), "trace": str(directory)}).end()
        say(f"{directory}: the profile; `python -m benchmarks.operations {directory}` makes a table of it")

    def _keep(self, row: dict[str, Any]) -> None:
        self.rows.append(row)
        line = json.dumps(row)
        say(line)
        if self.out is not None:
            self.out.parent.mkdir(parents=True, exist_ok=True)
            with self.out.open("a", encoding="utf-8") as file:
                print(line, file=file)

    def _task(
        self, name: str, tables: dict[str, int] = FRAPPE, zipf: bool = False, batch: int = 0, batches: int = 1
    ) -> dict[str, Any]:
        """What both sides need to know of a preset."""
        from benchmarks.peers.tfctr_side import features
        from tfctr.losses import create_loss
        from tfctr.models.field_facts import field_facts
        from tfctr.models.presets import preset

        config, facts = preset(name), field_facts(features(self.common["width"]), {})
        path = self.directory / "batch.npz"
        np.savez(path, **_batches(tables, batches, batch or self.batch, zipf))
        return {
            **self.common,
            "interaction": {**config.interaction, **OVERRIDES.get(name, {})},
            "loss": config.loss,
            "passes": create_loss(config.loss).passes,
            "tables": list(tables.items()),
            "facts": [(fact.name, fact.side) for fact in facts],
            "batch": str(path),
            "clip_norm": 10.0,
        }

    def _step(self, name: str) -> dict[str, Any]:
        return self._with_torch(self._task(name))

    def _with_torch(self, task: dict[str, Any]) -> dict[str, Any]:
        if not self.torch_python:
            return {"ours": self._play_ours(task)}
        return self._beside(Player("tfctr_side", task), lambda: Player("torch_side", task, self.torch_python))

    def _beside(self, ours: Player, other: Callable[[], Player]) -> dict[str, Any]:
        """Both sides in turns; ours alone if the other one has no such thing."""
        try:
            peer = other()
        except RuntimeError as error:
            return {"ours": self._play(ours)[0], "missing": str(error)}
        mine, theirs = self._play(ours, peer)
        return {"ours": mine, "peer": theirs}

    def _check(self, name: str) -> dict[str, Any]:
        task = {**self._task(name, batch=CHECKED_ROWS), "weights": str(self.directory / "weights.npz")}
        self._play(Player("tfctr_side", task), rounds=0)
        (found,) = self._play(Player("torch_side", task, self.torch_python), rounds=0)
        return found

    def _layers(self) -> Iterator[tuple[str, dict[str, Any], Any]]:
        for layer in ("cross", "dot"):
            for library in LIBRARIES:
                for xla in (False, True):
                    yield layer, {"library": library, "xla": xla}, self._layer

    def _layer(self, layer: str, library: str, xla: bool) -> dict[str, Any]:
        task = {**self.common, "batch": self.batch, "fields": len(FRAPPE), "layer": layer, "jit": xla}
        ours = Player("layer_side", {**task, "library": "tfctr"})
        return self._beside(ours, lambda: Player("layer_side", {**task, "library": library}, **LIBRARIES[library]))

    def _vocabularies(self) -> Iterator[tuple[str, dict[str, Any], Any]]:
        for optimizer in TABLE_OPTIMIZERS:
            for total in VOCABULARY_ROWS:
                for zipf in (False, True):
                    yield "mlp", {"total": total, "zipf": zipf, "embedding_optimizer": optimizer}, self._vocabulary

    def _vocabulary(self, name: str, total: int, zipf: bool, embedding_optimizer: str) -> dict[str, Any]:
        scale = total / sum(FRAPPE.values())
        tables = {field: max(3, round(rows * scale)) for field, rows in FRAPPE.items()}
        # The rows of one batch, read again and again, would stay in the cache.
        task = self._task(name, tables, zipf, batches=DIFFERENT_BATCHES)
        task["embedding_optimizer"] = embedding_optimizer
        (access,) = self._play(Player("rows_side", task))
        # PyTorch's is Adam over whole tables, which is the same step as the dense one alone.
        found = self._with_torch(task) if embedding_optimizer == "adam" else {"ours": self._play_ours(task)}
        return {**found, "access": access}

    def _play_ours(self, task: dict[str, Any]) -> dict[str, Any]:
        return self._play(Player("tfctr_side", task))[0]

    def _play(self, *players: Player, rounds: int | None = None) -> list[dict[str, Any]]:
        """The facts and times of players that took their turns."""
        for _ in range(self.rounds if rounds is None else rounds):
            for player in players:
                player.turn()
        for player in players:
            player.end()
        return [{**player.facts, **_times(player.seconds)} for player in players]


def _times(seconds: list[float]) -> dict[str, Any]:
    if not seconds:
        return {}
    return {"min_ms": 1e3 * min(seconds), "median_ms": 1e3 * float(np.median(seconds)), "steps": len(seconds)}


def _batches(tables: dict[str, int], batches: int, rows: int, zipf: bool) -> dict[str, Any]:
    """Ids `[batches, rows]` of each field, uniform or by Zipf's law (the n-th id has a share of 1 / n), and labels."""
    generator, shape = np.random.default_rng(1), (batches, rows)

    def drawn(count: int) -> Any:
        if not zipf:
            return generator.integers(1, count, shape, dtype="int32")
        shares = np.cumsum(1 / np.arange(1, count))
        # Frequent ids stand first, as in a learned vocabulary.
        return (1 + np.searchsorted(shares, generator.uniform(0, shares[-1], shape))).astype("int32")

    ids = {name: drawn(count) for name, count in tables.items()}
    return {**ids, "labels": (generator.uniform(size=shape) < 1 / 3).astype("float32")}


if __name__ == "__main__":
    typer.run(main)
