"""The sections of the report about runs, in their order. A new one is a function and one entry of `SECTIONS`."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from tfctr.export.describe import COST_TITLES
from tfctr.metrics.bootstrap import bootstrap_difference
from tfctr.metrics.table import METRICS
from tfctr.models.naming import model_name
from tfctr.report.content import Content, Section, Table
from tfctr.report.figures import buckets, calibration, curves, histogram, intervals
from tfctr.report.measures import REPLICATES, UNKNOWN, bootstrapped, by_slice, cell, measured, slice_name, weights_of
from tfctr.report.runs import Run

_LEVEL = 0.95
_CALIBRATION_PARTS = 20
_RUNS_IN_ONE_CALIBRATION = 4
_FEATURES_DRAWN = 20
_SLICES_DRAWN = 40


def what(content: Content) -> Section:
    """What was trained, and how good it is."""
    rows = []
    for run in content.runs:
        experiment, config = run.made["experiment"], run.made["model"]
        interests = ", ".join(one["type"] for one in config["interests"] or ()) or "mean pooling or none"
        optimizer = experiment["training"]["optimizer"]
        rows.append(
            [
                run.name,
                model_name(experiment["preset"], config),
                f"{interests} x {config['interaction']['type']}",
                optimizer if isinstance(optimizer, str) else optimizer["type"],
                str(experiment["training"]["seed"]),
                f"{run.made['trainable_parameters']:,}",
                f"{run.made['frozen_parameters']:,}",
                f"{run.best_epoch} of {len(run.history)}" if run.history else "unknown",
                run.made["created"],
            ]
        )
    words_of_one = ["run", "preset", "interest x interaction", "optimizer"]
    made = [*words_of_one, "seed", "trained", "frozen", "best epoch", "exported"]
    printed = {name: metric.title for name, metric in METRICS.items() if metric.printed}
    metrics = [[run.name, *(measured(run, name) for name in printed)] for run in content.runs]
    clicks = content.runs[0].predictions.labels
    rate = np.average(clicks, weights=weights_of(content.runs[0]))
    words = (
        f"{len(clicks):,} rows of the {content.split} split, {rate:.2%} of them clicked, scored through the "
        f"signature that is served. In brackets: 95 % intervals of a bootstrap over "
        f"{_drawn(content.runs[0])} ({REPLICATES} replicates)."
    )
    return Section(
        "Runs", words, tables=[Table(["run", *printed.values()], metrics), Table(made, rows, texts=len(words_of_one))]
    )


def _drawn(run: Run) -> str:
    """What a bootstrap draws of a run."""
    return "rows" if run.predictions.groups is None else "users"


def learning(content: Content) -> Section | None:
    """Metrics of the validation by epoch."""
    trained = [(number, run) for number, run in enumerate(content.runs) if run.history]
    if not trained:
        return None
    names = list(dict.fromkeys(name for _, run in trained for name in run.history[0] if name != "learning_rate"))
    others = [name for name in names if name not in METRICS]
    pictures = []
    for name in [*(name for name in METRICS if name in names), *others]:
        having = [(number, run) for number, run in trained if name in run.history[0]]
        ringed = name in METRICS
        lines = [(at, [one[name] for one in run.history], run.best_epoch if ringed else 0) for at, run in having]
        pictures.append(curves(METRICS[name].title if ringed else name, lines))
    words = "The validation split after each epoch; the ring is the epoch whose weights were kept."
    if others:
        words += (
            " Below: what the interests say of themselves. Of a codebook: agreement, effective_words, fit and "
            "used_words; few used words say that it tells few events apart."
        )
    return Section("Learning curves", words, pictures)


def slices(content: Content) -> Section | None:
    """AUC and GAUC by slice."""
    found = {run.name: by_slice(run) for run in content.runs}
    places = list(dict.fromkeys(place for one in found.values() for place in one))
    if len(places) < 2:
        return None
    metrics = [name for name in ("auc", "gauc") if any(name in row for one in found.values() for row in one.values())]
    drawn = places[:_SLICES_DRAWN]
    pictures = []
    for metric in metrics:
        by_run = [
            (at, [found[run.name].get(place, {}).get(metric, UNKNOWN) for place in drawn])
            for at, run in enumerate(content.runs)
        ]
        pictures.append(intervals(METRICS[metric].title, [slice_name(place) for place in drawn], by_run, bars=False))
    headings = ["slice", "rows", *(f"{METRICS[one].title} {run.name}" for one in metrics for run in content.runs)]
    rows = []
    for place in places:
        count = next(one[place]["rows"].value for one in found.values() if place in one)
        cells = [cell(found[run.name].get(place, {}).get(one, UNKNOWN)) for one in metrics for run in content.runs]
        rows.append([slice_name(place), f"{count:,.0f}", *cells])
    words = f"Each slice by itself, with 95 % intervals; a slice with few {_drawn(content.runs[0])} has a wide one."
    if len(places) > len(drawn):
        words += f" The first {len(drawn)} of {len(places)} are drawn; the table has all."
    return Section("By slice", words, pictures, [Table(headings, rows)], folded=True)


def differences(content: Content) -> Section | None:
    """Each run against the first."""
    first, *others = content.runs
    if not others:
        return None
    rows = []
    for metric in bootstrapped(first):
        for run in others:
            one, other = first.predictions, run.predictions
            found = bootstrap_difference(
                one.labels, one.scores, other.scores, one.groups, metric, first.weighting, one.weights, REPLICATES
            )
            low, high = f"{found.low:+.4f}", f"{found.high:+.4f}"
            # The interval is interpolated between replicates, so its end and the p-value may disagree by one of them.
            sure = "yes" if found.p_value < 1 - _LEVEL else "no"
            rows.append(
                [
                    run.name,
                    METRICS[metric].title,
                    f"{found.difference:+.4f}",
                    f"{low} to {high}",
                    f"{found.p_value:.3f}",
                    sure,
                ]
            )
    words = (
        f"Each run less {first.name}: a paired bootstrap over {_drawn(first)}, drawn for both runs alike. A small p "
        f"says that the {_drawn(first)}, drawn anew, would agree; it says nothing of another seed of the training."
    )
    headings = ["run", "metric", "difference", "95 % interval", "p", "p below 0.05"]
    return Section(f"Against {first.name}", words, tables=[Table(headings, rows, texts=2)])


def probabilities(content: Content) -> Section:
    """Calibration and histograms."""
    counted = [(run.predictions.scores, run.predictions.labels, weights_of(run)) for run in content.runs]
    parts = []
    for scores, labels, weights in counted:
        pieces = np.array_split(np.argsort(scores, kind="stable"), min(_CALIBRATION_PARTS, len(scores)))
        means = [[np.average(of[piece], weights=weights[piece]) for piece in pieces] for of in (scores, labels)]
        parts.append((np.array(means[0]), np.array(means[1])))
    of_each = len(parts) > _RUNS_IN_ONE_CALIBRATION
    pictures = [calibration("calibration", parts)]
    if of_each:
        pictures = [calibration(f"calibration of {run.name}", parts, at) for at, run in enumerate(content.runs)]
    pictures += [histogram(run.name, *counted[at], at) for at, run in enumerate(content.runs)]
    others = "; one picture a run, with the others faint behind it" if of_each else ""
    words = (
        f"Calibration: rows sorted by probability, in {_CALIBRATION_PARTS} parts of equal size; on the dashed line the "
        f"probability is the rate of clicks{others}. Histograms: probabilities of clicked and other rows, each with "
        "area 1."
    )
    return Section("Probabilities", words, pictures)


def similarities(content: Content) -> Section | None:
    """Which buckets of similarity are used."""
    failed = [f"{run.name} ({run.uncounted})" for run in content.runs if run.uncounted]
    having = [(at, run, found) for at, run in enumerate(content.runs) for found in run.buckets]
    if not having and not failed:
        return None
    pictures, rows = [], []
    for at, run, found in having:
        name = f"{run.name}, {found.events}"
        pictures.append(buckets(name, found.clicked[:-1], found.other[:-1], at))
        known, missing = found.clicked[:-1] + found.other[:-1], found.clicked[-1] + found.other[-1]
        used = int(np.sum(known > 0))
        share = missing / max(known.sum() + missing, 1)
        rows.append(
            [
                run.name,
                found.events,
                f"{used} of {len(known)}",
                f"{known.max() / max(known.sum(), 1):.1%}",
                f"{share:.1%}",
            ]
        )
    words = (
        "The interest puts each event of a history into a bucket, by the cosine of its vector and the candidate's. "
        "Drawn is the share of the events in each bucket, for candidates that were clicked and for others: where the "
        "two differ, similarity tells something. A bucket without events has learned nothing; where nearly all events "
        "are in one, more bins may help. Events without a vector are in the table only. The vectors are those of the "
        "data directory."
    )
    if failed:
        words += f" Not counted: {'; '.join(failed)}."
    headings = ["run", "events", "buckets used", "of events in the fullest", "without a vector"]
    return Section("Similarity", words, pictures, [Table(headings, rows, texts=2)])


def gains(content: Content) -> Section | None:
    """What each feature gains."""
    having = [(at, run) for at, run in enumerate(content.runs) if run.gains]
    if not having:
        return None
    names = list(dict.fromkeys(gain.feature for _, run in having for gain in run.gains))
    by_run = {at: {gain.feature: gain.auc for gain in run.gains} for at, run in having}
    drawn = names[:_FEATURES_DRAWN]
    series = [(at, [found.get(name, UNKNOWN) for name in drawn]) for at, found in by_run.items()]
    picture = intervals("AUC lost", drawn, series, bars=True)
    sides = {gain.feature: gain.side for _, run in having for gain in run.gains}
    rows = [[name, sides[name], *(cell(found.get(name, UNKNOWN)) for found in by_run.values())] for name in names]
    words = (
        "The AUC that is lost when the values of a feature are shuffled among the rows; a history is shuffled as a "
        "whole. Features that tell the same lose little each, since the other one still tells it."
    )
    headings = ["feature", "side", *(run.name for _, run in having)]
    return Section("Gain of each feature", words, [picture], [Table(headings, rows, texts=2)], folded=True)


def costs(content: Content) -> Section:
    """What the models cost where they are served."""
    rows = []
    for run in content.runs:
        found = run.description.costs
        cost = found.get("served", found.get("trained", {}))
        numbers = [f"{cost[name]:,}" if name in cost else "unknown" for name in COST_TITLES]
        size = sum(run.description.bytes_by_part.values())
        rows.append([run.name, *numbers, f"{run.description.state_bytes:,}", f"{size / 1e6:,.1f}"])
    words = (
        "As served: the user's part once a user, the rest once a request and once a candidate; a multiplication with "
        "its addition are two operations. The state is what is cached of a user."
    )
    headings = ["run", *COST_TITLES.values(), "state, bytes", "SavedModel, MB"]
    return Section("Cost", words, tables=[Table(headings, rows)])


def times(content: Content) -> Section | None:
    """Where the time went."""
    by_column = {run.name: run.seconds for run in content.runs if run.seconds}
    if content.seconds:
        by_column = {"pipeline": content.seconds}
    if not by_column:
        return None
    stages = list(dict.fromkeys(stage for column in by_column.values() for stage in column))
    rows = [[stage, *(_duration(column, stage) for column in by_column.values())] for stage in stages]
    words = "Seconds by stage, with their shares."
    if not content.seconds:
        words += (
            " Reading is that of the log, which a second training in a workspace does not repeat; steps and validation "
            "are of all epochs, with the compilation."
        )
    return Section("Where the time went", words, tables=[Table(["stage", *by_column], rows)])


SECTIONS: tuple[Callable[[Content], Section | None], ...] = (
    what,
    learning,
    differences,
    slices,
    probabilities,
    gains,
    similarities,
    costs,
    times,
)
"""The sections in the order of the page. Each makes one of what is known of the runs, or None if that is too little."""


def _duration(stages: Mapping[str, float], name: str) -> str:
    return f"{stages[name]:,.1f} ({stages[name] / sum(stages.values()):.0%})" if name in stages else ""
