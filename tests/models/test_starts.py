"""Where training starts: the seed reaches every random weight, and a model starts undecided."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

import keras
import numpy as np
import pytest

from tfctr.models import PRESETS, build_model, preset

if TYPE_CHECKING:
    from tests.workbench import Workbench
    from tfctr.models import RankingModel


def start(workbench: Workbench, name: str, seed: int) -> RankingModel:
    keras.utils.set_random_seed(seed)
    return build_model(workbench.assets, preset(name))


def random_weights(model: RankingModel) -> dict[str, np.ndarray]:
    """The weights that are neither given nor one number everywhere, by their path inside the model."""
    given = {id(table) for table in model.embeddings.frozen_tables.values()}
    arrays = {weight.path.partition("/")[2]: np.asarray(weight) for weight in model.weights if id(weight) not in given}
    return {path: array for path, array in arrays.items() if array.dtype.kind == "f" and np.ptp(array) > 0}


def same_draw(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether more numbers are equal than can be by chance. Zeros and ones are not drawn: a softmax rounds to them."""
    return bool(np.mean((one == other) & (one != 0.0) & (one != 1.0)) > 0.01)


@pytest.mark.slow
@pytest.mark.parametrize("name", PRESETS)
def test_random_weights_and_logits_at_the_start(workbench: Workbench, name: str) -> None:
    models = [start(workbench, name, seed) for seed in (1, 2)]
    one, other = (list(random_weights(model).items()) for model in models)
    assert len(one) == len(other) > 0
    assert not [path for (path, a), (_, b) in zip(one, other, strict=True) if same_draw(a, b)]
    assert not [(p, q) for (p, a), (q, b) in combinations(one, 2) if a.shape == b.shape and same_draw(a, b)]
    inputs, _, _ = next(iter(workbench.split("train").batches(512)))
    deviations = [float(np.std(np.asarray(model(inputs, training=False)))) for model in models]
    print(name, [round(d, 3) for d in deviations])
    assert max(deviations) <= 0.5
