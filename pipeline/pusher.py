"""A Pusher by which a server that watches the directory never sees an incomplete version.

TFX's own copies file by file into the directory that the server watches.
"""

# No `from __future__ import annotations`: TFX reads the annotations of a component function as objects.
import shutil
import time
from pathlib import Path

from tfx import v1 as tfx
from tfx.components.util import model_utils
from tfx.utils import path_utils

from pipeline.evaluation import blessing_reasons
from tfctr.storage import check_place, digest, is_remote, join, local_copy, names, new_version

_TYPES = tfx.types.standard_artifacts


@tfx.dsl.components.component
def AtomicPusher(  # noqa: N802
    model: tfx.dsl.components.InputArtifact[_TYPES.Model],
    blessing: tfx.dsl.components.InputArtifact[_TYPES.ModelBlessing],
    evaluation: tfx.dsl.components.InputArtifact[_TYPES.ModelEvaluation],
    pushed_model: tfx.dsl.components.OutputArtifact[_TYPES.PushedModel],
    destination: tfx.dsl.components.Parameter[str],
) -> None:
    """Copies a blessed model to the next version of `destination`; otherwise says why not.

    Args:
        model: The trained model.
        blessing: The Evaluator's verdict.
        evaluation: What the Evaluator measured, for the reasons.
        pushed_model: Custom properties tell: `pushed` 0 or 1, `pushed_destination`, `pushed_version`, `message`.
        destination: The directory a model server watches.
    """
    if not model_utils.is_model_blessed(blessing):
        reasons = "; ".join(blessing_reasons(evaluation.uri))
        pushed_model.set_int_custom_property("pushed", 0)
        pushed_model.set_string_custom_property("message", f"not pushed: {reasons}")
        return
    version, is_new = push(path_utils.serving_model_path(model.uri), destination)
    pushed_model.set_int_custom_property("pushed", 1)
    pushed_model.set_string_custom_property("pushed_destination", version)
    pushed_model.set_string_custom_property("pushed_version", version.rpartition("/")[2])
    message = f"pushed to {version}" if is_new else f"this very model already stands at {version}"
    pushed_model.set_string_custom_property("message", message)


def push(source: str | Path, destination: str | Path) -> tuple[str, bool]:
    """Copies a SavedModel to a new version under `destination`, which appears only when it is complete.

    On disk the copy gets a name that is not a number, so model servers pass it by; every file and directory is fsynced,
    and one rename makes the version appear. In a store every file is read back, and `saved_model.pb`, without which no
    server loads a version, comes last. When the newest version holds the same bytes, nothing is copied.

    Args:
        source: The SavedModel.
        destination: The directory with the numbered versions, on disk or in a store.

    Returns:
        The version's place, and whether it is new.

    Raises:
        UserError: there is no such store, it refuses, or what it gives back is not what was sent.
    """
    check_place(destination)
    if not is_remote(destination):
        for leftover in Path(destination).glob(".*.partial"):
            shutil.rmtree(leftover)
    versions = sorted(int(name) for name in names(destination) if name.isdigit())
    with local_copy(source) as model:
        if versions and (newest := join(destination, str(versions[-1]))):
            with local_copy(newest) as there:
                if digest(there) == digest(model):
                    return newest, False
        # Seconds since 1970, as tools of model servers expect, and greater than every version that is there.
        version = join(destination, str(max(int(time.time()), versions[-1] + 1 if versions else 0)))
        with new_version(version) as unfinished:
            shutil.copytree(model, unfinished, dirs_exist_ok=True)
    return version, True
