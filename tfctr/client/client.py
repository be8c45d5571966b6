"""Ranks candidates with a served model: user_tower once, then score for all candidates."""

import logging
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Literal

import grpc
import numpy as np

from tfctr.client import codec
from tfctr.client.cache import MemoryStateCache, StateCache
from tfctr.client.codec import Array
from tfctr.client.errors import (
    BadRequestError,
    CodecError,
    ModelNotFoundError,
    StateRejectedError,
)
from tfctr.client.metadata import PROBABILITIES, SCORE, USER_TOWER, ServedModel
from tfctr.client.protos import wire_pb2 as wire
from tfctr.client.requests import Candidates, Declared, Features, count_candidates
from tfctr.client.results import Ranked, VersionStatus, candidate_at, refuse_nan
from tfctr.client.served import ServedVersions
from tfctr.client.state import StateKey, UserState
from tfctr.client.transport import Deadline, Transport

logger = logging.getLogger("tfctr.client")


class RankingClient:
    """Asks TensorFlow Serving, or a server that speaks its API, for rankings. Thread safe; needs no TensorFlow.

    Requests are built from the metadata of the served version: features it does not know are left out and counted,
    features the caller does not give are sent as missing, histories are cut and padded to its length. The state of a
    user is scored by the version that made it and no other.

    Args:
        target: `host:port`, `unix:/path`, or any gRPC target.
        model_name: name of the model on the server.
        timeout_seconds: time budget of a whole request, all its calls together.
        cache: where states are kept for requests that name their user: "memory" (in this process), any `StateCache`,
            or `None`.
        version: ask for this version; the newest by default.
        version_label: ask for the version with this label ("stable").
        feature_file: the model's feature file (path or loaded): names that neither it nor the served version knows
            become errors, and it says which fields belong to which history.
        strict: a feature that the served version does not know is an error, not left out.
        refresh_seconds: how often to look for a newer version.
        credentials: gRPC channel credentials (TLS); plain text without.
        options: gRPC channel options.

    Example:

        with RankingClient("localhost:8500") as client:
            best = client.rank({"user_id": 7}, [{"item_id": 1}, {"item_id": 2}], {"timestamp": 1700000000}, k=1)
    """

    def __init__(
        self,
        target: str,
        model_name: str = "ranking",
        timeout_seconds: float = 1.0,
        cache: StateCache | Literal["memory"] | None = "memory",
        *,
        version: int | None = None,
        version_label: str | None = None,
        feature_file: Any = None,
        strict: bool = False,
        refresh_seconds: float = 10.0,
        credentials: grpc.ChannelCredentials | None = None,
        options: Sequence[tuple[str, Any]] = (),
    ):
        if version is not None and version_label is not None:
            raise BadRequestError("give either version or version_label, not both.")
        Deadline(timeout_seconds)  # refuses a bad number here, not at the first request
        self._timeout = timeout_seconds
        self._cache = MemoryStateCache() if cache == "memory" else cache
        self._transport = Transport(target, credentials, options)
        self._versions = ServedVersions(
            self._transport,
            model_name,
            version=version,
            label=version_label,
            declared=None if feature_file is None else Declared.of(feature_file),
            strict=strict,
            refresh_seconds=refresh_seconds,
        )

    def __enter__(self) -> "RankingClient":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the channel and the cache."""
        self._transport.close()
        if self._cache is not None:
            self._cache.close()

    def rank(
        self,
        user: Features,
        candidates: Candidates,
        context: Features | None = None,
        k: int | None = None,
        *,
        user_key: str | int | None = None,
        history_version: str | int | None = None,
        timeout_seconds: float | None = None,
    ) -> list[Ranked]:
        """Orders candidates by predicted click-through rate, best first; equal ones stay in the order given.

        Args:
            user: raw user features and histories (lists, newest event first).
            candidates: a mapping of features each, or a mapping of equally long columns.
            context: raw features of the request.
            k: keep the best k.
            user_key: who the user is; together with `history_version` lets the state be kept and used again.
            history_version: changes with every new event of the user (a counter, or the time of the newest event).
            timeout_seconds: time budget of this request.

        Raises:
            ClientError: one of tfctr.client.errors, which say what to do.
        """
        if k is not None and (isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 0):
            raise BadRequestError(f"k must be a whole number, 0 or more. Received: {k!r}")
        if count_candidates(candidates) == 0:
            return []
        deadline = Deadline(self._timeout if timeout_seconds is None else timeout_seconds)
        if (user_key is None) != (history_version is None):
            raise BadRequestError("user_key and history_version go together: a state is kept for a user's history.")
        cached = None if user_key is None else (str(user_key), str(history_version))
        probabilities = self._probabilities(user, candidates, context or {}, cached, deadline)
        order = np.argsort(-probabilities, kind="stable")[:k]
        return [Ranked(int(i), candidate_at(candidates, int(i)), float(probabilities[i])) for i in order]

    def user_state(self, user: Features, *, timeout_seconds: float | None = None) -> UserState:
        """Runs `user_tower` for one user; the cache takes no part."""
        deadline = Deadline(self._timeout if timeout_seconds is None else timeout_seconds)
        return self._compute(user, deadline)

    def score(
        self,
        state: UserState,
        candidates: Candidates,
        context: Features | None = None,
        *,
        timeout_seconds: float | None = None,
    ) -> Array:
        """Probabilities of the candidates in the order given, float32 `[N]`, by the version that made the state.

        Raises:
            StateRejectedError: the state is of another model, or a user or context value is bad.
            BadRowError: some candidates hold bad values.
            ModelNotFoundError: that version is no longer served.
        """
        if count_candidates(candidates) == 0:
            return np.empty(0, np.float32)
        deadline = Deadline(self._timeout if timeout_seconds is None else timeout_seconds)
        return self._score(state, candidates, context or {}, deadline)

    def model_status(self, *, timeout_seconds: float | None = None) -> list[VersionStatus]:
        """Versions the server knows of, newest first."""
        request = wire.GetModelStatusRequest(model_spec=self._versions.spec())
        reply = self._transport.status(request, self._timeout if timeout_seconds is None else timeout_seconds)
        found = [
            VersionStatus(
                entry.version,
                wire.ModelVersionStatus.State.Name(entry.state),
                entry.status.error_code,
                entry.status.error_message,
            )
            for entry in reply.model_version_status
        ]
        return sorted(found, key=lambda status: -status.version)

    def served_model(self, *, timeout_seconds: float | None = None) -> ServedModel:
        """The version that requests go to now, with its inputs."""
        deadline = Deadline(self._timeout if timeout_seconds is None else timeout_seconds)
        return self._versions.latest(deadline).model

    @property
    def dropped_features(self) -> dict[int, dict[str, int]]:
        """How often a feature was left out because a version does not know it: version -> `side.name` -> times."""
        return self._versions.dropped

    def _probabilities(
        self,
        user: Features,
        candidates: Candidates,
        context: Features,
        cached: tuple[str, str] | None,
        deadline: Deadline,
    ) -> Array:
        state = None
        if cached is not None and self._cache is not None:
            model = self._versions.latest(deadline).model
            state = self._cache.get(StateKey(model.name, model.version, model.fingerprint, *cached))
        was_cached = state is not None
        if state is None:
            state = self._compute(user, deadline, cached)
        try:
            return self._score_or_forget(state, candidates, context, cached, deadline)
        except ModelNotFoundError:
            # The version that made the state was unloaded between the two calls, or since the state was kept.
            logger.info("version %d of '%s' is gone; computing the state again", state.version, state.model)
            self._versions.forget(state.version)
        except StateRejectedError:
            if not was_cached:
                raise
            # Another model was deployed under the same version number, or the cached bytes are not what was put there.
            logger.warning("the model refused a cached state of version %d; computing it again", state.version)
        state = self._compute(user, deadline, cached)
        return self._score_or_forget(state, candidates, context, cached, deadline)

    def _score_or_forget(
        self,
        state: UserState,
        candidates: Candidates,
        context: Features,
        cached: tuple[str, str] | None,
        deadline: Deadline,
    ) -> Array:
        """Scores; a state that is refused or whose version is gone does not stay in the cache."""
        try:
            return self._score(state, candidates, context, deadline)
        except (ModelNotFoundError, StateRejectedError):
            if cached is not None and self._cache is not None:
                self._cache.invalidate(_key(state, cached))
            raise

    def _compute(self, user: Features, deadline: Deadline, cached: tuple[str, str] | None = None) -> UserState:
        builder = self._versions.latest(deadline)
        try:
            reply = self._predict(USER_TOWER, builder.model.version, builder.user(user), deadline)
        except ModelNotFoundError:
            # The version asked for was unloaded since the last look.
            self._versions.forget(builder.model.version)
            builder = self._versions.latest(deadline)
            reply = self._predict(USER_TOWER, builder.model.version, builder.user(user), deadline)
        model = builder.model
        wanted = set(model.state_inputs.values())
        absent = wanted - set(reply.outputs)
        if absent:
            raise CodecError(f"{model.where}: the reply of {USER_TOWER} lacks {sorted(absent)}.")
        tensors = {name: codec.decode(reply.outputs[name], name) for name in wanted}
        state = UserState(model.name, reply.model_spec.version.value or model.version, model.fingerprint, tensors)
        if cached is not None and self._cache is not None:
            self._cache.put(_key(state, cached), state)
        return state

    def _score(self, state: UserState, candidates: Candidates, context: Features, deadline: Deadline) -> Array:
        builder = self._versions.get(state.version, deadline)
        model = builder.model
        whole = set(model.state_inputs.values()) <= set(state.tensors)
        if state.model != model.name or state.fingerprint != model.fingerprint or not whole:
            raise StateRejectedError(
                f"{model.where}: the state was made by another model. Compute it anew with user_state().",
                range(count_candidates(candidates)),
            )
        inputs = {name: state.tensors[output] for name, output in model.state_inputs.items()}
        inputs |= builder.candidates(candidates) | builder.context(context)
        reply = self._predict(SCORE, state.version, inputs, deadline)
        if PROBABILITIES not in reply.outputs:
            raise CodecError(f"{model.where}: the reply of {SCORE} lacks '{PROBABILITIES}'.")
        probabilities = codec.decode(reply.outputs[PROBABILITIES], PROBABILITIES)
        count = count_candidates(candidates)
        if probabilities.shape != (1, count):
            raise CodecError(f"{model.where}: {list(probabilities.shape)} probabilities for {count} candidates.")
        return refuse_nan(probabilities[0], model)

    def _predict(
        self, signature: str, version: int, inputs: Mapping[str, Array], deadline: Deadline
    ) -> wire.PredictResponse:
        request = wire.PredictRequest(model_spec=self._versions.spec(version, signature))
        for name, array in inputs.items():
            codec.encode(array, request.inputs[name])
        return self._transport.predict(request, deadline.remaining(signature))


def _key(state: UserState, cached: tuple[str, str]) -> StateKey:
    return StateKey(state.model, state.version, state.fingerprint, *cached)
