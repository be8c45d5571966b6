"""Imports TensorFlow without its start-up notes."""

import importlib
import os
import sys
import tempfile

LEVEL = "TF_CPP_MIN_LOG_LEVEL"


def import_tensorflow() -> None:
    """Imports TensorFlow; what it writes to the error stream meanwhile is shown only when the import fails.

    Its C++ libraries write notes on oneDNN and missing GPUs before the log level that `tfctr` sets takes effect. Who
    sets TF_CPP_MIN_LOG_LEVEL=0 sees everything.
    """
    if "tensorflow" in sys.modules or os.environ.get(LEVEL, "0") == "0":
        return
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as notes:
        os.dup2(notes.fileno(), 2)
        try:
            importlib.import_module("tensorflow")
        except BaseException:
            notes.seek(0)
            os.write(stderr, notes.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
