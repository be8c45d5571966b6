"""The steps of a ranking request, written once for both clients."""

import logging
import time
from collections.abc import Mapping
from itertools import pairwise

import numpy as np

from tfctr.client import codec
from tfctr.client.calls import Caller
from tfctr.client.codec import Array
from tfctr.client.counts import Counts, Warnings
from tfctr.client.errors import BadRequestError, CodecError, ModelNotFoundError, StateRejectedError
from tfctr.client.flight import SingleFlight
from tfctr.client.guarded_cache import GuardedCache
from tfctr.client.metadata import PROBABILITIES, SCORE, USER_TOWER, ServedModel
from tfctr.client.protos import wire_pb2 as wire
from tfctr.client.requests import Candidates, Features, RequestBuilder, count_candidates
from tfctr.client.results import Ranked, VersionStatus, in_order, refuse_nan
from tfctr.client.served import ServedVersions
from tfctr.client.state import HistoryVersion, StateKey, UserKey, UserState, history_text, user_text
from tfctr.client.transport import Call, Deadline
from tfctr.client.values import shown

logger = logging.getLogger("tfctr.client")

Identity = tuple[str, str]
"""The `user_key` and `history_version` of a request whose state is cached."""


class Ranking:
    """The steps of a request, of which one call to `score` takes at most `chunk_size` candidates.

    Counts `user_tower`, `score` and `recomputed`.
    """

    def __init__(self, caller: Caller, versions: ServedVersions, cache: GuardedCache, counts: Counts, chunk_size: int):
        self._caller = caller
        self._versions = versions
        self._cache = cache
        self._counts = counts
        self._chunk_size = chunk_size
        self._warnings = Warnings()
        self._flight: SingleFlight[UserState] = SingleFlight(caller.driver, counts)

    async def rank(
        self,
        user: Features | None,
        candidates: Candidates,
        context: Features | None,
        k: int | None,
        user_key: UserKey | None,
        history_version: HistoryVersion | None,
        timeout_seconds: float,
    ) -> list[Ranked]:
        """Implements `RankingClient.rank`."""
        if k is not None and (isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 0):
            raise BadRequestError(f"k must be a whole number, 0 or more. Received: {k!r}")
        if (user_key is None) != (history_version is None):
            raise BadRequestError(
                "user_key and history_version go together, because a state is cached for a user's history. "
                f"Received: user_key={shown(user_key)}, history_version={shown(history_version)}"
            )
        identity = None
        if user_key is not None and history_version is not None:
            identity = (user_text(user_key), history_text(history_version))
        if count_candidates(candidates) == 0:
            return []
        deadline = Deadline(timeout_seconds)
        probabilities = await self._probabilities(user, candidates, context or {}, identity, deadline)
        return in_order(candidates, probabilities, k)

    async def user_state(self, user: Features, timeout_seconds: float) -> UserState:
        """Implements `RankingClient.user_state`."""
        state = await self._compute(user, Deadline(timeout_seconds))
        if not state.tensors:
            raise BadRequestError(
                f"model '{state.model}' version {state.version} reads nothing of a user, so there is no state. "
                "Give score() None in its place."
            )
        return state

    async def score(
        self, state: UserState | None, candidates: Candidates, context: Features | None, timeout_seconds: float
    ) -> Array:
        """Implements `RankingClient.score`."""
        if not isinstance(state, UserState | None):
            raise BadRequestError(
                "state must be a UserState of user_state(), or None for a model that reads nothing of a user. "
                f"Received: {type(state).__name__}"
            )
        if count_candidates(candidates) == 0:
            return np.empty(0, np.float32)
        deadline = Deadline(timeout_seconds)
        if state is None:
            return await self._probabilities(None, candidates, context or {}, None, deadline)
        return await self._score(state, candidates, context or {}, deadline)

    async def model_status(self, timeout_seconds: float) -> list[VersionStatus]:
        """Implements `RankingClient.model_status`."""
        reply = await self._caller.one(Call.status(self._versions.spec()), Deadline(timeout_seconds))
        found = [
            VersionStatus(entry.version, _state_name(entry.state), entry.status.error_code, entry.status.error_message)
            for entry in reply.model_version_status
        ]
        return sorted(found, key=lambda status: -status.version)

    async def served_model(self, timeout_seconds: float) -> ServedModel:
        """Implements `RankingClient.served_model`."""
        return (await self._versions.latest(Deadline(timeout_seconds))).model

    async def _probabilities(
        self,
        user: Features | None,
        candidates: Candidates,
        context: Features,
        identity: Identity | None,
        deadline: Deadline,
    ) -> Array:
        state, is_own = await self._state(user, identity, deadline)
        try:
            return await self._score_or_invalidate(state, candidates, context, identity, deadline)
        except ModelNotFoundError:
            # The version that computed the state was unloaded between the two calls, or since the state was cached.
            logger.info("version %d of '%s' is gone; the state is computed again", state.version, state.model)
            self._versions.forget(state.version)
        except StateRejectedError:
            if is_own:
                raise
            # Another model was deployed under the same version number, the cached state was altered, or another request
            # used the same user_key with bad user features.
            self._warnings.log("the model rejected a cached state of version %d; it is computed again", state.version)
        self._counts.add("recomputed")
        state, _ = await self._state(user, identity, deadline, use_cache=False)
        return await self._score_or_invalidate(state, candidates, context, identity, deadline)

    async def _state(
        self, user: Features | None, identity: Identity | None, deadline: Deadline, use_cache: bool = True
    ) -> tuple[UserState, bool]:
        """The user's state, and whether it was computed from the features of this request, not another one."""
        if identity is None:
            return await self._compute(user, deadline), True
        model = (await self._versions.latest(deadline)).model
        if not model.user_inputs:  # There is nothing to cache.
            return await self._compute(user, deadline), True
        key = StateKey(model.name, model.version, model.fingerprint, *identity)
        was_cached = False

        async def find() -> UserState:
            nonlocal was_cached
            found = await self._cache.get(key, deadline) if use_cache else None
            was_cached = found is not None
            if found is None:
                # The state of a user of whom nothing is told must not be kept as that of the user who was named.
                found = await self._compute(user or None, deadline)
                await self._cache.put(_key(found, identity), found, deadline)
            return found

        state, is_leader = await self._flight.run((key, use_cache), find, deadline, USER_TOWER)
        return state, is_leader and not was_cached

    async def _score_or_invalidate(
        self, state: UserState, candidates: Candidates, context: Features, identity: Identity | None, deadline: Deadline
    ) -> Array:
        """Scores the candidates. A state that is rejected or whose version is gone is removed from the cache."""
        try:
            return await self._score(state, candidates, context, deadline)
        except (ModelNotFoundError, StateRejectedError):
            if identity is not None:
                await self._cache.invalidate(_key(state, identity), deadline)
            raise

    async def _compute(self, user: Features | None, deadline: Deadline) -> UserState:
        builder = await self._versions.latest(deadline)
        try:
            return await self._run_user_tower(builder, user, deadline)
        except ModelNotFoundError:
            # The version was unloaded since its metadata was read.
            self._versions.forget(builder.model.version)
            return await self._run_user_tower(await self._versions.latest(deadline), user, deadline)

    async def _run_user_tower(self, builder: RequestBuilder, user: Features | None, deadline: Deadline) -> UserState:
        """The state by one version. A version that reads nothing of a user is not called: its state has no tensor."""
        model, inputs = builder.model, builder.user(user)
        if not inputs:
            return UserState(model.name, model.version, model.fingerprint, {})
        self._counts.add(USER_TOWER)
        call = Call.predict(self._request(USER_TOWER, model.version, inputs))
        reply = await self._caller.one(call, deadline, hedged=True)
        _check_version(reply, model.version)
        wanted = set(model.state_inputs.values())
        if not wanted <= set(reply.outputs):
            raise CodecError(
                f"{model.where}: {USER_TOWER} must return {sorted(wanted)}. Received: {sorted(reply.outputs)}"
            )
        tensors = {name: codec.decode(reply.outputs[name], name) for name in wanted}
        return UserState(model.name, model.version, model.fingerprint, tensors)

    async def _score(self, state: UserState, candidates: Candidates, context: Features, deadline: Deadline) -> Array:
        builder = await self._versions.get(state.version, deadline)
        model = builder.model
        count = count_candidates(candidates)
        complete = set(model.state_inputs.values()) <= set(state.tensors)
        if state.model != model.name or state.fingerprint != model.fingerprint or not complete:
            raise StateRejectedError(
                f"{model.where}: the state was made by another model. Compute it again with user_state().", range(count)
            )
        shared = {name: state.tensors[output] for name, output in model.state_inputs.items()}
        shared |= builder.context(context)
        columns = builder.candidates(candidates)
        chunks = -(-count // self._chunk_size)
        # The chunks have even sizes, because the slowest one decides how long the request takes.
        edges = list(pairwise(count * chunk // chunks for chunk in range(chunks + 1)))
        calls = []
        for begin, end in edges:
            chunk_columns = {name: column[:, begin:end] for name, column in columns.items()}
            calls.append(Call.predict(self._request(SCORE, state.version, shared | chunk_columns)))
        self._counts.add(SCORE, chunks)
        replies = await self._caller.all(calls, deadline, hedged=True)
        parts = [_read(reply, model, end - begin) for reply, (begin, end) in zip(replies, edges, strict=True)]
        probabilities = refuse_nan(np.concatenate(parts), model)
        self._counts.tell("state_used", state.version, time.time() - state.created)
        return probabilities

    def _request(self, signature: str, version: int, inputs: Mapping[str, Array]) -> wire.PredictRequest:
        request = wire.PredictRequest(model_spec=self._versions.spec(version, signature))
        for name, array in inputs.items():
            codec.encode(array, request.inputs[name])
        return request


def _key(state: UserState, identity: Identity) -> StateKey:
    return StateKey(state.model, state.version, state.fingerprint, *identity)


def _state_name(state: int) -> str:
    try:
        return str(wire.ModelVersionStatus.State.Name(state))
    except ValueError:  # of a newer server
        return f"STATE {state}"


def _check_version(reply: wire.PredictResponse, version: int) -> None:
    """Raises an error if another version answered, for example because of a proxy."""
    if reply.model_spec.HasField("version") and reply.model_spec.version.value != version:
        raise CodecError(
            f"version {version} of '{reply.model_spec.name}' must answer the request. Check the proxy or the server at "
            f"the target. Received: an answer of version {reply.model_spec.version.value}"
        )


def _read(reply: wire.PredictResponse, model: ServedModel, count: int) -> Array:
    """The probabilities of one chunk."""
    _check_version(reply, model.version)
    if PROBABILITIES not in reply.outputs:
        raise CodecError(f"{model.where}: {SCORE} must return '{PROBABILITIES}'. Received: {sorted(reply.outputs)}")
    probabilities = codec.decode(reply.outputs[PROBABILITIES], PROBABILITIES)
    if probabilities.shape != (1, count):
        raise CodecError(
            f"{model.where}: the shape of the probabilities must be [1, {count}]. Received: {list(probabilities.shape)}"
        )
    row: Array = probabilities[0]
    return row
