"""Command line: `python -m serving.rollout VERB`: moves labels between versions, without mixed pairs.

The models.config file is the truth that a server restarts from. A step sends it to the server
(`HandleReloadConfigRequest`), and writes it once the server has taken it. A version stays loaded while a label is on it
and for a grace period after the last step, so that states it made are still scored by it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import grpc
import typer
from google.protobuf import text_format
from tensorflow_serving.apis import get_model_status_pb2, model_management_pb2, model_service_pb2_grpc
from tensorflow_serving.config import model_server_config_pb2

from tfctr.errors import UserError

STABLE, CANARY, PREVIOUS = "stable", "canary", "previous"
AVAILABLE = get_model_status_pb2.ModelVersionStatus.AVAILABLE
END = get_model_status_pb2.ModelVersionStatus.END
_POLL_SECONDS = 0.2


class Rollout:
    """Moves the labels of one model.

    Args:
        config: The models.config file; it must hold exactly one model.
        address: host:port of the server.
        timeout: Seconds that a version may take to load.
        dry_run: Send and write nothing.
    """

    def __init__(self, config: Path, address: str, timeout: float = 600.0, dry_run: bool = False) -> None:
        self._path = config
        self._timeout = timeout
        self._dry_run = dry_run
        try:
            self.config = text_format.Parse(config.read_text(), model_server_config_pb2.ModelServerConfig())
            (self.model,) = self.config.model_config_list.config
        except (OSError, text_format.ParseError, ValueError) as error:
            raise UserError(f"{config}: must be a models.config with one model ({error})") from None
        self._stub = model_service_pb2_grpc.ModelServiceStub(grpc.insecure_channel(address))
        self._address = address

    @property
    def labels(self) -> dict[str, int]:
        """The labels and their versions."""
        return dict(self.model.version_labels)

    def status(self) -> dict[int, get_model_status_pb2.ModelVersionStatus]:
        """What the server says of each version."""
        request = get_model_status_pb2.GetModelStatusRequest()
        request.model_spec.name = self.model.name
        try:
            answer = self._stub.GetModelStatus(request, timeout=10)
        except grpc.RpcError as error:
            raise UserError(f"{self._address}: {error.details()}") from None
        return {status.version: status for status in answer.model_version_status}

    def canary(self, version: int) -> str:
        """Loads a version beside those that are served, then labels it; the newest other one becomes stable if none is.

        Returns:
            What changed, in lines; empty when there was nothing to do.
        """
        labels = self.labels
        if STABLE not in labels:
            served = [number for number, status in self.status().items() if status.state == AVAILABLE]
            others = sorted(set(served) - {version})
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
        left = grace_seconds - (time.time() - self._path.stat().st_mtime)
        if version in self._loaded() and left > 0:
            raise UserError(f"version {version} may have live user states for {left:.0f} s more; then drop it")
        return self._apply(self._loaded() - {version}, labels)

    def _loaded(self) -> set[int]:
        """The versions that the file names; a file without any follows the directory, so the server is asked."""
        named = set(self.model.model_version_policy.specific.versions)
        return named or {number for number, status in self.status().items() if status.state == AVAILABLE}

    def _apply(self, versions: Iterable[int], labels: dict[str, int]) -> str:
        wanted = self._with(versions, labels)
        change = _difference(self.config, wanted)
        if not change or self._dry_run:
            return change
        # A label only goes to an available version: load first, with the labels where they are.
        kept = {label: number for label, number in self.labels.items() if number in set(versions)}
        try:
            self._send(self._with(versions, kept))
            self._wait(versions)
            self._send(wanted)
        except UserError as error:
            self._restore(error)
        # Whoever reads the file meanwhile sees the old one or the new one.
        temporary = self._path.with_name(f".{self._path.name}.new")
        temporary.write_text(text_format.MessageToString(wanted))
        os.replace(temporary, self._path)
        return change

    def _restore(self, error: UserError) -> None:
        try:
            self._send(self.config)
        except UserError as second:
            raise UserError(f"{error}; and the previous configuration was not taken back: {second}") from None
        raise UserError(f"{error}; the previous configuration is back") from None

    def _with(self, versions: Iterable[int], labels: dict[str, int]) -> model_server_config_pb2.ModelServerConfig:
        config = model_server_config_pb2.ModelServerConfig()
        config.CopyFrom(self.config)
        (model,) = config.model_config_list.config
        model.model_version_policy.specific.versions[:] = sorted(set(versions))
        model.version_labels.clear()
        for label, version in sorted(labels.items()):
            model.version_labels[label] = version
        return config

    def _send(self, config: model_server_config_pb2.ModelServerConfig) -> None:
        request = model_management_pb2.ReloadConfigRequest(config=config)
        try:
            answer = self._stub.HandleReloadConfigRequest(request, timeout=self._timeout)
        except grpc.RpcError as error:
            raise UserError(f"{self._address}: {error.details()}") from None
        if answer.status.error_code:
            raise UserError(f"{self._address}: {answer.status.error_message}")

    def _wait(self, versions: Iterable[int]) -> None:
        deadline = time.monotonic() + self._timeout
        missing = set(versions)
        while missing:
            statuses = self.status()
            for version in sorted(missing & set(statuses)):
                if statuses[version].state == END:
                    raise UserError(f"version {version} did not load: {statuses[version].status.error_message}")
            missing -= {version for version, status in statuses.items() if status.state == AVAILABLE}
            if missing and time.monotonic() > deadline:
                raise UserError(f"not available after {self._timeout:.0f} s: {', '.join(map(str, sorted(missing)))}")
            if missing:
                time.sleep(_POLL_SECONDS)


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
    config: Annotated[Path, typer.Option(help="The models.config file that the server starts from.")],
    version: Annotated[int | None, typer.Argument(help="for canary, pin and drop", min=1)] = None,
    address: Annotated[str, typer.Option(help="host:port of the server.")] = "127.0.0.1:8500",
    timeout: Annotated[float, typer.Option(help="Seconds that a version may take to load.", min=1)] = 600.0,
    grace_seconds: Annotated[float, typer.Option(help="How long cached user states live.", min=0)] = 3600.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would change.")] = False,
) -> None:
    """Move a model's labels from version to version."""
    try:
        rollout = Rollout(config, address, timeout, dry_run)
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
        names = get_model_status_pb2.ModelVersionStatus.State.Name
        labels = rollout.labels.items()
        return "\n".join(
            " ".join([str(number), names(status.state), *(label for label, held in labels if held == number)])
            for number, status in sorted(rollout.status().items())
        )
    if verb in ("promote", "rollback"):
        return rollout.promote() if verb == "promote" else rollout.rollback()
    raise UserError(f"`{verb}` is no verb. Allowed: status, canary, promote, rollback, pin, drop")


if __name__ == "__main__":
    app()
