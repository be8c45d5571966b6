"""A search from its first trial to its best experiment, with pretended trainings: what is trained, kept and said."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import keras_tuner
import pytest
import yaml

from tests.tuning.conftest import EXPERIMENT, RATES, Pretended, plan, rate_of, refusing
from tests.workbench import Workbench
from tfctr.errors import DataError, DiskError, UserError
from tfctr.storage import only_one
from tfctr.training.experiment import Experiment
from tfctr.tuning import Plan, Search, read_search, tune
from tfctr.tuning.methods import Method, method
from tfctr.tuning.objectives import OBJECTIVES, Objective

pytestmark = pytest.mark.slow

Make = Callable[..., Pretended]
Tuned = Callable[..., Search]

RANGE = {"type": "float", "low": 0.001, "high": 0.1, "scale": "log"}
SPACE = {"training.learning_rate": RANGE, "model.interaction.dropout": [0.0, 0.2, 0.4]}
NINE = {**EXPERIMENT, "training": {**EXPERIMENT["training"], "epochs": 9}}
METHODS: dict[str, dict[str, Any]] = {
    "random": {"search": SPACE, "method": {"type": "random", "trials": 6}},
    "bayesian": {"search": SPACE, "method": {"type": "bayesian", "trials": 5, "random_trials": 3}},
    "grid": {"search": {**RATES, "model.interaction.dropout": [0.0, 0.5]}, "method": "grid"},
    "hyperband": {"experiment": NINE, "search": SPACE, "method": "hyperband"},
}
COUNTS = {"random": 6, "bayesian": 5, "grid": 6, "hyperband": 23}


class Killed(BaseException):
    """A process that ends at once."""


def test_each_method_is_tried() -> None:
    assert set(METHODS) == set(Method.METHODS)


@pytest.mark.parametrize("name", METHODS)
def test_each_method_comes_to_its_end(name: str, pretended: Make, tuned: Tuned, tmp_path: Path) -> None:
    made, one = pretended(rate_of), plan(**METHODS[name])

    found = tuned(one)

    assert len(found.trials) == one.total == COUNTS[name] == len(made.trained)
    assert {trial.status for trial in found.trials} == {"finished"}
    best = found.ranked()[0]
    assert best.objective == max(trial.objective for trial in found.trials if trial.objective)
    written = yaml.safe_load((tmp_path / "out" / "best.yaml").read_text())
    assert Experiment.model_validate(written).training.learning_rate == best.values["training.learning_rate"]
    assert read_search(tmp_path / "out") == found


@pytest.mark.parametrize("name", METHODS)
def test_a_killed_search_ends_with_the_same_trials(name: str, pretended: Make, tuned: Tuned, tmp_path: Path) -> None:
    pretended(rate_of)
    one = plan(**METHODS[name])
    whole = tuned(one, tmp_path / "whole")
    left = [COUNTS[name] // 2, 1, 1, COUNTS[name]]

    def score(experiment: Experiment) -> float:
        left[0] -= 1
        if left[0] < 0:
            left.pop(0)
            raise Killed
        return rate_of(experiment)

    made = pretended(score)
    for _ in range(3):
        with pytest.raises(Killed):
            tuned(one)
    found = tuned(one)

    assert found.trials == whole.trials
    assert len(made.trained) == COUNTS[name] + 3
    assert _bytes(tmp_path / "out") == _bytes(tmp_path / "whole")


def test_a_finished_search_does_nothing(pretended: Make, tuned: Tuned, tmp_path: Path, capsys: Any) -> None:
    made = pretended(rate_of)
    first = tuned(plan())
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*") if path.is_file()}
    capsys.readouterr()

    assert tuned(plan()) == first

    assert len(made.trained) == 3
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*") if path.is_file()} == before
    assert "search: already finished; nothing to do" in capsys.readouterr().out


def test_more_trials_continue_it(pretended: Make, tuned: Tuned, tmp_path: Path) -> None:
    made = pretended(rate_of)
    few = {"search": SPACE, "method": {"type": "random", "trials": 12}}
    whole = tuned(plan(**few), tmp_path / "whole")
    made.trained.clear()

    tuned(plan(**{**few, "method": {"type": "random", "trials": 9}}))
    found = tuned(plan(**few))

    assert len(made.trained) == 12
    assert found.trials == whole.trials
    assert read_search(tmp_path / "out").plan.total == 12
    with pytest.raises(UserError, match="12 trials have ended there, and the plan asks for 3"):
        tuned(plan(**{**few, "method": {"type": "random", "trials": 3}}))
    assert read_search(tmp_path / "out").plan.total == 12


def test_another_plan_or_other_data_is_refused(
    pretended: Make, tuned: Tuned, tiny: Workbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = pretended(rate_of)
    tuned(plan())

    with pytest.raises(UserError) as caught:
        tuned(plan(seed=5))
    assert f"{tmp_path / 'out'}: holds a search of another plan: seed was 1 and is 5. Take another --out" in str(
        caught.value
    )
    shutil.copytree(tiny.data, tmp_path / "data")
    other = Workbench(tmp_path / "data", tiny.file, tiny.assets)
    with pytest.raises(UserError, match="holds a search on other data"):
        tune(other.file, plan(), other.data, tmp_path / "out")
    assert len(made.trained) == 3


def test_only_one_process_searches(pretended: Make, tuned: Tuned, tmp_path: Path) -> None:
    made = pretended(rate_of)
    with only_one(tmp_path / "out", tmp_path / "out" / ".lock"), pytest.raises(UserError, match="another run is under"):
        tuned(plan())
    assert made.trained == []


def test_ctrl_c_leaves_what_the_same_command_goes_on_with(pretended: Make, tuned: Tuned) -> None:
    def score(experiment: Experiment) -> float:
        if len(made.trained) == 2:
            raise KeyboardInterrupt
        return rate_of(experiment)

    made = pretended(score)
    with pytest.raises(KeyboardInterrupt):
        tuned(plan())
    made.score = rate_of
    assert len(tuned(plan()).trials) == 3
    assert [one.training.learning_rate for one in made.trained] == [0.01, 0.02, 0.02, 0.05]


def test_several_seeds_are_one_trial(pretended: Make, tuned: Tuned, tmp_path: Path) -> None:
    made = pretended(lambda experiment: rate_of(experiment) + experiment.training.seed / 100)

    found = tuned(plan(seeds=[1, 2, 6]))

    assert [one.training.seed for one in made.trained] == [1, 2, 6] * 3
    best = found.ranked()[0]
    assert best.values == {"training.learning_rate": 0.02}
    assert best.objective == pytest.approx(0.93)
    assert best.spread == pytest.approx(0.0264575, abs=1e-6)
    assert [seed.metrics["auc"] for seed in best.seeds] == pytest.approx([0.91, 0.92, 0.96])
    assert best.seconds == 9
    assert yaml.safe_load((tmp_path / "out" / "best.yaml").read_text())["training"]["seed"] == 1


def test_a_metric_of_which_less_is_better(pretended: Make, tuned: Tuned) -> None:
    pretended(rate_of)
    found = tuned(plan(objective="logloss"))
    assert [trial.values["training.learning_rate"] for trial in found.ranked()] == [0.02, 0.01, 0.05]


def test_values_that_do_not_go_together_fail_alone(pretended: Make, tuned: Tuned, capsys: Any) -> None:
    made = pretended(rate_of)
    both = {"preset": ["mlp", "qnn-alpha"], "model.interaction.heads": [2, 4]}
    experiment = {"preset": "qnn-alpha", "training": {"epochs": 1, "learning_rate": 0.01}}

    found = tuned(plan(experiment=experiment, search=both))

    assert [trial.status for trial in found.trials] == ["failed", "failed", "finished", "finished"]
    assert "interaction mlp: unknown argument 'heads'" in str(found.trials[0].reason)
    assert len(made.trained) == 2
    told = capsys.readouterr().out
    assert "trial 1: failed: these values: interaction mlp: unknown argument 'heads'" in told


def test_a_training_that_comes_to_nothing_fails_alone(pretended: Make, tuned: Tuned, tmp_path: Path) -> None:
    def score(experiment: Experiment) -> float:
        if experiment.training.learning_rate == 0.02:
            raise UserError("the training loss is nan")
        if experiment.training.learning_rate == 0.05:
            raise ValueError("Shapes (3, 4) and (5,)\nare not alike")
        return 0.6

    pretended(score)
    found = tuned(plan())
    assert [trial.reason for trial in found.trials] == [
        None, "the training loss is nan", "ValueError: Shapes (3, 4) and (5,)"
    ]  # fmt: skip
    lines = [json.loads(line) for line in (tmp_path / "out" / "trials.jsonl").read_text().splitlines()]
    assert [line["status"] for line in lines] == ["finished", "failed", "failed"]


def test_all_failed_is_an_error(pretended: Make, tuned: Tuned, tmp_path: Path) -> None:
    made = pretended(refusing)
    for _ in range(2):
        with pytest.raises(UserError, match=r"each of the 3 trials failed; the first of them: no numbers with 0\.01"):
            tuned(plan())
    assert len(made.trained) == 3
    assert not (tmp_path / "out" / "best.yaml").exists()


@pytest.mark.parametrize(
    "error", [DiskError("cannot write x"), DataError("labels of one class only"), OSError("broken")]
)
def test_what_every_trial_would_meet_ends_the_search(
    error: Exception, pretended: Make, tuned: Tuned, tmp_path: Path
) -> None:
    def score(experiment: Experiment) -> float:
        raise error

    made = pretended(score)
    with pytest.raises(type(error), match=str(error)):
        tuned(plan())
    assert not (tmp_path / "out" / "trials.jsonl").exists()
    made.score = rate_of
    assert [trial.status for trial in tuned(plan()).trials] == ["finished"] * 3


@pytest.mark.parametrize("objective", [math.nan, math.inf])
def test_an_objective_that_is_no_number_ends_the_search(
    objective: float, pretended: Make, tuned: Tuned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretended(rate_of)
    judged = Objective("GAUC", lambda metrics: objective, needs_group=True)
    monkeypatch.setitem(OBJECTIVES, "gauc", judged)
    with pytest.raises(UserError) as caught:
        tuned(plan(objective="gauc", method={"type": "bayesian", "trials": 4, "random_trials": 2}))
    assert str(caught.value) == (
        f"the GAUC of the validation split is {objective}, so no trial can be told from another by it: no group there "
        "has rows of both labels (rows of weight 0 do not count). Give it such groups, or take another `objective`"
    )
    assert not (tmp_path / "out" / "trials.jsonl").exists()


def test_demands_may_change_while_a_search_goes_on(pretended: Make, tuned: Tuned, tmp_path: Path) -> None:
    made = pretended(rate_of)
    tuned(plan())
    demanding = plan(experiment={**EXPERIMENT, "evaluation": {"min_auc": 0.9}})

    tuned(demanding)

    assert len(made.trained) == 3
    assert yaml.safe_load((tmp_path / "out" / "best.yaml").read_text())["evaluation"] == {"min_auc": 0.9}
    with pytest.raises(UserError, match=r"experiment\.evaluation\.weighting was 'impressions' and is 'clicks'"):
        tuned(plan(experiment={**EXPERIMENT, "evaluation": {"weighting": "clicks"}}))


def test_the_seed_of_a_searched_training_is_that_of_its_trial(pretended: Make, tuned: Tuned, tmp_path: Path) -> None:
    made = pretended(lambda experiment: experiment.training.seed / 10)
    both = [{"epochs": 1, "seed": 5}, {"epochs": 2}]

    found = tuned(plan(search={"training": both}))

    assert [one.training.seed for one in made.trained] == [5, 1]
    assert [seed.seed for trial in found.trials for seed in trial.seeds] == [5, 1]
    assert yaml.safe_load((tmp_path / "out" / "best.yaml").read_text())["training"] == {"epochs": 1, "seed": 5}


def test_what_was_trained_before_is_not_trained_again(pretended: Make, tuned: Tuned) -> None:
    made = pretended(rate_of)
    few = {"training.learning_rate": [0.01, 0.02]}

    found = tuned(plan(search=few, method={"type": "bayesian", "trials": 4, "random_trials": 2}))

    assert len(found.trials) == 4
    assert len(made.trained) == 2
    assert [trial.repeats for trial in found.trials][:2] == [None, None]
    assert {trial.repeats for trial in found.trials[2:]} <= {1, 2}


def test_hyperband_goes_on_from_the_best(pretended: Make, tuned: Tuned, tmp_path: Path) -> None:
    made = pretended(rate_of)
    found = tuned(plan(**METHODS["hyperband"]))

    longer = [trial for trial in found.trials if trial.goes_on_from is not None]
    assert [trial.epochs for trial in longer] == [3, 3, 3, 9, 9, 9, 9][: len(longer)]
    first = found.trials[:9]
    assert {trial.epochs for trial in first} == {1}
    best = sorted(first, key=lambda trial: -trial.objective if trial.objective else 0)[:3]
    assert [trial.goes_on_from for trial in longer[:3]] == [trial.trial for trial in best]
    assert made.went_on[0].parent == tmp_path / "out" / "trials" / f"{best[0].trial:04d}" / "seed-3"
    assert Experiment.model_validate(found.content_of(longer[0])).training.epochs == 3


@pytest.mark.parametrize("refused", [1, 2, 6, 7, 8, 9])
def test_failed_trials_are_the_worst_of_their_round(
    refused: int, pretended: Make, tuned: Tuned, tmp_path: Path
) -> None:
    """The best of a first round fail: as many go on as without them, or all that are left."""
    pretended(rate_of)
    rates = [trial.values["training.learning_rate"] for trial in tuned(plan(**METHODS["hyperband"])).trials[:9]]
    best = sorted(rates, key=lambda rate: abs(rate - 0.02))

    made = pretended(_refusing(best[:refused]))
    found = tuned(plan(**METHODS["hyperband"]), tmp_path / "failing")

    assert [trial.status for trial in found.trials[:9]] == [
        "failed" if r in best[:refused] else "finished" for r in rates
    ]
    wanted = [rates.index(rate) + 1 for rate in best[refused:][:3]]
    second = found.trials[9 : 9 + len(wanted)]
    assert [(trial.goes_on_from, trial.epochs) for trial in second] == [(number, 3) for number in wanted]
    third = found.trials[9 + len(wanted) :][: len(wanted[:1])]
    assert [(trial.goes_on_from, trial.epochs) for trial in third] == [(10, 9)] * len(third)
    assert [(trial.goes_on_from is None, trial.epochs) for trial in found.trials[9 + len(wanted) + len(third) :]] == [
        *[(True, 3)] * 5, *[(False, 9)] * 2, *[(True, 9)] * 3
    ]  # fmt: skip
    assert len(made.trained) == len(found.trials)


def test_one_that_fails_later_goes_no_further(pretended: Make, tuned: Tuned) -> None:
    def score(experiment: Experiment) -> float:
        if len(made.trained) == 10:
            raise UserError("the training loss is nan")
        return rate_of(experiment)

    made = pretended(score)
    found = tuned(plan(**METHODS["hyperband"]))
    assert [(trial.status, trial.epochs) for trial in found.trials[9:13]] == [
        ("failed", 3), ("finished", 3), ("finished", 3), ("finished", 9)
    ]  # fmt: skip
    assert found.trials[12].goes_on_from == 11
    assert len(found.trials) == COUNTS["hyperband"]


def test_hyperband_with_combinations_for_one_bracket_and_a_half(pretended: Make, tuned: Tuned) -> None:
    """The second bracket goes on with what is left for it."""
    pretended(rate_of)
    few = {"training.learning_rate": [0.01, 0.02, 0.05, 0.1], "model.interaction.dropout": [0.0, 0.2, 0.4]}
    found = tuned(plan(experiment=NINE, search=few, method="hyperband"))
    assert [(trial.goes_on_from is None, trial.epochs) for trial in found.trials] == [
        *[(True, 1)] * 9, *[(False, 3)] * 3, (False, 9), *[(True, 3)] * 3, *[(False, 9)] * 2
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["hyperband", "bayesian", "random"])
def test_a_killed_search_with_failed_trials_ends_with_the_same(
    name: str, pretended: Make, tuned: Tuned, tmp_path: Path
) -> None:
    def score(experiment: Experiment) -> float:
        if float(experiment.training.learning_rate) > 0.01:  # type: ignore[arg-type]
            raise UserError("the training loss is nan")
        return rate_of(experiment)

    def killed(experiment: Experiment) -> float:
        if len(made.trained) == kill_at:
            raise Killed
        return score(experiment)

    one = plan(**METHODS[name])
    pretended(score)
    whole = tuned(one, tmp_path / "whole")
    assert {trial.status for trial in whole.trials} == {"failed", "finished"}
    for kill_at in {1, 4, len(whole.trials)}:
        made = pretended(killed)
        with pytest.raises(Killed):
            tuned(one, tmp_path / f"killed-{kill_at}")
        made = pretended(score)
        assert tuned(one, tmp_path / f"killed-{kill_at}").trials == whole.trials


@pytest.mark.parametrize("seed", [2, 4])
@pytest.mark.parametrize(
    ("search", "method", "combinations"),
    [
        ({**RATES, "model.interaction.dropout": [0.0, 0.1, 0.2, 0.3]}, {"type": "random"}, 12),
        ({"model.interaction.dropout": [one / 100 for one in range(60)]}, {"type": "random"}, 60),
        ({"training.batch_size": {"type": "int", "low": 1, "high": 9, "scale": "log"}}, {"type": "random"}, 9),
        ({**RATES, "model.interaction.dropout": [0.0, 0.1, 0.2, 0.3]}, {"type": "bayesian", "random_trials": 12}, 12),
        ({"model.interaction.dropout": [one / 10 for one in range(9)]}, {"type": "hyperband"}, 9),
    ],
)  # fmt: skip
def test_every_combination_is_drawn_once_where_so_many_are_asked_for(
    search: Any, method: dict[str, Any], combinations: int, seed: int, pretended: Make, tuned: Tuned
) -> None:
    made = pretended(lambda experiment: 0.5)
    trials = {} if method["type"] == "hyperband" else {"trials": combinations}
    found = tuned(plan(experiment=NINE, search=search, method={**method, **trials}, seed=seed))
    drawn = [trial.values for trial in found.trials if trial.epochs in (None, 1)]
    assert len(drawn) == combinations == len({json.dumps(one) for one in drawn})
    assert len(made.trained) == len(found.trials)


def test_combinations_fewer_than_trials_end_a_search(pretended: Make, tuned: Tuned) -> None:
    pretended(rate_of)
    found = tuned(plan(method={"type": "random", "trials": 20}))
    assert sorted(trial.values["training.learning_rate"] for trial in found.trials) == [0.01, 0.02, 0.05]


def test_what_failed_before_is_not_tried_again(pretended: Make, tuned: Tuned) -> None:
    """The nearer to the refused rate, the better, so a process that knows nothing of failures comes back to it."""
    rates = [one / 100 for one in range(1, 11)]

    def score(experiment: Experiment) -> float:
        rate = float(experiment.training.learning_rate)  # type: ignore[arg-type]
        if rate > 0.08:
            raise UserError("the training loss is nan")
        return 0.5 + rate

    made = pretended(score)
    method = {"type": "bayesian", "trials": 16, "random_trials": 4}
    found = tuned(plan(search={"training.learning_rate": rates}, method=method))

    assert len(found.trials) == 16
    refused = [trial for trial in found.trials if not trial.finished]
    assert len(made.trained) == len({one.training.learning_rate for one in made.trained})
    assert len(refused) < 6
    assert {trial.values["training.learning_rate"] for trial in found.ranked()[:1]} == {0.08}


@pytest.mark.parametrize("left", [["best.yaml"], ["train/log.csv", "valid/log.csv"], [".hidden"]])
def test_a_directory_of_other_files_is_refused(left: list[str], pretended: Make, tuned: Tuned, tmp_path: Path) -> None:
    made = pretended(rate_of)
    out = tmp_path / "out"
    for name in left:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text("mine")
    with pytest.raises(UserError) as caught:
        tuned(plan())
    assert str(caught.value) == (
        f"{out}: is not empty and holds no search; --out must name a directory that is new or empty, or that of a "
        "search to go on with"
    )
    assert made.trained == []
    assert sorted(path for path in out.rglob("*") if path.is_file()) == sorted(out / name for name in left)
    assert {(out / name).read_text() for name in left} == {"mine"}


@pytest.mark.parametrize("left", [[], [".lock"], [".lock", ".tune.json.4242.partial"]])
def test_a_search_that_was_killed_before_its_first_file_begins(
    left: list[str], pretended: Make, tuned: Tuned, tmp_path: Path
) -> None:
    pretended(rate_of)
    (tmp_path / "out").mkdir()
    for name in left:
        (tmp_path / "out" / name).write_text("")
    assert len(tuned(plan()).trials) == 3


def _refusing(rates: list[float]) -> Callable[[Experiment], float]:
    def score(experiment: Experiment) -> float:
        if experiment.training.learning_rate in rates:
            raise UserError("the training loss is nan")
        return rate_of(experiment)

    return score


def test_a_method_of_ones_own_is_one_class(pretended: Make, tuned: Tuned) -> None:
    class Few(Method):
        type: Literal["few"]

        def oracle(self, epochs: int, common: dict[str, Any]) -> Any:
            return keras_tuner.oracles.RandomSearchOracle(max_trials=2, **common)

        def total(self, combinations: int | None, epochs: int) -> int | None:
            return 2

    pretended(rate_of)
    try:
        assert len(tuned(_plan_of_own(method(Few))).trials) == 2
    finally:
        del Method.METHODS["few"]


def _plan_of_own(made: type[Method]) -> Plan:
    return plan(method={"type": "few"})


def _bytes(out: Path) -> dict[str, bytes]:
    return {name: (out / name).read_bytes() for name in ("trials.jsonl", "best.yaml", "tune.json")}
