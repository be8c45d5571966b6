"""`tfctr init`: what it makes of data as teams have it, and what it says where it can't."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from tests.cli.conftest import Ran
from tests.cli.logs import CRITEO, NOW, criteo_log, csv_log, history_csv, odd_log, record_log
from tests.workbench import Workbench
from tfctr.errors import UserError
from tfctr.project.first import write_project
from tfctr.project.roles import Options
from tfctr.training.experiment import load_experiment

Call = Callable[..., Ran]


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return odd_log(tmp_path_factory.mktemp("odd") / "data")


def first(tfctr: Call, data: Path, out: Path, *arguments: object) -> dict[str, Any]:
    """The feature file of a project that passes the checks."""
    ran = tfctr("init", "--data", data, "--out", out, *arguments)
    assert ran.error is None, ran.error
    features = out / "features.yaml"
    assert "valid (" in tfctr("features", "validate", features).output
    checked = tfctr("data", "check", data, "--features", features)
    assert checked.error is None, checked.error
    load_experiment(out / "experiment.yaml")
    content: dict[str, Any] = yaml.safe_load(features.read_text())
    return content


class TestSynthesized:
    def test_manifest_says_what_columns_are(self, tfctr: Call, workbench: Workbench, tmp_path: Path) -> None:
        found = first(tfctr, workbench.data, tmp_path / "project")
        assert found["labels"] == {"click": "label"}
        roles = {"group": "user_id", "request": "request_id", "timestamp": "timestamp"}
        assert {role: found[role] for role in roles} == roles
        assert found["meta"] == ["user_activity", "item_popularity", "hour"]
        assert set(found["user"]) == {"user_id", "gender", "age", "occupation"}
        assert set(found["candidate"]) == {"item_id", "genres", "year", "item_vector"}
        assert found["candidate"]["genres"] == {"dtype": "string", "max_values": 2}
        assert found["candidate"]["item_vector"]["key"] == "item_id"
        assert found["bias"]["position"]["default"] == 0
        assert found["sequences"]["history"]["max_length"] == 12
        assert found["sequences"]["history"]["fields"] == {
            "history_item_id": {"share": "item_id"},
            "history_genres": {"share": "genres", "max_values": 2},
            "history_rating": {"dtype": "int64"},
            "history_time": {"kind": "event_time"},
        }
        assert load_experiment(tmp_path / "project" / "experiment.yaml").preset == "dmf"

    def test_names_say_nearly_as_much(self, tfctr: Call, workbench: Workbench, tmp_path: Path) -> None:
        for split in ("train", "valid", "test"):
            (tmp_path / split).symlink_to(workbench.data / split)
        found = first(tfctr, tmp_path, tmp_path / "project", "--meta", "user_activity,item_popularity")
        assert {"user_id", "gender", "age", "occupation"} == set(found["user"])
        assert {"item_id", "genres", "year"} <= set(found["candidate"])
        assert found["context"] == {"hour": {"dtype": "string"}}
        assert set(found["bias"]) == {"position"}
        fields = found["sequences"]["history"]["fields"]
        assert fields["history_item_id"] == {"share": "item_id"}
        assert fields["history_time"] == {"kind": "event_time"}
        assert load_experiment(tmp_path / "project" / "experiment.yaml").preset == "din"


class TestOddNames:
    def test_every_kind(self, tfctr: Call, odd: Path, tmp_path: Path) -> None:
        found = first(tfctr, odd, tmp_path / "p")
        assert (found["weight"], found["group"], found["timestamp"]) == ("importance", "userId", "ts")
        assert found["user"] == {
            "userId": {"dtype": "int64"},
            "column_205": {"dtype": "int64", "column": "205"},
        }
        assert found["candidate"] == {
            "itemId": {"dtype": "int64"},
            "class_2": {"dtype": "string", "column": "class"},
            "user_item_affinity_0": {"kind": "numeric", "transform": "zscore", "column": "user-item_affinity_0"},
            "price_EUR": {"kind": "numeric", "transform": "log1p", "column": "price (EUR)"},
            "views": {"kind": "numeric", "dtype": "int64", "transform": "log1p"},
            "tags": {"dtype": "string", "max_values": 2},
            "premium": {"dtype": "int64"},
        }
        assert found["sequences"] == {
            "clicked": {
                "max_length": 3,
                "fields": {
                    "clickedItems": {"share": "itemId"},
                    "clickedAt": {"kind": "event_time"},
                    "clickedTags": {"share": "tags", "max_values": 2},
                    "clickedPrice": {"kind": "numeric", "transform": "log1p"},
                },
            }
        }

    def test_reasons_stand_beside(self, tfctr: Call, odd: Path, tmp_path: Path) -> None:
        printed = tfctr("init", "--data", odd, "--out", tmp_path / "p").output
        text = (tmp_path / "p" / "features.yaml").read_text()
        for told in (
            "market: one value in all 1,200 rows of train",
            "nothing: no value in all 1,200 rows of train",
            "impression: no value stands twice: a key of rows, from which nothing is learned",
            "device: its type, struct<os: string>, is none that a feature can have",
        ):
            assert f"#   {told}" in text
            assert f"Left out: {told}" in printed
        assert "# 5 values; one value for each itemId" in text
        assert "half of them up to" in text

    def test_options_decide(self, tfctr: Call, odd: Path, tmp_path: Path) -> None:
        found = first(
            tfctr, odd, tmp_path / "p", "--label", "click", "--group", "impression", "--weight", "", "--timestamp", "",
            "--user-id", "", "--item-id", "itemId", "--user", "205", "--context", "class,premium",
            "--leave-out", "views,clickedAt,clickedTags", "--meta", "market",
            "--share", "clickedItems=itemId",
        )  # fmt: skip
        assert (found["group"], found["meta"]) == ("impression", ["market", "impression"])
        assert not {"weight", "timestamp"} & set(found)
        assert set(found["user"]) == {"column_205"}
        assert set(found["context"]) == {"class_2", "premium"}
        assert "views" not in found["candidate"]
        assert set(found["sequences"]["clicked"]["fields"]) == {"clickedItems", "clickedPrice"}

    def test_what_is_said_of_a_column_leaves_it_what_it_is(self, tfctr: Call, odd: Path, tmp_path: Path) -> None:
        guessed = first(tfctr, odd, tmp_path / "p")
        found = first(tfctr, odd, tmp_path / "q", "--group", "userId", "--user", "userId,205", "--candidate", "itemId")
        assert found == guessed

    def test_without_a_request_all_stand_with_the_candidate(self, tfctr: Call, odd: Path, tmp_path: Path) -> None:
        first(tfctr, odd, tmp_path / "p", "--timestamp", "")
        text = (tmp_path / "p" / "features.yaml").read_text()
        # The user's id stands with the user whatever a request was.
        assert "No column says which rows are one request. Any column is right here; one that is the same\n" in text

    def test_roles_of_a_built_directory(self, tfctr: Call, tmp_path: Path) -> None:
        data = odd_log(tmp_path / "data", impression=None, slot=lambda rows: np.arange(rows) % 5)
        roles = {
            "label": "click", "user": "userId", "item": "itemId", "timestamp": "ts", "request": None,
            "outcome": ["tags"], "slices": ["class"], "negative_sampling_rate": 0.25, "item_vectors": None,
            "sides": {"205": "user", "premium": "context"},
            "histories": {"past": {"length": 2, "columns": {"clickedItems": "itemId", "clickedAt": "ts"}}},
        }  # fmt: skip
        (data / "dataset.json").write_text(json.dumps({"roles": roles}))
        with pytest.raises(AssertionError, match="--meta: 'user-item_affinity_0' must be a name"):
            first(tfctr, data, tmp_path / "refused", "--meta", "user-item_affinity_0")
        found = first(tfctr, data, tmp_path / "p", "--leave-out", "clickedPrice,clickedTags", "--meta", "market")
        assert found["negative_sampling_rate"] == 0.25
        assert set(found["context"]) == {"premium"}
        assert found["meta"] == ["class", "market"]
        assert (found["weight"], set(found["bias"])) == ("importance", {"slot"})  # of these nothing is written
        assert "#   tags: the label is made of it" in (tmp_path / "p" / "features.yaml").read_text()
        assert "class_2" not in found["candidate"]
        assert found["sequences"]["past"] == {
            "max_length": 2,
            "fields": {"clickedItems": {"share": "itemId"}, "clickedAt": {"kind": "event_time"}},
        }

    def test_a_manifest_need_not_say_all(self, tfctr: Call, tmp_path: Path) -> None:
        data = odd_log(tmp_path / "data")
        roles = {"label": "click", "user": "userId", "histories": {"tagged": {"columns": {"clickedTags": "tags"}}}}
        (data / "dataset.json").write_text(json.dumps({"roles": roles}))
        found = first(tfctr, data, tmp_path / "p", "--share", "clickedItems=itemId")
        assert (found["timestamp"], found["weight"]) == ("ts", "importance")
        assert set(found["sequences"]["tagged"]["fields"]) == {"clickedTags"}
        assert found["sequences"]["tagged"]["max_length"] == 3  # the longest there is
        assert set(found["sequences"]["clicked"]["fields"]) == {"clickedItems", "clickedAt", "clickedPrice"}


class TestTexts:
    def test_criteo(self, tfctr: Call, tmp_path: Path) -> None:
        data = criteo_log(tmp_path / "data")
        found = first(tfctr, data, tmp_path / "p", "--delimiter", "\\t", "--columns", ",".join(CRITEO))
        assert found["csv"] == {"delimiter": "\t", "columns": CRITEO}
        log1p = {"kind": "numeric", "dtype": "int64", "transform": "log1p"}
        assert found["candidate"]["I1"] == log1p
        assert found["candidate"]["I2"] == {"dtype": "int64"}
        assert found["candidate"]["I3"] == {"kind": "numeric", "dtype": "int64", "transform": "zscore"}
        assert "C1" not in found["candidate"]  # its values are all different
        assert found["candidate"]["C2"] == {"dtype": "string"}  # 00000007 is a code
        assert load_experiment(tmp_path / "p" / "experiment.yaml").preset == "dcnv2"

    def test_histories(self, tfctr: Call, tmp_path: Path) -> None:
        found = first(tfctr, history_csv(tmp_path / "data"), tmp_path / "p")
        assert found["sequences"] == {
            "hist": {
                "max_length": 3,
                "fields": {"hist_item_id": {"share": "item_id"}, "hist_time": {"kind": "event_time"}},
            }
        }
        assert "search_title" in found["candidate"]

    def test_titles_are_no_histories(self, tfctr: Call, tmp_path: Path) -> None:
        def columns(draw: np.random.Generator, rows: int) -> dict[str, Any]:
            items = draw.integers(50, size=rows)
            words = [f"a{one} fine b{one % 7}" for one in draw.integers(30, size=rows)]
            return {"item": items, "other_item_title": words, "past_items": [f"{one} 3" for one in items[::-1]]}

        found = first(tfctr, csv_log(tmp_path / "data", columns), tmp_path / "p")
        assert found["candidate"]["other_item_title"] == {"dtype": "string"}
        assert set(found["sequences"]) == {"past"}
        assert set(found["sequences"]["past"]["fields"]) == {"past_items"}

    def test_lists_are_joined_as_the_file_says(self, tfctr: Call, tmp_path: Path) -> None:
        def columns(draw: np.random.Generator, rows: int) -> dict[str, Any]:
            items = draw.integers(50, size=rows)
            past = ["|".join(map(str, draw.integers(50, size=3))) for _ in range(rows)]
            return {"item": items, "related_items": [f"{one // 2}|{one // 3}" for one in items], "past_items": past}

        data = csv_log(tmp_path / "data", columns)
        found = first(tfctr, data, tmp_path / "texts")
        assert "sequences" not in found
        assert found["candidate"]["past_items"] == {"dtype": "string", "max_values": 3}
        for split in ("train", "valid", "test"):
            part = data / split / "part.csv"
            part.write_text(part.read_text().replace("|", ";"))
        found = first(tfctr, data, tmp_path / "lists", "--list-delimiter", ";")
        assert found["csv"] == {"list_delimiter": ";"}
        assert found["candidate"]["related_items"] == {"dtype": "string", "max_values": 2, "separator": ";"}
        assert found["sequences"]["past"] == {"max_length": 3, "fields": {"past_items": {"share": "item"}}}


class TestRecords:
    def test_what_they_can_not_give_is_left_out(self, tmp_path: Path) -> None:
        data = record_log(
            tmp_path / "data",
            tags=lambda row: [f"t{row % 3}", f"t{row % 4}"][: row % 3],
            scores=lambda row: [row % 7, row % 3, 9],
            shop_id=lambda row: float(row % 9),
            request_id=lambda row: row // 3,
            past_item_id=lambda row: [row % 60, row % 50],
            colour=lambda row: f"c{row % 7}",
        )
        project = write_project(data, tmp_path / "p", Options(), None)
        assert set(project.file.candidate) == {"item_id", "colour"}
        assert set(project.file.sequences) == {"past"}
        assert project.left_out["tags"] == "has several values in one row; join them by | in one text"
        assert {"scores", "shop_id", "request_id"} <= set(project.left_out)
        assert project.left_out["shop_id"].endswith("shop_id is float32; the feature file says int64")
        with pytest.raises(
            UserError, match=r"--request: 'request_id': .* request_id is int64; a meta, group or request"
        ):
            write_project(data, tmp_path / "q", Options(named={"request": "request_id"}), None)


class TestWrongGuesses:
    def test_they_are_no_errors(self, tmp_path: Path) -> None:
        data = odd_log(
            tmp_path / "data",
            slot=lambda rows: 2**40 + np.arange(rows),
            importance=None,
            weight=lambda rows: np.arange(rows) % 9 - 3.0,
            ts=None,
            **{"Request ID": lambda rows: np.arange(rows) // 3, "Unix Time": lambda rows: NOW + np.arange(rows)},
        )
        project = write_project(data, tmp_path / "p", Options(), None)
        assert (project.file.request, project.file.timestamp, project.file.weight) == (None, None, None)
        left_out = project.left_out
        assert left_out["Request ID"].startswith("would be the request if its name had only letters")
        assert left_out["Unix Time"].startswith("would be the timestamp if its name had only letters")
        assert left_out["weight"] == "would be the weight if all its values were numbers, 0 or more"
        assert left_out["slot"].startswith("a position must be a whole number from 0 to 10,000")
        # What can't stand in the file still shows what was one request.
        assert "No column says" not in (tmp_path / "p" / "features.yaml").read_text()

    def test_types_that_no_text_is_made_of(self, tmp_path: Path) -> None:
        times = [1_700_000_000 + one for one in range(40)]
        data = odd_log(
            tmp_path / "data",
            impression=None,
            request_id=lambda rows: pa.array([times[row % 40] for row in range(rows)], pa.timestamp("s")),
            id=lambda rows: pa.array([times[row % 30] for row in range(rows)], pa.timestamp("s")),
            area_codes=lambda rows: [[1.0 * (row % 7), 2.0] for row in range(rows)],
            nowhere=lambda rows: [[]] * rows,
            clickedNothing=lambda rows: pa.array([[]] * rows, pa.list_(pa.string())),
        )
        project = write_project(data, tmp_path / "p", Options(), None)
        assert project.file.request is None
        assert "a meta, group or request column must be string" in project.left_out["request_id"]
        assert "column 'area_codes' is double" in project.left_out["area_codes"]
        assert "id" in project.file.candidate
        for name in ("nowhere", "clickedNothing"):
            assert project.left_out[name] == "no value in all 1,200 rows of train"

    def test_a_twin_of_the_label(self, tmp_path: Path) -> None:
        def clicked(rows: int) -> Any:
            return np.arange(rows) % 7 // 4

        data = odd_log(tmp_path / "data", click=clicked, label=clicked, rating=lambda rows: clicked(rows) * 3 + 1.5)
        for label, twin in (("label", "click"), ("click", "label")):
            project = write_project(data, tmp_path / label, Options(named={"label": label}), None)
            assert project.left_out[twin] == project.left_out["rating"] == "the label is made of it"
        said = Options(named={"label": "label"}, sides={"click": "candidate"})
        assert "click" in write_project(data, tmp_path / "said", said, None).file.candidate


class TestHistories:
    def test_of_floats(self, tfctr: Call, tmp_path: Path) -> None:
        data = odd_log(
            tmp_path / "data",
            clickedItems=lambda rows: [[row % 60 + 0.0, 7.0] for row in range(rows)],
            clickedAt=lambda rows: [[NOW + row * 60 - 5.0, NOW - 9.0] for row in range(rows)],
            clickedTags=None,
            clickedPrice=None,
        )
        found = first(tfctr, data, tmp_path / "p")
        assert found["sequences"]["clicked"]["fields"] == {
            "clickedItems": {"share": "itemId"},
            "clickedAt": {"kind": "event_time"},
        }

    def test_milliseconds(self, tmp_path: Path) -> None:
        data = odd_log(
            tmp_path / "data",
            clickedItems=lambda rows: [[row % 60, 7] for row in range(rows)],
            clickedTs=lambda rows: [[(NOW + row * 60) * 1000 - 5, NOW * 1000 - 9] for row in range(rows)],
            clickedAt=None,
            clickedTags=None,
            clickedPrice=None,
        )
        project = write_project(data, tmp_path / "p", Options(), None)
        assert set(project.file.sequences["clicked"].fields) == {"clickedItems"}
        assert project.left_out["clickedTs"].endswith("divide milliseconds by 1000")

    def test_share_of_a_name_without_letters_of_ours(self, tfctr: Call, tmp_path: Path) -> None:
        def item(rows: int) -> Any:
            return np.arange(rows) * 7 % 60

        data = odd_log(tmp_path / "data", itemId=None, **{"商品": item})
        found = first(tfctr, data, tmp_path / "p", "--item-id", "商品", "--share", "clickedItems=商品")
        assert found["sequences"]["history"]["fields"]["clickedItems"] == {"share": "column"}
        assert found["candidate"]["column"] == {"dtype": "int64", "column": "商品"}


class TestCardinality:
    def test_ever_new_values_are_hashed_and_rare_ones_unknown(self, tfctr: Call, tmp_path: Path) -> None:
        rows, draw = 30_000, np.random.default_rng(1)
        for split in ("train", "valid", "test"):
            (tmp_path / "data" / split).mkdir(parents=True)
            table = {
                "label": np.arange(rows) % 2,
                "item_id": draw.integers(2**40, size=rows) // 2**8,
                "page": [f"p{int(one)}" for one in draw.pareto(1.0, size=rows) * 10],
            }
            pq.write_table(pa.table(table), tmp_path / "data" / split / "part.parquet")
        found = first(tfctr, tmp_path / "data", tmp_path / "p")
        assert found["candidate"]["item_id"]["vocabulary"] == {"type": "hash", "buckets": 2**16}
        assert found["candidate"]["page"]["vocabulary"] == {"type": "learned", "min_count": 2}

    def test_reads_first_rows_only(self, tmp_path: Path) -> None:
        for split, rows in {"train": 150_000, "valid": 100, "test": 100}.items():
            (tmp_path / split).mkdir(parents=True)
            table = pa.table({"label": np.arange(rows) % 2, "item_id": np.arange(rows) // 1000 % 3})
            pq.write_table(table, tmp_path / split / "part.parquet")
        project = write_project(tmp_path, tmp_path / "p", Options(), None)
        assert project.rows == "the first 50,000 rows of train"
        assert "from the first 50,000 rows of train" in (tmp_path / "p" / "features.yaml").read_text()
        assert load_experiment(tmp_path / "p" / "experiment.yaml").training.batch_size == 1024


class TestRefuses:
    @pytest.mark.parametrize(
        ("arguments", "told"),
        [
            (("--label", "bought"), "--label: there is no column 'bought'. The columns are: click, userId"),
            (("--user", "205,nobody"), "--user: there is no column 'nobody'"),
            (("--share", "clickedItems"), "--share: must be HISTORY=COLUMN. Received: 'clickedItems'"),
            (("--meta", "price (EUR)"), "--meta: 'price (EUR)' must be a name of letters"),
            (("--label", "205"), "--label: '205' must be a name of letters, digits and underscores"),
            (("--label", "views"), "part.parquet, row 1: click must be"),
            (("--timestamp", "itemId"), "--timestamp: 'itemId': would be the time of the request if"),
            (("--weight", "class"), "--weight: 'class': would be the weight if all its values were numbers"),
            (("--meta", "tags"), "--meta: 'tags': "),
            (("--share", "views=itemId"), "--share: 'views' can't have the ids of 'itemId': it must be a list"),
            (("--share", "clickedItems=userId"), "can't have the ids of 'userId': it is no feature of the candidate"),
            (("--leave-out", "click"), "--label: name the column that says whether it was a click. Columns of 0 and 1"),
            (("--delimiter", "ab"), "--delimiter: String should have at most 1 character. Received: 'ab'"),
        ],
    )
    def test_options(self, tfctr: Call, odd: Path, tmp_path: Path, arguments: tuple[str, ...], told: str) -> None:
        ran = tfctr("init", "--data", odd, "--out", tmp_path / "p", *arguments)
        assert ran.error is not None
        assert told.replace("click must be", f"{arguments[1]} must be") in ran.error
        assert "\n" not in ran.error
        assert not list(tmp_path.iterdir())

    def test_two_possible_labels(self, tfctr: Call, tmp_path: Path) -> None:
        data = odd_log(tmp_path / "data", label=lambda rows: [1, 0] * (rows // 2))
        ran = tfctr("init", "--data", data, "--out", tmp_path / "p")
        assert ran.error is not None
        assert "Columns of 0 and 1: click, premium, label" in ran.error

    def test_asks_where_somebody_is(self, tmp_path: Path) -> None:
        data = odd_log(tmp_path / "data", label=lambda rows: [1, 0] * (rows // 2))
        questions: list[str] = []

        def ask(question: str) -> str:
            questions.append(question)
            return "nobody" if len(questions) == 1 else "label"

        project = write_project(data, tmp_path / "p", Options(leave_out=frozenset({"click"})), None)
        assert project.file.labels.evaluated == "label"
        project = write_project(data, tmp_path / "q", Options(), ask)
        assert project.file.labels.evaluated == "label"
        assert len(questions) == 2
        assert questions[0].startswith("Which column is the label? Columns of 0 and 1: click")

    def test_taken_directory(self, tfctr: Call, odd: Path, tmp_path: Path) -> None:
        (tmp_path / "mine.txt").write_text("mine")
        for out, told in ((tmp_path, "is not empty"), (tmp_path / "mine.txt", "is a file")):
            ran = tfctr("init", "--data", odd, "--out", out)
            assert ran.error is not None
            assert told in ran.error
        (tmp_path / "empty").mkdir()
        assert tfctr("init", "--data", odd, "--out", tmp_path / "empty").error is None

    def test_this_directory(self, tfctr: Call, odd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        first(tfctr, odd, Path())
        # A shell still stands in the directory that was there.
        assert sorted(path.name for path in Path().iterdir()) == ["README.md", "experiment.yaml", "features.yaml"]

    def test_where_nothing_can_be_written(self, tfctr: Call, odd: Path, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        ran = tfctr("init", "--data", odd, "--out", tmp_path / "file" / "p")
        assert ran.error is not None
        assert ran.error.endswith("file/p: Not a directory")

    @pytest.mark.parametrize("damage", ["nowhere", "no split", "empty", "damaged", "two types", "manifest"])
    def test_data(self, tfctr: Call, tmp_path: Path, damage: str) -> None:
        data = tmp_path / "nowhere" if damage == "nowhere" else odd_log(tmp_path / "data")
        part = data / "train" / "part.parquet"
        if damage == "no split":
            (data / "valid" / "part.parquet").unlink()
        elif damage == "empty":
            pq.write_table(pq.read_table(part).slice(0, 0), part)
        elif damage == "damaged":
            part.write_bytes(part.read_bytes()[:-100])
        elif damage == "two types":
            pq.write_table(pa.table({"click": ["yes"]}), data / "train" / "other.parquet")
        elif damage == "manifest":
            (data / "dataset.json").write_text('{"roles": {"label": "click", "sides": {"205": "nobody"}}}')
        told = {
            "nowhere": "nowhere: no such directory",
            "no split": "valid: no file of a log",
            "empty": "train: the split holds no row",
            "damaged": "part.parquet is damaged or no Parquet file",
            "two types": "train: a column has two types in the files of one split",
            "manifest": "dataset.json: roles: sides.205: Input should be 'user', 'candidate', 'context' or 'bias'",
        }
        ran = tfctr("init", "--data", data, "--out", tmp_path / "p")
        assert ran.error is not None
        assert told[damage] in ran.error
        assert "\n" not in ran.error
        assert not (tmp_path / "p").exists()

    def test_csv_without_names(self, tfctr: Call, tmp_path: Path) -> None:
        data = criteo_log(tmp_path / "data")
        ran = tfctr("init", "--data", data, "--out", tmp_path / "p")
        assert ran.error is not None
        assert ran.error.endswith("say what is between columns: --delimiter")

    def test_milliseconds_are_no_time(self, tmp_path: Path) -> None:
        data = odd_log(tmp_path / "data", ts=lambda rows: (NOW + np.arange(rows)) * 1000)
        project = write_project(data, tmp_path / "p", Options(), None)
        assert "divide milliseconds by 1000" in project.left_out["ts"]
        assert "need the time of the request" in project.left_out["clickedAt"]

    def test_absent_in_a_split(self, tmp_path: Path) -> None:
        data = odd_log(tmp_path / "data")
        part = data / "valid" / "part.parquet"
        pq.write_table(pq.read_table(part).drop_columns(["205", "importance"]), part)
        project = write_project(data, tmp_path / "p", Options(), None)
        assert project.left_out["205"] == "no value in all 200 rows of valid"
        assert project.file.weight == "importance"  # which, as a bias column, may be in train only

    def test_no_candidate(self, tmp_path: Path) -> None:
        for split in ("train", "valid", "test"):
            (tmp_path / split).mkdir(parents=True)
            columns = {"label": [0, 1], "user_id": [1, 2], "item_id": pa.array([2**63, 7], pa.uint64())}
            pq.write_table(pa.table(columns), tmp_path / split / "part.parquet")
        told = "--candidate: no column belongs to the candidates; .* Left out: item_id: its type, uint64, is none"
        with pytest.raises(UserError, match=told):
            write_project(tmp_path, tmp_path / "p", Options(), None)
