"""How requests of many sizes become batches of few shapes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

MOST_CANDIDATES = 64
"""A request of more is several, or the rows of one user without a context would be one batch."""

MOST_PADDING = 0.25

_Ints = npt.NDArray[np.int64]


def equal_rows(digests: npt.NDArray[np.uint64]) -> tuple[_Ints, _Ints]:
    """All rows in an order in which those with equal digests [rows, 2] follow each other, and how many each time.

    Equal rows keep their order, and so do the first rows of all.
    """
    order = np.lexsort((digests[:, 1], digests[:, 0]))
    found = digests[order]
    new = np.append(True, (found[1:] != found[:-1]).any(axis=1))[: len(order)]
    starts = np.flatnonzero(new)
    counts = np.diff(np.append(starts, len(order)))
    # The sort is stable, so the first of equal rows is the first in the log.
    by_first_row = np.argsort(order[starts])
    number = np.empty(len(starts), np.int64)
    number[by_first_row] = np.arange(len(starts))
    return order[np.argsort(np.repeat(number, counts), kind="stable")], counts[by_first_row]


def widths(sizes: _Ints) -> list[int]:
    """The fewest widths with which at most `MOST_PADDING` of the places is padding, and of those the ones with least.

    A request takes the least width that holds its candidates.

    Args:
        sizes: Candidates of each request.
    """
    found, requests = np.unique(sizes, return_counts=True)
    allowed = sizes.sum() / (1.0 - MOST_PADDING)
    upto = np.append(0, np.cumsum(requests))
    # places[i, j]: of the requests of sizes i to j - 1, all as wide as the last of them.
    places = np.append(0, found)[None, :] * (upto[None, :] - upto[:, None]).astype(float)
    places[np.tril_indices(len(upto))] = np.inf
    least = [np.append(0.0, np.full(len(found), np.inf))]
    before: list[_Ints] = []
    while least[-1][-1] > allowed:
        through = least[-1][:, None] + places
        before.append(through.argmin(axis=0))
        least.append(through.min(axis=0))
    ends = [len(found)]
    for choice in reversed(before):
        ends.append(int(choice[ends[-1]]))
    return [int(found[end - 1]) for end in reversed(ends[:-1])]


@dataclass(frozen=True)
class Bucket:
    """The requests of one shape.

    Attributes:
        width: Places for candidates, C.
        height: Places for requests, B.
        number: How many batches they fill.
        requests: Which they are.
    """

    width: int
    height: int
    number: int
    requests: _Ints


class RequestPlan:
    """Requests in batches. All batches of a width have one shape, since XLA compiles each, which takes seconds.

    A request has at most `MOST_CANDIDATES`; more equal rows are several requests. The widths are chosen so that at most
    `MOST_PADDING` of the candidates' places is padding. As many requests of a width fill a batch as have `batch_size`
    rows on average; they are spread evenly over the batches, so none is short by more than one request.

    Args:
        counts: Equal rows, in order.
        batch_size: Rows in a batch, about: the average of a width is greater by less than a request.
    """

    def __init__(self, counts: _Ints, batch_size: int) -> None:
        parts = -(-counts // min(MOST_CANDIDATES, batch_size))
        of = np.repeat(np.arange(len(counts)), parts)
        part = np.arange(len(of)) - np.repeat(np.cumsum(parts) - parts, parts)
        self.sizes: _Ints = counts[of] // parts[of] + (part < counts[of] % parts[of])
        self.starts: _Ints = np.cumsum(self.sizes) - self.sizes
        self._batch_size = batch_size

    @cached_property
    def buckets(self) -> list[Bucket]:
        """The shapes of the batches."""
        if not len(self.sizes):
            return []
        found = []
        chosen = widths(self.sizes)
        place = np.searchsorted(chosen, self.sizes)
        for number, width in enumerate(chosen):
            requests = np.flatnonzero(place == number)
            height = len(requests) * self._batch_size / self.sizes[requests].sum()
            batches = math.ceil(len(requests) / math.ceil(height))
            found.append(Bucket(width, math.ceil(len(requests) / batches), batches, requests))
        return found

    @property
    def padding(self) -> float:
        """The share of all places that hold no row."""
        places = sum(bucket.width * bucket.height * bucket.number for bucket in self.buckets)
        return 1.0 - float(self.sizes.sum()) / places

    def batches(self, seed: int | None) -> list[tuple[_Ints, tuple[int, int]]]:
        """The requests of each batch and its shape [B, C]; with a seed in an order of its own."""
        generator = None if seed is None else np.random.default_rng(seed)
        found = []
        for bucket in self.buckets:
            requests = bucket.requests if generator is None else generator.permutation(bucket.requests)
            shape = (bucket.height, bucket.width)
            found += [(part, shape) for part in np.array_split(requests, bucket.number)]
        if generator is None:
            return found
        return [found[place] for place in generator.permutation(len(found))]
