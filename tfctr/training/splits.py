"""The two splits that a training reads: their files, the assets of the features and the copies of the rows."""

from __future__ import annotations

from pathlib import Path

from tfctr.console import console, step
from tfctr.data.analyze import analyze
from tfctr.data.columnar import remove_other_copies
from tfctr.data.keys import rows_key
from tfctr.data.log import checked_rows
from tfctr.data.sources import split_files
from tfctr.features.assets import FeatureAssets, given_files
from tfctr.features.spec import FeatureFile
from tfctr.features.transform import FileLookups, RawFunction
from tfctr.storage import exists, join
from tfctr.training.dataset import RankingData
from tfctr.training.workers import Workers


def read_paths(data: str | Path) -> dict[str, list[str]]:
    """The files of the two splits that a training reads: `train` and `valid`, never `test`."""
    return {split: split_files(data, split) for split in ("train", "valid")}


def given_paths(file: FeatureFile, data: str | Path) -> list[str]:
    """The files beside the rows that a feature file names, where they lie in the data directory."""
    return [place for path in given_files(file) if exists(place := join(data, path))]


def read_splits(
    workers: Workers, file: FeatureFile, data: str | Path, paths: dict[str, list[str]], out: Path
) -> tuple[FeatureAssets, dict[str, RankingData]]:
    """The assets and the rows of each split, which the chief makes first, for those that share its directory.

    Args:
        workers: The processes that train together.
        file: The feature file.
        data: The data directory.
        paths: What `read_paths` finds in it.
        out: The workspace that the assets and the copies of the rows lie in.
    """
    given = given_paths(file, data)
    # The chief's keys: a worker that shares its directory would else remove the copies of the chief, where its own log
    # is another copy.
    keys = workers.said([rows_key(file, one) for one in ([*paths["train"], *given], *paths.values())])

    def made() -> tuple[FeatureAssets, dict[str, RankingData]]:
        assets = _assets(file, paths["train"], data, out / f"assets-{keys[0]}")
        named = dict(zip(paths, keys[1:], strict=True))
        return assets, {split: _rows(file, assets, split, found, out, named[split]) for split, found in paths.items()}

    found = made() if workers.chief else None
    workers.said(None)
    assets, splits = found or made()
    workers.check_same("the data", [assets.fingerprint, *map(len, splits.values())])
    return assets, splits


def _assets(file: FeatureFile, paths: list[str], data: str | Path, directory: Path) -> FeatureAssets:
    """Feature assets of exactly this feature file and these rows, made when they aren't there."""
    if directory.is_dir():
        console().print("features: analyzed before, nothing has changed", markup=False)
        return FeatureAssets(directory)
    with step("features: learning vocabularies and statistics"):
        return analyze(file, paths, directory, data)


def _rows(file: FeatureFile, assets: FeatureAssets, split: str, paths: list[str], out: Path, key: str) -> RankingData:
    """The rows of a split, from their columnar copy; copies of other rows are removed."""
    copy = out / "rows" / f"{split}-{key}-{assets.fingerprint[:16]}"
    rows = RankingData.of_log(file, paths, RawFunction(file, FileLookups(assets)), copy, training=split == "train")
    remove_other_copies(copy, split)
    return rows


def check_split_once(file: FeatureFile, data: str | Path, split: str, directory: Path) -> None:
    """Checks every row of a split, unless it passed before with the same files.

    Args:
        directory: Where the note is left that it passed.

    Raises:
        UserError: what is wrong, in which row of which file.
    """
    paths = split_files(data, split)
    note = directory / f"checked-{split}-{rows_key(file, paths)}"
    if note.exists():
        return
    for _ in checked_rows(file, paths, f"checking {split}", training=split == "train"):
        pass
    for old in directory.glob(f"checked-{split}-*"):
        old.unlink(missing_ok=True)
    directory.mkdir(parents=True, exist_ok=True)
    note.touch()
