"""`tfctr client`: requests a ranking from a model server, or lists its versions."""

import json
import sys
import time
from collections import Counter
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Column, Table

from tfctr import MODEL_NAME
from tfctr.cli.tls import Ca, Certificate, Key, Tls, channel_credentials
from tfctr.console import console
from tfctr.errors import UserError

if TYPE_CHECKING:
    from tfctr.client import RankingClient, VersionStatus

app = typer.Typer(help="Ask a model server for a ranking, or for the versions that it has.", no_args_is_help=True)

Target = Annotated[str, typer.Option(help="HOST:PORT of the server's gRPC API, or any gRPC target")]
Model = Annotated[str, typer.Option(help="name of the model on the server")]
Seconds = Annotated[float, typer.Option(help="time budget of the command, in seconds")]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON, one object in each line")]
Label = Annotated[
    str | None, typer.Option(help="use the version with this label, such as stable; default: the newest version")
]
Version = Annotated[int | None, typer.Option(min=0, help="use this version; default: the newest")]

_POLL_SECONDS = 0.2
_SHOWN_FEATURES = 8  # what a terminal has room for
_SOURCE = "a JSON file, - for standard input, or JSON itself"


@app.command("rank")
def rank(
    candidates: Annotated[
        str, typer.Option(help=f"a list of candidates or a mapping of columns: {_SOURCE}; .jsonl: one candidate a line")
    ],
    user: Annotated[
        str | None, typer.Option(help=f"raw user features, where the model reads any: {_SOURCE}", show_default=False)
    ] = None,
    target: Target = "localhost:8500",
    model: Model = MODEL_NAME,
    context: Annotated[str, typer.Option(help=f"raw features of the request: {_SOURCE}")] = "{}",
    k: Annotated[int, typer.Option("-k", min=0, help="number of candidates to print")] = 10,
    version: Version = None,
    label: Label = None,
    features: Annotated[Path | None, typer.Option(help="feature file; names that are not in it are errors")] = None,
    timeout: Seconds = 5.0,
    tls: Tls = False,
    ca: Ca = None,
    certificate: Certificate = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Rank candidates for one user, best first."""
    from tfctr.client import RankingClient

    given = {"--user": user, "--candidates": candidates, "--context": context}
    from_input = [option for option, source in given.items() if source == "-"]
    if len(from_input) > 1:
        raise UserError(f"only one of {', '.join(given)} may be standard input (-). Received: {', '.join(from_input)}")
    values: dict[str, Any] = {
        option: None if source is None else _read(source, option) for option, source in given.items()
    }
    if version is not None and label is not None:
        raise UserError(f"give either --version or --label, not both. Received: --version {version} --label {label}")
    options: dict[str, Any] = {"version": version, "version_label": label, "feature_file": features}
    credentials = channel_credentials(tls, ca, certificate, key)
    with RankingClient(target, model, timeout, cache=None, credentials=credentials, **options) as client:
        ranked = client.rank(values["--user"], values["--candidates"], values["--context"], k)
    if as_json:
        for one in ranked:
            typer.echo(json.dumps(asdict(one)))
        return
    names = list(dict.fromkeys(name for one in ranked for name in one.candidate))
    # However many features a candidate has, its place and its probability can be read.
    results = [Column(title, no_wrap=True, min_width=len(title)) for title in ("rank", "probability", "index")]
    shown = names[:_SHOWN_FEATURES]
    table = Table(*results, *shown)
    for place, one in enumerate(ranked, 1):
        cells = [_cell(one.candidate.get(name)) for name in shown]
        table.add_row(str(place), f"{one.probability:.6f}", str(one.index), *cells)
    console().print(table)
    if len(names) > len(shown):
        console().print(f"{len(names) - len(shown)} more features of the candidates: --json shows them")


@app.command("status")
def status(
    target: Target = "localhost:8500",
    model: Model = MODEL_NAME,
    timeout: Seconds = 5.0,
    wait: Annotated[
        float, typer.Option(min=0, max=86_400, help="wait up to so many seconds for a version to be available")
    ] = 0.0,
    tls: Tls = False,
    ca: Ca = None,
    certificate: Certificate = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Show the versions of a model; the exit status is 2 when none is available."""
    from tfctr.client import RankingClient, UnavailableError

    credentials = channel_credentials(tls, ca, certificate, key)
    with RankingClient(target, model, timeout_seconds=timeout, credentials=credentials) as client:
        versions = _versions(client, time.monotonic() + wait)
    if as_json:
        for one in versions:
            typer.echo(json.dumps(asdict(one)))
    else:
        table = Table("version", "state", "error")
        for one in versions:
            table.add_row(str(one.version), one.state, one.error_message and f"{one.error_code}: {one.error_message}")
        console().print(table)
    if all(one.state != "AVAILABLE" for one in versions):
        raise UnavailableError(f"no version of model '{model}' at {target} is available.")


def _versions(client: "RankingClient", until: float) -> "list[VersionStatus]":
    """The versions of the model as soon as one is available, at the latest at that time."""
    from tfctr.client import DeadlineError, ModelNotFoundError, UnavailableError

    while time.monotonic() < until:
        # A server that starts refuses connections, and then knows no model until it has read its configuration.
        with suppress(DeadlineError, ModelNotFoundError, UnavailableError):
            versions = client.model_status()
            if any(one.state == "AVAILABLE" for one in versions):
                return versions
        time.sleep(_POLL_SECONDS)
    return client.model_status()


def _read(source: str, option: str) -> Any:
    """The JSON value of an option, which may be JSON text, a file or standard input."""
    if source.lstrip().startswith(("{", "[")):
        return _parse(source, option)
    if source == "-":
        return _parse(sys.stdin.read(), f"{option}: standard input")
    text = _text(source, option)
    if not source.endswith(".jsonl"):
        return _parse(text, source)
    return [_parse(line, f"{source}, line {at}") for at, line in enumerate(text.splitlines(), 1) if line.strip()]


def _text(source: str, option: str) -> str:
    try:
        return Path(source).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{option}: {source}: can't be read ({getattr(error, 'strerror', None) or error})") from None


def _parse(text: str, where: str) -> Any:
    def mapping(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            twice = sorted(name for name, times in Counter(name for name, _ in pairs).items() if times > 1)
            raise UserError(f"{where}: a name may stand only once in an object. Received twice: {', '.join(twice)}")
        return found

    try:
        return json.loads(text, object_pairs_hook=mapping)
    except json.JSONDecodeError as error:
        raise UserError(f"{where}: not JSON ({error})") from None


def _cell(value: Any) -> str:
    return value if isinstance(value, str) else "" if value is None else json.dumps(value)
