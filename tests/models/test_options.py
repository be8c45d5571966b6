"""Options of modules that only the feature file can judge, or that are of no use: refused in words, by their key."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tfctr.errors import UserError
from tfctr.models import build_model
from tfctr.training.experiment import Experiment

if TYPE_CHECKING:
    from tests.workbench import Workbench

INFINITE = float("inf")


@pytest.mark.parametrize("kind", ["simtier", "simtier_released", "dta", "cmm", "ta_late", "make"])
def test_a_frozen_table_that_is_not_there(workbench: Workbench, kind: str) -> None:
    experiment = Experiment(preset="mlp", model={"interests": [{"type": kind, "frozen": "nope"}]})
    wanted = rf"interest {kind}: `frozen`: sequence 'history' has no frozen table \['nope'\]\. Allowed: item_vector"
    with pytest.raises(UserError, match=wanted):
        build_model(workbench.assets, experiment.model_config_of())


@pytest.mark.parametrize("kind", ["hstu", "sasrec", "simtier_released"])
def test_fewer_steps_than_the_history_has(workbench: Workbench, kind: str) -> None:
    experiment = Experiment(preset="mlp", model={"interests": [{"type": kind, "max_length": 5}]})
    with pytest.raises(UserError, match=rf"{kind}: `max_length` must be at least 12, that of sequence 'history'"):
        build_model(workbench.assets, experiment.model_config_of())


@pytest.mark.parametrize(
    ("model", "told"),
    [
        ({"interaction": {"type": "deepfm", "fm_scale": INFINITE}}, "`fm_scale` must be"),
        ({"interaction": {"type": "masknet", "ratio": INFINITE}}, "`ratio` must be"),
        ({"interaction": {"type": "neuron", "format": []}}, "`format` must be one of"),
        ({"interaction": {"type": "lr", "fields": []}}, "`fields` is not an option: the model fills it in"),
        ({"interaction": {"type": "finalmlp", "first": -1}}, "`first` must name"),
        ({"interests": [{"type": "dmqn", "scale": INFINITE}]}, "`scale` must be"),
        ({"interests": [{"type": "dmqn", "tau_start": "x"}]}, "`tau_start` must be a finite number. Received: 'x'"),
        ({"interests": [{"type": "cmm", "alpha": "x"}]}, "`alpha` must be a finite number. Received: 'x'"),
        ({"interests": [{"type": "cmm", "frozen": None}]}, "`frozen` must name"),
        ({"interests": [{"type": "din", "activation": "foo"}]}, "`activation` must be the name of a Keras activation"),
        ({"interests": [{"type": "ta", "conten": True}]}, "Allowed"),
        ({"interests": [{"type": "dmqn", "conten": True}]}, "describe.*sequence, features, content, raw, project"),
        ({"loss": {"type": "r_drop", "alpha": INFINITE}}, "`alpha` must be"),
        ({"auxiliary": [{"type": "cl4ctr", "beta": INFINITE}]}, "`beta` must be"),
    ],
)
def test_options_are_refused_by_their_key(tmp_path: Any, model: dict[str, Any], told: str) -> None:
    from tfctr.training.experiment import load_experiment

    (tmp_path / "experiment.yaml").write_text(_yaml({"preset": "mlp", "model": model}), "utf-8")
    with pytest.raises(UserError, match=told):
        load_experiment(tmp_path / "experiment.yaml")


@pytest.mark.parametrize("key", ["embedding_start", "embedding_l2", "network_l2"])
def test_a_text_for_a_number_is_told_as_it_was_written(tmp_path: Any, key: str) -> None:
    from tfctr.training.experiment import load_experiment

    for value in ("x", 1e39):
        (tmp_path / "experiment.yaml").write_text(_yaml({"preset": "mlp", "model": {key: value}}), "utf-8")
        with pytest.raises(UserError, match=rf"model: {key}: .*Received: "):
            load_experiment(tmp_path / "experiment.yaml")


def _yaml(content: dict[str, Any]) -> str:
    import yaml

    return yaml.safe_dump(content)
