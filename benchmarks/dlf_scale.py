"""How far apart DLF's logits start, by the depth of the stack and the scale of the fields.

    python -m benchmarks.dlf_scale

Standard deviation over 256 rows of random fields (10 of width 16) at the first inference pass, the least and the
greatest of `--seeds` draws of weights and fields, for the paper's equations bare and normalized and for the released
form. docs/benchmarks.md has the results. The fields are independent of each other, which real ones are not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import keras
import numpy as np
import typer

from benchmarks.report import say
from tfctr.interactions import Dlf, DlfReleased, Interaction

SCALES = (0.01, 0.1, 0.3, 1.0)
FIELDS, WIDTH, ROWS = 10, 16, 256
FORMS: dict[str, Callable[[int], Interaction]] = {
    "bare": lambda layers: Dlf(layers=layers, attention_layers=2, normalize=False),
    "normalized": lambda layers: Dlf(layers=layers, attention_layers=2),
    "released": lambda layers: DlfReleased(layers=layers),
}


def main(
    depths: Annotated[str, typer.Option(help="Comma-separated numbers of layers.")] = "1,2,4,8,12",
    seeds: Annotated[int, typer.Option(min=1)] = 3,
) -> None:
    """Print a table with one row for each form and depth and one column for each scale."""
    try:
        numbers = [int(one) for one in depths.split(",")]
    except ValueError:
        numbers = [0]
    if min(numbers) < 1:
        raise typer.BadParameter(f"must be positive whole numbers, joined by commas. Received: {depths}")
    say("| form | layers | " + " | ".join(map(str, SCALES)) + " |")
    say("|---|---|" + "---|" * len(SCALES))
    for name, make in FORMS.items():
        for layers in numbers:
            cells = [_spread([_deviation(make, layers, scale, seed) for seed in range(seeds)]) for scale in SCALES]
            say(f"| {name} | {layers} | " + " | ".join(cells) + " |")


def _deviation(make: Callable[[int], Interaction], layers: int, scale: float, seed: int) -> float:
    keras.utils.set_random_seed(seed)
    fields = np.random.default_rng(seed).normal(0.0, scale, (ROWS, FIELDS, WIDTH)).astype("float32")
    with np.errstate(invalid="ignore", over="ignore"):
        return float(np.std(keras.ops.convert_to_numpy(make(layers)(fields, training=False)).astype("float64")))


def _spread(found: list[float]) -> str:
    return f"{min(found):.2g} to {max(found):.2g}" if np.isfinite(found).all() else "not finite"


if __name__ == "__main__":
    typer.run(main)
