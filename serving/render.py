"""Command line: `python -m serving.render --config configs/serving.yaml --out serving [--check]`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from serving.deployment import load_deployment, render
from tfctr.errors import UserError

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    config: Annotated[Path, typer.Option(help="The deployment file (YAML).")],
    out: Annotated[Path, typer.Option(help="The directory serving/, or another one.", file_okay=False)],
    check: Annotated[bool, typer.Option("--check", help="Write nothing; fail if a file differs.")] = False,
) -> None:
    """Render the files of TensorFlow Serving, the images of the manifests, and the alert rules."""
    try:
        files = render(load_deployment(config))
    except UserError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None
    if check:
        stale = [name for name, text in files.items() if not _is_current(out / name, text)]
        if stale:
            typer.echo(
                f"error: {out}: files differ from {config}: {', '.join(stale)}. Run again without --check.", err=True
            )
            raise typer.Exit(1)
        return
    for name, text in files.items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text(text)


def _is_current(path: Path, text: str) -> bool:
    return path.is_file() and path.read_text() == text


if __name__ == "__main__":
    app()
