"""Checks that the newest TensorFlow Serving release can run and batch a SavedModel."""

from collections.abc import Iterable, Iterator
from importlib import resources
from pathlib import Path
from typing import Any

from tfctr.errors import UserError
from tfctr.export.describe import read_meta_graphs

SERVING_RELEASE = "2.20"
_SHOWN_PLACES = 3


def serving_ops() -> frozenset[str]:
    """The names of the ops that TensorFlow Serving's runtime registers."""
    text = (resources.files("tfctr.export") / f"tf_serving_ops_{SERVING_RELEASE}.txt").read_text()
    return frozenset(line for line in text.splitlines() if line and not line.startswith("#"))


def check_ops(saved_model_dir: str | Path, known_ops: Iterable[str] | None = None) -> None:
    """Checks that TensorFlow Serving can load this SavedModel and batch its signatures.

    All nodes of the graph and of its functions are checked. The server batches requests along the first dimension and
    splits the outputs again, so the first dimension of each input and output must not be fixed.

    Args:
        saved_model_dir: A directory with `saved_model.pb`.
        known_ops: Names of the registered ops; by default those of TensorFlow Serving 2.20.

    Raises:
        UserError: The directory has no SavedModel, an op is not registered, or a signature cannot be batched. The
            message lists all problems, and for an op the signatures and functions that use it.
    """
    known = serving_ops() if known_ops is None else frozenset(known_ops)
    problems: list[str] = []
    for meta_graph in read_meta_graphs(Path(saved_model_dir)):
        problems += _unregistered_ops(meta_graph, known)
        problems += _unbatchable(meta_graph)
    if problems:
        listed = "\n".join(f"  - {problem}" for problem in problems)
        raise UserError(f"TensorFlow Serving {SERVING_RELEASE} cannot serve {saved_model_dir}:\n{listed}")


def _unregistered_ops(meta_graph: Any, known: frozenset[str]) -> Iterator[str]:
    library = meta_graph.graph_def.library.function
    # A function can be called by an op with its name.
    known = known | {function.signature.name for function in library}
    owners = _owners(meta_graph)
    places: dict[str, set[str]] = {}
    for node in meta_graph.graph_def.node:
        if node.op not in known:
            places.setdefault(node.op, set()).add("the main graph")
    for function in library:
        for node in function.node_def:
            if node.op not in known:
                name = function.signature.name
                signatures = ", ".join(f"`{signature}`" for signature in sorted(owners.get(name, ())))
                where = f"function {name}" + (f" (signature {signatures})" if signatures else "")
                places.setdefault(node.op, set()).add(where)
    for op, used_in in sorted(places.items()):
        shown = sorted(used_in)[:_SHOWN_PLACES]
        rest = f" and {len(used_in) - len(shown)} more" if len(used_in) > len(shown) else ""
        yield f"op {op} is not registered there; it is used in {'; '.join(shown)}{rest}"


def _owners(meta_graph: Any) -> dict[str, set[str]]:
    """Maps each function of the library to the signatures that reach it."""
    functions = {function.signature.name: function for function in meta_graph.graph_def.library.function}
    calls = {name: _called(function.node_def) for name, function in functions.items()}
    nodes = {node.name: node for node in meta_graph.graph_def.node}
    owners: dict[str, set[str]] = {}
    for signature, definition in meta_graph.signature_def.items():
        pending = _called(_upstream(definition, nodes))
        while pending:
            name = pending.pop()
            if name in functions and signature not in owners.setdefault(name, set()):
                owners[name].add(signature)
                pending |= calls[name]
    return owners


def _upstream(definition: Any, nodes: dict[str, Any]) -> list[Any]:
    """The nodes of the main graph that a signature's outputs are computed from."""
    pending = [info.name.split(":")[0] for info in definition.outputs.values()]
    seen: set[str] = set()
    while pending:
        name = pending.pop()
        if name in nodes and name not in seen:
            seen.add(name)
            pending += [source.lstrip("^").split(":")[0] for source in nodes[name].input]
    return [nodes[name] for name in seen]


def _called(nodes: Iterable[Any]) -> set[str]:
    called: set[str] = set()
    for node in nodes:
        called.add(node.op)
        for value in node.attr.values():
            if value.HasField("func"):
                called.add(value.func.name)
            called.update(function.name for function in value.list.func)
    return called


def _unbatchable(meta_graph: Any) -> Iterator[str]:
    for signature, definition in sorted(meta_graph.signature_def.items()):
        if signature.startswith("__"):  # of TensorFlow itself, as the one that initializes the model
            continue
        for side, tensors in (("input", definition.inputs), ("output", definition.outputs)):
            for name, info in sorted(tensors.items()):
                if reason := _unbatchable_shape(info.tensor_shape):
                    yield (
                        f"{side} {name} of signature `{signature}` {reason}; every input and output needs an open "
                        f"first dimension, the requests, or they cannot be batched"
                    )


def _unbatchable_shape(shape: Any) -> str | None:
    if shape.unknown_rank:
        return "has no known rank"
    if not shape.dim:
        return "is a scalar"
    if shape.dim[0].size != -1:
        return f"has the fixed first dimension {shape.dim[0].size}"
    return None
