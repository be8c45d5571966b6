"""Golden cases: numbers of the papers' public implementations, and how a layer of ours is compared with them.

A case is read from tests/golden when it is there, else from ../shared/golden, next to the checkout. Cases of sources
without a licence are never committed; where they are absent, `present` says so in a warning that pytest prints.

Usage, for a built layer:

    case = load("trap_batchnorm_train")
    check(
        case,
        lambda inputs: {"y": layer(inputs["x"], training=True)},
        weights={"bn/gamma": layer.gamma, ...},
        after={"moving_mean_after": layer.moving_mean, ...},
    )

`python -m tests.golden_cases PATTERN...` copies the matching licensed cases into tests/golden and
writes its manifest anew.
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
from typing import Any

import keras
import numpy as np
import tensorflow as tf

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


@functools.cache
def _manifest(folder: Path) -> dict[str, dict[str, Any]]:
    path = folder / "manifest.json"
    if not path.exists():
        return {}
    return {case["name"]: case for case in json.loads(path.read_text())["cases"]}


def _folder(name: str) -> Path | None:
    for folder in (COMMITTED, BESIDE):
        if name in _manifest(folder) and (folder / _manifest(folder)[name]["file"]).exists():
            return folder
    return None


def names(*patterns: str) -> list[str]:
    """The names of the available cases that match one of the patterns; fails when a pattern matches none."""
    known = sorted({**_manifest(BESIDE), **_manifest(COMMITTED)})
    found: dict[str, None] = {}
    for pattern in patterns:
        matching = fnmatch.filter(known, pattern)
        assert matching, f"no golden case matches {pattern!r}"
        found.update(dict.fromkeys(matching))
    return list(found)


def present(wanted: Iterable[str]) -> list[str]:
    """Those of the named cases that are here; the absent ones are named and counted in a warning."""
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
    entry = _manifest(folder)[name]
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
        forward: takes the `in/` tensors by name, gives the `out/` tensors by name.
        weights: the variable of each `w/` tensor.
        after: the variables behind outputs that are values after an update.
        ignored: names of weights, outputs or gradients that are not ours to compare.
    """
    assign(case, weights, ignored)
    inputs = {name: tf.constant(value) for name, value in case.group("in").items()}
    with tf.GradientTape() as tape:
        tape.watch([value for value in inputs.values() if value.dtype.is_floating])
        outputs = dict(forward(inputs))
        cotangents = case.group("cot")
        total = tf.add_n([tf.reduce_sum(outputs[name] * cotangent) for name, cotangent in cotangents.items()] or [0.0])
    outputs.update(after or {})
    for name, expected in case.group("out").items():
        if name not in ignored:
            assert name in outputs, f"{case.name}: nothing given for out/{name}"
            assert_close(outputs[name], expected, case.rtol("outputs"), f"{case.name} out/{name}")
    wanted = [name for name in case.group("grad") if name not in ignored]
    sources = [inputs[name] if name in inputs else _split(weights[name])[0].value for name in wanted]
    gradients = tape.gradient(total, sources) if wanted else []
    for name, gradient in zip(wanted, gradients, strict=True):
        label = f"{case.name} grad/{name}"
        assert gradient is not None, f"{label}: not connected"
        if f"grad/{name}" in case.entry["zero_gradients"]:
            assert_zero(gradient, label)
        else:
            encode = (lambda array: array) if name in inputs else _split(weights[name])[1]
            assert_close(tf.convert_to_tensor(gradient), encode(case[f"grad/{name}"]), case.rtol("gradients"), label)


def commit(patterns: Sequence[str]) -> list[str]:
    """Copy the matching cases into tests/golden and write the manifest of all cases there; refuse unlicensed ones."""
    everything = json.loads((BESIDE / "manifest.json").read_text())
    sources = everything["sources"]
    for name in names(*patterns):
        licences = {source: sources[source]["licence"] for source in _manifest(BESIDE)[name]["sources"]}
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
