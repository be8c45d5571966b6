"""What the API reference has to be told of the source: sections, links and signatures that griffe does not find.

It is an extension of griffe, which reads the source for mkdocstrings; `mkdocs.yml` names this file.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import textwrap
from collections import Counter
from typing import Any

import griffe

_COMPLETED = ("tfctr.layers", "tfctr.interests", "tfctr.interactions", "tfctr.losses")
"""The packages of `ConfiguredLayer`, which completes the signatures of its subclasses when they are imported."""

_KEYS = "tfctr.features.yaml_file.Strict"
"""The base of the classes that pydantic makes of a file; their arguments are the keys."""
_LONGEST = 200
"""Characters of a constant's value that are shown; a longer one is left to the source."""

_CODE = re.compile(r"^Example:\n\n((?:    .*\n?)+)", re.MULTILINE)
_EXAMPLE = re.compile(r"^Example:$", re.MULTILINE)
_ITEMS = re.compile(r"^(Call arguments|sequence|candidate|context):$", re.MULTILINE)
_TEXT = re.compile(r"^(References|Output shape):\n((?:    .*\n?|\n)+)", re.MULTILINE)
_LEAD = re.compile(r"^(Output shape): ", re.MULTILINE)
_SEVERAL = re.compile(r"^    (\w+(?:,\s+\w+)+):((?: .*)?\n?(?:^     .*\n?)*)", re.MULTILINE)
_HEAD = re.compile(r"(Args|Attributes|Other Parameters: .*|Raises|Returns|Yields):$")
_NAME = re.compile(r"(?<![`\[])`([A-Z]\w+(?:\.\w+)?)`")


class Reference(griffe.Extension):
    """Completes docstrings and signatures before they are rendered."""

    def on_object(self, *, obj: griffe.Object, loader: griffe.GriffeLoader, **kwargs: Any) -> None:
        """Write the sections of a docstring as griffe knows them."""
        if isinstance(obj, griffe.Class):
            _describe_keys(obj)
        if isinstance(obj, griffe.Attribute) and len(str(obj.value)) > _LONGEST:
            obj.value = None
        if obj.docstring is not None:
            obj.docstring.value = _sections(obj.docstring.value)

    def on_package(self, *, pkg: griffe.Module, loader: griffe.GriffeLoader, **kwargs: Any) -> None:
        """Complete signatures and link classes that docstrings name, once all classes are known."""
        classes = [one for module in _modules(pkg) for one in module.classes.values() if not one.is_alias]
        for cls in classes:
            if cls.path.startswith(_COMPLETED):
                _complete(cls, loader)
            elif any(base.path == _KEYS for base in cls.mro()):
                _take_keys(cls)
        times = Counter(cls.name for cls in classes)
        paths = {cls.name: cls.path for cls in classes if times[cls.name] == 1}
        for module in _modules(pkg):
            _link(module, paths)


def _sections(text: str) -> str:
    """A docstring whose own sections are lists of arguments or text, with one line for each argument."""
    text = _CODE.sub(lambda found: f"**Example:**\n\n```python\n{textwrap.dedent(found[1]).rstrip()}\n```\n", text)
    text = _EXAMPLE.sub("Examples:", text)
    text = _ITEMS.sub(r"Other Parameters: \1:", text)
    text = _TEXT.sub(lambda found: f"**{found[1]}:**\n\n{textwrap.dedent(found[2])}", text)
    text = _LEAD.sub(r"**\1:** ", text)
    return _SEVERAL.sub(_one_by_one, text)


def _one_by_one(found: re.Match[str]) -> str:
    """A line of arguments that describes several, as a line for each of them."""
    return "".join(f"    {name}:{found[2].rstrip()}\n" for name in re.split(r",\s+", found[1]))


def _describe_keys(cls: griffe.Class) -> None:
    """List the keys of a file that pydantic reads, by what their `Field` says of them."""
    keys = {name: _description(one.value) for name, one in cls.attributes.items() if not one.is_alias}
    lines = "".join(f"    {name}: {text}\n" for name, text in keys.items() if text)
    if lines and cls.docstring is not None and "Attributes:" not in cls.docstring.value:
        cls.docstring.value = f"{cls.docstring.value.rstrip()}\n\nAttributes:\n{lines}"


def _description(value: str | griffe.Expr | None) -> str | None:
    if not isinstance(value, griffe.ExprCall) or value.canonical_path != "pydantic.Field":
        return None
    given = {one.name: one.value for one in value.arguments if isinstance(one, griffe.ExprKeyword)}
    return str(ast.literal_eval(str(given["description"]))) if "description" in given else None


def _take_keys(cls: griffe.Class) -> None:
    """Give a class that pydantic makes of a file the signature by which it is made in Python."""
    parameters = griffe.Parameters(griffe.Parameter("self", kind=griffe.ParameterKind.positional_or_keyword))
    fields: dict[str, griffe.Attribute] = {}
    for one in (*reversed(cls.mro()), cls):
        keys = {name: key for name, key in one.attributes.items() if not key.is_alias and key.annotation}
        fields |= {name: key for name, key in keys.items() if "property" not in key.labels}
    for name, key in fields.items():
        if not name.startswith("_") and "ClassVar" not in str(key.annotation):
            kind = griffe.ParameterKind.keyword_only
            parameters.add(griffe.Parameter(name, annotation=key.annotation, kind=kind, default=_default(key.value)))
    cls.set_member("__init__", griffe.Function("__init__", parameters=parameters))


def _default(value: str | griffe.Expr | None) -> str | griffe.Expr | None:
    """The default of a key: what stands there, or what its `Field` says."""
    if not isinstance(value, griffe.ExprCall) or value.canonical_path != "pydantic.Field":
        return value
    first, *_ = [*value.arguments, None]
    if isinstance(first, griffe.ExprKeyword):
        return "..." if first.name == "default_factory" else None
    return first


def _modules(module: griffe.Module) -> list[griffe.Module]:
    below = [one for one in module.modules.values() if not one.is_alias]
    return [module, *(deeper for one in below for deeper in _modules(one))]


def _complete(cls: griffe.Class, loader: griffe.GriffeLoader) -> None:
    """Give a class the signature that it has once it is imported, with the types that stand in the source."""
    made = getattr(importlib.import_module(cls.module.path), cls.name)
    if "__signature__" not in vars(made):
        return
    parts = [loader.modules_collection[f"{part.__module__}.{part.__name__}"] for part in made.part_classes]
    known: dict[str, griffe.Parameter] = {}
    for one in (cls, *cls.mro(), *parts):
        if "__init__" in one.members:
            known = {**{parameter.name: parameter for parameter in one.members["__init__"].parameters}, **known}
    parameters = griffe.Parameters(griffe.Parameter("self", kind=griffe.ParameterKind.positional_or_keyword))
    for name, parameter in inspect.signature(made).parameters.items():
        kind = griffe.ParameterKind(parameter.kind.description)
        source = known.get(name, griffe.Parameter(name, annotation="Any", default="None"))
        parameters.add(griffe.Parameter(name, annotation=source.annotation, kind=kind, default=source.default))
    cls.set_member("__init__", griffe.Function("__init__", parameters=parameters))


def _link(obj: griffe.Object, paths: dict[str, str]) -> None:
    """Link the classes that a docstring names, and those of what is inside; no link where no page has the class."""

    def link(found: re.Match[str]) -> str:
        name, _, member = found[1].partition(".")
        if name not in paths or name == obj.name:
            return found[0]
        path = f"{paths[name]}.{member}".rstrip(".")
        return f'<autoref optional identifier="{path}"><code>{found[1]}</code></autoref>'

    if obj.docstring is not None:
        lines, in_items = [], False
        for line in obj.docstring.value.split("\n"):
            is_indented = line.startswith("    ")
            if line and not is_indented:
                in_items = _HEAD.match(line) is not None
            # What is indented outside of a list is a formula or an example.
            lines.append(line if is_indented and not in_items else _NAME.sub(link, line))
        obj.docstring.value = "\n".join(lines)
    for one in obj.members.values():
        if isinstance(one, griffe.Object) and not one.is_module:
            _link(one, paths)
