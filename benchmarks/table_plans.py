"""A paper's table as a plan, its results, and the page that is made of both."""

from __future__ import annotations

import hashlib
import json
import statistics
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, ValidationError

from tfctr.errors import UserError
from tfctr.features.yaml_file import Strict, checked, describe_validation_error, load_yaml
from tfctr.storage.local import write_text

if TYPE_CHECKING:
    from tfctr.features.spec import FeatureFile
    from tfctr.training.experiment import Experiment

ROOT = Path(__file__).parents[1]
PLANS = Path(__file__).parent / "tables"
_HEAD = """Tables of papers, trained here with the published settings where there are any. The command below each title
trains its rows and writes this page; nothing on it is written by hand. A figure is the mean over the seeds that were
trained, ± their standard deviation; *difference* is to the published figure. All are of the test split, by the weights
of the epoch that was best on the validation split."""
METRICS = {"auc": "AUC", "logloss": "logloss", "gauc": "GAUC"}


class Row(Strict):
    """A model of a table.

    Attributes:
        name: Its name in the table, and that of its directory. A comma parts the names of `--rows`, so it has none.
        model: What an experiment file says of it: preset, model, training.
        features: The feature file, below the root of the repository.
        dimension: Another embedding dimension than the feature file's.
        published: Published test metrics by name.
        source: Where these are from.
        note: What a reader must know of it.
    """

    name: str = Field(pattern="^[^/,]+$")
    model: dict[str, Any]
    features: str
    dimension: int | None = None
    published: dict[str, float] = Field(default_factory=dict)
    source: str = ""
    note: str = ""

    @cached_property
    def digest(self) -> str:
        """A hash of the model, its training and its features, so that results of others are none of this row."""
        from tfctr.training.experiment import Experiment

        # What is left to a default counts as unsaid, or a new option would make all rows new ones.
        model = Experiment.model_validate(self.model).model_config_of().model_dump(mode="json", exclude_defaults=True)
        features = self.feature_file().model_dump(mode="json", exclude_defaults=True)
        decides = json.dumps([model, self.model["training"], features], sort_keys=True)
        return hashlib.sha256(decides.encode()).hexdigest()[:12]

    def feature_file(self) -> FeatureFile:
        """The features that it is trained on."""
        from tfctr.features import FeatureFile, load_feature_file

        file = load_feature_file(ROOT / self.features)
        if self.dimension is None:
            return file
        content = file.model_dump(mode="json", exclude_unset=True)
        return FeatureFile.model_validate({**content, "embedding_dimension": self.dimension})

    def experiment(self, seed: int) -> Experiment:
        """How it is trained.

        Raises:
            UserError: what of it is none.
        """
        from tfctr.training.experiment import experiment_of

        return experiment_of({**self.model, "training": {**self.model["training"], "seed": seed}}, self.name)


class Table(Strict):
    """A table of a paper.

    Attributes:
        name: Of the plan.
        title: For the page.
        about: What stands before the table on the page.
        prepare: The command that makes the data.
        seeds: Of all rows.
        rows: In the order in which a reader wants them.
    """

    name: str
    title: str
    about: str
    prepare: str
    seeds: tuple[int, ...]
    rows: tuple[Row, ...]


class Result(Strict):
    """A finished training of a row.

    Attributes:
        table: The table's name.
        row: The row's name.
        plan: The row's digest.
        seed: Of the training.
        data: A hash of what the data was made from and how.
        test: Metrics of the test split.
        valid: Metrics of the validation split after the best epoch.
        best_epoch: From 1.
        epochs: All that were trained.
        parameters: Trained numbers.
        seconds: Wall clock of steps and validations.
        rows_per_second: Training rows a second of the steps, compilation included.
        machine: Where it ran, in words.
        day: When.
    """

    table: str
    row: str
    plan: str
    seed: int
    data: str
    test: dict[str, float]
    valid: dict[str, float]
    best_epoch: int
    epochs: int
    parameters: int
    seconds: float
    rows_per_second: float
    machine: str
    day: str

    def of(self, table: Table, row: Row) -> bool:
        """Whether it is one of a row as the plan has it now, or of another row that is the same model."""
        return (self.table, self.plan) == (table.name, row.digest)


class _DataSet(Strict):
    """What a plan says of one data set: how its table is called and made, and what all its rows have."""

    title: str
    prepare: str
    every: dict[str, Any] = Field(default_factory=dict)


class _Plan(Strict):
    """A plan file: what a row does not say is said by the data set, and what that does not say by the plan."""

    about: str
    data: dict[str, _DataSet] = Field(min_length=1)
    seeds: tuple[int, ...] = Field(min_length=1)
    every: dict[str, Any] = Field(default_factory=dict)
    rows: dict[str, dict[str, Any]] = Field(min_length=1)


def read_tables(plans: Path = PLANS) -> dict[str, Table]:
    """All tables by name. A plan that several data sets share is a table for each: PLAN-DATASET.

    Raises:
        UserError: with the file, the path inside it and what is allowed.
    """
    paths = sorted(plans.glob("*.yaml"))
    if not paths:
        raise UserError(f"{plans}: a directory with plans, NAME.yaml, is wanted here")
    found = {}
    for path in paths:
        plan = checked(_Plan, load_yaml(path), path)
        for dataset, own in plan.data.items():
            name = path.stem if len(plan.data) == 1 else f"{path.stem}-{dataset}"
            rows = tuple(_row(one, plan, own, f"{path}: rows.{one}") for one in plan.rows)
            found[name] = Table(
                name=name, title=own.title, about=plan.about, prepare=own.prepare, seeds=plan.seeds, rows=rows
            )
    return found


def _row(name: str, plan: _Plan, dataset: _DataSet, where: str) -> Row:
    whole = _merged(_merged(plan.every, dataset.every), plan.rows[name])
    model = {key: whole.pop(key) for key in ("preset", "model", "training") if key in whole}
    row = checked(Row, {"name": name, "model": {"training": {}, **model}, **whole}, where)
    try:
        # Told here, where the plan is known, and not in the middle of the other rows' trainings.
        _ = row.digest
    except ValidationError as error:
        raise UserError(describe_validation_error(where, error)) from None
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    return row


def _merged(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """The second's values beside the first's, key by key."""
    both = dict(first)
    for key, value in second.items():
        known = both.get(key)
        both[key] = _merged(known, value) if isinstance(known, dict) and isinstance(value, dict) else value
    return both


def read_results(path: Path) -> list[Result]:
    """Finished trainings, a line each, in the order in which they ended.

    Raises:
        UserError: with the file and the line that is none.
    """
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    found = []
    for number, line in enumerate(lines, 1):
        try:
            found.append(Result.model_validate_json(line))
        except ValidationError as error:
            told = describe_validation_error(f"{path}, line {number}", error)
            raise UserError(f"{told}\nDelete the line, and its row is trained again.") from None
    return found


def keep_result(path: Path, result: Result) -> None:
    """Adds a line, all of it or none: a kill in the middle must not spoil the file."""
    before = path.read_text("utf-8") if path.exists() else ""
    write_text(path, f"{before}{result.model_dump_json()}\n")


def results_page(tables: Sequence[Table], results: Sequence[Result]) -> str:
    """The page of all tables, those first of which a row was trained."""
    trained = {one.table for one in results}
    ordered = sorted(tables, key=lambda table: table.name not in trained)
    return "\n\n".join(["# Results", _HEAD, *(_section(table, results) for table in ordered)]) + "\n"


def _section(table: Table, results: Sequence[Result]) -> str:
    found = {row.name: _of_row(table, row, results) for row in table.rows}
    metrics = [name for name in METRICS if any(name in one.test for all_of in found.values() for one in all_of)]
    metrics = metrics or ["auc", "logloss"]
    heads = ["model", "seeds"]
    for name in metrics:
        heads += [METRICS[name], "published", "difference"] if name != "gauc" else [METRICS[name]]
    heads += ["parameters", "best epoch", "seconds", "rows/s"]
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    lines += [_line(row, found[row.name], metrics) for row in table.rows if found[row.name]]
    open_rows = [row.name for row in table.rows if not found[row.name]]
    fewer = [row.name for row in table.rows if 0 < len(found[row.name]) < len(table.seeds)]
    command = f"{table.prepare}\npython -m benchmarks.reproduce --table {table.name} --data DATA --work WORK"
    parts = [
        f"## {table.title}",
        table.about.strip(),
        f"<!-- not run: trainings of hours, of data that must be fetched -->\n```sh\n{command}\n```",
        "\n".join(lines) if len(lines) > 2 else "No row has been trained.",
        f"Open rows: {', '.join(open_rows) or 'none'}.",
        *([f"With fewer than {len(table.seeds)} seeds: {', '.join(fewer)}."] if fewer else []),
        *_machines(found),
        *_notes(table),
    ]
    return "\n\n".join(parts)


def _of_row(table: Table, row: Row, results: Sequence[Result]) -> list[Result]:
    """Those of the plan's seeds; of two of one seed the later one."""
    by_seed = {one.seed: one for one in results if one.of(table, row)}
    return [by_seed[seed] for seed in table.seeds if seed in by_seed]


def _line(row: Row, found: Sequence[Result], metrics: Sequence[str]) -> str:
    cells = [row.name, str(len(found))]
    for name in metrics:
        values = [one.test[name] for one in found if name in one.test]
        if len(values) < len(found):
            cells += [""] if name == "gauc" else ["", "", ""]
            continue
        mean = statistics.fmean(values)
        spread = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
        cells.append(f"{mean:.4f}{spread}")
        if name != "gauc":
            published = row.published.get(name)
            cells += ["", ""] if published is None else [f"{published:.4f}", f"{mean - published:+.4f}"]
    cells += [
        f"{found[0].parameters:,}",
        " ".join(str(one.best_epoch) for one in found),
        f"{statistics.fmean(one.seconds for one in found):,.0f}",
        f"{statistics.fmean(one.rows_per_second for one in found):,.0f}",
    ]
    return f"| {' | '.join(cells)} |"


def _machines(found: Mapping[str, Sequence[Result]]) -> list[str]:
    machines = sorted({one.machine for all_of in found.values() for one in all_of})
    if not machines:
        return []
    days = sorted({one.day for all_of in found.values() for one in all_of})
    when = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
    return [
        f"Machine: {'; '.join(machines)}, {when}. Other work shared it at times, so seconds and\n"
        "rows/s tell the order of magnitude only."
    ]


def _notes(table: Table) -> list[str]:
    sources: dict[str, list[str]] = {}
    for row in table.rows:
        if row.source:
            sources.setdefault(row.source, []).append(row.name)
    published = "; ".join(f"{source}: {', '.join(names)}" for source, names in sources.items())
    notes = [f"{row.name}: {row.note}" for row in table.rows if row.note]
    return [f"Published: {published}.", *notes] if published else notes
