"""A Pusher by which a server that watches the directory never sees an incomplete version.

TFX's own copies file by file into the directory that the server watches.
"""

# No `from __future__ import annotations`: TFX reads the annotations of a component function as objects.
import hashlib
import shutil
import time
from pathlib import Path

from tfx import v1 as tfx
from tfx.components.util import model_utils
from tfx.utils import path_utils

from pipeline.evaluation import blessing_reasons
from tfctr.storage import new_directory

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
    pushed_model.set_string_custom_property("pushed_destination", str(version))
    pushed_model.set_string_custom_property("pushed_version", version.name)
    message = f"pushed to {version}" if is_new else f"this very model already stands at {version}"
    pushed_model.set_string_custom_property("message", message)


def push(source: str | Path, destination: str | Path) -> tuple[Path, bool]:
    """Copies a SavedModel to a new version under `destination`, which appears only when it is complete.

    The copy gets a name that is not a number, so model servers pass it by; every file and directory is fsynced, and one
    rename makes the version appear. When the newest version holds the same bytes, nothing is copied.

    Args:
        source: The SavedModel.
        destination: The directory with the numbered versions.

    Returns:
        The version's directory, and whether it is new.
    """
    destination = Path(destination)
    destination.mkdir(parents=True, exist_ok=True)
    for leftover in destination.glob(".*.partial"):
        shutil.rmtree(leftover)
    versions = sorted(int(path.name) for path in destination.iterdir() if path.name.isdigit())
    newest = destination / str(versions[-1]) if versions else None
    if newest is not None and _digest(newest) == _digest(Path(source)):
        return newest, False
    # Seconds since 1970, as tools of model servers expect, and greater than every version that is there.
    version = max(int(time.time()), versions[-1] + 1 if versions else 0)
    final = destination / str(version)
    with new_directory(final) as unfinished:
        shutil.copytree(source, unfinished, dirs_exist_ok=True)
    return final, True


def _digest(directory: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(p for p in directory.rglob("*") if p.is_file()):
        digest.update(str(path.relative_to(directory)).encode())
        with path.open("rb") as content:
            digest.update(hashlib.file_digest(content, "sha256").digest())
    return digest.hexdigest()
