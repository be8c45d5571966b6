from pathlib import Path

import pytest
import tensorflow as tf

from benchmarks.operations import kind_of, operations


@pytest.mark.parametrize("compiled", [True, False])
def test_a_trace_has_times_of_the_kinds_that_ran(tmp_path: Path, compiled: bool) -> None:
    @tf.function(jit_compile=compiled)
    def step(x: tf.Tensor) -> tf.Tensor:
        return tf.exp(tf.matmul(x, x))

    x = tf.random.normal((300, 300))
    step(x)
    tf.profiler.experimental.start(str(tmp_path))
    step(x).numpy()
    tf.profiler.experimental.stop()
    times, counts = operations(next(tmp_path.rglob("*.xplane.pb")))
    assert set(times) == set(counts) >= {"products of matrices", "elementwise"}
    assert min(times.values()) > 0


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("dot", "products of matrices"),
        ("_FusedMatMul", "products of matrices"),
        ("multiply_reduce_fusion", "reductions"),
        ("ResourceGather", "rows of tables"),
        ("transpose_copy_fusion", "copies"),
        ("add_rsqrt_fusion", "elementwise"),
    ],
)
def test_kinds(name: str, kind: str) -> None:
    assert kind_of(name) == kind
