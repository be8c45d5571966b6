"""The directory of a run of `tfctr train`: assets, checkpoints, and a note of what was trained on what."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfctr.console import console, step
from tfctr.data.splits import split_records
from tfctr.errors import UserError
from tfctr.features.analyze import analyze
from tfctr.features.assets import FeatureAssets, given_files
from tfctr.features.checked_log import checked_rows
from tfctr.features.spec import FeatureFile
from tfctr.features.transform import FileLookups, RawFunction
from tfctr.models.model import RankingModel, build_model
from tfctr.storage import write_text
from tfctr.training.dataset import RankingData, read_records
from tfctr.training.experiment import Experiment
from tfctr.training.run import TrainingResult, run_training

_NOTE = "run.json"
_CHECKS = 1  # another number when rows are checked for more, so that earlier data is read for it again


@dataclass(frozen=True)
class FinishedRun:
    """A trained model as it lies in a workspace."""

    model: RankingModel
    assets: FeatureAssets
    experiment: Experiment
    history: list[dict[str, float]]
    data: Path


def train_in_workspace(file: FeatureFile, experiment: Experiment, data: str | Path, out: str | Path) -> TrainingResult:
    """Analyzes the training split (once), trains, and leaves what `finished_run` needs.

    Args:
        data: A data directory with train/ and valid/.
        out: The workspace; a killed run of the same experiment in it is continued.
    """
    out = Path(out)
    experiment.model_config_of().interests_of(file)
    records = {split: split_records(data, split) for split in ("train", "valid")}
    assets = _assets(file, records["train"], Path(data), out)
    check_split_once(file, data, "valid", out)
    function = RawFunction(file, FileLookups(assets))
    splits = {split: RankingData(paths, file, function) for split, paths in records.items()}
    rows = _key(file, [path for paths in records.values() for path in paths])
    result = run_training(assets, experiment, splits["train"], splits["valid"], out / "runs" / rows)
    # Weights have a name of their own and the note that names them is replaced in one go: a kill in between leaves the
    # finished run that was there before.
    weights = out / f"{experiment.fingerprint()}-{assets.fingerprint()[:16]}-{rows}.weights.h5"
    result.model.save_weights(weights)
    note = {
        "weights": weights.name,
        "experiment": experiment.model_dump(mode="json"),
        "assets": assets.directory.name,
        "history": result.progress.history,
        "data": str(Path(data).resolve()),
        "examples": [next(iter(read_records(records["valid"]))).numpy().hex()],
    }
    write_text(out / _NOTE, json.dumps(note, indent=1))
    for old in out.glob("*.weights.h5"):
        if old != weights:
            old.unlink(missing_ok=True)
    return result


def finished_run(workspace: str | Path) -> tuple[FinishedRun, bytes]:
    """The model that a workspace holds, and one raw example for its warm-up requests.

    Raises:
        UserError: when no run has finished there, or what it left can't be read.
    """
    workspace = Path(workspace)
    note = workspace / _NOTE
    if not note.is_file():
        raise UserError(f"{workspace}: holds no finished run; train one with `tfctr train --out {workspace}`")
    try:
        content = json.loads(note.read_text(encoding="utf-8"))
        experiment = Experiment.model_validate(content["experiment"])
        assets = FeatureAssets(workspace / content["assets"])
        model = build_model(assets, experiment.model_config_of(), dtype=experiment.training.dtype)
        model.load_weights(workspace / content["weights"])
        run = FinishedRun(model, assets, experiment, content["history"], Path(content["data"]))
        return run, bytes.fromhex(content["examples"][0])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{workspace}: the finished run can't be read ({type(error).__name__}: {str(error).splitlines()[0]}); "
            "run `tfctr train` with the same arguments again, which writes it anew from its checkpoints"
        ) from None


def _assets(file: FeatureFile, records: list[str], data: Path, out: Path) -> FeatureAssets:
    """Feature assets of exactly this feature file and these records, made when they aren't there."""
    given = [str(data / path) for path in given_files(file) if (data / path).is_file()]
    directory = out / f"assets-{_key(file, [*records, *given])}"
    if directory.is_dir():
        console().print("features: analyzed before, nothing has changed", markup=False)
        return FeatureAssets(directory)
    with step("features: learning vocabularies and statistics"):
        return analyze(file, records, directory, data)


def check_split_once(file: FeatureFile, data: str | Path, split: str, directory: Path) -> None:
    """Checks every row of a split, unless it passed before with the same files.

    Args:
        directory: Where the note is left that it passed.

    Raises:
        UserError: what is wrong, in which record of which file.
    """
    records = split_records(data, split)
    note = directory / f"checked-{split}-{_key(file, records)}"
    if note.exists():
        return
    for _ in checked_rows(file, records, f"checking {split}", training=split == "train"):
        pass
    for old in directory.glob(f"checked-{split}-*"):
        old.unlink(missing_ok=True)
    directory.mkdir(parents=True, exist_ok=True)
    note.touch()


def _key(file: FeatureFile, paths: list[str]) -> str:
    """Another one for another feature file, and when one of the files has changed."""
    seen: list[Any] = [_CHECKS]
    # The time of the last change of the file's entry can't be set, as that of its content can by copying.
    states = [Path(path).stat() for path in paths]
    seen += [[p, s.st_size, s.st_mtime_ns, s.st_ctime_ns] for p, s in zip(paths, states, strict=True)]
    return hashlib.sha256((file.model_dump_json(exclude_unset=True) + json.dumps(seen)).encode()).hexdigest()[:16]
