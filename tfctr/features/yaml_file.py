"""Reads YAML files that people write, and says what is wrong in them."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)
from pydantic_core import CoreSchema, InitErrorDetails, PydanticCustomError, core_schema

from tfctr.errors import UserError

Name = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$")]
"""A name that a user gives: letters, digits and underscores, a letter first."""

_Model = TypeVar("_Model", bound=BaseModel)


class _UniqueKeyLoader(yaml.SafeLoader):
    """YAML silently keeps the last of two equal keys; a feature file with a copy-paste slip must not."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                raise yaml.constructor.ConstructorError(None, None, "a key must be a name", key_node.start_mark)
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
    content = parse_yaml(text, path)
    if not isinstance(content, dict):
        raise UserError(f"{path}: must be a mapping of keys. Received: {type(content).__name__}")
    return content


def parse_yaml(text: str, origin: str | Path) -> Any:
    """Parses YAML; a syntax error or a repeated key is a `UserError` with its line.

    Args:
        text: The YAML.
        origin: Where it stands, for messages.
    """
    try:
        return yaml.load(text, Loader=_UniqueKeyLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise UserError(f"{origin}{where}: not valid YAML: {getattr(error, 'problem', error)}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{origin}: not valid YAML: {str(error).splitlines()[0]}") from None


class Strict(BaseModel):
    """A mapping of a file that people write: an unknown key is an error that says which keys there are."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, value: Any) -> Any:
        if isinstance(value, Mapping):
            allowed = ", ".join(sorted(cls.model_fields))
            problem = PydanticCustomError("unknown_key", "unknown key. Allowed: {allowed}", {"allowed": allowed})
            unknown = [key for key in value if key not in cls.model_fields]
            if unknown:
                lines = [InitErrorDetails(type=problem, loc=(key,), input=value[key]) for key in unknown]
                raise ValidationError.from_exception_data(cls.__name__, lines)
            yes_or_no = [key for key, one in value.items() if isinstance(one, bool) and cls._is_number(key)]
            if yes_or_no:
                # Which pydantic takes for 1 or 0.
                problem = PydanticCustomError("value_error", "must be a number, and not true or false")
                lines = [InitErrorDetails(type=problem, loc=(key,), input=value[key]) for key in yes_or_no]
                raise ValidationError.from_exception_data(cls.__name__, lines)
        return value

    @classmethod
    def _is_number(cls, key: str) -> bool:
        allowed = set(_alternatives(cls.model_fields[key].annotation))
        return bool(allowed & {int, float}) and bool not in allowed


def _alternatives(annotation: Any) -> Iterator[Any]:
    """The types that an annotation allows side by side."""
    if get_origin(annotation) is Annotated:
        yield from _alternatives(get_args(annotation)[0])
    elif get_origin(annotation) in (Union, UnionType):
        for one in get_args(annotation):
            yield from _alternatives(one)
    else:
        yield annotation


def either(wanted: str) -> WrapValidator:
    """An annotation of a key that allows several types: what is wrong is told once, under the key's own path.

    pydantic tells it once for each type, under a path that ends with the type.

    Args:
        wanted: What is allowed, for the message.
    """

    def check(value: Any, validate: ValidatorFunctionWrapHandler) -> Any:
        try:
            return validate(value)
        except ValidationError:
            raise ValueError(f"must be {wanted}. Received: {value!r}") from None

    return WrapValidator(check)


def registered_name(model: type[BaseModel], key: str) -> str:
    """The one value that a model allows for a key, by which `OneOf` chooses it."""
    (name,) = get_args(model.model_fields[key].annotation)
    return str(name)


class OneOf:
    """An annotation: a mapping whose `key` names one of several models of a table, which may grow.

    Args:
        table: The models by name.
        key: The key that names the model.
        default: The name where the key is left out; None where it is required.
    """

    def __init__(self, table: Mapping[str, type[BaseModel]], key: str, default: str | None = None) -> None:
        self.table, self.key, self.default = table, key, default

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self._validate)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"oneOf": [handler(model.__pydantic_core_schema__) for model in self.table.values()]}

    def _validate(self, value: Any) -> BaseModel:
        if isinstance(value, BaseModel) and type(value) in self.table.values():
            return value
        if not isinstance(value, Mapping):
            raise ValueError(f"must be a mapping of keys. Received: {value!r}")
        name = value.get(self.key, self.default)
        if not isinstance(name, str) or name not in self.table:
            received = "nothing" if name is None else repr(name)
            raise ValueError(f"{self.key} must be one of {', '.join(self.table)}. Received: {received}")
        return self.table[name].model_validate({self.key: name, **value})


def checked(model: type[_Model], content: Any, where: str | Path) -> _Model:
    """What a file holds, as its model.

    Args:
        model: The class that says what is allowed.
        content: The content of the file.
        where: The file, for messages.

    Raises:
        UserError: one line an error: file, path inside it, what is wrong, what is allowed.
    """
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise UserError(describe_validation_error(where, error)) from None


def describe_validation_error(path: str | Path, error: ValidationError) -> str:
    """One line an error: file, path inside it, what is wrong, what is allowed."""
    lines = []
    for problem in error.errors():
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "missing":
            message = "is required"
        elif problem["type"] not in ("value_error", "unknown_key"):
            message = f"{message}. Received: {problem['input']!r}"
        place = ".".join(map(str, problem["loc"]))
        lines.append(f"{path}: {place + ': ' if place else ''}{message}")
    return "\n".join(lines)
