"""Which functions the code of a test comes to, read from its compiled code."""

import inspect
from collections.abc import Callable, Collection
from types import CodeType
from typing import Any


def reaches(function: Callable[..., Any], targets: Collection[Any], seen: set[Any] | None = None) -> bool:
    """Whether the code of a test, or of a test helper that it names, names one of the target functions."""
    seen = set() if seen is None else seen
    function = inspect.unwrap(function)
    seen.add(function)
    names = _names(function.__code__)
    named = [function.__globals__.get(name) for name in names]
    modules = [one for one in named if inspect.ismodule(one) and one.__name__.startswith("tests.")]
    for used in [*named, *(vars(module).get(name) for module in modules for name in names)]:
        if any(used is target for target in targets):
            return True
        helper = inspect.isfunction(used) and used.__module__.startswith("tests.")
        if helper and used not in seen and reaches(used, targets, seen):
            return True
    return False


def _names(code: CodeType) -> set[str]:
    inner = [_names(constant) for constant in code.co_consts if isinstance(constant, CodeType)]
    return set(code.co_names).union(*inner)
