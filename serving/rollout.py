"""Command line `python -m serving.rollout VERB`: moves labels between the versions of a model.

The servers start from the models.config file. A step sends the changed configuration to every replica
(`HandleReloadConfigRequest`), and writes the file when all replicas have accepted it. A version stays loaded while it
has a label and for a grace period after that, because cached user states can only be scored by the version that
computed them. Only one step at a time changes a file.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Annotated, Concatenate, ParamSpec, TypeVar

import grpc
import typer
from tensorflow_serving.apis import get_model_status_pb2
from tensorflow_serving.config import model_server_config_pb2

from serving.models_config import PREVIOUS, difference, read_models_config, with_labels, write_models_config
from serving.replicas import Replica, Served, call_all, resolve
from tfctr.cli.tls import Ca, Certificate, Key, Tls, channel_credentials
from tfctr.errors import UserError
from tfctr.storage import only_one

STABLE, CANARY = "stable", "canary"
_BUSY = "another rollout is changing it; wait until that has ended"
_Reply = TypeVar("_Reply")
_Arguments = ParamSpec("_Arguments")


def _one_at_a_time(
    step: Callable[Concatenate[Rollout, _Arguments], str],
) -> Callable[Concatenate[Rollout, _Arguments], str]:
    """A step that keeps others from the file until it ends, and starts from what the last one left."""

    @wraps(step)
    def alone(rollout: Rollout, /, *arguments: _Arguments.args, **keywords: _Arguments.kwargs) -> str:
        with rollout.lock():
            return step(rollout, *arguments, **keywords)

    return alone


class Rollout:
    """Moves the labels of one model on all its replicas.

    Args:
        config: The models.config file, with exactly one model.
        addresses: HOST:PORT of every replica, or dns:///HOST:PORT for all addresses of a name.
        timeout: How many seconds a version may take to load.
        dry_run: Send and write nothing.
        clock: Returns the seconds since 1970.
        credentials: gRPC channel credentials (TLS); plain text without.

    Raises:
        UserError: The file cannot be read or parsed, or an address cannot be resolved.
    """

    def __init__(
        self,
        config: Path,
        addresses: Sequence[str],
        timeout: float = 600.0,
        dry_run: bool = False,
        clock: Callable[[], float] = time.time,
        credentials: grpc.ChannelCredentials | None = None,
    ) -> None:
        self._path = config.resolve()  # two names of one file have one lock
        self._dry_run = dry_run
        self._clock = clock
        self._read()
        self.replicas = [Replica(address, timeout, credentials, name) for address, name in resolve(addresses).items()]

    def _read(self) -> None:
        self.config, self._retired = read_models_config(self._path)
        (self.model,) = self.config.model_config_list.config

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keeps other rollouts from the file, and reads it, because one may have changed it. A dry run does not.

        Raises:
            UserError: Another rollout is changing the file.
        """
        if self._dry_run:
            yield
            return
        with only_one(self._path, self._path.with_name(f".{self._path.name}.lock"), _BUSY):
            self._read()
            yield

    @property
    def labels(self) -> dict[str, int]:
        """The version of each label."""
        return dict(self.model.version_labels)

    @_one_at_a_time
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

    @_one_at_a_time
    def pin(self, version: int) -> str:
        """Gives a version the label `stable`. All loaded versions stay loaded."""
        return self._apply({*self._loaded(), version}, {**self.labels, STABLE: version})

    @_one_at_a_time
    def promote(self) -> str:
        """Makes the canary the stable version. The old one, now `previous`, stays loaded until it is dropped."""
        if CANARY not in self.labels:
            raise UserError("there is no canary to promote; run `canary VERSION` first")
        canary, stable = self.labels[CANARY], self.labels[STABLE]
        if canary == stable:
            return self._apply(self._loaded(), self.labels)
        return self._apply(self._loaded(), {STABLE: canary, CANARY: canary, PREVIOUS: stable})

    @_one_at_a_time
    def rollback(self) -> str:
        """Moves `canary` back to the stable version or, after a promotion, both labels back to the previous version."""
        labels = self.labels
        if STABLE not in labels:
            raise UserError("there is no stable version to go back to")
        if labels.get(CANARY, labels[STABLE]) != labels[STABLE]:
            return self._apply(self._loaded(), {**labels, CANARY: labels[STABLE]})
        if PREVIOUS not in labels:
            return self._apply(self._loaded(), labels)
        return self._apply(self._loaded(), {STABLE: labels[PREVIOUS], CANARY: labels[PREVIOUS]})

    @_one_at_a_time
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
        return {version for served in self._all(self.served).values() for version in served.available}

    def served(self, replica: Replica) -> Served:
        """What a replica serves, by version and by label."""
        return replica.served(self.model.name, sorted({STABLE, CANARY, PREVIOUS, *self.labels}))

    def differences(self, served: Served) -> list[str]:
        """What a replica serves otherwise than the file says."""
        found = []
        for label in sorted({*served.labels, *self.labels}):
            has, says = (labels.get(label, "none") for labels in (served.labels, self.labels))
            if has != says:
                found.append(f"{label} is version {has}, not {says}")
        if named := set(self.model.model_version_policy.specific.versions):
            found += [f"version {version} is not available" for version in sorted(named - served.available)]
            found += [f"version {version} is loaded too" for version in sorted(served.available - named)]
        return found

    def _apply(self, versions: Iterable[int], labels: dict[str, int]) -> str:
        wanted = with_labels(self.config, labels)
        (model,) = wanted.model_config_list.config
        model.model_version_policy.specific.versions[:] = sorted(set(versions))
        change = difference(self.config, wanted)
        if not change:
            # A replica that started with an older file, or that an interrupted step left, is given what the file says.
            change = "\n".join(
                f"{address}: {', '.join(found)}"
                for address, served in self._all(self.served).items()
                if (found := self.differences(served))
            )
        if not change or self._dry_run:
            return change
        # A label needs an available version, and a state that one replica computed may be scored by any other one. So
        # the version is loaded on all replicas, with the old labels, before a label moves on any of them.
        try:
            self._all(lambda replica: self._load(replica, wanted))
            self._all(lambda replica: replica.send(wanted))
            write_models_config(self._path, wanted, self._retired, self._clock())
        except UserError as error:
            self._restore(error)
        return change

    def _load(self, replica: Replica, config: model_server_config_pb2.ModelServerConfig) -> None:
        """Loads the versions of a configuration on a replica, which keeps its own labels for the versions that stay."""
        (model,) = config.model_config_list.config
        stay = set(model.model_version_policy.specific.versions)
        kept = {label: number for label, number in self.served(replica).labels.items() if number in stay}
        replica.load(with_labels(config, kept))

    def _restore(self, error: UserError) -> None:
        def restore(replica: Replica) -> None:
            self._load(replica, self.config)
            replica.send(self.config)

        _, problems = call_all(self.replicas, restore)
        if problems:
            raise UserError(
                f"{error}; the previous configuration is not back on {'; '.join(problems)}. When these answer again, "
                "`status` tells what each serves, and `pin VERSION` sets all alike"
            ) from None
        raise UserError(f"{error}; the previous configuration is back") from None

    def _all(self, call: Callable[[Replica], _Reply]) -> dict[str, _Reply]:
        replies, problems = call_all(self.replicas, call)
        if problems:
            raise UserError("; ".join(problems))
        return replies


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
    tls: Tls = False,
    ca: Ca = None,
    certificate: Certificate = None,
    key: Key = None,
) -> None:
    """Move the labels of a model between versions."""
    try:
        credentials = channel_credentials(tls, ca, certificate, key)
        rollout = Rollout(config, address, timeout, dry_run, credentials=credentials)
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
    """The versions and labels as each replica tells them.

    Raises:
        UserError: A replica does not answer, or serves otherwise than the file says.
    """
    replies, problems = call_all(rollout.replicas, rollout.served)
    name = get_model_status_pb2.ModelVersionStatus.State.Name
    lines, differing = [], []
    for address, served in replies.items():
        for version, status in sorted(served.statuses.items()):
            labels = sorted(label for label, number in served.labels.items() if number == version)
            lines.append(" ".join([address, str(version), name(status.state), *labels]))
        if found := rollout.differences(served):
            differing.append(f"{address}: {', '.join(found)}")
    if differing and STABLE in rollout.labels:
        # A step that has ended may not be taken again: a second rollback goes back further.
        differing.append(f"`pin {rollout.labels[STABLE]}` gives all what the file says")
    if problems := [*problems, *differing]:
        typer.echo("".join(f"{line}\n" for line in lines), nl=False)
        raise UserError("; ".join(problems))
    return "\n".join(lines)


if __name__ == "__main__":
    app()
