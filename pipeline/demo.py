"""Runs everything once: data, pipeline, server, client. `make demo` starts this module."""

from __future__ import annotations

import csv
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.table import Table

from pipeline.errors import ends_in_words
from pipeline.local_runner import REFUSED, OutputLayout, run
from pipeline.progress import quiet
from pipeline.show import slice_table
from tfctr import MODEL_NAME
from tfctr.client import RankingClient
from tfctr.console import console, step
from tfctr.data.prepare import Options, prepare_movielens
from tfctr.data.synthesize import synthesize
from tfctr.data.synthetic_world import Settings
from tfctr.features import FeatureFile, load_feature_file, raw_inputs
from tfctr.storage import local_directory

CONFIGS = Path(__file__).parents[1] / "configs"
CANDIDATES, TOP, REPETITIONS = 500, 10, 30


@dataclass(frozen=True)
class Request:
    """What a ranking service would know when it asks for a ranking."""

    user: dict[str, Any]
    context: dict[str, Any]
    candidates: list[dict[str, Any]]
    titles: dict[int, str]


def run_demo(out: Path, movielens: Path | None, rows: int, seed: int) -> bool:
    """Runs the demo; False when the model was refused.

    Args:
        out: Where everything goes; a second run is served from what is there.
        movielens: A MovieLens-1M directory; None synthesizes data.
        rows: Synthetic impressions.
        seed: Of the synthetic data and of the candidates shown.
    """
    started = time.monotonic()
    data = out / ("data-movielens" if movielens else "data")
    if not (data / "dataset.json").is_file():
        with step("data"):
            _make_data(data, movielens, rows, seed)
    name = "movielens" if movielens else "synthetic"
    experiment = CONFIGS / "experiments" / ("movielens.yaml" if movielens else "demo.yaml")
    features = CONFIGS / f"{name}.yaml"
    outcome = run(data, features, experiment, out)
    console().print(slice_table(out))
    _print_ceiling(data)
    layout = OutputLayout(out)
    if not any(path.name.isdigit() for path in layout.serving.glob("*")):
        return False
    rank_for_one_user(layout.serving, request_of(data, load_feature_file(features), seed), layout.logs / "serving.log")
    console().print(f"demo: {time.monotonic() - started:.0f} s", markup=False)
    return outcome.pushed


def _make_data(data: Path, movielens: Path | None, rows: int, seed: int) -> None:
    if movielens is None:
        synthesize(data, Settings(rows=rows, seed=seed))
    else:
        prepare_movielens(movielens, data, Options())


def _print_ceiling(data: Path) -> None:
    """Say which AUC and GAUC the best possible model would reach, which is known for synthetic data only."""
    ceilings = json.loads((data / "dataset.json").read_text(encoding="utf-8")).get("ceilings")
    if ceilings is not None:
        best = ceilings["position_unknown"]
        console().print(
            f"the scorer that made these labels reaches AUC {best['auc']['drawn_labels']:.4f}, "
            f"GAUC {best['gauc']['drawn_labels']:.4f}",
            highlight=False,
        )


def request_of(data: Path, file: FeatureFile, seed: int) -> Request:
    """The request of a test impression with a long history, with candidates that the user has not met.

    Args:
        data: A data directory.
        file: Its feature file.
        seed: Draws the candidates.
    """
    import tensorflow as tf

    from tfctr.data.sources import serialized, split_files
    from tfctr.features.row_checks import column_rules

    rows = (one for path in split_files(data, "test") for one in serialized(path, column_rules(file), file.csv))
    found = (_columns(tf.train.Example.FromString(one)) for one in islice(rows, 400))
    columns = max(found, key=lambda row: len(row.get("history_item_id", [])))
    with (data / "items.csv").open(encoding="utf-8", newline="") as lines:
        items = {int(row["item_id"]): row for row in csv.DictReader(lines)}
    met = set(columns.get("history_item_id", []))
    pool = [item for item in items if item not in met]
    chosen = np.random.default_rng(seed).choice(pool, min(CANDIDATES, len(pool)), replace=False)
    known = {spec.name: spec for spec in raw_inputs(file)}
    row = {name: values if known[name].shape else values[0] for name, values in columns.items() if name in known}
    return Request(
        user={name: value for name, value in row.items() if known[name].side == "user"},
        context={name: value for name, value in row.items() if known[name].side == "context"},
        candidates=[_candidate(items[int(item)]) for item in chosen],
        titles={item: row["title"] for item, row in items.items()},
    )


def _candidate(row: dict[str, str]) -> dict[str, Any]:
    year = {"year": int(row["year"])} if row.get("year") else {}
    return {"item_id": int(row["item_id"]), "genres": row["genres"], **year}


def _columns(example: Any) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for name, feature in example.features.feature.items():
        values = getattr(feature, feature.WhichOneof("kind")).value if feature.WhichOneof("kind") else []
        found[name] = [value.decode() if isinstance(value, bytes) else value for value in values]
    return found


def rank_for_one_user(model_directory: Path, request: Request, log: Path) -> None:
    """Serves the newest version, ranks the candidates for the user over gRPC, and times the two calls.

    Args:
        model_directory: Versions of a model.
        request: Whom to rank for, and what.
        log: Takes what TensorFlow and the server have to say.
    """
    with quiet(log):
        from serving.server import Server

        with Server(model_directory, MODEL_NAME) as server, RankingClient(server.address, MODEL_NAME, 30.0) as client:
            ranked = client.rank(request.user, request.candidates, request.context, k=TOP)
            state = client.user_state(request.user)
            tower = _median_ms(lambda: client.user_state(request.user))
            score = _median_ms(lambda: client.score(state, request.candidates, request.context))
    events = zip(request.user["history_item_id"], request.user["history_rating"], strict=True)
    liked = [request.titles.get(item, str(item)) for item, rating in events if rating > 3]
    console().print(f"\nuser {request.user['user_id']} last liked: {'; '.join(liked[:5])}", highlight=False)
    table = Table("", "title", "genres", "probability")
    for place, one in enumerate(ranked, start=1):
        title = request.titles[one.candidate["item_id"]]
        table.add_row(str(place), title, str(one.candidate["genres"]), f"{one.probability:.3f}")
    console().print(table)
    console().print(
        f"median of {REPETITIONS} over gRPC, server and client in this process:\n  user_tower {tower:.1f} ms, "
        f"score of {len(request.candidates)} candidates from the user's state {score:.1f} ms",
        highlight=False,
    )


def _median_ms(call: Callable[[], Any]) -> float:
    seconds = []
    for _ in range(REPETITIONS):
        started = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - started)
    return 1000 * statistics.median(seconds)


app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def main(
    out: Annotated[
        Path,
        typer.Option(parser=local_directory, help="Where everything goes; a second run is served from what is there."),
    ],
    data: Annotated[Path | None, typer.Option(help="A MovieLens-1M directory; default: synthetic data.")] = None,
    rows: Annotated[int, typer.Option(min=1000, help="Synthetic impressions.")] = 20_000,
    seed: Annotated[int, typer.Option(help="Of the synthetic data and the candidates shown.")] = 17,
) -> None:
    """Run everything once: data, pipeline, slice table, server, one user's ranking and its latency."""
    with ends_in_words():
        pushed = run_demo(out, data, rows, seed)
    if not pushed:
        raise typer.Exit(REFUSED)


if __name__ == "__main__":
    app()
