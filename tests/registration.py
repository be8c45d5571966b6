"""Registrations that last for one test."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from unittest import mock

import keras

from tfctr.layers.export import EXPORTED
from tfctr.layers.registry import Registry


@contextmanager
def registrations_undone(*registries: Registry) -> Iterator[None]:
    """Undo at the end of the block what it has registered, in these registries and for Keras."""
    with ExitStack() as stack:
        for table in (*registries, EXPORTED, keras.saving.get_custom_objects()):
            stack.enter_context(mock.patch.dict(table))
        yield
