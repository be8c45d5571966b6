"""Plan files: what they may say, and errors that name the file and the place in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.tuning.conftest import EXPERIMENT, RATES, plan
from tests.workbench import Workbench
from tfctr.errors import UserError
from tfctr.features import FeatureFile
from tfctr.training.experiment import experiment_of
from tfctr.tuning import load_plan
from tfctr.tuning.plan import check_plan, differences
from tfctr.tuning.spaces import Space

pytestmark = pytest.mark.slow

RANGE = {"type": "float", "low": 0.001, "high": 0.1, "scale": "log"}


def refused(file: FeatureFile, **changed: Any) -> str:
    with pytest.raises(UserError) as caught:
        check_plan(plan(**changed), file, "plan.yaml")
    return str(caught.value)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"searches": {}}, "plan.yaml: searches: unknown key. Allowed: experiment, method, objective, search, "),
        ({"search": {}}, "plan.yaml: search: Dictionary should have at least 1 item"),
        ({"experiment": {"training": {"epoch": 2}}}, "plan.yaml: experiment.training.epoch: unknown key. Allowed: "),
        ({"method": "gridd"}, "plan.yaml: method: type must be one of random, bayesian, grid, hyperband. Receiv"),
        ({"method": {"type": "grid", "beta": 2}}, "plan.yaml: method.beta: unknown key. Allowed: trials, type"),
        ({"objective": "aucc"}, "plan.yaml: objective: must be one of auc, auc_minus_logloss, gauc, logloss. Received"),
        ({"seeds": [1, 1]}, "plan.yaml: seeds: the same seed twice in [1, 1]"),
        ({"search": {"training.seed": [1, 2]}, "seeds": [1]}, "plan.yaml: search.training.seed: `seeds` has the seeds"),
        ({"search": {"training": [{"seed": 1}]}, "seeds": [1]}, "search.training.seed: `seeds` has the seeds"),
        ({"search": {"training.monitor": ["auc"]}}, "plan.yaml: objective: is required where training.monitor is"),
        ({"search": {"training..rate": [1]}}, "plan.yaml: search: must be paths of keys, as training.learning_rate"),
        ({"search": {"training.epochs": 3}}, "plan.yaml: search.training.epochs: must be a mapping of keys. Rec"),
        ({"search": {"training.epochs": {"type": "int", "low": 3, "high": 3}}}, "`low` must be below `high`"),
        ({"search": {"training.epochs": {"type": "int", "low": 1, "high": 2.5}}}, "training.epochs.high: Input shou"),
        ({"search": {"a": {"type": "float", "low": 0, "high": 1, "scale": "log"}}}, "`low` must be above 0 on a log"),
        ({"search": {"a": {**RANGE, "step": 1}}}, "`step` must be a factor above 1 on a log scale. Received: 1"),
        ({"search": {"a": {**RANGE, "stride": 1}}}, "search.a.stride: unknown key. Allowed: high, low, scale, st"),
        ({"search": {"a": {"type": "list"}}}, "search.a: type must be one of choice, together, float, int. Rece"),
        ({"search": {"training.learning_rate": RANGE}}, "search.training.learning_rate: a grid counts its values: gi"),
        (
            {"search": {"training.epochs": [1, 2]}, "method": "hyperband"},
            "search.training.epochs: the method sets this key itself",
        ),
        (
            {"search": {"training": [{"epochs": 1}, {"epochs": 2}]}, "method": "hyperband"},
            "search.training.epochs: the method sets this key itself",
        ),
        (
            {"experiment": {**EXPERIMENT, "training": {"epochs": 9}}, "method": "hyperband"},
            "method: hyperband begins with 9 combinations of 1 epochs each, and `search` has 3",
        ),
        (
            {"search": {"both": {"type": "together", "choices": [{"preset": "din"}, {"training.epochs": 3}]}}},
            "search.both: choices.1: must have the keys of the first: preset",
        ),
        (
            {"search": {"preset": ["din"], "both": {"type": "together", "choices": [{"preset": "din"}]}}},
            "search: preset is varied twice",
        ),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line(changed: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError) as caught:
        plan(**changed)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("search", "told"),
    [
        ({"training.rate": [1]}, "search.training.rate: 1: training.rate: unknown key. Allowed: batch_of, "),
        ({"training.learning_rate": [0.1, -1]}, "search.training.learning_rate: -1: training.learning_rate: must be a"),
        ({"training.epochs": {"type": "int", "low": 0, "high": 3}}, "search.training.epochs: 0: training.epochs: "),
        ({"model.interaction.dropout": [0.1, 2]}, "search.model.interaction.dropout: 2: interaction mlp: `dropout`"),
        ({"model.interaction": ["mlp", {"type": "mpl"}]}, "search.model.interaction: {'type': 'mpl'}: interact"),
        ({"preset.name": ["mlp"]}, "search.preset.name: mlp: preset.name: 'preset' has no keys below it"),
        ({"model.interests.0.heads": [2]}, "'model.interests' is no list in the file; write one there, to change"),
        ({"model.interests": [[{"type": "din", "sequence": "views"}]]}, "search.model.interests: [{'type': 'din', "),
        ({"evaluation.min_auc": [0.1, 0.2]}, "search.evaluation.min_auc: 0.1 and 0.2 train the same model; search "),
        ({"training.clip_norm": [1, 1.0]}, "search.training.clip_norm: 1 and 1.0 train the same model"),
        ({"model.interaction": ["mlp", {"type": "mlp"}]}, "interaction: mlp and {'type': 'mlp'} train the same model"),
        ({"training.optimizer": ["adam", {"type": "adam"}]}, "optimizer: adam and {'type': 'adam'} train the same mod"),
        ({"training": [{"monitor": "auc_minus_logloss"}]}, "objective: is required where training.monitor is searched"),
    ],
)  # fmt: skip
def test_each_value_is_tried_before_anything_is_trained(tiny: Workbench, search: Any, told: str) -> None:
    found = refused(tiny.file, search=search)
    assert found.startswith("plan.yaml: ")
    assert told in found


def test_a_value_that_goes_with_the_experiment_or_with_the_first_of_the_others_is_accepted(tiny: Workbench) -> None:
    both = {"preset": ["qnn-alpha", "mlp"], "model.interaction.heads": [2, 4]}
    check_plan(plan(experiment={"preset": "mlp"}, search=both), tiny.file)
    assert "unknown argument 'heads'" in refused(tiny.file, search={"model.interaction.heads": [2]})


def test_a_whole_training_without_a_monitor_is_by_another_one(tiny: Workbench) -> None:
    experiment = {**EXPERIMENT, "training": {"monitor": "auc_minus_logloss"}}
    search = {"training": [{"epochs": 1}, {"epochs": 2}]}
    told = "objective: is required where training.monitor is searched, as by search.training"
    assert told in refused(tiny.file, experiment=experiment, search=search)
    check_plan(plan(experiment=experiment, search=search, objective="auc"), tiny.file)


def test_an_objective_in_groups_needs_a_group(tiny: Workbench) -> None:
    ungrouped = FeatureFile.model_validate(tiny.file.model_dump(mode="json", exclude_unset=True, exclude={"group"}))
    check_plan(plan(objective="gauc"), tiny.file)
    assert (
        refused(ungrouped, objective="gauc")
        == "plan.yaml: objective: GAUC needs groups, and the feature file names no `group`"
    )


def test_a_file_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump({"search": RATES, "method": {"type": "random", "trials": 0}}))
    with pytest.raises(UserError, match=r"plan\.yaml: method\.trials: Input should be greater than or equal to 1"):
        load_plan(tmp_path / "plan.yaml")
    with pytest.raises(UserError, match=r"none\.yaml: can't be read"):
        load_plan(tmp_path / "none.yaml")


def test_any_key_is_set_in_the_experiment() -> None:
    interests = [{"type": "din"}, "target_attention"]
    one = plan(
        experiment={"preset": "din", "model": {"interests": interests, "interaction": "mlp"}},
        search={
            "model.interaction.dropout": [0.5],
            "model.interaction": [{"type": "mlp", "hidden": [4]}],
            "model.interests.1.num_heads": [2],
            "training.optimizer.weight_decay": [0.1],
            "training.optimizer": ["adamw"],
            "both": {"type": "together", "choices": [{"training.epochs": 3, "export.fold": False}]},
        },
    )
    content = one.content(one.settings(dict.fromkeys(one.spaces, 0)))

    assert content == {
        "preset": "din",
        "model": {
            "interests": [{"type": "din"}, {"type": "target_attention", "num_heads": 2}],
            "interaction": {"type": "mlp", "hidden": [4], "dropout": 0.5},
        },
        "training": {"optimizer": {"type": "adamw", "weight_decay": 0.1}, "epochs": 3},
        "export": {"fold": False},
    }
    assert experiment_of(content, "best.yaml").training.epochs == 3
    assert one.search["model.interaction"].choices == ({"type": "mlp", "hidden": [4]},)


@pytest.mark.parametrize(
    ("written", "values"),
    [
        ({"type": "float", "low": 0.1, "high": 0.3, "step": 0.1}, [0.1, 0.2, 0.3]),
        ({"type": "float", "low": 0.001, "high": 1, "step": 10, "scale": "log"}, [0.001, 0.01, 0.1, 1.0]),
        ({"type": "int", "low": 2, "high": 5}, [2, 3, 4, 5]),
        ({"type": "int", "low": 16, "high": 100, "step": 2, "scale": "log"}, [16, 32, 64]),
        ({"type": "int", "low": 1, "high": 6, "step": 3}, [1, 4]),
        ([[8], None, "adam", {"type": "sgd"}], [[8], None, "adam", {"type": "sgd"}]),
    ],
)
def test_a_range_with_a_step_has_these_values(written: Any, values: list[Any]) -> None:
    one: Space = plan(search={"a": written}).search["a"]
    assert one.count == len(values)
    assert [one.settings("a", place)["a"] for place in one.parameter("a").values] == values


def test_a_range_is_drawn_from_to_its_ends() -> None:
    spaces = {"a": RANGE, "b": {"type": "int", "low": 1, "high": 300, "scale": "log"}}
    one = plan(search=spaces, method="random")
    for name, low, high in (("a", 0.001, 0.1), ("b", 1, 300)):
        drawn = [one.spaces[name].parameter(name).random_sample(seed) for seed in range(2_000)]
        values = [one.spaces[name].settings(name, value)[name] for value in drawn]
        assert one.spaces[name].count is None
        assert min(values) == pytest.approx(low, rel=0.05)
        assert max(values) == pytest.approx(high, rel=0.05)
        assert sorted(values)[1_000] == pytest.approx((low * high) ** 0.5, rel=0.25)


def test_what_differs_is_said_by_path() -> None:
    before, after = plan().lasting(), plan(search={"training.learning_rate": [0.1]}, seed=2).lasting()
    assert list(differences(before, after)) == [
        "search.training.learning_rate.choices was [0.01, 0.02, 0.05] and is [0.1]",
        "seed was 1 and is 2",
    ]
    assert (
        plan(method={"type": "random", "trials": 3}).lasting() == plan(method={"type": "random", "trials": 9}).lasting()
    )
