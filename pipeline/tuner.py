"""The Tuner's tuner_fn: the same search as `tfctr tune`, on Transform's output."""

from __future__ import annotations

import hashlib
import json
from types import SimpleNamespace
from typing import Any

import keras_tuner
from tfx.components.tuner.component import TunerFnResult

from pipeline.trainer import BEST, Transformed, checkpoints_of, read_transformed
from tfctr.errors import UserError
from tfctr.storage import join
from tfctr.tuning.plan import Plan
from tfctr.tuning.record import Search
from tfctr.tuning.search import search_rows
from tfctr.tuning.trials import Rows


def tuner_fn(fn_args: Any) -> TunerFnResult:
    """Gives TFX what searches, when it is asked to.

    Args:
        fn_args: TFX's arguments; `custom_config` holds what that of the Trainer does, and the plan.
    """
    return TunerFnResult(tuner=_Tuner(fn_args), fit_kwargs={})


class _Tuner:
    """All that TFX asks of a tuner of keras-tuner. A search whose every trial failed is an error, and no result."""

    tuner_id = "tfctr"

    def __init__(self, fn_args: Any) -> None:
        self._fn_args = fn_args
        self._search: Search | None = None

    def search(self) -> None:
        """Searches; a killed search on the same examples goes on, on another machine too."""
        config = self._fn_args.custom_config
        plan = Plan.model_validate_json(config["plan"])
        digest = hashlib.sha256(json.dumps(plan.lasting(), sort_keys=True).encode()).hexdigest()[:16]
        with checkpoints_of(config) as (here, kept):
            read = read_transformed(self._fn_args, here)
            name = f"{read.key}-{digest}"
            kept = None if kept is None else join(kept, "tuning", name)
            self._search = search_rows(plan, read.key, lambda: _rows(read), here / "tuning" / name, kept)

    def get_best_hyperparameters(self) -> list[keras_tuner.HyperParameters]:
        """The best experiment."""
        search = self._found()
        best = search.best
        if best is None:
            raise UserError("the search has no best trial")
        found = keras_tuner.HyperParameters()
        found.Fixed(BEST, json.dumps(search.content_of(best)))
        return [found]

    @property
    def oracle(self) -> Any:
        """The trials for TFX's table of results, the best first."""
        ranked = [
            SimpleNamespace(
                trial_id=str(trial.trial),
                status=keras_tuner.engine.trial.TrialStatus.COMPLETED,
                score=trial.objective,
                hyperparameters=SimpleNamespace(values=trial.values),
            )
            for trial in self._found().ranked()
        ]
        return SimpleNamespace(max_trials=len(ranked), get_best_trials=lambda count: ranked[:count])

    def search_space_summary(self) -> None:
        """Nothing: the plan file says it."""

    def results_summary(self) -> None:
        """Nothing: the search has said it."""

    def _found(self) -> Search:
        assert self._search is not None
        return self._search


def _rows(read: Transformed) -> Rows:
    return Rows(read.assets, read.train, read.valid)
