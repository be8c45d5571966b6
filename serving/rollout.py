"""Command line `python -m serving.rollout VERB`: moves labels between the versions of a model.

The servers start from the models.config file. A step sends the changed configuration to every replica
(`HandleReloadConfigRequest`), and writes the file when all replicas have accepted it. A version stays loaded while it
has a label and for a grace period after that, because cached user states can only be scored by the version that
computed them.
"""

from __future__ import annotations

import os
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

from serving.replicas import AVAILABLE, Replica, call_all, resolve
from tfctr.errors import UserError

STABLE, CANARY, PREVIOUS = "stable", "canary", "previous"
# The time since when no label directs new requests to a version. The server ignores it as a comment; `drop` uses it.
_NOTE = re.compile(r"^# version (\d+) retired since (\S+)$", re.MULTILINE)
_Reply = TypeVar("_Reply")


class Rollout:
    """Moves the labels of one model on all its replicas.

    Args:
        config: The models.config file, with exactly one model.
        addresses: HOST:PORT of every replica.
        timeout: How many seconds a version may take to load.
        dry_run: Send and write nothing.
        clock: Returns the seconds since 1970.

    Raises:
        UserError: The file cannot be read or parsed.
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
            # A file that was not written by a step has no such comments; the age of the file counts instead.
            written = config.stat().st_mtime
            self._retired = {version: noted.get(version, written) for version in _retired(self.config)}
        except (OSError, text_format.ParseError, ValueError) as error:
            raise UserError(f"{config}: must be a models.config file with one model. Received: {error}") from None
        self.replicas = [Replica(address, timeout) for address in addresses]

    @property
    def labels(self) -> dict[str, int]:
        """The version of each label."""
        return dict(self.model.version_labels)

    def canary(self, version: int) -> str:
        """Loads a version in addition to the served ones, and gives it the label `canary`.

        If no version has the label `stable`, the newest of the others gets it.

        Returns:
            The lines that changed; empty if nothing did.
        """
        labels = self.labels
        if STABLE not in labels:
            others = sorted(self._served() - {version})
            if not others:
                raise UserError(f"no version besides {version} is served; use `pin {version}` for the first version")
            labels[STABLE] = others[-1]
        return self._apply({*self._loaded(), *labels.values(), version}, {**labels, CANARY: version})

    def pin(self, version: int) -> str:
        """Gives a version the label `stable`. All loaded versions stay loaded."""
        return self._apply({*self._loaded(), version}, {**self.labels, STABLE: version})

    def promote(self) -> str:
        """Makes the canary the stable version. The old one, now `previous`, stays loaded until it is dropped."""
        if CANARY not in self.labels:
            raise UserError("there is no canary to promote; run `canary VERSION` first")
        canary, stable = self.labels[CANARY], self.labels[STABLE]
        if canary == stable:
            return ""
        return self._apply(self._loaded(), {STABLE: canary, CANARY: canary, PREVIOUS: stable})

    def rollback(self) -> str:
        """Moves `canary` back to the stable version or, after a promotion, both labels back to the previous version."""
        labels = self.labels
        if STABLE not in labels:
            raise UserError("there is no stable version to go back to")
        if labels.get(CANARY, labels[STABLE]) != labels[STABLE]:
            return self._apply(self._loaded(), {**labels, CANARY: labels[STABLE]})
        if PREVIOUS not in labels:
            return ""
        return self._apply(self._loaded(), {STABLE: labels[PREVIOUS], CANARY: labels[PREVIOUS]})

    def drop(self, version: int, grace_seconds: float) -> str:
        """Unloads a version that no label directs requests to and whose cached user states have expired."""
        labels = {label: number for label, number in self.labels.items() if (label, number) != (PREVIOUS, version)}
        held = [label for label, number in labels.items() if number == version]
        if held:
            raise UserError(f"version {version} is labelled {', '.join(held)}; move the label first")
        named = set(self.model.model_version_policy.specific.versions)
        if not named:
            raise UserError(f"{self._path} names no versions; run `canary VERSION` or `pin VERSION` first")
        if version in named and (left := self._retired[version] + grace_seconds - self._clock()) > 0:
            raise UserError(f"version {version} may have live user states for {left:.0f} s more; drop it then")
        return self._apply(named - {version}, labels)

    def _loaded(self) -> set[int]:
        """The versions in the file. If it names none, the servers follow the directory, so they are asked."""
        return set(self.model.model_version_policy.specific.versions) or self._served()

    def _served(self) -> set[int]:
        """The versions that are available on any replica."""
        replies = self._all(lambda replica: replica.status(self.model.name)).values()
        return {number for reply in replies for number, status in reply.items() if status.state == AVAILABLE}

    def _apply(self, versions: Iterable[int], labels: dict[str, int]) -> str:
        wanted = _with_labels(self.config, labels)
        (model,) = wanted.model_config_list.config
        model.model_version_policy.specific.versions[:] = sorted(set(versions))
        change = _difference(self.config, wanted)
        if not change or self._dry_run:
            return change
        # A label needs an available version, and a state that one replica computed may be scored by any other one. So
        # the version is loaded on all replicas, with the old labels, before a label moves on any of them.
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

        _, problems = call_all(self.replicas, restore)
        if problems:
            raise UserError(f"{error}; the previous configuration is not back on {'; '.join(problems)}") from None
        raise UserError(f"{error}; the previous configuration is back") from None

    def _all(self, call: Callable[[Replica], _Reply]) -> dict[str, _Reply]:
        replies, problems = call_all(self.replicas, call)
        if problems:
            raise UserError("; ".join(problems))
        return replies

    def _write(self, config: model_server_config_pb2.ModelServerConfig) -> None:
        notes = ""
        for version in sorted(_retired(config)):
            since = datetime.fromtimestamp(self._retired.get(version, self._clock()), UTC)
            notes += f"# version {version} retired since {since.isoformat(timespec='seconds')}\n"
        # Whoever reads the file meanwhile sees the old one or the new one.
        temporary = self._path.with_name(f".{self._path.name}.new")
        try:
            temporary.write_text(notes + text_format.MessageToString(config))
            os.replace(temporary, self._path)
        except OSError as error:
            raise UserError(f"{self._path} cannot be written: {error.strerror}") from None


def _retired(config: model_server_config_pb2.ModelServerConfig) -> set[int]:
    """The versions that are loaded although no label directs new requests to them."""
    (model,) = config.model_config_list.config
    requested = {number for label, number in model.version_labels.items() if label != PREVIOUS}
    return set(model.model_version_policy.specific.versions) - requested


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
            help="HOST:PORT of a replica; repeat for more. dns:///HOST:PORT: all addresses of a name.",
            default_factory=lambda: ["127.0.0.1:8500"],
            show_default="127.0.0.1:8500",
        ),
    ],
    version: Annotated[int | None, typer.Argument(help="for canary, pin and drop", min=1)] = None,
    timeout: Annotated[float, typer.Option(help="How many seconds a version may take to load.", min=1)] = 600.0,
    grace_seconds: Annotated[
        float, typer.Option(help="How long user states stay cached; `drop` waits for them.", min=0)
    ] = 3600.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print the changes.")] = False,
) -> None:
    """Move the labels of a model between versions."""
    try:
        rollout = Rollout(config, resolve(address), timeout, dry_run)
        typer.echo(_run(rollout, verb, version, grace_seconds) or "nothing to change")
    except UserError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None


def _run(rollout: Rollout, verb: str, version: int | None, grace_seconds: float) -> str:
    if verb in ("canary", "pin", "drop"):
        if version is None:
            raise UserError(f"{verb} needs a version: {verb} VERSION")
        if verb == "drop":
            return rollout.drop(version, grace_seconds)
        return rollout.canary(version) if verb == "canary" else rollout.pin(version)
    if version is not None:
        raise UserError(f"{verb} takes no version. Received: {version}")
    if verb == "status":
        return _status(rollout)
    if verb in ("promote", "rollback"):
        return rollout.promote() if verb == "promote" else rollout.rollback()
    raise UserError(f"unknown verb. Allowed: status, canary, promote, rollback, pin, drop. Received: {verb!r}")


def _status(rollout: Rollout) -> str:
    replies, problems = call_all(rollout.replicas, lambda replica: replica.status(rollout.model.name))
    name = get_model_status_pb2.ModelVersionStatus.State.Name
    lines = []
    for address, statuses in replies.items():
        for version, status in sorted(statuses.items()):
            labels = sorted(label for label, number in rollout.labels.items() if number == version)
            lines.append(" ".join([address, str(version), name(status.state), *labels]))
    if problems:
        typer.echo("".join(f"{line}\n" for line in lines), nl=False)
        raise UserError("; ".join(problems))
    return "\n".join(lines)


if __name__ == "__main__":
    app()
