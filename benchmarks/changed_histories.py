"""What models make of a history that is old, as that of a cached state, or that holds what the user never did.

    python -m benchmarks.changed_histories --data DATA RUN RUN ...

Every RUN is the directory of a finished `tfctr train` on DATA. Its model, trained on histories as they are, scores the
test split as it is, then with changed histories:

- missing: the newest events are not there, as in a state that was computed before them. Older ones do not fill their
  places, since a log holds no more than the longest history;
- wrong: every event is, with this probability, one drawn from the events of all histories of the batch, so that items
  are about as popular as before. Times of events stay those of the row.

A table has the AUC by model and change, and with a group the GAUC.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from benchmarks.report import say
from pipeline.errors import ends_in_words
from tfctr.errors import UserError
from tfctr.features.columns import length_name
from tfctr.features.inputs import columns
from tfctr.training.workspace import FinishedRun, finished_run

if TYPE_CHECKING:
    from tfctr.features.spec import FeatureFile

Tensors = Mapping[str, Any]
Change = Callable[[Tensors], Tensors]
SEED = (1, 2)


def main(
    runs: Annotated[list[Path], typer.Argument(help="Directories of finished trainings.")],
    data: Annotated[Path, typer.Option(help="The data directory they were trained on.")],
    missing: Annotated[str, typer.Option(help="Newest events that are missing, comma-separated.")] = "1,2,5,10,20",
    noise: Annotated[str, typer.Option(help="Shares of wrong events, comma-separated.")] = "0.1,0.25,0.5,1",
    batch_size: Annotated[int, typer.Option(min=1)] = 4096,
) -> None:
    """Score the test split with each change, and print the tables."""
    counts = [int(one) for one in _numbers("--missing", missing, lambda one: one >= 0 and one == int(one))]
    shares = _numbers("--noise", noise, lambda one: 0 <= one <= 1)
    with ends_in_words():
        finished = {str(run): finished_run(run) for run in runs}
        for name, run in finished.items():
            if not run.assets.file.sequences:
                raise UserError(f"{name}: its feature file has no history that could be changed")
        found = {name: _measured(name, run, data, counts, shares, batch_size) for name, run in finished.items()}
    titles = ["as they are", *(f"{count} missing" for count in counts), *(f"{share:.4g} wrong" for share in shares)]
    for metric in ("auc", "gauc"):
        # Without a group a model has no GAUC.
        having = {name: [one[metric] for one in values] for name, values in found.items() if metric in values[0]}
        if having:
            say(f"\n| {metric.upper()} | {' | '.join(titles)} |\n|{'---|' * (len(titles) + 1)}")
        for name, (first, *others) in having.items():
            say(f"| {name} | {first:.4f} | {' | '.join(f'{one - first:+.4f}' for one in others)} |")


def _numbers(option: str, text: str, allowed: Callable[[float], bool]) -> list[float]:
    """The numbers of an option; none of an empty one."""
    try:
        numbers = [float(one) for one in text.split(",") if text]
    except ValueError:
        numbers = [math.nan]
    if not all(map(allowed, numbers)):
        wanted = "counts of events" if option == "--missing" else "shares from 0 to 1"
        raise typer.BadParameter(f"needs {wanted}, comma-separated. Received: {text}", param_hint=option)
    return numbers


def _measured(
    name: str, run: FinishedRun, data: Path, counts: list[int], shares: list[float], batch_size: int
) -> list[dict[str, float]]:
    from tfctr.data.sources import split_files
    from tfctr.features.transform import FileLookups, RawFunction
    from tfctr.training.dataset import RankingData
    from tfctr.training.loop import validate

    file = run.assets.file
    function = RawFunction(file, FileLookups(run.assets))
    changes: list[Change] = [dict, *(without_newest(file, one) for one in counts)]
    changes += [with_wrong_events(file, one) for one in shares]
    found = []
    for change in changes:
        with tempfile.TemporaryDirectory(prefix="tfctr-") as place:
            changed = SimpleNamespace(all_sides=lambda raw, change=change: function.all_sides(change(raw)))
            rows = RankingData.of_log(file, split_files(data, "test"), changed, Path(place) / "rows")
            metrics = validate(run.model, rows, batch_size)
        found.append({metric: metrics[metric] for metric in ("auc", "gauc") if metric in metrics})
        say(f"{name}: {len(found)} of {len(changes)}: {found[-1]}")
    return found


def without_newest(file: FeatureFile, count: int) -> Change:
    """Takes the newest events out of every history."""
    import tensorflow as tf

    def change(raw: Tensors) -> Tensors:
        changed = dict(raw)
        for history in file.sequences:
            changed[length_name(history)] = tf.maximum(raw[length_name(history)] - count, 0)
            for column in columns(file, history):
                changed[column.name] = tf.concat([raw[column.name][:, count:], raw[column.name][:, :count]], axis=1)
        return changed

    return change


def with_wrong_events(file: FeatureFile, share: float) -> Change:
    """Puts events drawn from all histories of the batch in the place of a share of the events."""
    import tensorflow as tf

    def change(raw: Tensors) -> Tensors:
        changed = dict(raw)
        for history, sequence in file.sequences.items():
            real = tf.sequence_mask(raw[length_name(history)], sequence.max_length)
            events = tf.where(real)
            wrong = tf.where(real & (tf.random.stateless_uniform(tf.shape(real), SEED[::-1]) < share))
            drawn = tf.random.stateless_uniform([tf.shape(wrong)[0]], SEED) * tf.cast(tf.shape(events)[0], tf.float32)
            drawn = tf.gather(events, tf.minimum(tf.cast(drawn, tf.int32), tf.shape(events)[0] - 1))
            for feature in file.of_sequence(history):
                for column in () if feature.kind.is_time else feature.kind.columns(feature):
                    old = raw[column.name]
                    changed[column.name] = tf.tensor_scatter_nd_update(old, wrong, tf.gather_nd(old, drawn))
        return changed

    return change


if __name__ == "__main__":
    typer.run(main)
