"""The examples in the docstrings of the layers run, and everything that a configuration can name has one."""

import doctest
import importlib
import inspect
import pkgutil
from types import ModuleType
from typing import Any

import keras
import numpy as np
import pytest

import tfctr
from tfctr.interactions import INTERACTIONS
from tfctr.interests import INTERESTS
from tfctr.losses import LOSSES

PACKAGES = ("tfctr.layers", "tfctr.interests", "tfctr.interactions", "tfctr.losses", "tfctr.models")


def _modules() -> list[ModuleType]:
    names = [info.name for info in pkgutil.walk_packages(tfctr.__path__, "tfctr.")]
    return [importlib.import_module(name) for name in names if name.startswith(PACKAGES)]


def _examples() -> list[Any]:
    """One parameter for every docstring with an example."""
    found = []
    for module in _modules():
        namespace = {**vars(module), "keras": keras, "ops": keras.ops, "np": np}
        for test in doctest.DocTestFinder(exclude_empty=True).find(module, module.__name__, globs=namespace):
            if test.examples:
                found.append(pytest.param(test, id=test.name))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("example", _examples())
def test_example(example: doctest.DocTest) -> None:
    keras.utils.set_random_seed(0)
    told: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    runner.run(example, out=told.append)
    assert not runner.summarize(verbose=False).failed, "".join(told)


@pytest.mark.parametrize(
    "named",
    [pytest.param(item, id=name) for table in (INTERESTS, INTERACTIONS, LOSSES) for name, item in table.items()],
)
def test_everything_with_a_name_has_an_example(named: type[Any]) -> None:
    assert ">>> " in (inspect.getdoc(named) or ""), f"{named.__module__}.{named.__name__} has no Example"
