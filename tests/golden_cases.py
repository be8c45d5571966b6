"""Golden cases: inputs and results of the papers' public implementations, and how our layers are compared with them.

A case is read from tests/golden if it is there, else from ../shared/golden, next to the checkout. Cases of sources
without a licence are never committed. Where they are absent, `present` gives a warning, which pytest prints.

Usage, for a built layer:

    case = load("trap_batchnorm_train")
    check(
        case,
        lambda inputs: {"y": layer(inputs["x"], training=True)},
        weights={"bn/gamma": layer.gamma, ...},
        after={"moving_mean_after": layer.moving_mean, ...},
    )

and for a function without weights and gradients: `compare(case, "out/auc", auc(case["in/label"], case["in/score"]))`.
All comparisons go through `compare`, which reports each of them to the observers in `OBSERVERS`. In this way
`python -m tests.golden_table` counts them.

`python -m tests.golden_cases PATTERN...` copies the matching licensed cases into tests/golden and writes the manifest
there anew.
"""

import fnmatch
import functools
import json
import shutil
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import keras
import numpy as np
from keras import ops

from tests.backends import gradients, tensors

COMMITTED = Path(__file__).parent / "golden"
BESIDE = Path(__file__).parents[2] / "shared" / "golden"
ZERO_ATOL = 1e-4

Array = np.ndarray[Any, Any]
Weight = Any
"""A Keras variable, or `(variable, encode)`: encode turns the case's array (and gradient) into the variable's shape."""


@dataclass(frozen=True)
class GoldenCase:
    """One case: its manifest entry and its tensors by full key (`in/x`, `w/bn/gamma`, `out/y`, `cot/y`, `grad/x`)."""

    name: str
    entry: dict[str, Any]
    tensors: dict[str, Array]

    def __getitem__(self, key: str) -> Array:
        return self.tensors[key]

    def group(self, prefix: str) -> dict[str, Array]:
        """The tensors of one prefix (`in`, `w`, `out`, `cot`, `grad`) by the rest of their key."""
        return {key[len(prefix) + 1 :]: value for key, value in self.tensors.items() if key.startswith(prefix + "/")}

    @property
    def hyperparameters(self) -> dict[str, Any]:
        return dict(self.entry["hyperparameters"])

    def rtol(self, kind: str) -> float:
        """The manifest's tolerance for `outputs` or `gradients`."""
        recommended = self.entry["recommended_rtol"]
        return float(recommended[kind] if isinstance(recommended, dict) else recommended)


class Observer(Protocol):
    """An object that is told which cases are read and which tensors are compared."""

    def loaded(self, name: str) -> None:
        """A case has been read."""

    def compared(self, name: str, key: str, passed: bool) -> None:
        """A tensor of a case has been compared: `out/...` or `grad/...`."""


OBSERVERS: list[Observer] = []


@functools.cache
def manifest(folder: Path) -> dict[str, dict[str, Any]]:
    path = folder / "manifest.json"
    if not path.exists():
        return {}
    return {case["name"]: case for case in json.loads(path.read_text())["cases"]}


def _folder(name: str) -> Path | None:
    for folder in (COMMITTED, BESIDE):
        if name in manifest(folder) and (folder / manifest(folder)[name]["file"]).exists():
            return folder
    return None


def names(*patterns: str) -> list[str]:
    """The names of the available cases that match one of the patterns; fails when a pattern matches none."""
    known = sorted({**manifest(BESIDE), **manifest(COMMITTED)})
    found: dict[str, None] = {}
    for pattern in patterns:
        matching = fnmatch.filter(known, pattern)
        assert matching, f"no golden case matches {pattern!r}"
        found.update(dict.fromkeys(matching))
    return list(found)


def present(wanted: Iterable[str]) -> list[str]:
    """The named cases that are available. A warning names and counts the absent ones."""
    wanted = list(wanted)
    here = [name for name in wanted if _folder(name)]
    absent = sorted(set(wanted) - set(here))
    if absent:
        warnings.warn(f"{len(absent)} golden cases absent, not checked: {', '.join(absent)}", stacklevel=2)
    return here


def load(name: str) -> GoldenCase:
    """Read one case."""
    folder = _folder(name)
    assert folder is not None, f"golden case {name!r} is neither in {COMMITTED} nor in {BESIDE}"
    for observer in OBSERVERS:
        observer.loaded(name)
    entry = manifest(folder)[name]
    with np.load(folder / entry["file"]) as file:
        return GoldenCase(name, entry, {key: file[key] for key in file.files})


def assert_close(actual: Any, expected: Any, rtol: float, label: str = "tensor") -> None:
    """max|actual - expected| <= rtol * max|expected|, the manifest's rule."""
    actual = keras.ops.convert_to_numpy(actual)
    expected = np.asarray(expected)
    assert actual.shape == expected.shape, f"{label}: shape {actual.shape}, expected {expected.shape}"
    scale = np.max(np.abs(expected), initial=0.0)
    error = np.max(np.abs(actual.astype("float64") - expected.astype("float64")), initial=0.0)
    assert error <= rtol * scale, (
        f"{label}: error {error:.3g} is {error / max(scale, 1e-30):.3g} relative, allowed {rtol}"
    )


def assert_zero(actual: Any, label: str = "tensor") -> None:
    """Zero up to rounding, for the tensors that the manifest lists as zero gradients."""
    largest = np.max(np.abs(keras.ops.convert_to_numpy(actual)), initial=0.0)
    assert largest <= ZERO_ATOL, f"{label}: {largest:.3g}, should be zero"


def _split(weight: Weight) -> tuple[Any, Callable[[Array], Array]]:
    return weight if isinstance(weight, tuple) else (weight, lambda array: array)


def assign(case: GoldenCase, weights: Mapping[str, Weight], ignored: Sequence[str] = ()) -> None:
    """Load every `w/` tensor of the case; each must have its variable, so that none is forgotten."""
    expected = set(case.group("w")) - set(ignored)
    assert set(weights) == expected, f"{case.name}: weights differ: {sorted(set(weights) ^ expected)}"
    for name, weight in weights.items():
        variable, encode = _split(weight)
        value = encode(case[f"w/{name}"])
        assert tuple(variable.shape) == value.shape, f"{case.name}: {name} {variable.shape} is not {value.shape}"
        variable.assign(value)


def compare(case: GoldenCase, key: str, actual: Any, *, expected: Any = None, atol: float | None = None) -> None:
    """Compare one tensor, `out/...` or `grad/...`, by the manifest's rule.

    Args:
        case: the case.
        key: the full key of the tensor.
        actual: our tensor.
        expected: the case's tensor in our layout; None if the layouts are the same.
        atol: an absolute tolerance instead of the manifest's; with it, NaN equals NaN.
    """
    expected = case[key] if expected is None else expected
    kind = "gradients" if key.startswith("grad/") else "outputs"
    passed = False
    try:
        label = f"{case.name} {key}"
        if actual is None:
            raise AssertionError(f"{label}: not connected")
        if key in case.entry["zero_gradients"]:
            assert_zero(actual, label)
        elif atol is not None:
            np.testing.assert_allclose(ops.convert_to_numpy(actual), expected, rtol=0, atol=atol, err_msg=label)
        else:
            assert_close(actual, expected, case.rtol(kind), label)
        passed = True
    finally:
        for observer in OBSERVERS:
            observer.compared(case.name, key, passed)


def check(
    case: GoldenCase,
    forward: Callable[[dict[str, Any]], Mapping[str, Any]],
    weights: Mapping[str, Weight],
    *,
    after: Mapping[str, Any] | None = None,
    ignored: Sequence[str] = (),
) -> None:
    """Load the weights, run `forward`, and compare all outputs and all gradients of sum(output * cotangent).

    Args:
        case: the case.
        forward: takes the `in/` tensors by name and returns the `out/` tensors by name.
        weights: the variable of each `w/` tensor.
        after: for outputs that are the values of variables after an update, the variable of each.
        ignored: names of weights, outputs or gradients that are left out.
    """
    assign(case, weights, ignored)
    inputs = tensors(case.group("in"))
    wanted = [name for name in case.group("grad") if name not in ignored]
    variables = {name: _split(weights[name])[0] for name in wanted if name not in inputs}

    def total(fed: list[Any]) -> tuple[Any, dict[str, Any]]:
        outputs = dict(forward(dict(zip(inputs, fed, strict=True))))
        products = [ops.sum(outputs[name] * cotangent) for name, cotangent in case.group("cot").items()]
        return sum(products, ops.zeros(())), outputs

    if wanted:
        (_, outputs), by_inputs, by_variables = gradients(total, list(inputs.values()), list(variables.values()))
    else:
        outputs, by_inputs, by_variables = total(list(inputs.values()))[1], [], []
    outputs.update(after or {})
    for name in case.group("out"):
        if name not in ignored:
            assert name in outputs, f"{case.name}: nothing given for out/{name}"
            compare(case, f"out/{name}", outputs[name])
    found = dict(zip([*inputs, *variables], [*by_inputs, *by_variables], strict=bool(wanted)))
    for name in wanted:
        encode = _split(weights[name])[1] if name in variables else (lambda array: array)
        compare(case, f"grad/{name}", found[name], expected=encode(case[f"grad/{name}"]))


def commit(patterns: Sequence[str]) -> list[str]:
    """Copy the matching cases into tests/golden and write the manifest of all cases there; refuse unlicensed ones."""
    everything = json.loads((BESIDE / "manifest.json").read_text())
    sources = everything["sources"]
    for name in names(*patterns):
        licences = {source: sources[source]["licence"] for source in manifest(BESIDE)[name]["sources"]}
        assert "no licence file" not in licences.values(), f"{name} may not be committed: {licences}"
        shutil.copyfile(BESIDE / f"{name}.npz", COMMITTED / f"{name}.npz")
    cases = [case for case in everything["cases"] if (COMMITTED / case["file"]).exists()]
    used = {source for case in cases for source in case["sources"]}
    excerpt = {
        "format_version": everything["format_version"],
        "tensor_entry": everything["tensor_entry"],
        "conventions": "see README.md",
        "sources": {source: entry for source, entry in sources.items() if source in used},
        "cases": cases,
    }
    (COMMITTED / "manifest.json").write_text(json.dumps(excerpt, indent=1) + "\n")
    return [case["name"] for case in cases]


if __name__ == "__main__":
    print(f"{len(commit(sys.argv[1:]))} cases in {COMMITTED}")
