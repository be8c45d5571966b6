"""The client for threads."""

from types import TracebackType

from tfctr.client.base import ClientBase
from tfctr.client.codec import Array
from tfctr.client.drivers import BlockingDriver, run
from tfctr.client.metadata import ServedModel
from tfctr.client.requests import Candidates, Features
from tfctr.client.results import Ranked, VersionStatus
from tfctr.client.state import UserState


class RankingClient(ClientBase):
    """Asks TensorFlow Serving, or a server that speaks its API, for rankings. Thread safe; needs no TensorFlow.

    Requests are built from the metadata of the served version: features it does not know are left out and counted,
    features the caller does not give are sent as missing, histories are cut and padded to its length. The state of a
    user is scored by the version that made it and no other.

    Example:

        with RankingClient("localhost:8500") as client:
            best = client.rank({"user_id": 7}, [{"item_id": 1}, {"item_id": 2}], {"timestamp": 1700000000}, k=1)
    """

    _driver_type = BlockingDriver

    def __enter__(self) -> "RankingClient":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the channel and the cache."""
        run(self._close())

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
        seconds = self._seconds(timeout_seconds)
        return run(self._ranking.rank(user, candidates, context, k, user_key, history_version, seconds))

    def user_state(self, user: Features, *, timeout_seconds: float | None = None) -> UserState:
        """Runs `user_tower` for one user; the cache takes no part."""
        return run(self._ranking.user_state(user, self._seconds(timeout_seconds)))

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
        return run(self._ranking.score(state, candidates, context, self._seconds(timeout_seconds)))

    def forget_user(self, user_key: str | int, *, timeout_seconds: float | None = None) -> None:
        """Deletes what the cache keeps of a user, of all versions.

        Raises:
            ClientError: the cache cannot say that it did.
        """
        run(self._forget_user(user_key, timeout_seconds))

    def model_status(self, *, timeout_seconds: float | None = None) -> list[VersionStatus]:
        """Versions the server knows of, newest first."""
        return run(self._ranking.model_status(self._seconds(timeout_seconds)))

    def served_model(self, *, timeout_seconds: float | None = None) -> ServedModel:
        """The version that requests go to now, with its inputs."""
        return run(self._ranking.served_model(self._seconds(timeout_seconds)))
