"""Command line: `python -m serving.rollout VERB`: moves labels between versions, without mixed pairs.

The models.config file is the truth that servers restart from. A step sends it to every replica
(`HandleReloadConfigRequest`), and writes it once all of them have taken it. A version stays loaded while a label is on
it and for a grace period after, so that states it made are still scored by it.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, TypeVar

import typer
from google.protobuf import text_format
from tensorflow_serving.apis import get_model_status_pb2
from tensorflow_serving.config import model_server_config_pb2

from serving.replicas import AVAILABLE, Replica, ask_all, resolve
from tfctr.errors import UserError
from tfctr.storage import write_text

STABLE, CANARY, PREVIOUS = "stable", "canary", "previous"
# Since when no label leads new requests to a version: a comment to the server, the clock of `drop` to us.
_NOTE = re.compile(r"^# version (\d+) retired since (\S+)$", re.MULTILINE)
_Answer = TypeVar("_Answer")


class Rollout:
    """Moves the labels of one model, on all its replicas.

    Args:
        config: The models.config file; it must hold exactly one model.
        addresses: HOST:PORT of every replica.
        timeout: Seconds that a version may take to load.
        dry_run: Send and write nothing.
        clock: Seconds since 1970.

    Raises:
        UserError: The file cannot be used.
    """

    def __init__(
        self,
        config: Path,
        addresses: Sequence[str],
        timeout: float = 600.0,
        dry_run: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._path = config
        self._dry_run = dry_run
        self._clock = clock
        try:
            text = config.read_text()
            self.config = text_format.Parse(text, model_server_config_pb2.ModelServerConfig())
            (self.model,) = self.config.model_config_list.config
            noted = {int(version): datetime.fromisoformat(since).timestamp() for version, since in _NOTE.findall(text)}
            # A file that no step has written has no notes: whoever wrote it retired them then.
            written = config.stat().st_mtime
            self._retired = {version: noted.get(version, written) for version in _retired(self.config)}
        except (OSError, text_format.ParseError, ValueError) as error:
            raise UserError(f"{config}: must be a models.config with one model ({error})") from None
        self.replicas = [Replica(address, timeout) for address in addresses]

    @property
    def labels(self) -> dict[str, int]:
        """The labels and their versions."""
        return dict(self.model.version_labels)

    def canary(self, version: int) -> str:
        """Loads a version beside those that are served, then labels it; the newest other one becomes stable if none is.

        Returns:
            What changed, in lines; empty when there was nothing to do.
        """
        labels = self.labels
        if STABLE not in labels:
            others = sorted(self._served() - {version})
            if not others:
                raise UserError(f"no version is served beside {version}: use `pin {version}` for the first one")
            labels[STABLE] = others[-1]
        return self._apply({*self._loaded(), *labels.values(), version}, {**labels, CANARY: version})

    def pin(self, version: int) -> str:
        """Makes a version the stable one; what was loaded stays so."""
        return self._apply({*self._loaded(), version}, {**self.labels, STABLE: version})

    def promote(self) -> str:
        """Makes the canary the stable version; the old one stays loaded, as `previous`, until it is dropped."""
        if CANARY not in self.labels:
            raise UserError("there is no canary to promote: `canary VERSION` comes first")
        canary, stable = self.labels[CANARY], self.labels[STABLE]
        if canary == stable:
            return ""
        return self._apply(self._loaded(), {STABLE: canary, CANARY: canary, PREVIOUS: stable})

    def rollback(self) -> str:
        """Takes the canary back to the stable version or, after its promotion, both back to the previous one."""
        labels = self.labels
        if STABLE not in labels:
            raise UserError("there is no stable version to go back to")
        if labels.get(CANARY, labels[STABLE]) != labels[STABLE]:
            return self._apply(self._loaded(), {**labels, CANARY: labels[STABLE]})
        if PREVIOUS not in labels:
            return ""
        return self._apply(self._loaded(), {STABLE: labels[PREVIOUS], CANARY: labels[PREVIOUS]})

    def drop(self, version: int, grace_seconds: float) -> str:
        """Unloads a version that requests no longer ask for and whose states have expired."""
        labels = {label: number for label, number in self.labels.items() if (label, number) != (PREVIOUS, version)}
        held = [label for label, number in labels.items() if number == version]
        if held:
            raise UserError(f"version {version} is labelled {', '.join(held)}: move the label first")
        named = set(self.model.model_version_policy.specific.versions)
        if not named:
            raise UserError(f"{self._path} names no versions: `canary VERSION` or `pin VERSION` comes first")
        if version in named and (left := self._retired[version] + grace_seconds - self._clock()) > 0:
            raise UserError(f"version {version} may have live user states for {left:.0f} s more; then drop it")
        return self._apply(named - {version}, labels)

    def _loaded(self) -> set[int]:
        """The versions that the file names; a file without any follows the directory, so the servers are asked."""
        return set(self.model.model_version_policy.specific.versions) or self._served()

    def _served(self) -> set[int]:
        """The versions that are available on any replica."""
        answers = self._all(lambda replica: replica.status(self.model.name)).values()
        return {number for answer in answers for number, status in answer.items() if status.state == AVAILABLE}

    def _apply(self, versions: Iterable[int], labels: dict[str, int]) -> str:
        wanted = _with_labels(self.config, labels)
        (model,) = wanted.model_config_list.config
        model.model_version_policy.specific.versions[:] = sorted(set(versions))
        change = _difference(self.config, wanted)
        if not change or self._dry_run:
            return change
        # A label only goes to an available version, and a state made on one replica is scored on any: a version is
        # loaded everywhere, with the labels where they are, before a label leads to it anywhere.
        kept = {label: number for label, number in self.labels.items() if number in set(versions)}
        try:
            self._all(lambda replica: replica.load(_with_labels(wanted, kept)))
            self._all(lambda replica: replica.send(wanted))
            self._write(wanted)
        except UserError as error:
            self._restore(kept, error)
        return change

    def _restore(self, kept: dict[str, int], error: UserError) -> None:
        def restore(replica: Replica) -> None:
            replica.load(_with_labels(self.config, kept))
            replica.send(self.config)

        _, problems = ask_all(self.replicas, restore)
        if problems:
            raise UserError(f"{error}; the previous configuration is not back on {'; '.join(problems)}") from None
        raise UserError(f"{error}; the previous configuration is back") from None

    def _all(self, question: Callable[[Replica], _Answer]) -> dict[str, _Answer]:
        answers, problems = ask_all(self.replicas, question)
        if problems:
            raise UserError("; ".join(problems))
        return answers

    def _write(self, config: model_server_config_pb2.ModelServerConfig) -> None:
        notes = ""
        for version in sorted(_retired(config)):
            since = datetime.fromtimestamp(self._retired.get(version, self._clock()), UTC)
            notes += f"# version {version} retired since {since.isoformat(timespec='seconds')}\n"
        try:
            write_text(self._path, notes + text_format.MessageToString(config))
        except OSError as error:
            raise UserError(f"{self._path} cannot be written: {error.strerror}") from None


def _retired(config: model_server_config_pb2.ModelServerConfig) -> set[int]:
    """The versions that stay loaded although no label leads new requests to them."""
    (model,) = config.model_config_list.config
    led_to = {number for label, number in model.version_labels.items() if label != PREVIOUS}
    return set(model.model_version_policy.specific.versions) - led_to


def _with_labels(
    config: model_server_config_pb2.ModelServerConfig, labels: dict[str, int]
) -> model_server_config_pb2.ModelServerConfig:
    changed = model_server_config_pb2.ModelServerConfig()
    changed.CopyFrom(config)
    (model,) = changed.model_config_list.config
    model.version_labels.clear()
    for label, version in sorted(labels.items()):
        model.version_labels[label] = version
    return changed


def _difference(old: model_server_config_pb2.ModelServerConfig, new: model_server_config_pb2.ModelServerConfig) -> str:
    if old == new:
        return ""
    lines = []
    for sign, config in (("-", old), ("+", new)):
        (model,) = config.model_config_list.config
        policy = text_format.MessageToString(model.model_version_policy, as_one_line=True)
        labels = " ".join(f"{label}={number}" for label, number in sorted(model.version_labels.items()))
        lines.append(f"{sign} {policy} labels: {labels or 'none'}")
    return "\n".join(lines)


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, no_args_is_help=True)


@app.command()
def main(
    verb: Annotated[str, typer.Argument(help="status, canary, promote, rollback, pin or drop")],
    config: Annotated[Path, typer.Option(help="The models.config file that the servers start from.")],
    address: Annotated[
        list[str],
        typer.Option(
            help="HOST:PORT of a replica, once for each; dns:///HOST:PORT is every address of a name.",
            default_factory=lambda: ["127.0.0.1:8500"],
            show_default="127.0.0.1:8500",
        ),
    ],
    version: Annotated[int | None, typer.Argument(help="for canary, pin and drop", min=1)] = None,
    timeout: Annotated[float, typer.Option(help="Seconds that a version may take to load.", min=1)] = 600.0,
    grace_seconds: Annotated[
        float, typer.Option(help="How long states live, and their version with them.", min=0)
    ] = 3600.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would change.")] = False,
) -> None:
    """Move a model's labels from version to version."""
    try:
        rollout = Rollout(config, resolve(address), timeout, dry_run)
        typer.echo(_run(rollout, verb, version, grace_seconds) or "nothing to change")
    except UserError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None


def _run(rollout: Rollout, verb: str, version: int | None, grace_seconds: float) -> str:
    if verb in ("canary", "pin", "drop"):
        if version is None:
            raise UserError(f"{verb} needs a version")
        if verb == "drop":
            return rollout.drop(version, grace_seconds)
        return rollout.canary(version) if verb == "canary" else rollout.pin(version)
    if version is not None:
        raise UserError(f"{verb} takes no version")
    if verb == "status":
        return _status(rollout)
    if verb in ("promote", "rollback"):
        return rollout.promote() if verb == "promote" else rollout.rollback()
    raise UserError(f"`{verb}` is no verb. Allowed: status, canary, promote, rollback, pin, drop")


def _status(rollout: Rollout) -> str:
    answers, problems = ask_all(rollout.replicas, lambda replica: replica.status(rollout.model.name))
    name = get_model_status_pb2.ModelVersionStatus.State.Name
    lines = []
    for address, statuses in answers.items():
        for version, status in sorted(statuses.items()):
            labels = sorted(label for label, number in rollout.labels.items() if number == version)
            lines.append(" ".join([address, str(version), name(status.state), *labels]))
    if problems:
        typer.echo("".join(f"{line}\n" for line in lines), nl=False)
        raise UserError("; ".join(problems))
    return "\n".join(lines)


if __name__ == "__main__":
    app()
