"""The decorator by which a saved model finds a class or function under its name."""

from collections.abc import Callable
from typing import Any, TypeVar

import keras

PACKAGE = "tfctr"
EXPORTED: dict[str, Callable[..., Any]] = {}
"""Everything that `tfctr_export` has registered, by its plain name."""

Exported = TypeVar("Exported", bound=Callable[..., Any])


def tfctr_export(item: Exported) -> Exported:
    """Register a class or function for Keras serialization as `tfctr>Name`, and list it in `EXPORTED`.

    A saved `.keras` file then loads without `custom_objects`, once the module that defines the class is imported.

    Raises:
        ValueError: if another class or function already uses the name; a saved model would load the wrong one.
    """
    name = item.__name__
    known = EXPORTED.get(name)
    if known is not None and (known.__module__, known.__qualname__) != (item.__module__, item.__qualname__):
        raise ValueError(f"`{name}` is already exported by {known.__module__}. Received: {item.__module__}.{name}")
    keras.saving.register_keras_serializable(package=PACKAGE)(item)
    EXPORTED[name] = item
    return item
