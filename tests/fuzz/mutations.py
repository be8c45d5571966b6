"""Strategies for inputs that are nearly right: something valid with a few faults in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

_NUMBERS = [0, 1, -1, 2, 3, 7, 127, 255, 256, 65535, 2**31 - 1, 2**31, 2**32, 2**63 - 1, 2**63, 2**64, 10**30, 10**400]
_FLOATS = [0.0, -0.5, 1e-300, 1e300, float("nan"), float("inf")]
_TEXTS = ["", " ", "a", "user_id", "item_id", "\x00", "é", "\ud800", "../../etc/passwd", "s3://b/x", "s3:/b", "{", "%s"]
_OTHERS = ["1e999", "a" * 300, [], [None], [[]], [1, "a"], {}, {"a": 1}, {"": None}]
VALUES = [None, True, False, *_NUMBERS, *_FLOATS, *_TEXTS, *_OTHERS]
"""What people and programs write by mistake, and what computers stumble over."""
_BYTES = [
    b"\x00",
    b"\xff",
    b"\x80",
    b"\x7f",
    b"\x0a",
    b"\xff" * 9 + b"\x01",
    b"\x08\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01",
]
_DEEP = 60


@st.composite
def mutated_bytes(draw: st.DrawFn, valid: Sequence[bytes]) -> bytes:
    """One of the valid texts with one to four faults: bits, bytes and pieces changed, lost, doubled or added."""
    found = bytearray(draw(st.sampled_from(valid)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(found) - 1)))
        to = min(len(found), at + draw(st.sampled_from([1, 1, 2, 4, 8, 64])))
        match draw(st.sampled_from(["bit", "byte", "lose", "double", "add", "cut", "value"])):
            case "bit" if found:
                found[at] ^= 1 << draw(st.integers(0, 7))
            case "byte" if found:
                found[at] = draw(st.integers(0, 255))
            case "lose":
                del found[at:to]
            case "double":
                found[at:at] = found[at:to]
            case "add":
                found[at:at] = draw(st.sampled_from(_BYTES))
            case "cut":
                del found[at:]
            case "value":
                found[at:at] = draw(st.binary(max_size=12))
    return bytes(found)


@st.composite
def mutated_tree(draw: st.DrawFn, valid: Sequence[Any]) -> Any:
    """One of the valid trees of mappings and lists with one to three values or keys changed, lost, doubled or added."""
    tree = _copy(draw(st.sampled_from(valid)))
    for _ in range(draw(st.integers(1, 3))):
        owners = list(_owners(tree))
        if not owners:
            return _copy(draw(st.sampled_from(VALUES)))
        owner = draw(st.sampled_from(owners))
        keys = list(owner) if isinstance(owner, dict) else list(range(len(owner)))
        key = draw(st.sampled_from(keys))
        what = draw(st.sampled_from(["change", "change", "change", "lose", "rename", "move", "deep"]))
        if what == "lose":
            del owner[key]
        elif what == "rename" and isinstance(owner, dict):
            owner[draw(st.sampled_from(["", "x", "type", "kind", "name", "max_length", "share"]))] = owner.pop(key)
        elif what == "move":
            owner[key] = _copy(draw(st.sampled_from(owners)))
        elif what == "deep":
            for _ in range(_DEEP):
                owner[key] = [owner[key]]
        else:
            owner[key] = _copy(draw(st.sampled_from(VALUES)))
    return tree


def _copy(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {key: _copy(value) for key, value in tree.items()}
    return [_copy(value) for value in tree] if isinstance(tree, list) else tree


def _owners(tree: Any) -> Any:
    """The mappings and lists of a tree that hold something."""
    inner = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ()
    if inner:
        yield tree
    for value in inner:
        yield from _owners(value)
