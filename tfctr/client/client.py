"""The blocking client, for use from threads."""

from tfctr.client.base import ClientBase
from tfctr.client.codec import Array
from tfctr.client.drivers import BlockingDriver, run
from tfctr.client.metadata import ServedModel
from tfctr.client.requests import Candidates, Features
from tfctr.client.results import Ranked, VersionStatus
from tfctr.client.state import HistoryVersion, UserKey, UserState


class RankingClient(ClientBase):
    """Requests rankings from TensorFlow Serving, or a server with the same API. Thread safe; needs no TensorFlow.

    Requests are built from the metadata of the served version. Features that the version does not have are left out and
    counted, features that the caller does not give are sent as missing values, and histories are cut and padded to the
    length of the version. A user's state is scored only by the version that computed it.

    Example:

        with RankingClient("localhost:8500") as client:
            best = client.rank({"user_id": 7}, [{"item_id": 1}, {"item_id": 2}], {"timestamp": 1700000000}, k=1)
    """

    _driver_type = BlockingDriver

    def __enter__(self) -> "RankingClient":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the channel and the cache."""
        run(self._close())

    def rank(
        self,
        user: Features | None,
        candidates: Candidates,
        context: Features | None = None,
        k: int | None = None,
        *,
        user_key: UserKey | None = None,
        history_version: HistoryVersion | None = None,
        timeout_seconds: float | None = None,
    ) -> list[Ranked]:
        """Orders candidates by predicted click-through rate, best first; ties keep the given order.

        Args:
            user: raw user features and histories (lists, newest event first). `None` for a model that reads nothing of
                a user; such a model leaves out what is given, as any feature that it does not have. With `user_key`,
                `None` takes the state that is kept, and is an error where none is.
            candidates: a list with a mapping of features for each candidate, or a mapping of equally long columns.
            context: raw features of the request.
            k: return only the best k.
            user_key: identifies the user. With `user_key` and `history_version` the user's state is cached. A whole
                number, its digits as text and their UTF-8 bytes are the same user.
            history_version: a value that changes with every new event of the user (a counter, or the time of the newest
                event).
            timeout_seconds: time budget of this request, instead of the client's.

        Raises:
            ClientError: one of tfctr.client.errors, whose message says what to do.
        """
        seconds = self._seconds(timeout_seconds)
        return run(
            self._timed("rank", self._ranking.rank(user, candidates, context, k, user_key, history_version, seconds))
        )

    def user_state(self, user: Features, *, timeout_seconds: float | None = None) -> UserState:
        """Computes the state of one user with `user_tower`. The cache is not used.

        Raises:
            BadRequestError: the model reads nothing of a user, so there is no state.
        """
        return run(self._timed("user_state", self._ranking.user_state(user, self._seconds(timeout_seconds))))

    def score(
        self,
        state: UserState | None,
        candidates: Candidates,
        context: Features | None = None,
        *,
        timeout_seconds: float | None = None,
    ) -> Array:
        """Probabilities of the candidates in the given order, float32 `[N]`, by the version that computed the state.

        For a model that reads nothing of a user, the state is `None`, and the newest version answers.

        Raises:
            StateRejectedError: the state comes from another model, or a value of the user or the context is bad.
            BadRowError: some candidates have bad values.
            ModelNotFoundError: the version that computed the state is no longer served.
        """
        return run(
            self._timed("score", self._ranking.score(state, candidates, context, self._seconds(timeout_seconds)))
        )

    def forget_user(self, user_key: UserKey, *, timeout_seconds: float | None = None) -> None:
        """Deletes all cached states of a user.

        Raises:
            ClientError: the cache did not confirm the deletion.
        """
        run(self._timed("forget_user", self._forget_user(user_key, timeout_seconds)))

    def model_status(self, *, timeout_seconds: float | None = None) -> list[VersionStatus]:
        """The versions of the model that the server knows, newest first."""
        return run(self._timed("model_status", self._ranking.model_status(self._seconds(timeout_seconds))))

    def served_model(self, *, timeout_seconds: float | None = None) -> ServedModel:
        """The version that new requests use, with its inputs."""
        return run(self._timed("served_model", self._ranking.served_model(self._seconds(timeout_seconds))))
