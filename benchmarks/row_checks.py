"""What checking the rows of a log costs beside reading and analyzing it: `python -m benchmarks.row_checks`."""

import sys
import tempfile
import time
from pathlib import Path

from tfctr.data.analyze import analyze
from tfctr.data.log import checked_rows
from tfctr.data.sources import split_files
from tfctr.data.synthesize import synthesize
from tfctr.data.synthetic_world import Settings
from tfctr.features import load_feature_file
from tfctr.features.row_checks import SplitCheck

FILE = Path(__file__).parents[1] / "configs" / "synthetic.yaml"


def main() -> None:
    """Prints seconds and shares; the check is timed alone, over batches that are kept."""
    file = load_feature_file(FILE)
    with tempfile.TemporaryDirectory() as directory:
        data = Path(directory) / "data"
        synthesize(data, Settings(rows=100_000))
        paths = split_files(data, "train")
        started = time.process_time()
        kept = list(checked_rows(file, paths, "reading", training=True))
        reading = time.process_time() - started
        check = SplitCheck(file, "train")
        started = time.process_time()
        for rows in kept:
            check.add(rows.columns)
        checking = time.process_time() - started
        started = time.process_time()
        analyze(file, paths, Path(directory) / "assets", data)
        analyzing = time.process_time() - started
    sys.stdout.write(
        f"{check.rows:,} rows, processor time: reading {reading:.2f} s, of which checks {checking:.3f} s "
        f"({checking / reading:.1%}); analysis in all {analyzing:.2f} s\n"
    )


if __name__ == "__main__":
    main()
