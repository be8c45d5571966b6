"""A search from its plan to its best experiment; a killed one goes on where it was."""

from __future__ import annotations

import hashlib
import json
import tempfile
import warnings
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from tfctr.console import console
from tfctr.data.keys import rows_key
from tfctr.errors import UserError, disk_errors
from tfctr.features.spec import FeatureFile
from tfctr.storage import Mirror, local_path, only_one
from tfctr.training.cluster import refuse_several
from tfctr.training.devices import check_devices
from tfctr.training.splits import given_paths, read_paths, read_splits
from tfctr.training.workers import ALONE
from tfctr.training.workspace import finished_note, finished_run
from tfctr.tuning.methods import make_oracle
from tfctr.tuning.plan import Plan, check_plan, differences
from tfctr.tuning.record import (
    NOTE,
    TRIALS,
    Search,
    Trial,
    begun,
    is_search,
    read_trials,
    write_best,
    write_note,
    write_trials,
)
from tfctr.tuning.shown import described, outcome
from tfctr.tuning.trials import Proposal, Rows, discard_trial, run_trial

_DIFFERENCES_TOLD = 5
_LOCK = ".lock"


def tune(file: FeatureFile, plan: Plan, data: str | Path, out: str | Path, where: str | Path = "the plan") -> Search:
    """Searches, on the train and the valid split, and leaves the best experiment in `out/best.yaml`.

    A killed search of the same plan in the same directory goes on: trials that have ended are not trained again, and
    the one under way goes on from its checkpoint.

    Args:
        file: The feature file.
        plan: What is searched, and how.
        data: A data directory with train/ and valid/.
        out: The directory of the search.
        where: Where the plan stands, for messages.

    Raises:
        UserError: what is wrong with the plan, the data or the disk; that another search or another process has the
            directory; that the directory holds other files; that every trial has failed.
    """
    refuse_several("tfctr tune")
    check_plan(plan, file, where)
    check_devices(plan.experiment.training)
    out = local_path(out, "--out")
    _check_free(out)
    paths = read_paths(data)
    key = rows_key(file, [*(path for found in paths.values() for path in found), *given_paths(file, data)])
    if plan.sources:
        # Trials that start from another run, or from that one trained anew, are other trials.
        names = json.dumps([finished_note(run).get("weights") for run in plan.sources])
        key += f"-{hashlib.sha256(names.encode()).hexdigest()[:16]}"

    @cache
    def rows() -> Rows:
        assets, splits = read_splits(ALONE, file, data, paths, out)
        sources = {run: finished_run(run).model for run in plan.sources}
        return Rows(assets, splits["train"], splits["valid"], sources)

    with only_one(out, out / _LOCK):
        return search_rows(plan, key, rows, out)


def search_rows(plan: Plan, key: str, rows: Callable[[], Rows], out: Path, kept: str | None = None) -> Search:
    """Searches on rows that are at hand, in a directory that no other process uses; `tune` has the rest.

    Args:
        plan: What is searched, and how.
        key: The key of the rows, the feature file and the runs that trials start from: a search goes on with the same
            alone.
        rows: Gives the rows, when there is a trial to run.
        out: The directory of the search.
        kept: A place in a store where the directory is kept too; a search that another machine began there goes on.

    Raises:
        UserError: another search has the directory, every trial has failed, or the store refuses.
    """
    mirror = Mirror(out, kept, TRIALS)
    mirror.fetch()
    trials = read_trials(out)
    _check_same(out, plan, key, len(trials))
    write_note(out, plan, key)
    search = Search(plan, trials)
    _search(search, trials, rows, out, kept, mirror)
    if search.best is None:
        raise UserError(
            f"{out}: each of the {len(trials)} trials failed; the first of them: {trials[0].reason}. Remove "
            "that directory to search again"
        )
    write_best(out, search)
    return search


def _check_free(out: Path) -> None:
    """Checks that a directory holds a search, or nothing but what one leaves that is killed before its first file."""
    if not out.is_dir() or is_search(out):
        return
    with disk_errors(out):
        names = {one.name for one in out.iterdir()}
    if not all(name == _LOCK or name.startswith(f".{NOTE}.") for name in names):
        raise UserError(
            f"{out}: is not empty and holds no search; --out must name a directory that is new or empty, or that of a "
            "search to go on with"
        )


def _check_same(out: Path, plan: Plan, key: str, ended: int) -> None:
    """Checks that the search that an earlier process began here is this one."""
    before, rows = begun(out) or (plan, key)
    elsewhere = "Take another --out, or remove this one"
    found = list(differences(before.lasting(), plan.lasting()))
    if found:
        told = "; ".join(found[:_DIFFERENCES_TOLD])
        more = f"; and {len(found) - _DIFFERENCES_TOLD} more" if len(found) > _DIFFERENCES_TOLD else ""
        raise UserError(f"{out}: holds a search of another plan: {told}{more}. {elsewhere}")
    if rows != key:
        raise UserError(
            f"{out}: holds a search on other data, with another feature file, other code or another run to start from. "
            f"{elsewhere}"
        )
    if plan.total is not None and plan.total < ended:
        raise UserError(f"{out}: {ended} trials have ended there, and the plan asks for {plan.total}. {elsewhere}")


def _search(
    search: Search, trials: list[Trial], rows: Callable[[], Rows], out: Path, kept: str | None, mirror: Mirror
) -> None:
    """Goes through the trials: those that ended are told to the oracle again, the others are run."""
    plan, known = search.plan, len(trials)
    of_total = "" if plan.total is None else f" of {plan.total}"
    with tempfile.TemporaryDirectory(prefix="tfctr-") as scratch:
        oracle = _Oracle(plan, scratch)
        for number, ended in enumerate(trials, start=1):
            if not oracle.propose(ended.proposed):
                raise UserError(f"{out}: trial {number} is none that this plan would have; remove {out} to begin again")
            oracle.tell(ended)
        if known:
            console().print(f"search: {known} trials{of_total} have ended before")
        while (proposed := oracle.propose()) is not None:
            proposal = Proposal(len(trials) + 1, proposed, plan)
            console().print(f"trial {proposal.number}{of_total}: {described(proposal.settings)}{_more(proposal)}")
            ended = run_trial(proposal, trials, rows, out, kept)
            trials.append(ended)
            write_trials(out, trials)
            write_best(out, search)
            if not plan.how.GOES_ON:
                discard_trial(out, ended.trial)
            mirror.send()
            oracle.tell(ended)
            console().print(f"trial {ended.trial}: {outcome(search, ended)}")
    if len(trials) == known:
        console().print("search: already finished; nothing to do")
    for one in trials:
        discard_trial(out, one.trial)
    mirror.send()


def _more(proposal: Proposal) -> str:
    epochs = "" if proposal.epochs is None else f", {proposal.epochs} epochs"
    return epochs + ("" if proposal.parent is None else f", goes on from trial {proposal.parent}")


class _Oracle:
    """An oracle of keras-tuner that is told of trials one after the other.

    It draws the same again from the same seed and the same results, so a search that was killed tells a new one of the
    trials that have ended. What keras-tuner itself writes of its state is not all of it: an oracle of grids that is
    read again proposes nothing, and the Gaussian process draws other numbers.
    """

    def __init__(self, plan: Plan, scratch: str) -> None:
        objective = plan.judged_by
        epochs = plan.experiment.training.epochs
        self._oracle = make_oracle(plan.how, plan.spaces, objective.rising, plan.seed, epochs)
        self._oracle._set_project_dir(scratch, "oracle")
        self._trial: Any = None

    def propose(self, ended: Mapping[str, Any] | None = None) -> dict[str, Any] | None:
        """The next proposal, or None where there is none.

        Args:
            ended: What was proposed when this trial was run; a proposal may differ from it in the last digits.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a Gaussian process over few trials
            self._trial = self._oracle.create_trial("tfctr")
        if self._trial.status != "RUNNING":
            return None
        if ended is not None:
            self._trial.hyperparameters.values = dict(ended)
        return dict(self._trial.hyperparameters.values)

    def tell(self, ended: Trial) -> None:
        """Says how the trial that was proposed last has ended."""
        trial = self._trial
        if ended.objective is None:
            trial.status, trial.message = "FAILED", ended.reason
        else:
            self._oracle.update_trial(trial.trial_id, {"objective": ended.objective})
            trial.status = "COMPLETED"
        self._oracle.end_trial(trial)
