"""Presets with the settings of public benchmark runs have as many parameters as the logs of those runs."""

from math import prod

import keras
import pytest

from tfctr.interactions import create_interaction
from tfctr.models import preset

IDS, FIELDS = 5_389, 10
"""What the logs of Frappe have: ids, with one row of a table for each, and fields."""

# All parameters, numbers of a row that are no part of the backbone, and the width of a field. AFN+ has two tables in
# the public code, which is one of twice the width here. AutoInt+ has a bias in each of its two logits, and here one.
LOGGED = {
    "afm": (60_826, 11, 10),
    "pnn": (433_491, 10, 10),
    "sam": (58_791, 10, 10),
    "autoint": (306_051, 10, 10),
    "autoint-plus": (622_180 - 1, 10, 10),
    "afn": (4_066_711, 10, 10),
    "afn-plus": (4_482_205, 20, 20),
}


@pytest.mark.parametrize("name", LOGGED)
def test_parameters_are_those_of_the_published_logs(name: str) -> None:
    total, numbers, width = LOGGED[name]
    layer = create_interaction(preset(name).interaction)
    with keras.StatelessScope():  # gives the shapes of the weights without drawing values
        layer.build(layer.eaten_shape((None, FIELDS, width)))
    assert sum(prod(weight.shape) for weight in layer.trainable_weights) + numbers * IDS == total
