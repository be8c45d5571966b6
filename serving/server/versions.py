"""The versions of a model: found by polling, loaded before old ones are unloaded, kept while requests use them."""

from __future__ import annotations

import gc
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
from tensorflow_serving.apis import get_model_status_pb2, model_pb2

from serving.server.directory import find_versions, fingerprint, latest, wanted_versions
from serving.server.engine import LoadedModel
from serving.server.metrics import Metrics
from serving.server.status import StatusError, as_status, not_found
from serving.server.version import AVAILABLE, END, LOADING, UNLOADING, Version, requested_version
from serving.server.warmup import run_warmup

logger = logging.getLogger("serving.server")
_CANCEL_SECONDS = 1.0


class VersionManager:
    """Loads and unloads the versions of one model in a thread of its own.

    The policy decides which versions in the directory are wanted. Old versions stay available until all wanted versions
    are, so a version that cannot be loaded does not affect the others. It is tried again when its files change, and
    every `retry_seconds` up to `max_retries` times.

    Args:
        name: The name of the model in requests.
        base_path: The directory with one directory for each version.
        load_model: Loads a version from its directory.
        policy: Decides which versions are served; by default the newest two.
        poll_seconds: How often the directory is read.
        retry_seconds: How long until a version that failed to load is tried again without a change of its files.
        max_retries: How often it is tried again. After that its state is END until its files change.
        metrics: Where loads are counted.
    """

    def __init__(
        self,
        name: str,
        base_path: Path,
        load_model: Callable[[Path], LoadedModel] = LoadedModel,
        policy: Any = None,
        poll_seconds: float = 1.0,
        retry_seconds: float = 60.0,
        max_retries: int = 5,
        metrics: Metrics | None = None,
    ) -> None:
        self.name = name
        self.base_path = base_path
        self._policy = policy or latest(2)
        self._labels: dict[str, int] = {}
        self._poll_seconds = poll_seconds
        self._retry_seconds = retry_seconds
        self._max_retries = max_retries
        self._load_model = load_model
        self._metrics = metrics or Metrics()
        self._lock = threading.Lock()
        # Only one thread may load versions at a time: the polling thread, or one that sets a new policy.
        self._polling = threading.Lock()
        self._versions: dict[int, Version] = {}
        self._latest: Version | None = None
        self._has_garbage = False
        self._ready = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._poll_forever, name=f"versions of {name}", daemon=True)

    def start(self) -> None:
        """Starts the polling thread."""
        self._thread.start()

    def wait_until_ready(self, timeout_seconds: float | None) -> bool:
        """Waits until all wanted versions were tried and one is available. Returns False after the timeout."""
        return self._ready.wait(timeout_seconds)

    def stop(self, cancel: bool = False) -> None:
        """Stops the polling thread and frees all versions as soon as no request uses them.

        Args:
            cancel: Requests in progress end with an error, and a version that is being loaded is not waited for.
        """
        self._stop.set()
        self._thread.join(_CANCEL_SECONDS if cancel else None)
        if not self._polling.acquire(timeout=_CANCEL_SECONDS if cancel else -1):
            return
        try:
            for version in list(self._versions.values()):
                if version.state in (LOADING, AVAILABLE):
                    self._retire(version)
                model = version.model
                if cancel and model is not None:
                    model.close()
        finally:
            self._polling.release()

    def update(self, base_path: Path, policy: Any) -> None:
        """Changes the directory and the policy, and returns when the wanted versions were tried.

        Raises:
            StatusError: A version that the new policy names is not available, or none is.
        """
        with self._polling:
            self.base_path, self._policy = base_path, policy
        self.poll()
        missing = set(policy.specific.versions) - set(self.available())
        if missing or not self.available():
            why = "; ".join(self.problems()) or f"no such version in {base_path}"
            raise StatusError(grpc.StatusCode.UNKNOWN, f"{self.name}: {why}")

    def check_labels(self, labels: Mapping[str, int]) -> None:
        """Checks that the versions of all labels are available.

        Raises:
            StatusError: One of them is not.
        """
        for version in labels.values():
            if version not in self.available():
                raise StatusError(
                    grpc.StatusCode.FAILED_PRECONDITION,
                    f"Request to assign label to version {version} of model {self.name}, which is not currently "
                    "available for inference",
                )

    def set_labels(self, labels: Mapping[str, int]) -> None:
        """Replaces all labels."""
        with self._lock:
            self._labels = dict(labels)

    def available(self) -> list[int]:
        """The available versions, oldest first."""
        with self._lock:
            return sorted(number for number, version in self._versions.items() if version.state == AVAILABLE)

    def problems(self) -> list[str]:
        """A message for each version that could not be loaded."""
        with self._lock:
            failed = [version for version in self._versions.values() if version.error]
            return [f"version {version.number}: {version.error[1]}" for version in failed if version.error]

    @contextmanager
    def use(self, spec: model_pb2.ModelSpec) -> Iterator[tuple[int, LoadedModel]]:
        """Keeps a version loaded for the duration of a request.

        Args:
            spec: Selects a version by number or label, or the newest available one.

        Raises:
            StatusError: The version is not available.
        """
        with self._lock:
            version = requested_version(spec, self._labels)
            held = self._latest if version is None else self._versions.get(version)
            if held is None or held.state != AVAILABLE or held.model is None:
                wanted = f"Latest({self.name})" if version is None else f"Specific({self.name}, {version})"
                served = ", ".join(
                    str(number) for number, one in sorted(self._versions.items()) if one.state == AVAILABLE
                )
                raise not_found(
                    f"Servable not found for request: {wanted}. Available versions of {self.name}: {served or 'none'}"
                )
            held.users += 1
            model = held.model
        try:
            yield held.number, model
        finally:
            self._release(held)

    def status(self, spec: model_pb2.ModelSpec) -> list[get_model_status_pb2.ModelVersionStatus]:
        """The status of one version or, newest first, of all known versions.

        Raises:
            StatusError: There is no such version.
        """
        with self._lock:
            version = requested_version(spec, self._labels)
            known = sorted(self._versions.values(), key=lambda one: -one.number)
            if version is not None:
                known = [one for one in known if one.number == version]
                if not known:
                    raise not_found(f"Could not find version {version} of model {self.name}")
            if not known:
                raise not_found(f"Could not find any versions of model {self.name}")
            return [one.status() for one in known]

    def poll(self) -> None:
        """Reads the directory once, and loads and unloads versions accordingly."""
        with self._polling:
            self._poll()

    def _poll(self) -> None:
        if self._has_garbage:
            # The graph of a model has reference cycles and takes tens of megabytes. By itself, Python would collect it
            # only after about 25 versions in a process of this size.
            self._has_garbage = False
            gc.collect()
        found = find_versions(self.base_path)
        if found is None:
            logger.warning("%s cannot be read; the served versions are kept", self.base_path)
            return
        wanted = wanted_versions(found, self._policy)
        for number in wanted:
            self._load_if_due(number, found[number])
            if self._stop.is_set():
                return
        states = [self._versions[number].state for number in wanted]
        for version in self._versions.values():
            # A version that is no longer wanted is unloaded when all wanted versions are available. If its directory is
            # gone, one of them is enough.
            replaced = all if version.number in found else any
            gone = version.number not in wanted and version.state in (LOADING, AVAILABLE)
            if gone and (not wanted or replaced(state == AVAILABLE for state in states)):
                self._retire(version)
        if self._latest is not None:
            self._ready.set()

    def _poll_forever(self) -> None:
        while not self._stop.is_set():
            try:
                self.poll()
            except Exception:
                logger.exception("reading the versions of %s failed; trying again", self.name)
            self._stop.wait(self._poll_seconds)

    def _load_if_due(self, number: int, directory: Path) -> None:
        version = self._versions.get(number)
        if version is not None and version.state == AVAILABLE:
            return
        files = fingerprint(directory)
        if version is None or (version.state in (UNLOADING, END) and version.error is None):
            # Unknown, or wanted again after it was unloaded: running requests may still use the old object.
            version = Version(number, directory)
        elif files != version.files:
            version.attempts = 0
        elif version.attempts > self._max_retries or time.monotonic() < version.retry_at:
            return
        version.directory, version.files = directory, files
        version.attempts += 1
        self._load(version)

    def _load(self, version: Version) -> None:
        with self._lock:
            # Replaced, not changed, because other threads may be reading it.
            self._versions = {**self._versions, version.number: version}
            version.state = LOADING
        started = time.monotonic()
        logger.info("%s: loading version %d from %s", self.name, version.number, version.directory)
        model = None
        try:
            model = self._load_model(version.directory)
            records = run_warmup(model, version.directory)
        except Exception as error:
            if model is not None:
                model.close()
            self._metrics.load(self.name, time.monotonic() - started, failed=True)
            self._failed(version, error)
            return
        self._metrics.load(self.name, time.monotonic() - started, failed=False)
        with self._lock:
            version.model, version.state, version.error = model, AVAILABLE, None
            self._update_latest()
        logger.info(
            "%s: version %d is available after %.1f s (%d warm-up requests)",
            self.name,
            version.number,
            time.monotonic() - started,
            records,
        )

    def _failed(self, version: Version, error: Exception) -> None:
        again = version.attempts <= self._max_retries
        version.retry_at = time.monotonic() + self._retry_seconds
        self._has_garbage = True
        with self._lock:
            version.error = as_status(error)
            version.state = LOADING if again else END
        served = ", ".join(map(str, self.available()))
        # The reason comes first and without line breaks, so that the first line of the log has it.
        logger.error(
            "%s: version %d cannot be loaded: %s. %s. %s. Directory: %s",
            self.name,
            version.number,
            " ".join(version.error[1].split()),
            f"Still serving version {served}" if served else "No version is served",
            f"It is tried again when its files change, and in {self._retry_seconds:.0f} s"
            if again
            else "It is tried again when its files change",
            version.directory,
        )

    def _retire(self, version: Version) -> None:
        with self._lock:
            version.state = UNLOADING if version.model is not None else END
            self._update_latest()
            idle = version.users == 0
        if version.model is not None:
            logger.info("%s: version %d is no longer served", self.name, version.number)
        if idle:
            self._end(version)

    def _release(self, version: Version) -> None:
        with self._lock:
            version.users -= 1
            last = version.users == 0 and version.state == UNLOADING
        if last:
            self._end(version)

    def _end(self, version: Version) -> None:
        with self._lock:
            model, version.model, version.state = version.model, None, END
        if model is not None:
            model.close()
            self._has_garbage = True

    def _update_latest(self) -> None:
        ready = [version for version in self._versions.values() if version.state == AVAILABLE]
        self._latest = max(ready, key=lambda version: version.number, default=None)
