"""`tfctr train|evaluate|export|inspect`: the pipeline's steps for those who don't run TFX."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from tfctr.cli.quiet import import_tensorflow
from tfctr.console import console, resumable, step
from tfctr.errors import UserError
from tfctr.features import load_feature_file
from tfctr.storage import local_copy, local_directory

Features = Annotated[Path, typer.Option("--features", help="the feature file (YAML)", show_default=False)]
Data = Annotated[
    str, typer.Option("--data", help="a data directory, here or in a store: train/, valid/, test/", show_default=False)
]


def train(
    features: Features,
    data: Data,
    out: Annotated[
        Path, typer.Option(parser=local_directory, help="the workspace of the run; a killed run in it is continued")
    ],
    experiment: Annotated[
        Path | None,
        typer.Option(help="the experiment file, or the name of a published run"),
    ] = None,
    preset: Annotated[str | None, typer.Option(help="use that preset instead of the experiment's")] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, max=2**32 - 1, help="use that seed instead of the experiment's")
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="train at most that many epochs")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="rows in a batch")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="KEY=VALUE, a key of the experiment file, as in training.learning_rate=0.003"),
    ] = None,
) -> None:
    """Train a model on a log and keep the weights of its best epoch."""
    # First what needs no TensorFlow, whose import takes seconds.
    file = load_feature_file(features)
    if out.exists() and not out.is_dir():
        raise UserError(f"{out}: is a file; --out names a directory")
    import_tensorflow()
    from tfctr.models.presets import preset as find_preset
    from tfctr.training.experiment import Experiment, changed, load_experiment
    from tfctr.training.monitors import MONITORS
    from tfctr.training.published import note_on, published_experiments
    from tfctr.training.workers import connected
    from tfctr.training.workspace import train_in_workspace

    with connected() as workers, resumable():
        found = load_experiment(experiment) if experiment else Experiment()
        if str(experiment) in published_experiments() and not Path(str(experiment)).is_file():
            console().print(f"{experiment}: {note_on(str(experiment))}")
        if preset is not None:
            find_preset(preset)
            found = changed(found, [f"preset={preset}"])
        options = {"training.seed": seed, "training.epochs": epochs, "training.batch_size": batch_size}
        found = changed(found, [f"{key}={value}" for key, value in options.items() if value is not None])
        found = changed(found, settings or ())
        result = train_in_workspace(file, found, data, out, workers=workers)
    monitored = MONITORS[found.training.monitor].title
    console().print(
        f"best validation {monitored} {result.progress.best:.5f} in {result.seconds:.0f} s; "
        f"next: tfctr export --run {out} --to MODEL_DIRECTORY"
    )


def export(
    run: Annotated[Path, typer.Option(help="the workspace of a finished `tfctr train`", show_default=False)],
    to: Annotated[str, typer.Option(help="the model directory, here or in a store; a numbered version appears in it")],
    version: Annotated[int | None, typer.Option(min=1, help="the version; default: the time in seconds")] = None,
) -> None:
    """Write a finished run as a SavedModel version with its signatures."""
    import_tensorflow()
    from tfctr.export.saved_model import export_model, next_version
    from tfctr.storage import check_place, check_writable, join
    from tfctr.training.workspace import finished_run, warmup_row

    check_place(to, lasting=True)
    check_writable(to)
    found = finished_run(run)
    training = found.experiment.training
    console().print(
        f"{run}: the training that ended there last, {found.experiment.model_name}, seed {training.seed}, "
        f"{len(found.history)} epochs",
        markup=False,
        highlight=False,
    )
    with step("export"):
        directory = export_model(
            found.model,
            found.assets,
            found.experiment,
            join(to, str(version or next_version(to))),
            warmup_row(found.assets.file, found.experiment, found.data),
            found.history,
        )
    console().print(str(directory))


def evaluate(
    model: Annotated[
        str, typer.Option(help="a SavedModel directory (one version), here or in a store", show_default=False)
    ],
    data: Data,
    split: Annotated[str, typer.Option(help="train, valid or test")] = "test",
    slices: Annotated[list[str] | None, typer.Option("--slice", help="one more column to slice by")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
    predictions: Annotated[
        Path | None,
        typer.Option(help="save labels, scores, weights, groups and slices of all rows, in file order, to an .npz"),
    ] = None,
) -> None:
    """Report ranking and calibration metrics, overall and by slice, through the signature that is served."""
    import_tensorflow()
    from tfctr.data.sources import split_files
    from tfctr.export.describe import describe
    from tfctr.metrics.report import report, ungrouped_line
    from tfctr.metrics.table import measurable
    from tfctr.training.evaluate import predict

    if predictions is not None and not predictions.absolute().parent.is_dir():
        raise UserError(f"{predictions}: the directory {predictions.parent} doesn't exist; make it first")
    with local_copy(model) as directory:
        described = describe(directory)
        file = described.feature_file
        rows = predict(directory, file, split_files(data, split), [*described.sliced_by, *(slices or ())])
    if predictions is not None:
        rows.save(predictions)
    table = report(rows.labels, rows.scores, rows.groups, rows.weights, rows.slices, described.weighting)
    if as_json:
        typer.echo(json.dumps([vars(row) for row in table], indent=1))
        return
    shown = [metric for metric in measurable(rows.groups is not None) if metric.printed]
    detailed = [metric for metric in shown if metric.columns]
    titles = [metric.title for metric in shown]
    titles += [" / ".join(heading for heading, _ in metric.columns.values()) for metric in detailed]
    printed = Table("slice", "value", "examples", *titles)
    for row in table:
        numbers = [_number(getattr(row, metric.name)) for metric in shown]
        details = [" / ".join(_number(getattr(row, column)) for column in metric.columns) for metric in detailed]
        printed.add_row(row.slice, row.value, _number(row.examples), *numbers, *details)
    console().print(printed)
    if getattr(table[0], "ungrouped", 0):
        console().print(ungrouped_line(table[0].ungrouped))


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.4f}"


def inspect(
    model: Annotated[
        str, typer.Argument(help="a SavedModel directory (one version), here or in a store", show_default=False)
    ],
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Show signatures, shapes, sizes, versions, what a user's state holds, and what a candidate costs."""
    import_tensorflow()
    from tfctr.export.describe import describe

    with local_copy(model) as directory:
        found = describe(directory)
    if as_json:
        content: dict[str, Any] = {**asdict(found), "directory": model, "state_bytes": found.state_bytes}
        typer.echo(json.dumps(content, indent=1))
        return
    table = Table("signature", "", "tensor", "dtype", "shape", title=model, title_justify="left")
    for name in found.inputs:
        for way, tensors in (("in", found.inputs[name]), ("out", found.outputs[name])):
            for tensor in tensors:
                shape = ", ".join("?" if size < 0 else str(size) for size in tensor.shape)
                table.add_row(name, way, tensor.name, tensor.dtype, f"[{shape}]")
        table.add_section()
    console().print(table)
    state = Table("state of a user", "shape", "dtype", "bytes", title_justify="left")
    for tensor in found.state:
        state.add_row(tensor.name, str(list(tensor.shape[1:])), tensor.dtype, f"{tensor.row_bytes:,}")
    state.add_section()
    state.add_row("all", "", "", f"{found.state_bytes:,}")
    if found.state:
        console().print(state)
    if found.costs:
        console().print(_cost_table(found.costs))
    for part, size in found.bytes_by_part.items():
        console().print(f"{part}: {size:,} bytes")
    for key in ("tfctr", "tensorflow", "keras", "created", "model_tag", "trainable_parameters", "frozen_parameters"):
        if key in found.made:
            console().print(f"{key}: {found.made[key]}")


def _cost_table(costs: dict[str, dict[str, Any]]) -> Table:
    """Parameters and operations of a model as trained and as served; a multiplication with its addition are two."""
    from tfctr.export.describe import COST_TITLES

    forms = {"trained": "as trained", "served": "as served, folded"}
    table = Table("cost", *COST_TITLES.values(), title_justify="left")
    for form, cost in costs.items():
        about = forms[form] if len(costs) > 1 else "as trained and served"
        table.add_row(about, *(f"{cost[name]:,}" for name in COST_TITLES))
    uncounted = sorted({op for cost in costs.values() for op in cost["uncounted"]})
    if uncounted:
        table.caption = f"not counted: {', '.join(uncounted)}"
    return table
