"""A data set as `tfctr train` reads it, for benchmarks that train by `run_training`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tfctr.features import FeatureFile
    from tfctr.features.assets import FeatureAssets
    from tfctr.training.dataset import RankingData


def prepared(data: Path, file: FeatureFile, place: Path) -> tuple[FeatureAssets, list[RankingData]]:
    """What is learned of the train split, and the rows of train, valid and test, made once in a directory."""
    from tfctr.data.analyze import analyze
    from tfctr.data.sources import split_files
    from tfctr.features.assets import FeatureAssets
    from tfctr.features.transform import FileLookups, RawFunction
    from tfctr.training.dataset import RankingData

    if not (place / "assets").exists():
        analyze(file, split_files(data, "train"), place / "assets", data)
    assets = FeatureAssets(place / "assets")
    function = RawFunction(file, FileLookups(assets))
    splits = ("train", "valid", "test")
    return assets, [RankingData.of_log(file, split_files(data, one), function, place / f"rows-{one}") for one in splits]
