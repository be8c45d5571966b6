"""Command line: `python -m serving.render --config configs/serving.yaml --out serving [--check]`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from serving.deployment import BATCHING_CONFIG, load_deployment, render
from serving.models_config import read_models_config
from tfctr.errors import UserError

MODELS_CONFIG = "k8s/base/config/models.config"
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    config: Annotated[Path, typer.Option(help="The deployment file (YAML).")],
    out: Annotated[Path, typer.Option(help="The directory serving/ of a checkout.", file_okay=False, exists=True)],
    check: Annotated[bool, typer.Option("--check", help="Write nothing; fail if a file differs.")] = False,
) -> None:
    """Render the files of TensorFlow Serving, the images of the manifests, and the alert rules."""
    try:
        files = render(load_deployment(config))
        if not check:
            _check_rollout(out / MODELS_CONFIG)
    except UserError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None
    if check:
        stale = [name for name, text in files.items() if not _is_current(out / name, text)]
        stale += [name for name in (BATCHING_CONFIG,) if name not in files and (out / name).exists()]
        if stale:
            typer.echo(
                f"error: {out}: files differ from {config}: {', '.join(stale)}. Run again without --check.", err=True
            )
            raise typer.Exit(1)
        return
    for name, text in files.items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text(text)
    if BATCHING_CONFIG not in files:
        (out / BATCHING_CONFIG).unlink(missing_ok=True)


def _check_rollout(path: Path) -> None:
    """Refuses to write over what `serving.rollout` has set.

    Raises:
        UserError: The file has labels or chosen versions.
    """
    try:
        config, _ = read_models_config(path)
    except UserError:  # none, or of nobody's rollout
        return
    (model,) = config.model_config_list.config
    if model.version_labels or model.model_version_policy.HasField("specific"):
        raise UserError(
            f"{path}: holds the labels and versions of a rollout, which would be lost. Keep the file of a rollout in "
            "another place (serving.rollout --config), or remove this one"
        )


def _is_current(path: Path, text: str) -> bool:
    return path.is_file() and path.read_text() == text


if __name__ == "__main__":
    app()
