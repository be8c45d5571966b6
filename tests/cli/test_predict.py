"""`tfctr predict`: keys beside scores, whatever the format; a killed run is continued; a refused one leaves nothing."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf

from tests.cli.conftest import Desk, Ran
from tests.records import write_records
from tests.tables import table_of, write_csv, write_parquet
from tests.workbench import ROOT, Workbench
from tfctr.data.sources import files_of, parquet, split_files
from tfctr.export.describe import describe
from tfctr.metrics import reference
from tfctr.storage import only_one
from tfctr.training import scores
from tfctr.training.served import ServedModel

pytestmark = pytest.mark.slow

Call = Callable[..., Ran]
KEYS = ("--keys", "request_id,item_id")


@pytest.fixture(scope="module")
def table(workbench: Workbench) -> pa.Table:
    """The test split, with a column that no feature file names."""
    found = table_of(split_files(workbench.data, "test"), workbench.file)
    return found.append_column("row", pa.array(range(len(found))))


@pytest.fixture
def log(table: pa.Table, tmp_path: Path) -> Path:
    """A directory with the test split in two Parquet files."""
    half = len(table) // 2
    write_parquet(tmp_path / "log" / "a.parquet", table[:half])
    write_parquet(tmp_path / "log" / "b.parquet", table[half:])
    return tmp_path / "log"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / "scores.parquet"


@pytest.fixture
def predict(tfctr: Call, desk: Desk, out: Path) -> Call:
    def call(data: Path, *more: object, model: Path = desk.model) -> Ran:
        return tfctr("predict", "--model", model, "--data", data, "--out", out, *more)

    return call


class TestOutput:
    def test_metrics_of_the_file_are_those_of_evaluate(
        self, tfctr: Call, predict: Call, desk: Desk, out: Path, table: pa.Table
    ) -> None:
        ran = predict(desk.data, *KEYS)
        assert f"{len(table):,} rows scored" in ran.output
        found = pq.read_table(out)
        assert found.column_names == ["request_id", "item_id", "label", "user_id", "score"]
        assert found.drop("score").equals(table.select(found.column_names[:-1]))
        overall, *_ = json.loads(tfctr("evaluate", "--model", desk.model, "--data", desk.data, "--json").output)
        labels, groups, predicted = (found[name].to_numpy() for name in ("label", "user_id", "score"))
        assert overall["slice"] == "overall"
        assert reference.auc(labels, predicted) == pytest.approx(overall["auc"], abs=1e-12)
        assert reference.gauc(labels, predicted, groups, "clicks").value == pytest.approx(overall["gauc"], abs=1e-12)
        assert reference.logloss(labels, predicted) == pytest.approx(overall["logloss"], abs=1e-12)
        assert [path.name for path in out.parent.iterdir()] == [out.name]

    @pytest.mark.parametrize("write", ["a.parquet", "a.csv", "a.csv.gz"])
    def test_every_format_has_the_same_scores(
        self, predict: Call, desk: Desk, tmp_path: Path, out: Path, table: pa.Table, write: str
    ) -> None:
        predict(desk.data, *KEYS)
        expected = pq.read_table(out)
        writer = write_parquet if write.endswith(".parquet") else write_csv
        writer(tmp_path / "log" / write, table)
        predict(tmp_path / "log", *KEYS)
        assert pq.read_table(out).equals(expected)

    def test_of_a_split(self, predict: Call, desk: Desk, workbench: Workbench, out: Path) -> None:
        predict(desk.data, "--split", "valid")
        found = pq.read_table(out)
        assert found.column_names == ["label", "user_id", "score"]
        assert found["label"].equals(table_of(split_files(desk.data, "valid"), workbench.file)["label"])

    def test_without_labels(self, predict: Call, log: Path, tmp_path: Path, out: Path, table: pa.Table) -> None:
        predict(log)
        expected = pq.read_table(out)
        half, lacking = len(table) // 2, table.drop(["label", "user_activity", "position"])
        write_parquet(tmp_path / "new" / "a.parquet", lacking[:half])
        write_parquet(tmp_path / "new" / "b.parquet", lacking[half:])
        predict(tmp_path / "new")
        found = pq.read_table(out)
        np.testing.assert_array_equal(found["score"], expected["score"])
        assert found["label"].null_count == len(found)
        assert found["user_id"].equals(expected["user_id"])

    def test_keys_keep_their_type(self, predict: Call, log: Path, tmp_path: Path, out: Path, table: pa.Table) -> None:
        predict(log, "--keys", "row,gender")
        found = pq.read_table(out)
        assert (found.schema.field("row").type, found.schema.field("gender").type) == (pa.int64(), pa.string())
        assert found["row"].to_pylist() == list(range(len(table)))
        texts = table.append_column("name", pa.array([None if row == 3 else f"é{row}" for row in range(len(table))]))
        write_parquet(tmp_path / "more" / "a.parquet", texts)
        predict(tmp_path / "more", "--keys", "name")
        assert pq.read_table(out)["name"].equals(texts["name"])

    def test_a_key_whose_first_file_has_no_value(
        self, predict: Call, tmp_path: Path, out: Path, table: pa.Table
    ) -> None:
        missing, texts = [None] * len(table), [f"r{row}" for row in range(len(table))]
        for number, values in enumerate((pa.nulls(len(table)), pa.array(texts), pa.nulls(len(table)))):
            write_parquet(tmp_path / "more" / f"{number}.parquet", table.append_column("name", values))
        assert predict(tmp_path / "more", "--keys", "name").error is None
        assert pq.read_table(out)["name"].to_pylist() == [*missing, *texts, *missing]

    @pytest.mark.parametrize(
        "values",
        [
            pa.array([0.1, None, 1e300]),
            pa.array([1, None, 2**64 - 1], pa.uint64()),
            pa.array([datetime(2024, 1, day, 12, 30, tzinfo=UTC) for day in (1, 2, 3)], pa.timestamp("us", "UTC")),
            pa.array([date(2024, 1, 1), None, date(1960, 2, 3)]),
            pa.array([Decimal("1.50"), None, Decimal("-7.25")]),
            pa.array([True, None, False]),
            pa.array([b"\xff", None, b""]),
        ],
        ids=lambda values: str(values.type),
    )
    def test_keys_are_written_as_they_are(
        self, predict: Call, tmp_path: Path, out: Path, table: pa.Table, values: pa.Array
    ) -> None:
        few = table[:3].append_column("key", values)
        write_parquet(tmp_path / "log" / "a.parquet", few[:2])
        write_parquet(tmp_path / "log" / "b.parquet", few[2:])
        assert predict(tmp_path / "log", "--keys", "key").error is None
        assert pq.read_table(out)["key"].combine_chunks().equals(values)

    def test_records_may_lack_a_column(
        self, predict: Call, desk: Desk, tmp_path: Path, out: Path, table: pa.Table, capfd: pytest.CaptureFixture[str]
    ) -> None:
        """Any number of records, and whole files, where a table must have it."""
        file = describe(desk.model).feature_file
        few = table[:40].to_pylist()
        for row, one in enumerate(few):
            one["day"] = [row] if row >= 30 else None
            one["year"] = one["year"] if row >= 30 else None
        write_records(tmp_path / "log" / "a.tfrecord", few[:20])
        write_records(tmp_path / "log" / "b.tfrecord", few[20:])
        scores.write_scores(desk.model, file, files_of(tmp_path / "log"), out, ["day"])
        assert pq.read_table(out)["day"].to_pylist() == [None] * 30 + list(range(30, 40))
        assert "warning" not in capfd.readouterr().err
        assert "the log has no column 'nope'" in str(predict(tmp_path / "log", "--keys", "nope").error)
        write_records(tmp_path / "log" / "b.tfrecord", few[:20])
        scores.write_scores(desk.model, file, files_of(tmp_path / "log"), out, [])
        assert "warning: no row has a value of year, which the model reads" in capfd.readouterr().err


def change_weights(model: Path, factor: float) -> None:
    loaded = tf.saved_model.load(str(model))
    for variable in loaded.signatures["serving_default"].graph.variables:
        if variable.dtype == tf.float32:
            variable.assign(variable * factor)
    tf.train.Checkpoint(loaded).write(str(model / "variables" / "variables"))


def interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


class TestContinued:
    PIECE, PART = 16, 40

    @pytest.fixture(autouse=True)
    def small(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Parts of three pieces."""
        monkeypatch.setattr(parquet, "ROWS", self.PIECE)
        monkeypatch.setattr(scores, "_PART_ROWS", self.PART)

    @pytest.fixture
    def model(self, desk: Desk, tmp_path: Path) -> Path:
        return Path(shutil.copytree(desk.model, tmp_path / "model"))

    def interrupted(self, name: str, stop: Callable[..., None], model: Path, log: Path, out: Path) -> None:
        """A run with the key `row`, interrupted in a step."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(scores, name, stop)
            with pytest.raises(KeyboardInterrupt):
                scores.write_scores(model, describe(model).feature_file, files_of(log), out, ["row"])
        assert [path.name for path in out.parent.iterdir()] == [f".{out.name}.parts"]

    def test_only_what_is_missing_is_scored(
        self, predict: Call, model: Path, log: Path, out: Path, table: pa.Table, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        predict(log, "--keys", "row", model=model)
        whole = out.read_bytes()
        out.unlink()
        write = scores._write_part

        def third(parts: Path, *part: Any) -> None:
            interrupt() if len(list(parts.glob("*.parquet"))) == 2 else write(parts, *part)

        self.interrupted("_write_part", third, model, log, out)
        scored: list[int] = []
        score = ServedModel.scores
        monkeypatch.setattr(ServedModel, "scores", lambda *given: scored.append(1) or score(*given))
        predict(log, "--keys", "row", model=model)
        sizes = (len(table) // 2, len(table) - len(table) // 2)
        assert len(scored) == sum(-(-size // self.PIECE) for size in sizes) - 6
        assert out.read_bytes() == whole
        assert pq.read_table(out)["row"].to_pylist() == list(range(len(table)))
        assert [path.name for path in out.parent.iterdir()] == [out.name]

    @pytest.mark.parametrize("changed", ["data", "model", "keys", "files"])
    def test_what_has_changed_starts_over(
        self, predict: Call, model: Path, log: Path, out: Path, table: pa.Table, changed: str
    ) -> None:
        predict(log, "--keys", "row", model=model)
        before = pq.read_table(out)
        out.unlink()
        self.interrupted("_join", interrupt, model, log, out)
        keys = "row"
        if changed == "data":
            write_parquet(log / "a.parquet", table[len(table) // 2 :])
        elif changed == "files":
            write_parquet(log / "aa.parquet", table[:5])
        elif changed == "keys":
            keys = "item_id,row"
        else:  # other weights under the same graph
            change_weights(model, 0.5)
        predict(log, "--keys", keys, model=model)
        found = out.read_bytes()
        out.unlink()
        predict(log, "--keys", keys, model=model)
        assert out.read_bytes() == found
        assert not pq.read_table(out).equals(before)

    @pytest.mark.parametrize("changed", ["a part is gone", "pieces are larger", "rows are gone"])
    def test_parts_that_do_not_fit_are_refused(
        self,
        predict: Call,
        model: Path,
        log: Path,
        out: Path,
        table: pa.Table,
        monkeypatch: pytest.MonkeyPatch,
        changed: str,
    ) -> None:
        parts = out.with_name(f".{out.name}.parts")
        monkeypatch.setattr(scores, "files_key", lambda *_: "the same")
        self.interrupted("_join", interrupt, model, log, out)
        if changed == "a part is gone":
            sorted(parts.glob("*.parquet"))[1].unlink()
        elif changed == "rows are gone":
            write_parquet(log / "b.parquet", table[:5])
        else:
            sorted(parts.glob("*.parquet"))[-1].unlink()
            monkeypatch.setattr(parquet, "ROWS", 4096)
        ran = predict(log, "--keys", "row", model=model)
        assert (
            ran.error
            == f"{parts}: what a killed run has left does not fit the log; run the same again, which starts over"
        )
        assert not list(out.parent.iterdir())
        predict(log, "--keys", "row", model=model)
        assert len(pq.read_table(out)) == sum(pq.read_metadata(path).num_rows for path in log.iterdir())


class TestRefuses:
    @pytest.fixture(autouse=True)
    def small(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(parquet, "ROWS", 16)
        monkeypatch.setattr(scores, "_PART_ROWS", 40)

    def refused(self, ran: Ran, out: Path, told: str) -> None:
        assert ran.error is not None
        assert told in ran.error
        assert "\n" not in ran.error
        assert not list(out.parent.iterdir())

    @pytest.mark.parametrize(
        ("options", "told"),
        [
            (("--keys", "nope"), "log/a.parquet has no column 'nope'. It has age, gender, genres, "),
            (("--keys", "row,history_genres"), "--keys: 'history_genres' is a history; a key has one value a row"),
            (("--model", "/nowhere"), "/nowhere: holds no SavedModel (saved_model.pb is missing)"),
            (("--data", "/nowhere"), "/nowhere/test: no file of a log (*.csv, "),
            (("--out", "scores.csv"), "scores.csv: the scores are written as Parquet; name a .parquet file"),
            (
                ("--out", "/nowhere/a.parquet"),
                "/nowhere/a.parquet: the directory /nowhere doesn't exist; make it first",
            ),
            (("--out", "/proc/a.parquet"), "cannot write /proc/a.parquet: "),
            (("--out", "LOG/a.parquet"), "a.parquet: the scores can't stand among the files that are scored"),
            (("--out", "LOG/new.parquet"), "new.parquet: the scores can't stand among the files that are scored"),
        ],
    )
    def test_options(self, predict: Call, log: Path, out: Path, options: tuple[str, str], told: str) -> None:
        before = {path: path.read_bytes() for path in log.iterdir()}
        self.refused(predict(log, *(option.replace("LOG", str(log)) for option in options)), out, told)
        assert {path: path.read_bytes() for path in log.iterdir()} == before

    @pytest.mark.parametrize("lost", ["variables.index", "variables.data-00000-of-00001"])
    def test_a_model_that_was_not_copied_whole(
        self, predict: Call, desk: Desk, log: Path, tmp_path: Path, out: Path, lost: str
    ) -> None:
        model = Path(shutil.copytree(desk.model, tmp_path / "model"))
        (model / "variables" / lost).unlink()
        self.refused(predict(log, model=model), out, f"{model}: the SavedModel can't be read; copy it again. ")

    def test_a_model_of_others(self, predict: Call, desk: Desk, log: Path, tmp_path: Path, out: Path) -> None:
        model = Path(shutil.copytree(desk.model, tmp_path / "model"))
        (model / "assets.extra" / "tfctr.json").unlink()
        told = f"{model}: was not written by tfctr (assets.extra/tfctr.json is missing)"
        self.refused(predict(log, model=model), out, told)

    def test_a_log_without_a_feature(self, predict: Call, log: Path, out: Path, table: pa.Table) -> None:
        for name in "ab":
            write_parquet(log / f"{name}.parquet", table.drop("year"))
        self.refused(predict(log), out, "a.parquet: there is no column 'year', which the model reads")

    @pytest.mark.parametrize(
        ("column", "told"),
        [
            ("year", "b.parquet: there is no column 'year', which the model reads"),
            ("history_item_id", "b.parquet: there is no column 'history_item_id', which the model reads"),
            ("row", "b.parquet has no column 'row'. It has age, "),
        ],
    )
    def test_a_later_file_without_a_column(
        self, predict: Call, log: Path, out: Path, table: pa.Table, column: str, told: str
    ) -> None:
        write_parquet(log / "b.parquet", table.drop(column))
        self.refused(predict(log, "--keys", "row"), out, told)

    def test_a_file_that_holds_something_else(self, predict: Call, log: Path, out: Path) -> None:
        for write in (lambda: out.write_text("mine"), lambda: pq.write_table(pa.table({"mine": [1]}), out)):
            write()
            before = out.read_bytes()
            told = predict(log, "--keys", "row").error
            assert told is not None
            assert "scores.parquet holds something else than scores, so it is not replaced" in told
            assert out.read_bytes() == before

    def test_a_key_of_two_types(self, predict: Call, log: Path, out: Path, table: pa.Table) -> None:
        texts = pa.array([f"r{row}" for row in range(len(table))])
        write_parquet(log / "b.parquet", table.set_column(table.column_names.index("row"), "row", texts))
        told = "b.parquet, row 1: row is string from here on and int64 in the rows before"
        self.refused(predict(log, "--keys", "row"), out, told)

    def test_a_model_whose_weights_are_not_finite(
        self, tfctr: Call, predict: Call, desk: Desk, log: Path, tmp_path: Path, out: Path
    ) -> None:
        model = Path(shutil.copytree(desk.model, tmp_path / "model"))
        change_weights(model, float("nan"))
        self.refused(predict(log, model=model), out, "a.parquet, row 1: can't be scored: ")
        ran = tfctr("evaluate", "--model", model, "--data", desk.data)
        assert "test/part-00000.tfrecord.gz, record 1: can't be scored: " in str(ran.error)

    def test_another_run_that_writes_the_same(self, predict: Call, log: Path, out: Path) -> None:
        with only_one(out, out.with_name(f".{out.name}.lock")):
            assert predict(log).error == f"{out}: another run is under way here; wait for it, or choose another --out"
        assert predict(log).error is None

    def test_a_column_called_score(self, predict: Call, log: Path, out: Path, table: pa.Table) -> None:
        write_parquet(log / "a.parquet", table.append_column("score", table["row"]))
        self.refused(predict(log, "--keys", "score"), out, "the log's column 'score' can't be kept")

    @pytest.mark.parametrize(
        ("column", "plain", "bad", "told"),
        [
            ("item_id", "1", "x", "b.parquet, row 51: column 'item_id' is 'x'; the feature file says int64"),
            ("user_activity", b"1", b"\xff", "b.parquet, row 51: user_activity is not UTF-8 text, so it can't stand"),
            ("label", 1, 2, "b.parquet, row 51: label must be 0 or 1. Received: 2"),
            ("row", [1], [1, 2], "b.parquet, row 51: row has 2 values"),
        ],
    )
    def test_a_bad_row_after_parts_are_written(
        self, predict: Call, log: Path, out: Path, table: pa.Table, column: str, plain: Any, bad: Any, told: str
    ) -> None:
        values = [plain] * len(table)
        values[len(table) // 2 + 50] = bad
        changed = table.set_column(table.column_names.index(column), column, pa.array(values))
        write_parquet(log / "a.parquet", changed[: len(table) // 2])
        write_parquet(log / "b.parquet", changed[len(table) // 2 :])
        self.refused(predict(log, "--keys", "row,user_activity"), out, told)

    def test_no_rows(self, predict: Call, log: Path, out: Path, table: pa.Table) -> None:
        for name in "ab":
            write_parquet(log / f"{name}.parquet", table[:0])
        self.refused(predict(log), out, "log: the split holds no example; check the data directory")

    def test_an_earlier_file_stays(self, predict: Call, log: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        predict(log)
        before = out.read_bytes()

        def full(*_: Any) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(scores, "_write_part", full)
        ran = predict(log, "--keys", "row")
        assert ran.error == f"cannot write {out}: No space left on device"
        assert [path.name for path in out.parent.iterdir()] == [out.name]
        assert out.read_bytes() == before


KILL = "os.kill(os.getpid(), signal.SIGKILL)"
# What runs before the command: a kill.
MOMENTS = {
    "between parts": f"""
write = scores._write_part
scores._write_part = lambda parts, *part: {KILL} if len([*parts.glob('0*')]) == 2 else write(parts, *part)
""",
    "within a part": f"""
write = pq.write_table
pq.write_table = lambda table, path: (write(table, path), '000048' in path.name and {KILL})
""",
    "before the file has its name": f"""
replace = os.replace
os.replace = lambda source, target: {KILL} if target == Path(sys.argv[-1]) else replace(source, target)
""",
    "after it": f"""
replace = os.replace
os.replace = lambda source, target: (replace(source, target), target == Path(sys.argv[-1]) and {KILL})
""",
    "while the parts are removed": f"""
def partly(directory, **_):
    for part in sorted(directory.glob("0*"))[:1]:
        part.unlink()
        {KILL}
storage.shutil.rmtree = partly
""",
}
# How many of all rows the killed run has left for the next one. Parts have three pieces of 16 rows.
LEFT: dict[str, Callable[[int], int]] = {
    "between parts": lambda rows: 96,
    "within a part": lambda rows: 48,
    "before the file has its name": lambda rows: rows,
    "after it": lambda rows: rows,
    "while the parts are removed": lambda rows: 0,
}
# What counts the rows that are scored, and prints it at the end.
COUNTED = """
import atexit
scored = []
score = scores.ServedModel.scores
scores.ServedModel.scores = lambda model, rows, rules: (scored.append(len(rows)), score(model, rows, rules))[1]
atexit.register(lambda: print(sum(scored)))
"""
# A clean-up of a run that fails, which is killed too, leaves parts that the same run may not trust.
FAILED = f"""
def full(*_):
    raise OSError(28, "No space left on device")
scores._join = full
{MOMENTS["while the parts are removed"]}
"""
SCRIPT = """
import os, signal, sys
from pathlib import Path
import pyarrow.parquet as pq
from tfctr.storage import local as storage
from tfctr.cli import main
from tfctr.cli.quiet import import_tensorflow
import_tensorflow()
from tfctr.data.sources import csv, parquet, tfrecord
from tfctr.training import scores
csv.ROWS = parquet.ROWS = tfrecord.ROWS = 16
scores._PART_ROWS = 40
"""


@pytest.mark.e2e
class TestProcess:
    def run(self, desk: Desk, log: Path, out: Path, before: str = "") -> subprocess.CompletedProcess[str]:
        options = ["predict", "--model", desk.model, "--data", log, "--keys", "row", "--out", out]
        command = [sys.executable, "-c", f"{SCRIPT}{before}\nmain()", *map(str, options)]
        quiet = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
        return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=quiet, check=False)

    @pytest.fixture(scope="class")
    def expected(self, desk: Desk, table: pa.Table, tmp_path_factory: pytest.TempPathFactory) -> Path:
        directory = tmp_path_factory.mktemp("whole")
        write_parquet(directory / "log" / "a.parquet", table)
        ran = self.run(desk, directory / "log", directory / "scores.parquet")
        assert (ran.returncode, ran.stderr) == (0, "")
        return directory

    @pytest.mark.parametrize(
        "moment", [pytest.param(one, marks=() if one == "between parts" else pytest.mark.night) for one in MOMENTS]
    )
    def test_a_killed_run_is_continued(self, desk: Desk, expected: Path, out: Path, moment: str) -> None:
        killed = self.run(desk, expected / "log", out, MOMENTS[moment])
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        assert out.exists() == (moment in ("after it", "while the parts are removed"))
        again = self.run(desk, expected / "log", out, COUNTED)
        assert again.returncode == 0, again.stderr
        rows = pq.read_metadata(expected / "scores.parquet").num_rows
        assert int(again.stdout.split()[-1]) == rows - LEFT[moment](rows)
        assert out.read_bytes() == (expected / "scores.parquet").read_bytes()
        assert [path.name for path in out.parent.iterdir()] == [out.name]

    @pytest.mark.parametrize("file", ["a.csv", "a.tfrecord"])
    def test_every_format_is_continued(
        self, desk: Desk, expected: Path, table: pa.Table, tmp_path: Path, out: Path, file: str
    ) -> None:
        path = tmp_path / "log" / file
        if file == "a.csv":
            write_csv(path, table)
        else:
            write_records(path, table.to_pylist())
        killed = self.run(desk, tmp_path / "log", out, MOMENTS["between parts"])
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        again = self.run(desk, tmp_path / "log", out, COUNTED)
        assert again.returncode == 0, again.stderr
        assert int(again.stdout.split()[-1]) == len(table) - 2 * 48
        found, whole = pq.read_table(out), pq.read_table(expected / "scores.parquet")
        assert found["score"].equals(whole["score"])
        assert list(map(int, found["row"].to_pylist())) == whole["row"].to_pylist()

    def test_a_kill_while_a_failed_run_cleans_up(self, desk: Desk, expected: Path, out: Path) -> None:
        killed = self.run(desk, expected / "log", out, FAILED)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        assert self.run(desk, expected / "log", out).returncode == 0
        assert out.read_bytes() == (expected / "scores.parquet").read_bytes()

    def test_memory_does_not_grow_with_the_log(self, desk: Desk, table: pa.Table, tmp_path: Path, out: Path) -> None:
        """A key of a kilobyte a row stands for all that is kept of a row."""
        measure = """
import atexit, re
parquet.ROWS, scores._PART_ROWS = 1024, 4096
atexit.register(lambda: print(re.search(r"VmHWM:\\s*(\\d+) kB", Path("/proc/self/status").read_text())[1]))
"""
        peaks = []
        for times in (20, 420):
            rows = pa.concat_tables([table] * times)
            keys = pa.array([f"{row:01000d}" for row in range(len(rows))])
            log = tmp_path / f"log{times}"
            log.mkdir()
            whole = rows.set_column(rows.column_names.index("row"), "row", keys)
            pq.write_table(whole, log / "a.parquet", row_group_size=4096, use_dictionary=False)
            ran = self.run(desk, log, out, measure)
            assert ran.returncode == 0, ran.stderr
            peaks.append(int(ran.stdout.split()[-1]))
        more = (420 - 20) * len(table)  # kilobytes, if all keys were held
        assert peaks[1] - peaks[0] < more / 2

    def test_a_full_disk_is_one_line(self, desk: Desk, expected: Path, out: Path) -> None:
        limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))"
        ran = self.run(desk, expected / "log", out, limit)
        assert (ran.returncode, ran.stderr.count("\n")) == (2, 1), ran.stderr
        assert ran.stderr.startswith(f"error: cannot write {out}: ")
        assert not list(out.parent.iterdir())
