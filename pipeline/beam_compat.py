"""Stands in for `tfx_bsl.arrow.sql_util` where the installed tfx-bsl does not have it.

TensorFlow Data Validation 1.16 (Python 3.11 on glibc older than 2.39) imports a module that tfx-bsl dropped after 1.16.
`import tfx` mends that in its own process; Beam's worker processes import no tfx. They import this module, because the
pipeline passes it as `--beam_plugin`. Where a real sql_util exists it is the one that is used.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

MODULE = "tfx_bsl.arrow.sql_util"


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """A finder at the end of sys.meta_path: Python asks it only when no other finder has the module."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        return importlib.machinery.ModuleSpec(fullname, self) if fullname == MODULE else None

    def exec_module(self, module: ModuleType) -> None:
        def refuse(*_: Any, **__: Any) -> Any:
            raise NotImplementedError("slicing statistics by SQL needs tensorflow-data-validation 1.17 or newer")

        # TFDV names RecordBatchSQLSliceQuery in annotations, which it needs at import. It calls it for SQL slices only.
        module.__dict__["RecordBatchSQLSliceQuery"] = refuse


def install() -> None:
    """Appends the finder; a second call changes nothing."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.append(_Finder())


# Beam imports a plugin and calls nothing in it, so the finder is installed when this module is imported.
install()
