"""What single backbones can separate in a plane: two moons and two circles.

    python -m benchmarks.decision_boundaries --plot docs/images/decision_boundaries.svg

Each of the two numbers is embedded as the model embeds numbers, value * w + b of width 8, and a backbone reads both
fields. It is trained on 1,000 points by Adam at 0.01 in 400 steps over all of them, and asked for 1,000 others; the
noise is 0.2 and 0.1. One layer each, so that what is seen is what one layer can bend. The figure of the QNN-alpha paper
that this is after gives neither sizes nor noise, so nothing is compared with it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import keras
import numpy as np
import typer
from sklearn.datasets import make_circles, make_moons

from benchmarks.report import save, say, subplots
from tfctr.interactions import Interaction, create_interaction

DATA = {
    "moons": lambda seed: make_moons(1_000, noise=0.2, random_state=seed),
    "circles": lambda seed: make_circles(1_000, noise=0.1, factor=0.5, random_state=seed),
}
BACKBONES: dict[str, dict[str, Any]] = {
    "linear": {"type": "mlp", "hidden": []},
    "mlp, one layer of 16": {"type": "mlp", "hidden": [16]},
    "neuron T9": {"type": "neuron", "format": "T9", "layers": 1},
    "neuron T19": {"type": "neuron", "format": "T19", "layers": 1},
    "qnn_alpha": {"type": "qnn_alpha", "layers": 1, "rows": 4, "batch_norm": False, "dropout": 0.0},
}
WIDTH, STEPS, SIDE = 8, 400, 60


def main(
    plot: Annotated[Path | None, typer.Option(help="An SVG file for the boundaries of the first seed.")] = None,
    seeds: Annotated[int, typer.Option(min=1)] = 3,
) -> None:
    """Print the accuracy on new points, least to greatest of the seeds, and draw the boundaries."""
    say("| backbone | parameters | " + " | ".join(DATA) + " |")
    say("|---|---|" + "---|" * len(DATA))
    drawn: dict[str, list[tuple[Any, Any]]] = {name: [] for name in DATA}
    for backbone, config in BACKBONES.items():
        cells = []
        for name, make in DATA.items():
            trained = [_train(config, *make(seed), seed) for seed in range(seeds)]
            accuracies = []
            for seed, model in enumerate(trained):
                points, labels = make(seeds + seed)
                accuracies.append(float(np.mean((_scores(model, points) > 0) == labels)))
            cells.append(f"{min(accuracies):.3f} to {max(accuracies):.3f}")
            drawn[name].append((trained[0], make(0)))
        size = sum(int(np.prod(weight.shape)) for weight in trained[0].layers[-1].trainable_weights)
        say(f"| {backbone} | {size} | " + " | ".join(cells) + " |")
    if plot is not None:
        _draw(drawn, plot)


def _train(config: dict[str, Any], points: Any, labels: Any, seed: int) -> keras.Model:
    keras.utils.set_random_seed(seed)
    numbers = keras.Input((2, 1))
    start = keras.initializers.RandomNormal(stddev=0.3)
    fields = keras.layers.EinsumDense("...fi,fie->...fe", (2, WIDTH), bias_axes="fe", kernel_initializer=start)(numbers)
    backbone: Interaction = create_interaction(config)
    logits = backbone(keras.layers.Reshape((2 * WIDTH,))(fields) if backbone.eats == "flat" else fields)
    model = keras.Model(numbers, logits)
    model.compile(keras.optimizers.Adam(0.01), keras.losses.BinaryCrossentropy(from_logits=True), jit_compile=False)
    # The same batch in every step of one epoch: Keras spends more time on an epoch than on such a step.
    fed, told = (np.concatenate([one] * STEPS).astype("float32") for one in (points[..., None], labels))
    model.fit(fed, told, batch_size=len(points), verbose=0, shuffle=False)
    return model


def _scores(model: keras.Model, points: Any) -> Any:
    return keras.ops.convert_to_numpy(model(points[..., None].astype("float32"), training=False))


def _draw(drawn: dict[str, list[tuple[Any, Any]]], path: Path) -> None:
    figure, axes = subplots(len(BACKBONES), rows=len(drawn), figsize=(2.2 * len(BACKBONES), 2.3 * len(drawn)))
    for row, (name, cells) in enumerate(drawn.items()):
        for column, (model, (points, labels)) in enumerate(cells):
            ax = axes[row][column]
            low, high = points.min(0) - 0.3, points.max(0) + 0.3
            xs, ys = (np.linspace(low[i], high[i], SIDE) for i in range(2))
            grid = np.stack(np.meshgrid(xs, ys), axis=-1).reshape(-1, 2)
            chances = 1 / (1 + np.exp(-_scores(model, grid))).reshape(SIDE, SIDE)
            extent = (low[0], high[0], low[1], high[1])
            ax.imshow(chances, extent=extent, origin="lower", aspect="auto", cmap="coolwarm", vmin=0, vmax=1, alpha=0.6)
            ax.contour(xs, ys, chances, levels=[0.5], colors="black", linewidths=0.8)
            some = slice(0, 150)
            ax.scatter(*points[some].T, c=labels[some], cmap="coolwarm", s=3, rasterized=True)
            ax.set(xticks=[], yticks=[])
            if row == 0:
                ax.set_title(list(BACKBONES)[column], fontsize=8)
            if column == 0:
                ax.set_ylabel(name, fontsize=8)
    save(figure, path)


if __name__ == "__main__":
    typer.run(main)
