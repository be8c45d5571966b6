"""The sections of the report about searches. A new one is a function and one entry of `OF_SEARCHES`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tfctr.metrics.table import METRICS
from tfctr.report.content import Content, Section, Table
from tfctr.report.figures import Picture, best_so_far, by_value
from tfctr.tuning.record import Search, Trial
from tfctr.tuning.shown import objective_of, text_of

_ROWS = 20


def search(content: Content) -> Section | None:
    """What searches have tried, and which values were the better ones."""
    if not content.searches:
        return None
    empty = " ".join(f"{name}: no trial has ended yet." for name, one in content.searches.items() if not one.trials)
    places = enumerate(content.searches.items(), start=len(content.runs))
    having = [(at, name, one) for at, (name, one) in places if one.trials]
    if not having:
        return Section("Search", empty)
    pictures = [picture for at, name, one in having for picture in _pictures(at, name, one, len(having) > 1)]
    tables = [_table(name, one) for _, name, one in having]
    words = " ".join([*([empty] if empty else []), *(_told(name, one) for _, name, one in having)])
    words += (
        " Of the validation split, at the epoch whose weights were kept; the line is the best so far. A value that was "
        "the best of many is better there than it will be on other rows."
    )
    failed = [_failures(name, one) for _, name, one in having if len(one.ranked()) < len(one.trials)]
    return Section("Search", words, pictures, [*tables, *failed])


OF_SEARCHES: tuple[Callable[[Content], Section | None], ...] = (search,)
"""The sections in the order of the page, below those of runs."""


def _told(name: str, one: Search) -> str:
    finished, seconds = len(one.ranked()), sum(trial.seconds for trial in one.trials)
    seeds = "" if one.plan.seeds is None else f" of {len(one.plan.seeds)} seeds each"
    return (
        f"{name}: {len(one.trials)} trials{seeds} by {one.plan.how.type}, {finished} of them finished, "
        f"{seconds:,.0f} seconds of training."
    )


def _pictures(at: int, name: str, one: Search, several: bool) -> list[Picture]:
    judged = [(trial, trial.objective) for trial in one.trials if trial.objective is not None]
    if not judged:
        return []
    title, before = one.plan.judged_by.title, f"{name}: " if several else ""
    numbers = [trial.trial for trial, _ in judged]
    objectives = [objective for _, objective in judged]
    drawn = [best_so_far(f"{before}{title} by trial", numbers, objectives, one.plan.judged_by.rising, at)]
    for path in _paths(one.ranked()):
        values = [trial.values[path] for trial, _ in judged]
        drawn.append(by_value(f"{before}{path}", _axis(values), title, objectives, at))
    return drawn


def _axis(values: Sequence[object]) -> Sequence[float] | Sequence[str]:
    """Numbers where all values are numbers, else their texts."""
    numbers = [float(one) for one in values if isinstance(one, int | float) and not isinstance(one, bool)]
    return numbers if len(numbers) == len(values) else [text_of(one) for one in values]


def _paths(trials: Sequence[Trial]) -> list[str]:
    return list(dict.fromkeys(path for trial in trials for path in trial.values))


def _table(name: str, one: Search) -> Table:
    ranked = one.ranked()[:_ROWS]
    paths = _paths(ranked)
    known = ranked[0].metrics if ranked else {}
    metrics = [name for name in METRICS if name in known and METRICS[name].title != one.plan.judged_by.title]
    rows = [
        [
            name,
            *(text_of(trial.values[path]) for path in paths),
            str(trial.trial),
            objective_of(trial),
            *(f"{trial.metrics[metric]:.4g}" for metric in metrics),
            "/".join(f"{seed.best_epoch} of {seed.epochs}" for seed in trial.seeds),
            f"{trial.seconds:,.1f}",
        ]
        for trial in ranked
    ]
    headings = ["search", *paths, "trial", one.plan.judged_by.title]
    headings += [*(METRICS[metric].title for metric in metrics), "best epoch", "seconds"]
    return Table(headings, rows, texts=1 + len(paths))


def _failures(name: str, one: Search) -> Table:
    failed = [trial for trial in one.trials if not trial.finished][:_ROWS]
    rows = [[name, str(trial.reason), str(trial.trial)] for trial in failed]
    return Table(["search", "why it failed", "trial"], rows, texts=2)
