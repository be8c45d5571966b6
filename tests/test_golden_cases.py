import hashlib
import json

import keras
import numpy as np
import pytest

from tests import golden_cases
from tests.golden_cases import COMMITTED, assert_close, check, load, names, present

MANIFEST = json.loads((COMMITTED / "manifest.json").read_text())


def test_committed_cases_are_intact_and_licensed() -> None:
    listed = {case["file"]: case for case in MANIFEST["cases"]}
    assert {path.name for path in COMMITTED.glob("*.npz")} == set(listed)
    for name, case in listed.items():
        assert hashlib.sha256((COMMITTED / name).read_bytes()).hexdigest() == case["sha256"], name
        for source in case["sources"]:
            assert MANIFEST["sources"][source]["licence"] in {"Apache-2.0", "BSD-3-Clause"}, name
    readme = (COMMITTED / "README.md").read_text()
    for source, entry in MANIFEST["sources"].items():
        assert f"| {source} |" in readme
        assert entry["commit_or_version"].split()[0] in readme


@pytest.mark.golden
def test_absent_cases_are_counted_out_loud(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(golden_cases, "BESIDE", COMMITTED / "nowhere")
    with pytest.warns(UserWarning, match="2 golden cases absent, not checked: dlf_layer_first, dlf_layer_next"):
        assert present(["trap_prelu_shared", "dlf_layer_next", "dlf_layer_first"]) == ["trap_prelu_shared"]
    with pytest.raises(AssertionError, match="'dlf_layer_first' is neither in"):
        load("dlf_layer_first")
    with pytest.raises(AssertionError, match="no golden case matches"):
        names("dlf_*")


def test_the_rule_of_comparison() -> None:
    assert_close(np.array([1.0, 100.0009]), np.array([1.0005, 100.0]), 1e-5)
    with pytest.raises(AssertionError, match=r"error 0\.0011"):
        assert_close(np.array([1.0, 100.0011]), np.array([1.0, 100.0]), 1e-5)
    with pytest.raises(AssertionError, match="shape"):
        assert_close(np.zeros((2, 1)), np.zeros(2), 1e-5)
    with pytest.raises(AssertionError):
        assert_close(np.array([np.nan]), np.array([1.0]), 1e-5)


@pytest.mark.golden
def test_nothing_is_forgotten() -> None:
    case = load("trap_prelu_per_channel")
    alpha = keras.Variable(np.zeros(4, "float32"))

    def forward(inputs: dict[str, object]) -> dict[str, object]:
        return {"y": keras.ops.where(inputs["x"] > 0, inputs["x"], alpha * inputs["x"])}

    check(case, forward, {"alpha": alpha})
    with pytest.raises(AssertionError, match="weights differ: \\['alpha'\\]"):
        check(case, forward, {})
    with pytest.raises(KeyError, match="y"):
        check(case, lambda inputs: {}, {"alpha": alpha})

    def detached(inputs: dict[str, object]) -> dict[str, object]:
        x = inputs["x"]
        return {"y": keras.ops.where(x > 0, x, keras.ops.stop_gradient(alpha.value) * x)}

    with pytest.raises(AssertionError, match=r"grad/alpha: (not connected|error .* is 1 relative)"):
        check(case, detached, {"alpha": alpha})
