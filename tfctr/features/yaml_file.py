"""Reads YAML files that people write, and says what is wrong in them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from tfctr.errors import UserError


class _UniqueKeyLoader(yaml.SafeLoader):
    """YAML silently keeps the last of two equal keys; a feature file with a copy-paste slip must not."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key '{key}' stands twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


def load_yaml(path: str | Path) -> dict[str, Any]:
    """Reads a YAML mapping; a missing file, a syntax error or a repeated key is a `UserError` with its line."""
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: can't be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: is not UTF-8 text") from None
    try:
        content = yaml.load(text, Loader=_UniqueKeyLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise UserError(f"{path}{where}: not valid YAML: {getattr(error, 'problem', error)}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: must be a mapping of keys. Received: {type(content).__name__}")
    return content


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    """The models that a field's annotation mentions: dict[Name, A | B] gives A and B."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in _models_in(argument)]


def _allowed_keys(model: type[BaseModel], location: Iterable[Any]) -> list[str]:
    """The keys that a model allows at a place."""
    models = [model]
    for part in location:
        below = [m for one in models if part in one.model_fields for m in _models_in(one.model_fields[part].annotation)]
        # Any other part is the key of a mapping, an index, or the member of a union that pydantic chose.
        chosen = [m for m in models if any(part in get_args(f.annotation) for f in m.model_fields.values())]
        models = below or chosen or models
    return sorted({key for one in models for key in one.model_fields})


def describe_validation_error(path: str | Path, error: ValidationError, model: type[BaseModel]) -> str:
    """One line an error: file, path inside it, what is wrong, what is allowed."""
    lines = []
    for problem in error.errors():
        # pydantic names the chosen member of a union inside the path; a reader of the file has never seen those names.
        tags = {"categorical", "numeric", "frozen", "event_time", "learned", "hash", "file", "identity"}
        location = list(problem["loc"])
        kept = [str(p) for i, p in enumerate(location) if not (p in tags and i > 1)]
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            message = f"unknown key. Allowed: {', '.join(_allowed_keys(model, location[:-1]))}"
        elif problem["type"] == "missing":
            message = "is required"
        elif not message.startswith(tuple("abcdefghijklmnopqrstuvwxyz")) and problem["type"] != "value_error":
            message = f"{message}. Received: {problem['input']!r}"
        lines.append(f"{path}: {'.'.join(kept) + ': ' if kept else ''}{message}")
    return "\n".join(lines)
