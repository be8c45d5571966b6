"""Experiment files: merging, fingerprints, and errors that name the file and the place in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from tests.workbench import ROOT
from tfctr.errors import UserError
from tfctr.models.presets import PRESETS
from tfctr.training.demands import Demand
from tfctr.training.experiment import Experiment, changed, load_experiment
from tfctr.training.published import note_on, published_experiments


def experiment(**content: Any) -> Experiment:
    return Experiment.model_validate(content)


class TestMerging:
    def test_no_change_is_the_preset(self) -> None:
        for name, (_, config) in PRESETS.items():
            assert experiment(preset=name).model_config_of() == config

    def test_keys_of_the_interaction_and_the_loss_are_merged(self) -> None:
        changed = experiment(preset="qnn-alpha", model={"interaction": {"layers": 2}, "embedding_l2": 0.5})
        config = changed.model_config_of()
        base = PRESETS["qnn-alpha"][1]
        assert config.interaction == {**base.interaction, "layers": 2}
        assert (config.loss, config.interests, config.embedding_l2) == (base.loss, base.interests, 0.5)

    def test_naming_the_same_type_merges_too(self) -> None:
        config = experiment(preset="mlp", model={"interaction": {"type": "mlp", "dropout": 0.2}}).model_config_of()
        assert config.interaction == {"type": "mlp", "hidden": [256, 128, 64], "dropout": 0.2}

    def test_another_type_replaces(self) -> None:
        config = experiment(preset="mlp", model={"interaction": {"type": "qnn_alpha"}}).model_config_of()
        assert config.interaction == {"type": "qnn_alpha"}

    def test_a_part_may_be_its_name_alone(self) -> None:
        config = experiment(
            preset="qnn-alpha", model={"loss": "binary_crossentropy", "interaction": "mlp", "interests": ["din"]}
        ).model_config_of()
        assert config.loss == {"type": "binary_crossentropy"}
        assert config.interaction == {"type": "mlp"}
        assert config.interests == ({"type": "din"},)
        same = experiment(preset="din", model={"interaction": "mlp"}).model_config_of()
        assert same.interaction == experiment(preset="din").model_config_of().interaction

    def test_interests_are_replaced_as_a_whole(self) -> None:
        config = experiment(preset="din", model={"interests": [{"type": "target_attention"}]}).model_config_of()
        assert config.interests == ({"type": "target_attention"},)


class TestFingerprint:
    def test_is_stable_and_reads_like_one(self) -> None:
        assert experiment().fingerprint() == experiment(preset="din").fingerprint()
        assert len(experiment().fingerprint()) == 16

    @pytest.mark.parametrize(
        "change",
        [
            {"preset": "mlp"},
            {"training": {"seed": 2}},
            {"training": {"learning_rate": 0.5}},
            {"training": {"epochs": 3}},
            {"training": {"dtype": "mixed_bfloat16"}},
            {"training": {"monitor": "auc_minus_logloss"}},
            {"model": {"network_l2": 0.1}},
            {"model": {"embedding_start": 0.1}},
            {"model": {"embedding_l2": 0.1}},
            {"model": {"interaction": {"hidden": [8]}}},
            {"evaluation": {"weighting": "uniform"}},
        ],
    )
    def test_changes_with_what_is_trained(self, change: dict[str, Any]) -> None:
        assert experiment(**change).fingerprint() != experiment().fingerprint()

    @pytest.mark.parametrize(
        "change",
        [
            {"evaluation": {"min_auc": 0.9, "slices": ["gender"]}},
            {"export": {"state_dtype": "float16", "warmup_candidates": [7]}},
        ],
    )
    def test_stays_with_what_comes_after_training(self, change: dict[str, Any]) -> None:
        assert experiment(**change).fingerprint() == experiment().fingerprint()

    def test_changes_when_a_preset_of_the_same_name_does(self, monkeypatch: pytest.MonkeyPatch) -> None:
        before = experiment(preset="mlp").fingerprint()
        about, config = PRESETS["mlp"]
        monkeypatch.setitem(PRESETS, "mlp", (about, config.model_copy(update={"embedding_l2": 0.1})))
        assert experiment(preset="mlp").fingerprint() != before


@pytest.mark.parametrize("path", sorted((ROOT / "configs" / "experiments").glob("*.yaml")), ids=lambda path: path.name)
def test_shipped_experiments_load(path: Path) -> None:
    assert load_experiment(path).preset in PRESETS


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("preset: nope", "preset: no preset 'nope'. Allowed: mlp, "),
        ("colour: red", "colour: unknown key"),
        ("training: {epochs: 0}", "training.epochs: Input should be greater than or equal to 1. Received: 0"),
        ("training: {learning_rte: 0.1}", "training.learning_rte: unknown key"),
        ("training: {dtype: float64}", "training.dtype: Input should be 'float32' or 'mixed_bfloat16'"),
        ("evaluation: {min_auc: 2}", "evaluation.min_auc: Input should be less than or equal to 1. Received: 2"),
        ("evaluation: {max_gauc_fall: -0.1}", "evaluation.max_gauc_fall: Input should be greater than or equal to 0"),
        (
            "evaluation: {min_ece: 0}",
            "evaluation.min_ece: unknown key. Allowed: demands, max_auc_fall, max_gauc_fall, min_a",
        ),
        (
            "evaluation: {weighting: sessions}",
            "evaluation.weighting: Input should be 'impressions', 'clicks' or 'uniform'",
        ),
        (
            "evaluation: {demands: [{metric: ndcg, minimum: 0}]}",
            "demands.0.metric: there is no such metric. Allowed: auc, gauc, logloss, copc, ece, examples, calibration. "
            "Received: 'ndcg'",
        ),
        ("evaluation: {demands: [{column: hour}]}", "evaluation.demands.0: the demand on gauc asks nothing; give"),
        ("evaluation: {demands: [{value: a, minimum: 0}]}", "`value` needs the `column` that has it. Received: 'a'"),
        (
            "evaluation: {demands: [{column: hour, value: '3', metric: ece, max_fall: 0.1}]}",
            "Allowed: auc, gauc, examples. Received: ece, of which less is better.",
        ),
        ("model: {embedding_l2: -1}", "model: embedding_l2: Input should be greater than or equal to 0. Received: -1"),
        ("model: {tower: big}", "model: tower: unknown key"),
        ("model: {interaction: {type: nope}}", "interaction: unknown type 'nope'. Allowed: mlp"),
        ("model: {interaction: {hiden: [8]}}", "interaction mlp: unknown argument 'hiden'. Allowed: hidden"),
        ("model: {interaction: {hidden: [0]}}", "interaction mlp: `hidden` must be"),
        ("model: {interaction: 7}", "model: interaction: Input should be a valid dictionary. Received: 7"),
        ("model: {loss: {type: mse}}", "loss: unknown type 'mse'. Allowed: "),
        ("model: {interests: [{type: nope}]}", "interest: unknown type 'nope'. Allowed: mean"),
        ("model: {interests: [{type: cmm, heads: 2, wide: 1}]}", "interest cmm: unknown argument"),
        (
            "training: {devices: none}",
            "training.devices: must be a whole number of at least 1, or `all`. Received: 'no",
        ),
        ("training: {devices: 0}", "training.devices: must be a whole number of at least 1, or `all`. Received: 0"),
        ("training: {devices: true}", "training.devices: must be a number, and not true or false"),
        (
            "training: {optimizer: 3}",
            "training.optimizer: must be the name of an optimizer, or a mapping with its `type",
        ),
        ("training: {optimizer: null}", "training.optimizer: must be the name of an optimizer, or a mapping with its"),
        ("training: {optimizer: adm}", "training.optimizer: unknown type 'adm'. Allowed: adam, adamw"),
        ("training: {optimizer: lazy_adam}", "training.optimizer: lazy_adam is for tables; name it as `embedding_opti"),
        ("training: {embedding_optimizer: [3]}", "training.embedding_optimizer: must be the name of an optimizer, a m"),
        ("training: {learning_rate: fast}", "training.learning_rate: must be a number above 0, or a mapping with the"),
        ("training: {learning_rate: -1}", "training.learning_rate: must be a number above 0, or a mapping with the `"),
        ("training: {learning_rate: 1.0e+30}", "training.learning_rate: `learning_rate` must be a number from 1e-30"),
        (
            "training: {learning_rate: {type: cosine}}",
            "yaml: training.learning_rate: unknown type 'cosine'. Allowed: co",
        ),
        (
            "training: {learning_rate: {type: cosine}, optimizer: {type: adam, learning_rate: 0.1}}",
            "yaml: training.learning_rate: unknown type 'cosine'. Allowed: cosine_decay",
        ),
        (
            "training: {optimizer: {type: adam, learning_rate: {type: cosine}}}",
            "yaml: training.optimizer.learning_rate: unknown type 'cosine'. Allowed: cosine_decay",
        ),
        (
            "training: {embedding_optimizer: lazy_ftrl, "
            "learning_rate: {type: cosine_decay, initial_learning_rate: 0.01, decay_steps: 30}}",
            "yaml: training.learning_rate cosine_decay: the rate is 0 in step 30, and lazy_ftrl "
            "(training.embedding_optimizer) divides by the rate; keep it above 0 by `alpha`, or choose another",
        ),
        ("preset: [din", "not valid YAML"),
        ("- din", "must be a mapping of keys"),
    ],
)
def test_errors_name_file_and_place(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "experiment.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        load_experiment(path)
    message = str(caught.value)
    assert message.startswith(f"{path}")
    assert told in message
    assert "\n" not in message


class TestSettings:
    @pytest.mark.parametrize(
        ("setting", "expected"),
        [
            ("training.learning_rate=0.003", {"training": {"learning_rate": 0.003}}),
            ("training.learning_rate=3e-3", {"training": {"learning_rate": 0.003}}),
            ("training.clip_norm=null", {"training": {"clip_norm": None}}),
            ("training.jit_compile=false", {"training": {"jit_compile": False}}),
            ("preset=qin", {"preset": "qin"}),
            ("model.interaction.hidden=[16, 8]", {"model": {"interaction": {"hidden": [16, 8]}}}),
            ("model.interests=[{type: din}, cmm]", {"model": {"interests": [{"type": "din"}, "cmm"]}}),
            ("evaluation.slices=[gender, age]", {"evaluation": {"slices": ["gender", "age"]}}),
            (
                "evaluation.demands=[{column: hour, metric: auc, minimum: 0.6}]",
                {"evaluation": {"demands": [{"column": "hour", "metric": "auc", "minimum": 0.6}]}},
            ),
            ("export.warmup_candidates=[1, 9]", {"export": {"warmup_candidates": [1, 9]}}),
        ],
    )
    def test_one_key(self, setting: str, expected: dict[str, Any]) -> None:
        assert changed(experiment(), [setting]) == experiment(**expected)

    def test_other_keys_stay(self) -> None:
        before = experiment(preset="mlp", training={"epochs": 3, "seed": 5}, model={"interaction": {"hidden": [8]}})
        after = changed(before, ["training.epochs=4", "model.interaction.dropout=0.5", "training.epochs=6"])
        assert after == experiment(
            preset="mlp",
            training={"epochs": 6, "seed": 5},
            model={"interaction": {"hidden": [8], "dropout": 0.5}},
        )
        assert before.training.epochs == 3
        assert changed(before, []) == before

    @pytest.mark.parametrize(
        ("setting", "told"),
        [
            (
                "training.epoch=3",
                "--set: training.epoch: unknown key. Allowed: batch_of, batch_size, checkpoint_steps",
            ),
            ("trainin.epochs=3", "--set: trainin: unknown key. Allowed: evaluation, export, model, preset, training"),
            ("training.epochs=many", "--set: training.epochs: Input should be a valid integer"),
            ("training.epochs=2.5", "--set: training.epochs: Input should be a valid integer"),
            ("training.epochs=", "--set: training.epochs: Input should be a valid integer. Received: None"),
            ("training.batch_size=0", "--set: training.batch_size: Input should be greater than or equal to 1"),
            ("training=3", "--set: training: Input should be a valid dictionary"),
            ("preset.name=mlp", "--set preset.name=mlp: 'preset' has no keys below it"),
            ("model.interaction.hidden=[[8]]", "--set: interaction mlp: `hidden` must be"),
            ("model.interaction.hiden=[8]", "--set: interaction mlp: unknown argument 'hiden'"),
            ("export.warmup_candidates=[1, [2]]", "--set: export.warmup_candidates.1: Input should be a valid integer"),
            ("preset=nope", "--set: preset: no preset 'nope'. Allowed: mlp"),
            ("training.epochs", "--set: must be KEY=VALUE, as in training.epochs=3. Received: 'training.epochs'"),
            ("=3", "--set: must be KEY=VALUE"),
            ("training..epochs=3", "--set: must be KEY=VALUE"),
            ("model.interaction=[", "--set model.interaction, line 1: not valid YAML"),
            (
                "model.loss={type: kl, type: rdrop}",
                "--set model.loss, line 1: not valid YAML: the key 'type' stands twice",
            ),
        ],
    )
    def test_a_mistake_is_told(self, setting: str, told: str) -> None:
        with pytest.raises(UserError) as caught:
            changed(experiment(preset="mlp"), [setting])
        assert told in str(caught.value)
        assert "\n" not in str(caught.value)


def test_missing_file() -> None:
    with pytest.raises(UserError, match=r"nowhere.yaml: can't be read \(No such file or directory\)"):
        load_experiment("nowhere.yaml")


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        ({"minimum": 0.7, "maximum": 0.6}, "`minimum` 0.7 is above `maximum` 0.6, which no model can reach"),
        ({"max_fall": -0.1}, "greater than or equal to 0"),
    ],
)
def test_a_demand_that_no_model_can_meet(bounds: dict[str, float], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Demand(metric="auc", **bounds)


def test_a_demand_for_one_value() -> None:
    assert Demand(metric="copc", minimum=1.0, maximum=1.0).minimum == 1.0


def test_a_directory_does_not_hide_a_published_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "qnn-alpha-frappe").mkdir()
    assert load_experiment("qnn-alpha-frappe").preset == "qnn-alpha-released"


@pytest.mark.parametrize("name", ["qin-microlens", "qin-microlens-modules"])
def test_published_runs_of_qin_have_its_interest_unprojected(name: str) -> None:
    interests = load_experiment(name).model_config_of().interests
    assert interests is not None
    assert [entry["project"] for entry in interests] == [False]


@pytest.mark.parametrize("name", published_experiments())
def test_a_published_run_says_whose_it_is(name: str) -> None:
    assert "The feature file says the rest: " in note_on(name)
