"""The command line: `tfctr data|features|init|models|train|tune|evaluate|predict|export|inspect|report|client`."""

import os
import sys

import typer

from tfctr import __version__
from tfctr.cli import client, data, features, init, models, predict, report, training, tune
from tfctr.cli.quiet import LEVEL
from tfctr.console import error_console
from tfctr.errors import UserError

app = typer.Typer(
    help="Click-through-rate ranking: data, features, models, training, export, asking a server.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.add_typer(data.app, name="data")
app.add_typer(features.app, name="features")
app.command("init")(init.init)
app.command("models")(models.show_models)
app.command("train")(training.train)
app.command("tune")(tune.tune)
app.command("evaluate")(training.evaluate)
app.command("predict")(predict.predict)
app.command("export")(training.export)
app.command("inspect")(training.inspect)
app.command("report")(report.report)
app.add_typer(client.app, name="client")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _main(version: bool = typer.Option(False, "--version", callback=_version, is_eager=True)) -> None:
    """Click-through-rate ranking: data, features, models, training, export, asking a server."""


def main() -> None:
    """Runs the command line: a `UserError` becomes one line and exit status 2."""
    # Here and not at import: who imports tfctr as a library decides for themselves what TensorFlow logs. Errors (level
    # 2) are left out too: on a machine without a GPU each run logs two that are none, and a real one also raises.
    os.environ.setdefault(LEVEL, "3")
    try:
        app()
    except UserError as error:
        error_console().print(f"error: {error}", style="red")
        sys.exit(2)
