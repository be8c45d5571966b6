"""The cost of a model: its parameters, and the floating-point operations in the graphs of its two towers."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfctr.export.fold import served_weights
from tfctr.features.inputs import model_inputs
from tfctr.models.model import RankingModel, dummy_inputs
from tfctr.models.scorer import Scorer

_MANY = 101


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Copies, look-ups and comparisons, which have no floating-point operations.
_FREE = _names("""
    BroadcastTo Cast Ceil Concat ConcatV2 Const EnsureShape ExpandDims Fill Floor GatherNd GatherV2 Identity IdentityN
    MatrixDiagV3 MatrixSetDiagV3 OneHot OnesLike Pack Pad PadV2 Placeholder ReadVariableOp Reshape ResourceGather
    ReverseV2 Round ScatterNd Select SelectV2 Slice Sort Split SplitV Squeeze StopGradient StridedSlice
    TensorScatterUpdate Tile TopKV2 Transpose Unpack ZerosLike
""")
_BY_OUTPUT = _names("""
    Abs Add AddV2 Atan2 BiasAdd ClipByValue Cos Div DivNoNan Elu Erf Exp Expm1 FloorDiv FloorMod LeakyRelu Log Log1p
    Maximum Minimum Mul MulNoNan Neg Pow RealDiv Reciprocal Relu Relu6 Rsqrt Sigmoid Sign Sin Softplus Sqrt Square
    SquaredDifference Sub Tanh
""")
_BY_INPUT = _names("Cumsum Cumprod Max Mean Min Prod SegmentSum Sum UnsortedSegmentSum")
_SOFTMAX = 5
"""Operations of a softmax for each element: maximum, difference, exponential, sum, quotient."""


@dataclass(frozen=True)
class Cost:
    """The cost of a model, as trained or as served.

    Attributes:
        parameters: Number of parameters, including frozen tables.
        backbone_parameters: Number of parameters of the interaction backbone.
        flops_per_candidate: Floating-point operations of `score` for each candidate in a request.
        flops_per_request: Floating-point operations of `score` that do not depend on the number of candidates.
        flops_per_user: Floating-point operations of `user_tower`.
        uncounted: Types of floating-point ops in the graphs whose operations could not be counted.
    """

    parameters: int
    backbone_parameters: int
    flops_per_candidate: int
    flops_per_request: int
    flops_per_user: int
    uncounted: tuple[str, ...] = ()


def model_cost(model: RankingModel, scorer: Scorer | None = None) -> Cost:
    """Counts parameters, and operations in the traced towers. `score` is traced with 1 and with 101 candidates.

    Args:
        model: A built model.
        scorer: The served scorer, if it is not that of the model.
    """
    scorer = scorer or model.scorer
    user, state = _traced(lambda inputs: model.user_tower(inputs, training=False), _sides(model, 1)["user"])
    uncounted: set[str] = set()
    scored = []
    for count in (1, _MANY):
        packed = {**_sides(model, count), "state": state}
        del packed["user"]
        graph, _ = _traced(lambda inputs: scorer(inputs, training=False), packed)
        scored.append(_operations(graph, uncounted))
    one, many = scored
    of_user = _operations(user, uncounted)
    each = (many - one) // (_MANY - 1)
    return Cost(
        parameters=_size(served_weights(model, scorer)),
        backbone_parameters=_size(scorer.interaction.weights),
        flops_per_candidate=each,
        flops_per_request=one - each,
        flops_per_user=of_user,
        uncounted=tuple(sorted(uncounted)),
    )


def _size(weights: Iterable[Any]) -> int:
    return sum(int(np.prod(weight.shape)) for weight in weights)


def _sides(model: RankingModel, candidates: int) -> dict[str, dict[str, Any]]:
    inputs = dummy_inputs(model.file, candidates=candidates)
    sides: dict[str, dict[str, Any]] = {"user": {}, "candidate": {}, "context": {}, "bias": {}}
    for spec in model_inputs(model.file):
        if spec.side != "bias":
            sides[spec.side][spec.name] = inputs[spec.name]
    return sides


def _traced(function: Callable[[Any], Any], inputs: Any) -> tuple[Any, Any]:
    """The graph of a function, with fully known shapes, and the specifications of its outputs."""
    specs = keras.tree.map_structure(lambda tensor: tf.TensorSpec(tensor.shape, tensor.dtype), inputs)
    concrete = tf.function(function, autograph=False).get_concrete_function(specs)
    return concrete.graph, concrete.structured_outputs


def _operations(graph: Any, uncounted: set[str]) -> int:
    """Floating-point operations of a graph, a multiply-add being two. Adds the ops that it cannot count to a set."""
    total = 0
    for op in graph.get_operations():
        called = _called(graph, op)
        if called is not None:
            total += _operations(called, uncounted)
        elif any(output.dtype.is_floating for output in op.outputs):
            flops = _of(op)
            if flops is None:
                uncounted.add(op.type)
            else:
                total += flops
    return total


def _called(graph: Any, op: Any) -> Any:
    """The graph of the function that an op calls, or None if it calls none."""
    if op.type not in ("PartitionedCall", "StatefulPartitionedCall"):
        return None
    name = op.get_attr("f").name
    while graph is not None:
        found = graph._functions.get(name)
        if found is not None:
            return found.graph
        graph = graph.outer_graph
    return None


def _of(op: Any) -> int | None:
    """Floating-point operations of one op, or None if they cannot be counted."""
    if op.type in _FREE:
        return 0
    sizes = [tensor.shape.num_elements() for tensor in (*op.inputs, *op.outputs)]
    if None in sizes:
        return None
    if op.type in _BY_OUTPUT:
        return int(sizes[-1])
    if op.type in _BY_INPUT:
        return int(sizes[0])
    if op.type in ("Softmax", "LogSoftmax"):
        return _SOFTMAX * int(sizes[-1])
    if op.type in ("MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3"):
        transposed = op.get_attr("transpose_a" if op.type == "MatMul" else "adj_x")
        return 2 * int(sizes[-1]) * int(op.inputs[0].shape[-2 if transposed else -1])
    if op.type == "Einsum":
        return _einsum(op)
    return None


def _einsum(op: Any) -> int:
    left = op.get_attr("equation").decode().split("->")[0].split(",")
    sizes: dict[str, int] = {}
    for labels, tensor in zip(left, op.inputs, strict=True):
        shape = list(tensor.shape)
        if "..." in labels:
            before, after = labels.split("...")
            ellipsis = shape[len(before) : len(shape) - len(after)]
            shape = [*shape[: len(before)], *shape[len(shape) - len(after) :]]
            sizes["..."] = max(sizes.get("...", 1), int(np.prod(ellipsis)))
            labels = before + after
        sizes.update(zip(labels, shape, strict=True))
    # One multiplication and one addition for each combination of label values; with one operand only the addition.
    return len(left) * int(np.prod(list(sizes.values())))
