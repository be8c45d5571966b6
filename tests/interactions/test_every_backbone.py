"""Every backbone that a configuration can name passes the layer checks, which use it alone in a functional model."""

import numpy as np
import pytest

from tests.composition import NARROW
from tests.layer_checks import check_layer
from tfctr.interactions import INTERACTIONS, create_interaction

pytestmark = pytest.mark.any_backend


@pytest.mark.parametrize("name", INTERACTIONS)
def test_layer(name: str) -> None:
    generator = np.random.default_rng(0)
    layer = create_interaction({"type": name, **NARROW.get(name, {})})
    shape = (5, 3, 4, 8) if layer.eats == "fields" else (5, 3, 32)
    wide = {"linear": generator.normal(size=(5, 3)).astype("float32")} if layer.wide else {}
    fields = generator.normal(size=shape).astype("float32")
    # Before a batch normalization, the gradient of a bias and of the shift of a layer normalization is zero but for
    # rounding errors. The tests of each backbone say which weights these are.
    check_layer(layer, fields, call_arguments=wide, output_shape=(5, 3), unmoved=["bias", "/norm/beta"])
