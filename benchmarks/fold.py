"""The time that folding a backbone at export saves: milliseconds per request, as trained and as served.

    python -m benchmarks.fold [--widths 256,1024] [--rows 4] [--layers 4] [--candidates 500]

The weights are random. Times are medians of compiled calls after warm-up, on the device of the Keras backend;
KERAS_BACKEND=jax measures with JAX. tests/interactions/test_qin.py checks that the outputs are equal.
"""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
import typer

from benchmarks.interests import devices, median_ms
from benchmarks.report import say
from tests.backends import compiled, tensors
from tfctr.interactions import Interaction, create_interaction


def main(
    widths: Annotated[str, typer.Option(help="Comma-separated widths of the backbone's input.")] = "256,1024",
    rows: Annotated[int, typer.Option(min=1, help="R, the number of projections of a layer.")] = 4,
    layers: Annotated[int, typer.Option(min=1)] = 4,
    candidates: Annotated[int, typer.Option(min=1)] = 500,
    rounds: Annotated[int, typer.Option(min=1)] = 50,
) -> None:
    """Measure and print the table."""
    say(f"{devices()}: {candidates} candidates, R = {rows}, {layers} layers, median of {rounds}\n")
    say("| backbone | as trained, ms | folded, ms |\n|---|---|---|")
    for width in map(int, widths.split(",")):
        generator = np.random.default_rng(0)
        fields = tensors(generator.normal(size=(1, candidates, width)).astype("float32"))
        trained = create_interaction({"type": "qin", "rows": rows, "layers": layers})
        trained(fields)
        before, after = (_measure(one, fields, rounds) for one in (trained, trained.fold()))
        say(f"| qin, D = {width:,} | {before:.3g} | {after:.3g} |")


def _measure(backbone: Interaction, fields: Any, rounds: int) -> float:
    call = compiled(lambda inputs: backbone(inputs, training=False))
    return median_ms(lambda: call(fields), rounds)


if __name__ == "__main__":
    typer.run(main)
