"""What models make of a history that is old, as that of a cached state, or that holds what the user never did.

    python -m benchmarks.changed_histories --data DATA RUN RUN ...

Every RUN is the directory of a finished `tfctr train` on DATA. Its model, trained on histories as they are, scores the
test split as it is, then with changed histories:

- missing: the newest events are not there, as in a state that was computed before them. Older ones do not fill their
  places, since a log holds no more than the longest history;
- wrong: every event is, with this probability, the event at the same place of another row's history, so that items are
  as popular as before. Times of events stay those of the row.

A table has the AUC by model and change, and with a group the GAUC.
"""

from __future__ import annotations

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
    counts, shares = [int(one) for one in missing.split(",")], [float(one) for one in noise.split(",")]
    with ends_in_words():
        found = {str(run): _measured(run, data, counts, shares, batch_size) for run in runs}
    titles = ["as they are", *(f"{count} missing" for count in counts), *(f"{share:.0%} wrong" for share in shares)]
    for metric in next(iter(found.values()))[0]:
        say(f"\n| {metric.upper()} | {' | '.join(titles)} |\n|{'---|' * (len(titles) + 1)}")
        for name, values in found.items():
            first, *others = (one[metric] for one in values)
            say(f"| {name} | {first:.4f} | {' | '.join(f'{one - first:+.4f}' for one in others)} |")


def _measured(run: Path, data: Path, counts: list[int], shares: list[float], batch_size: int) -> list[dict[str, float]]:
    from tfctr.data.sources import split_files
    from tfctr.features.transform import FileLookups, RawFunction
    from tfctr.training.dataset import RankingData
    from tfctr.training.loop import validate
    from tfctr.training.workspace import finished_run

    finished = finished_run(run)
    file = finished.assets.file
    if not file.sequences:
        raise UserError(f"{run}: its feature file has no history that could be changed")
    function = RawFunction(file, FileLookups(finished.assets))
    changes: list[Change] = [dict, *(without_newest(file, one) for one in counts)]
    changes += [with_wrong_events(file, one) for one in shares]
    found = []
    for change in changes:
        with tempfile.TemporaryDirectory(prefix="tfctr-") as place:
            changed = SimpleNamespace(all_sides=lambda raw, change=change: function.all_sides(change(raw)))
            rows = RankingData.of_log(file, split_files(data, "test"), changed, Path(place) / "rows")
            metrics = validate(finished.model, rows, batch_size)
        found.append({name: metrics[name] for name in ("auc", "gauc") if name in metrics})
        say(f"{run}: {len(found)} of {len(changes)}: {found[-1]}")
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
    """Puts events of other rows, where these have any at the same place, in the place of a share of the events."""
    import tensorflow as tf

    def change(raw: Tensors) -> Tensors:
        changed = dict(raw)
        for history, sequence in file.sequences.items():
            length = raw[length_name(history)]
            other = tf.argsort(tf.random.stateless_uniform(tf.shape(length), SEED))
            both = tf.sequence_mask(tf.minimum(length, tf.gather(length, other)), sequence.max_length)
            wrong = both & (tf.random.stateless_uniform(tf.shape(both), SEED[::-1]) < share)
            for feature in file.of_sequence(history):
                for column in () if feature.kind.is_time else feature.kind.columns(feature):
                    old = raw[column.name]
                    at = tf.reshape(wrong, tf.concat([tf.shape(wrong), tf.ones([tf.rank(old) - 2], tf.int32)], 0))
                    changed[column.name] = tf.where(at, tf.gather(old, other), old)
        return changed

    return change


if __name__ == "__main__":
    typer.run(main)
