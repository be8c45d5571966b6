"""What people read of a search while it goes on, and at its end."""

from __future__ import annotations

import json
from typing import Any

from rich.table import Table

from tfctr.tuning.record import Search, Trial

_ROWS = 20


def text_of(value: Any) -> str:
    """A searched value in one line."""
    return value if isinstance(value, str) else json.dumps(value, default=str)


def described(values: dict[str, Any]) -> str:
    """The values of a trial in one line."""
    return ", ".join(f"{path} {text_of(value)}" for path, value in values.items())


def objective_of(trial: Trial) -> str:
    """The objective of a trial, with its spread over the seeds."""
    spread = "" if trial.spread is None else f" ± {trial.spread:.5f}"
    return f"{trial.objective:.5f}{spread}"


def outcome(search: Search, trial: Trial) -> str:
    """How a trial has ended, in one line."""
    if not trial.finished:
        return f"failed: {trial.reason}"
    best = " (best)" if search.best is trial else ""
    as_before = "" if trial.repeats is None else f", as trial {trial.repeats}"
    return f"{search.plan.judged_by.title} {objective_of(trial)}{best}{as_before}"


def table_of(search: Search) -> Table:
    """The trials that finished, the best first, and how many are not shown."""
    ranked = search.ranked()
    paths = list(dict.fromkeys(path for one in ranked for path in one.values))
    table = Table("trial", search.plan.judged_by.title, "best epoch", *paths)
    for one in ranked[:_ROWS]:
        epochs = "/".join(str(seed.best_epoch) for seed in one.seeds)
        table.add_row(str(one.trial), objective_of(one), epochs, *(text_of(one.values[path]) for path in paths))
    left = [f"{len(ranked) - _ROWS} more"] * (len(ranked) > _ROWS)
    failed = len(search.trials) - len(ranked)
    left += [f"{failed} failed"] * (failed > 0)
    table.caption = ", ".join(left) or None
    return table
