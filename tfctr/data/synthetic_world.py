"""The generative model of the synthetic data: items, users and how clicks come about.

Topics are unit vectors c_t in R^16, `topics_of_genre` to a genre. With e a standard normal vector scaled to unit length
on average:

    item    topic z, taste vector x = unit(c_z + 0.5 e), genre of z (and sometimes a second, random one),
            quality q ~ N(0, 0.3) + 0.15 (standardised year), popularity ~ Zipf
    vector  v = unit(A x + 0.5 e): what a text or image encoder would give; A is a random isometry into R^width
    user    2 to 4 interests, each a topic (3 in 10 of the genre that gender and age favour), bias b ~ N(0, 0.4)
    history items from the interests (7 in 10) or by popularity; rating = 1 to 5, rising with the affinity, noisy
    request 4 to 12 candidates: 35 % from an interest, 35 % of its genre but any topic, the rest by popularity
    click   P = sigmoid(base + 4 affinity + q + b - 0.6 log(1 + position)),
            affinity(user, item) = max over the interests of x . c

Genres alone cannot tell an interest from the other topics of its genre; the similarity of the candidate's vector to the
vectors of the history can. Candidates are placed at random, so position and relevance are independent. Clicked
candidates join the history. With `old_interest_after` N, the newest N events of a history hold nothing of the user's
first interest, while candidates still come from it and are clicked as before. So a model that reads only N events
cannot learn that interest, and one that reads all can. Everything is drawn in blocks whose seeds follow from `seed`, so
that a second pass draws the same and nothing needs to be kept.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

GENRES = (
    "Action", "Comedy", "Crime", "Documentary", "Drama", "Family", "Fantasy", "Horror", "Musical", "Mystery", "Romance",
    "Sci-Fi",
)  # fmt: skip
TASTE_WIDTH = 16
AGES = (1, 18, 25, 35, 45, 50, 56)
MAX_INTERESTS = 4
BASE = -2.6
AFFINITY = 4.0
POSITION_BIAS = 0.6
START = 1_704_067_200  # 2024-01-01, UTC
_SPAN_SECONDS = 28 * 86_400
_REQUESTS_OF_BLOCK = 512
# How busy each hour is.
_HOURS = np.array([3, 2, 1, 1, 1, 2, 4, 6, 7, 6, 6, 7, 8, 7, 6, 6, 7, 8, 10, 12, 13, 12, 9, 5], np.float64)


@dataclass(frozen=True)
class Settings:
    """Sizes of a synthetic data set.

    Attributes:
        rows: The number of impressions.
        history_length: The most events in a history.
        vector_width: The width of the item vectors.
        seed: Decides everything that is drawn.
        old_interest_after: How many of a user's newest events show nothing of the first interest; 0 hides it in none.
        topics_of_genre: The number of topics, the planted groups of the items, in each of the 12 genres.
        unseen_users: Whether valid and test hold users of their own, a tenth of all each, instead of the last rows.
        candidates: The mean number of candidates in a request; requests have half of it to one and a half times it.
    """

    rows: int = 20_000
    users: int = 1_000
    items: int = 2_000
    history_length: int = 50
    vector_width: int = 64
    seed: int = 17
    old_interest_after: int = 0
    topics_of_genre: int = 4
    unseen_users: bool = False
    candidates: int = 8

    @property
    def candidates_range(self) -> tuple[int, int]:
        """The fewest and the most candidates in a request."""
        fewest = (self.candidates + 1) // 2
        return fewest, 2 * self.candidates - fewest

    @property
    def topics(self) -> int:
        """The number of topics."""
        return len(GENRES) * self.topics_of_genre


@dataclass(frozen=True)
class Block:
    """Some requests in order of time: n rows of r requests. The rows of a request stand next to each other.

    Attributes:
        user, time: [r] index of the user, and second; no second occurs twice.
        request: [n] place of the row's request in `user` and `time`.
        item: [n] index of the candidate.
        position: [n] place at which the candidate is shown; 0 is the first.
        relevance: [n] logit of a click before the position bias.
        probability: [n] probability of a click at that position.
        label: [n] 1 for a click, else 0.
        rating: [n] rating that the user would give the candidate.
    """

    user: Ints
    time: Ints
    request: Ints
    item: Ints
    position: Ints
    relevance: Floats
    probability: Floats
    label: Ints
    rating: Ints


class World:
    """The items and users, drawn once, and the requests, drawn block by block."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        rng = np.random.default_rng([settings.seed, 0])
        self._topics, self._of_genre = settings.topics, settings.topics_of_genre
        self._centres = unit(rng.standard_normal((self._topics, TASTE_WIDTH)))
        self._draw_items(rng)
        self._draw_users(rng)

    def _draw_items(self, rng: np.random.Generator) -> None:
        n = self.settings.items
        # Sorted, so that the items of a topic are neighbours and can be drawn by one search in the running popularity.
        self.topic = np.sort(np.append(np.arange(self._topics), rng.integers(self._topics, size=n - self._topics)))
        self.taste = unit(self._centres[self.topic] + _noise(rng, n, TASTE_WIDTH))
        # Ids are shuffled, because their order would tell the topic.
        self.item_id = 1 + rng.permutation(n)
        popularity = 1.0 / (10.0 + rng.permutation(n)) ** 0.8
        self._running = np.append(0.0, np.cumsum(popularity))
        self._topic_starts = np.searchsorted(self.topic, np.arange(self._topics + 1))
        self.genre = self.topic // self._of_genre
        self.second_genre = np.where(rng.random(n) < 0.3, rng.integers(len(GENRES), size=n), self.genre)
        self.year = 2023 - np.minimum(rng.exponential(15.0, n), 90).astype(np.int64)
        self._quality = 0.3 * rng.standard_normal(n) + 0.15 * (self.year - self.year.mean()) / self.year.std()
        width = self.settings.vector_width
        mixing = np.linalg.qr(rng.standard_normal((max(width, TASTE_WIDTH), min(width, TASTE_WIDTH))))[0]
        view = self.taste @ (mixing.T if width >= TASTE_WIDTH else mixing)
        self.vectors = unit(view + _noise(rng, n, width)).astype(np.float16)

    def _draw_users(self, rng: np.random.Generator) -> None:
        n = self.settings.users
        self.gender = rng.integers(2, size=n)
        self.age_group = rng.integers(len(AGES), size=n)
        self.occupation = rng.integers(21, size=n)
        favoured = rng.integers(len(GENRES), size=(2, len(AGES)))[self.gender, self.age_group]
        of_favoured = favoured[:, None] * self._of_genre + rng.integers(self._of_genre, size=(n, MAX_INTERESTS))
        of_any = rng.integers(self._topics, size=(n, MAX_INTERESTS))
        self.interest_count = rng.integers(2, MAX_INTERESTS + 1, size=n)
        interests = np.where(rng.random((n, MAX_INTERESTS)) < 0.3, of_favoured, of_any)
        # Unused places repeat the first interest: the maximum over all places is then the maximum over the real ones.
        self.interests = np.where(np.arange(MAX_INTERESTS) < self.interest_count[:, None], interests, interests[:, :1])
        self._bias = 0.4 * rng.standard_normal(n)
        activity = np.cumsum(np.exp(0.7 * rng.standard_normal(n)))
        self._activity = activity / activity[-1]

    def affinity(self, user: Ints, item: Ints) -> Floats:
        """The affinity [n] of users [n] and items [n]: the maximum over the user's interests of x . c."""
        centres = self._centres[self.interests[user]]
        scores: Floats = np.einsum("nd,nkd->nk", self.taste[item], centres).max(axis=1)
        return scores

    def past(self, first_user: int, last_user: int) -> tuple[Ints, Ints, Ints, Ints]:
        """The events of some users before the first request: user, item, rating and second, oldest first.

        One user in twenty has none; the others have between a fifth of a full history and all of it. The last user is
        excluded.
        """
        rng = np.random.default_rng([self.settings.seed, 1, first_user])
        n = last_user - first_user
        length = self.settings.history_length
        events = rng.integers(max(1, length // 5), length + 1, size=n)
        events[rng.random(n) < 0.05] = 0
        user = np.repeat(np.arange(first_user, last_user), events)
        item = self._draw_candidates(rng, user, of_interest=0.7, of_genre=0.0)
        if self.settings.old_interest_after:
            newer = np.repeat(np.cumsum(events), events) - 1 - np.arange(len(user))
            recent = newer < self.settings.old_interest_after
            item[recent] = self._draw_candidates(rng, user[recent], of_interest=0.7, of_genre=0.0, first_interest=1)
        age = np.concatenate([np.sort(rng.integers(1, 90 * 86_400, size=count))[::-1] for count in events.tolist()])
        return user, item, self._rate(rng, self.affinity(user, item)), START - age

    def blocks(self) -> Iterator[Block]:
        """All requests in order of time; a second call gives the same."""
        left, number, clock, last_second = self.settings.rows, 0, 0.0, START
        requests = max(1, self.settings.rows // self.settings.candidates)
        gap = max(_SPAN_SECONDS / requests, 4.0)
        while left > 0:
            rng = np.random.default_rng([self.settings.seed, 2, number])
            busy = clock + np.cumsum(rng.exponential(gap, _REQUESTS_OF_BLOCK))
            clock = float(busy[-1])
            places = np.arange(_REQUESTS_OF_BLOCK)
            time = np.maximum.accumulate(np.maximum(_by_the_clock(busy), last_second + 1) - places) + places
            last_second = int(time[-1])
            block = self._block(rng, time, left)
            left -= len(block.item)
            number += 1
            yield block

    def _block(self, rng: np.random.Generator, time: Ints, left: int) -> Block:
        user = np.searchsorted(self._activity, rng.random(_REQUESTS_OF_BLOCK), side="right")
        sizes = rng.integers(*self.settings.candidates_range, endpoint=True, size=_REQUESTS_OF_BLOCK)
        request = np.repeat(np.arange(_REQUESTS_OF_BLOCK), sizes)
        item = self._draw_distinct(rng, user[request], request)
        position = np.arange(len(request)) - np.searchsorted(request, request)
        affinity = self.affinity(user[request], item)
        relevance = BASE + AFFINITY * affinity + self._quality[item] + self._bias[user[request]]
        probability = 1.0 / (1.0 + np.exp(POSITION_BIAS * np.log1p(position) - relevance))
        label = (rng.random(len(item)) < probability).astype(np.int64)
        rating = self._rate(rng, affinity)
        cut = slice(left)
        request, item, position = request[cut], item[cut], position[cut]
        return Block(user, time, request, item, position, relevance[cut], probability[cut], label[cut], rating[cut])

    def _draw_distinct(self, rng: np.random.Generator, user: Ints, request: Ints) -> Ints:
        """Candidates [n] in random order within each request; no request has one of them twice."""
        item = np.zeros(len(request), np.int64)
        wanting = np.ones(len(request), bool)
        while wanting.any():
            item[wanting] = self._draw_candidates(rng, user[wanting], of_interest=0.35, of_genre=0.35)
            _, first = np.unique(request * self.settings.items + item, return_index=True)
            wanting[:] = True
            wanting[first] = False
        # Candidates that were drawn again are less popular and would stand last without this shuffle.
        return item[np.lexsort((rng.random(len(item)), request))]

    def _draw_candidates(
        self, rng: np.random.Generator, user: Ints, of_interest: float, of_genre: float, first_interest: int = 0
    ) -> Ints:
        n = len(user)
        chosen = self.interests[user, rng.integers(first_interest, self.interest_count[user])]
        sibling = chosen // self._of_genre * self._of_genre + rng.integers(self._of_genre, size=n)
        kind = rng.random(n)
        topic = np.where(kind < of_interest, chosen, sibling)
        any_topic = kind >= of_interest + of_genre
        low = np.where(any_topic, 0, self._topic_starts[topic])
        high = np.where(any_topic, self.settings.items, self._topic_starts[topic + 1])
        point = self._running[low] + rng.random(n) * (self._running[high] - self._running[low])
        drawn: Ints = np.clip(np.searchsorted(self._running, point, side="right") - 1, low, high - 1)
        return drawn

    def _rate(self, rng: np.random.Generator, affinity: Floats) -> Ints:
        return np.clip(np.rint(2.0 + 2.8 * affinity + 0.8 * rng.standard_normal(len(affinity))), 1, 5).astype(np.int64)


def unit(vectors: Floats) -> Floats:
    """The vectors, scaled to length 1."""
    lengths: Floats = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / lengths


def _noise(rng: np.random.Generator, n: int, width: int) -> Floats:
    noise: Floats = 0.5 * rng.standard_normal((n, width)) / np.sqrt(width)
    return noise


def _by_the_clock(busy: Floats) -> Ints:
    """The seconds at which evenly spread work takes place when some hours of the day are busier than others."""
    day, within = np.divmod(busy, 86_400.0)
    done = np.append(0.0, np.cumsum(_HOURS / _HOURS.sum()) * 86_400.0)
    seconds: Ints = (day * 86_400 + np.interp(within, done, np.arange(25) * 3600.0)).astype(np.int64)
    return START + seconds
