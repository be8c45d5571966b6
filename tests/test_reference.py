"""The API reference, docs/api, has a place for everything that users import."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import re
from pathlib import Path
from typing import Any

import griffe
import pytest

import tfctr.layers
from scripts.reference import Reference
from tfctr.features.kinds.base import KINDS
from tfctr.features.kinds.vocabularies import VOCABULARIES
from tfctr.interactions import INTERACTIONS
from tfctr.interests import INTERESTS
from tfctr.layers.export import EXPORTED
from tfctr.losses import AUXILIARY_LOSSES, LOSSES
from tfctr.metrics.table import METRICS
from tfctr.optimizers import OPTIMIZERS
from tfctr.tuning.methods import Method
from tfctr.tuning.spaces import Space

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted((ROOT / "docs" / "api").glob("*.md"))
PACKAGES = [
    "tfctr.client",
    "tfctr.data.sources",
    "tfctr.features",
    "tfctr.features.kinds",
    "tfctr.interactions",
    "tfctr.interests",
    "tfctr.losses",
    "tfctr.metrics",
    "tfctr.models",
    "tfctr.optimizers",
    "tfctr.storage",
    "tfctr.tuning",
]
"""The packages that say in `__init__.py` what is public."""


def _shown(page: str) -> list[str]:
    """The names that a page's directives show, with the members that one lists."""
    names: list[str] = []
    for directive in re.split(r"^(?=::: )", page, flags=re.MULTILINE)[1:]:
        path = directive.split()[1]
        members = re.findall(r"^        - (\w+)$", directive, re.MULTILINE)
        names += [f"{path}.{member}" for member in members] or [path]
    return names


def _public(package: str) -> set[str]:
    """The names of `__all__`, or else those that `__init__.py` defines, or imports under their own name."""
    module = importlib.import_module(package)
    if hasattr(module, "__all__"):
        return {name for name in module.__all__ if not _is_module(module, name)}
    names: set[str] = set()
    for node in ast.parse(Path(str(module.__file__)).read_text()).body:
        if isinstance(node, ast.ImportFrom):
            names |= {one.name for one in node.names if one.asname == one.name}
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
    return names


def _is_module(module: Any, name: str) -> bool:
    return type(getattr(module, name)) is type(module)


def _object(path: str) -> Any:
    return pkgutil.resolve_name(re.sub(r"\.(?=\w+$)", ":", path))


SHOWN = [name for page in PAGES for name in _shown(page.read_text())]


@pytest.fixture(scope="module")
def source() -> griffe.Module:
    """The package as the pages are made of it."""
    made = griffe.load("tfctr", search_paths=[ROOT], extensions=griffe.load_extensions(Reference))
    assert isinstance(made, griffe.Module)
    return made


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_of_a_package_is_shown(package: str) -> None:
    public = {f"{package}.{name}" for name in _public(package)}
    public -= {
        "tfctr.metrics.report"
    }  # to who reads the text it is the module: the function is shown as `report.report`

    assert public
    assert public - set(SHOWN) == set()


@pytest.mark.parametrize(
    "table",
    [INTERESTS, INTERACTIONS, LOSSES, AUXILIARY_LOSSES, OPTIMIZERS, KINDS, VOCABULARIES, Method.METHODS, Space.SPACES],
    ids=[
        "interests",
        "interactions",
        "losses",
        "auxiliary",
        "optimizers",
        "kinds",
        "vocabularies",
        "methods",
        "spaces",
    ],
)
def test_every_class_of_a_table_is_shown(table: dict[str, type[Any]]) -> None:
    shown = {id(_object(name)) for name in SHOWN}
    ours = {name: made for name, made in table.items() if made.__module__.startswith("tfctr.")}

    assert ours
    assert [name for name, made in ours.items() if id(made) not in shown] == []


def test_every_metric_of_the_table_that_has_a_function_of_its_own_is_shown() -> None:
    shown = {id(_object(name)) for name in SHOWN}
    functions = {metric.function for metric in METRICS.values() if not metric.function.__name__.startswith("_")}

    assert [one.__name__ for one in functions if id(one) not in shown] == []


def test_every_shared_layer_is_shown() -> None:
    for module in pkgutil.iter_modules(tfctr.layers.__path__):
        importlib.import_module(f"tfctr.layers.{module.name}")
    layers = [made for made in EXPORTED.values() if made.__module__.startswith("tfctr.layers.")]

    assert len(layers) > 10
    assert [
        f"{one.__module__}.{one.__name__}" for one in layers if f"{one.__module__}.{one.__name__}" not in SHOWN
    ] == []


def test_what_is_shown_is_shown_once_and_has_a_docstring(source: griffe.Module) -> None:
    found = [source[name.removeprefix("tfctr.")] for name in SHOWN]

    assert len(found) > 200
    assert sorted(set(SHOWN)) == sorted(SHOWN)
    assert [one.path for one in found if one.is_module or not one.has_docstring] == []


def test_what_other_pages_import_is_shown() -> None:
    """A page says `from tfctr.x import y`: the reference says what y is. `extend.md` writes files of the package."""
    pages = {*(ROOT / "docs").rglob("*.md"), ROOT / "README.md"} - {ROOT / "docs" / "extend.md"}
    texts = [page.read_text() for page in pages]
    found = [line for text in texts for line in re.findall(r"\bfrom (tfctr[\w.]*) import ([\w, ]+)", text)]
    names = {f"{module}.{name.strip()}" for module, several in found for name in several.split(",")}

    assert len(names) > 5
    assert names - set(SHOWN) == set()


def test_the_members_of_a_directive_are_its_names() -> None:
    page = "# a\n\n::: a.b\n    options:\n      members:\n        - C\n        - d\n\n## e\n\n::: a.F\n"

    assert _shown(page) == ["a.b.C", "a.b.d", "a.F"]


TEXT = """One line.

Args:
    a: First.
    b, c: both,
        on two lines.

Call arguments:
    inputs: float `[..., D]`.

Output shape: `[...]`.

Example:
    >>> 1
    1

References:
    Somebody (2020), equation 1,
    and its code.
"""


def test_sections_of_our_own_become_those_that_are_rendered() -> None:
    docstring = griffe.Docstring(TEXT, parent=griffe.Function("f"))
    assert docstring.parent is not None
    docstring.parent.docstring = docstring
    Reference().on_object(obj=docstring.parent, loader=griffe.GriffeLoader())

    sections = docstring.parse("google", warn_unknown_params=False, warn_missing_types=False)

    assert [one.kind.value for one in sections] == [
        "text", "parameters", "other parameters", "text", "examples", "text"
    ]  # fmt: skip
    assert [(one.name, one.description) for one in sections[1].value] == [
        ("a", "First."), ("b", "both,\non two lines."), ("c", "both,\non two lines.")
    ]  # fmt: skip
    assert sections[2].title == "Call arguments:"
    assert sections[3].value == "**Output shape:** `[...]`."
    assert sections[5].value == "**References:**\n\nSomebody (2020), equation 1,\nand its code."


def test_signatures_have_the_arguments_that_the_source_leaves_to_a_base_class(source: griffe.Module) -> None:
    for name in ("interests.dta.DecoupledTargetAttention", "losses.kl.KlConsistency", "training.experiment.Experiment"):
        shown = [one.name for one in source[name].parameters if one.name != "self"]
        assert shown == list(inspect.signature(_object(f"tfctr.{name}")).parameters), name
    assert "embeddings_initializer" in source["interests.dta.DecoupledTargetAttention"].parameters
    assert 'identifier="tfctr.interests.base.Interest"' in source["interests.din.Din"].docstring.value
