"""What a ranking request does, step by step; the one implementation behind both clients."""

import logging
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np

from tfctr.client import codec
from tfctr.client.calls import Caller
from tfctr.client.codec import Array
from tfctr.client.counts import Counts
from tfctr.client.errors import BadRequestError, CodecError, ModelNotFoundError, StateRejectedError
from tfctr.client.flight import SingleFlight
from tfctr.client.metadata import PROBABILITIES, SCORE, USER_TOWER, ServedModel
from tfctr.client.protos import wire_pb2 as wire
from tfctr.client.requests import Candidates, Features, count_candidates
from tfctr.client.results import Ranked, VersionStatus, in_order, refuse_nan
from tfctr.client.served import ServedVersions
from tfctr.client.shelf import Shelf
from tfctr.client.state import StateKey, UserState
from tfctr.client.transport import Call, Deadline

logger = logging.getLogger("tfctr.client")


class Ranking:
    """The steps of a request.

    Args:
        caller: makes the calls.
        versions: knows what is served.
        shelf: the cache of states.
        counts: `user_tower`, `score` and `recomputed` are counted there.
        chunk_size: candidates of one call to `score`.
    """

    def __init__(self, caller: Caller, versions: ServedVersions, shelf: Shelf, counts: Counts, chunk_size: int):
        self._caller = caller
        self._versions = versions
        self._shelf = shelf
        self._counts = counts
        self._chunk_size = chunk_size
        self._flight: SingleFlight[UserState] = SingleFlight(caller.driver, counts)

    async def rank(
        self,
        user: Features,
        candidates: Candidates,
        context: Features | None,
        k: int | None,
        user_key: str | int | None,
        history_version: str | int | None,
        timeout_seconds: float,
    ) -> list[Ranked]:
        """See `RankingClient.rank`."""
        if k is not None and (isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 0):
            raise BadRequestError(f"k must be a whole number, 0 or more. Received: {k!r}")
        if (user_key is None) != (history_version is None):
            raise BadRequestError("user_key and history_version go together: a state is kept for a user's history.")
        if count_candidates(candidates) == 0:
            return []
        deadline = Deadline(timeout_seconds)
        cached = None if user_key is None else (str(user_key), str(history_version))
        probabilities = await self._probabilities(user, candidates, context or {}, cached, deadline)
        return in_order(candidates, probabilities, k)

    async def user_state(self, user: Features, timeout_seconds: float) -> UserState:
        """See `RankingClient.user_state`."""
        return await self._compute(user, Deadline(timeout_seconds))

    async def score(
        self, state: UserState, candidates: Candidates, context: Features | None, timeout_seconds: float
    ) -> Array:
        """See `RankingClient.score`."""
        if count_candidates(candidates) == 0:
            return np.empty(0, np.float32)
        return await self._score(state, candidates, context or {}, Deadline(timeout_seconds))

    async def model_status(self, timeout_seconds: float) -> list[VersionStatus]:
        """See `RankingClient.model_status`."""
        reply = await self._caller.one(Call.status(self._versions.spec()), Deadline(timeout_seconds))
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

    async def served_model(self, timeout_seconds: float) -> ServedModel:
        """See `RankingClient.served_model`."""
        return (await self._versions.latest(Deadline(timeout_seconds))).model

    async def _probabilities(
        self,
        user: Features,
        candidates: Candidates,
        context: Features,
        cached: tuple[str, str] | None,
        deadline: Deadline,
    ) -> Array:
        state, is_own = await self._state(user, cached, deadline)
        try:
            return await self._score_or_forget(state, candidates, context, cached, deadline)
        except ModelNotFoundError:
            # The version that made the state was unloaded between the two calls, or since the state was kept.
            logger.info("version %d of '%s' is gone; computing the state again", state.version, state.model)
            self._versions.forget(state.version)
        except StateRejectedError:
            if is_own:
                raise
            # Another model was deployed under the same version number, the cached bytes are not what was put there, or
            # another request gave a bad user under this user's key.
            logger.warning("the model refused a kept state of version %d; computing it again", state.version)
        self._counts.add("recomputed")
        state, _ = await self._state(user, cached, deadline, anew=True)
        return await self._score_or_forget(state, candidates, context, cached, deadline)

    async def _state(
        self, user: Features, cached: tuple[str, str] | None, deadline: Deadline, anew: bool = False
    ) -> tuple[UserState, bool]:
        """The user's state, and whether it was computed from this very `user`."""
        if cached is None:
            return await self._compute(user, deadline), True
        model = (await self._versions.latest(deadline)).model
        key = StateKey(model.name, model.version, model.fingerprint, *cached)
        was_kept = False

        async def find() -> UserState:
            nonlocal was_kept
            found = None if anew else await self._shelf.get(key, deadline)
            was_kept = found is not None
            if found is None:
                found = await self._compute(user, deadline)
                await self._shelf.put(_key(found, cached), found, deadline)
            return found

        state, is_leader = await self._flight.run((key, anew), find, deadline, USER_TOWER)
        return state, is_leader and not was_kept

    async def _score_or_forget(
        self,
        state: UserState,
        candidates: Candidates,
        context: Features,
        cached: tuple[str, str] | None,
        deadline: Deadline,
    ) -> Array:
        """Scores; a state that is refused or whose version is gone does not stay in the cache."""
        try:
            return await self._score(state, candidates, context, deadline)
        except (ModelNotFoundError, StateRejectedError):
            if cached is not None:
                await self._shelf.invalidate(_key(state, cached), deadline)
            raise

    async def _compute(self, user: Features, deadline: Deadline) -> UserState:
        builder = await self._versions.latest(deadline)
        try:
            reply = await self._run_user_tower(builder.model.version, builder.user(user), deadline)
        except ModelNotFoundError:
            # The version asked for was unloaded since the last look.
            self._versions.forget(builder.model.version)
            builder = await self._versions.latest(deadline)
            reply = await self._run_user_tower(builder.model.version, builder.user(user), deadline)
        model = builder.model
        wanted = set(model.state_inputs.values())
        absent = wanted - set(reply.outputs)
        if absent:
            raise CodecError(f"{model.where}: the reply of {USER_TOWER} lacks {sorted(absent)}.")
        tensors = {name: codec.decode(reply.outputs[name], name) for name in wanted}
        return UserState(model.name, model.version, model.fingerprint, tensors)

    async def _run_user_tower(self, version: int, inputs: Mapping[str, Array], deadline: Deadline) -> Any:
        self._counts.add(USER_TOWER)
        reply = await self._caller.one(Call.predict(self._request(USER_TOWER, version, inputs)), deadline, hedged=True)
        _check_version(reply, version)
        return reply

    async def _score(self, state: UserState, candidates: Candidates, context: Features, deadline: Deadline) -> Array:
        builder = await self._versions.get(state.version, deadline)
        model = builder.model
        count = count_candidates(candidates)
        whole = set(model.state_inputs.values()) <= set(state.tensors)
        if state.model != model.name or state.fingerprint != model.fingerprint or not whole:
            raise StateRejectedError(
                f"{model.where}: the state was made by another model. Compute it anew with user_state().", range(count)
            )
        shared = {name: state.tensors[output] for name, output in model.state_inputs.items()}
        shared |= builder.context(context)
        columns = builder.candidates(candidates)
        chunks = -(-count // self._chunk_size)
        # Of even sizes, since the slowest counts.
        edges = list(pairwise(count * chunk // chunks for chunk in range(chunks + 1)))
        calls = []
        for begin, end in edges:
            chunk_columns = {name: column[:, begin:end] for name, column in columns.items()}
            calls.append(Call.predict(self._request(SCORE, state.version, shared | chunk_columns)))
        self._counts.add(SCORE, chunks)
        replies = await self._caller.all(calls, deadline, hedged=True)
        parts = [_read(reply, model, end - begin) for reply, (begin, end) in zip(replies, edges, strict=True)]
        return refuse_nan(np.concatenate(parts), model)

    def _request(self, signature: str, version: int, inputs: Mapping[str, Array]) -> wire.PredictRequest:
        request = wire.PredictRequest(model_spec=self._versions.spec(version, signature))
        for name, array in inputs.items():
            codec.encode(array, request.inputs[name])
        return request


def _key(state: UserState, cached: tuple[str, str]) -> StateKey:
    return StateKey(state.model, state.version, state.fingerprint, *cached)


def _check_version(reply: wire.PredictResponse, version: int) -> None:
    """Never take the answer of another version, whatever stands between the client and the server."""
    if reply.model_spec.HasField("version") and reply.model_spec.version.value != version:
        raise CodecError(
            f"version {reply.model_spec.version.value} of '{reply.model_spec.name}' answered what was asked of version "
            f"{version}. Check the proxy or the server at the target."
        )


def _read(reply: wire.PredictResponse, model: ServedModel, count: int) -> Array:
    """The probabilities of one chunk."""
    _check_version(reply, model.version)
    if PROBABILITIES not in reply.outputs:
        raise CodecError(f"{model.where}: the reply of {SCORE} lacks '{PROBABILITIES}'.")
    probabilities = codec.decode(reply.outputs[PROBABILITIES], PROBABILITIES)
    if probabilities.shape != (1, count):
        raise CodecError(f"{model.where}: {list(probabilities.shape)} probabilities for {count} candidates.")
    row: Array = probabilities[0]
    return row
