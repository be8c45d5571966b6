"""HSTU's block: the published code's outputs for both variants, which steps see which, and padding."""

from typing import Any

import numpy as np
import pytest
from keras import ops

from tests import golden_cases
from tests.layer_checks import check_layer
from tfctr.layers.hstu import HstuBlock

X = np.random.default_rng(0).normal(size=(3, 6, 8)).astype("float32")
MASK = np.arange(6)[None, :] < np.array([6, 0, 4])[:, None]


def blocks_of(given: dict[str, Any]) -> list[HstuBlock]:
    research = "value_dim" in given
    options: dict[str, Any] = {
        "variant": "research" if research else "stu",
        "num_heads": given["num_heads"],
        "value_dim": given["value_dim"] if research else given["hidden_dim"],
        "query_dim": given["query_dim"],
    }
    if research:
        bias = {"none": "none", "position": "position", "time and position": "time"}[given["relative_bias"]]
        options |= {"relative_bias": bias, "concatenate": given["concat_u_a"]}
    else:
        options |= {
            "group_norm": given["group_norm"],
            "window": given["max_attention_length"],
            "context_length": given["contextual_length"],
        }
    made = [HstuBlock(given["max_length"], **options) for _ in range(given["num_layers"])]
    for block in made:
        block.build((None, None, given["dim"]))
    return made


def weights_of(blocks: list[HstuBlock]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for i, block in enumerate(blocks):
        prefix = f"layer{i}"
        found |= {f"{prefix}/uvqk/kernel": block.uvqk.kernel, f"{prefix}/output/kernel": block.output_map.kernel}
        if block.variant == "research":
            found[f"{prefix}/output/bias"] = block.output_map.bias
        else:
            found |= {
                f"{prefix}/uvqk/bias": block.uvqk.bias,
                f"{prefix}/norm_in/gamma": block.norm_in.gamma,
                f"{prefix}/norm_in/beta": block.norm_in.beta,
                f"{prefix}/norm_out/gamma": block.gamma if block.group_norm else block.norm_out.gamma,
                f"{prefix}/norm_out/beta": block.beta if block.group_norm else block.norm_out.beta,
            }
        if block.relative_bias in ("position", "time"):
            found[f"{prefix}/bias/position"] = block.position_bias
        if block.relative_bias == "time":
            found[f"{prefix}/bias/time"] = block.time_bias
    return found


@pytest.mark.slow
@pytest.mark.golden
@pytest.mark.parametrize("name", golden_cases.names("hstu_*"))
def test_golden(name: str) -> None:
    case = golden_cases.load(name)
    blocks = blocks_of(case.hyperparameters)

    def forward(inputs: dict[str, Any]) -> dict[str, Any]:
        x = inputs["x"]
        mask = ops.arange(x.shape[1])[None, :] < ops.cast(inputs["lengths"], "int32")[:, None]
        targets = inputs.get("num_targets") if case.hyperparameters.get("target_aware") else None
        for block in blocks:
            x = block(x, mask=mask, timestamps=inputs.get("timestamps"), num_targets=targets)
        return {"y": x}

    golden_cases.check(case, forward, weights_of(blocks))


@pytest.mark.any_backend
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"relative_bias": "position", "concatenate": True, "dropout": 0.1},
        {"relative_bias": "slots", "causal": False},
        {"variant": "stu", "window": 2},
        {"variant": "stu", "group_norm": True, "context_length": 2},
    ],
)
def test_layer_checks(options: dict[str, Any]) -> None:
    output = check_layer(HstuBlock(8, **options), X, call_arguments={"mask": MASK}, output_shape=[3, 6, 8])
    assert not output[~MASK].any(), "padded steps are zeros"


def test_time_reaches_the_scores() -> None:
    block = HstuBlock(6, relative_bias="time")
    times = np.array([[0, 10, 100, 1000, 10_000, 100_000]] * 3)
    first = ops.convert_to_numpy(block(X, timestamps=times))
    block.time_bias.assign(np.linspace(-1, 1, 129))
    second = ops.convert_to_numpy(block(X, timestamps=times))
    later = ops.convert_to_numpy(block(X, timestamps=times + 10**9))
    assert np.abs(first - second).max() > 1e-5
    np.testing.assert_array_equal(second, later)


@pytest.mark.any_backend
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_relative_times_survive_mixed_precision(policy: str) -> None:
    """Events of today, seconds to months apart: every bucket is that of float32."""
    times = 1_760_000_000 + np.array([[0, 1, 60, 61, 5000, 9_000_000]] * 3)
    ends = np.concatenate([times[:, 1:], times[:, -1:]], axis=1)
    gaps = np.maximum(np.abs(ends[:, :, None] - times[:, None, :]), 1)
    expected = np.floor(np.log(gaps) / 0.301).astype(int)
    scores = []
    for dtype in ("float32", policy):
        block = HstuBlock(6, relative_bias="time", dtype=dtype)
        block.build(X.shape)
        block.position_bias.assign(np.zeros(11))
        block.time_bias.assign(np.arange(129))
        scores.append(ops.convert_to_numpy(block._bias(6, ops.convert_to_tensor(times)))[:, 0])
        np.testing.assert_array_equal(scores[-1], expected)
        assert np.isfinite(ops.convert_to_numpy(ops.cast(block(X, timestamps=times), "float32"))).all()
        with pytest.raises(ValueError, match="`timestamps` must be whole seconds in an integer type"):
            block(X, timestamps=times.astype("float32"))


def test_causal_steps_see_nothing_later() -> None:
    block = HstuBlock(6, relative_bias="position")
    changed = X.copy()
    changed[:, 4:] *= -1.0
    before, after = (ops.convert_to_numpy(block(one)) for one in (X, changed))
    np.testing.assert_array_equal(before[:, :4], after[:, :4])
    both_ways = HstuBlock(6, variant="stu", causal=False)
    before, after = (ops.convert_to_numpy(both_ways(one)) for one in (X, changed))
    assert np.abs(before[:, :4] - after[:, :4]).max() > 1e-6


def test_more_padding_changes_nothing() -> None:
    """The attention weights are divided by the configured length, not by that of the batch."""
    block = HstuBlock(9, relative_bias="position")
    short = ops.convert_to_numpy(block(X, mask=MASK))
    longer = np.concatenate([X, np.full((3, 3, 8), 7.0, "float32")], axis=1)
    padded = ops.convert_to_numpy(block(longer, mask=np.pad(MASK, ((0, 0), (0, 3)))))
    np.testing.assert_allclose(padded[:, :6], short, atol=1e-6)


def test_bad_arguments_are_told() -> None:
    with pytest.raises(ValueError, match="`variant` must be one of research, stu"):
        HstuBlock(4, variant="fast")
    with pytest.raises(ValueError, match="`relative_bias` of `stu` must be one of none"):
        HstuBlock(4, variant="stu", relative_bias="position")
    with pytest.raises(ValueError, match="`window` must be a whole number"):
        HstuBlock(4, variant="stu", window=-1)
    with pytest.raises(ValueError, match="at most 4 steps"):
        HstuBlock(4)(X)
