"""What the interests over frozen vectors share: their argument `frozen`, similarities, and the buckets of these."""

from collections.abc import Mapping
from typing import Any, cast

from keras import ops
from typing_extensions import override

from tfctr.interests.base import Interest, SequenceFacts, Tensor, Tensors, tensor_of
from tfctr.layers.arguments import check_count, check_flag, check_names
from tfctr.layers.registry import arguments_of
from tfctr.layers.similarity import cosine_similarity, similarity_buckets, soft_similarity_buckets

Frozen = str | list[str] | tuple[str, ...]
"""A frozen table, or several."""


class FrozenInterest(Interest):
    """An interest that reads frozen vectors.

    Args:
        frozen: the frozen table, or several.
    """

    def __init__(self, frozen: Frozen, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.frozen_names = check_names("frozen", frozen, "frozen table")

    @classmethod
    @override
    def complete(cls, options: dict[str, Any], sequence: SequenceFacts) -> dict[str, Any]:
        if "frozen" in options:
            return options
        if not sequence.frozen:
            raise ValueError(
                f"sequence '{sequence.name}' has no frozen table. Add a candidate feature of kind: frozen whose key "
                "the sequence shares, or choose an interest without similarities"
            )
        return {**options, "frozen": list(sequence.frozen)}

    @classmethod
    @override
    def similarity_bins(cls, options: Mapping[str, Any]) -> int | None:
        return cast("int | None", options.get("bins", arguments_of(cls).get("bins")))


class BucketInterest(FrozenInterest):
    """An interest that reads the buckets of similarities of frozen vectors.

    Args:
        frozen: the frozen table, or several.
        bins: how many buckets over [-1, 1]; one more stands for a missing vector.
        soft_buckets: whether a similarity between the centres of two buckets has a share of both.
    """

    def __init__(self, frozen: Frozen, bins: int = 40, soft_buckets: bool = False, **kwargs: Any) -> None:
        super().__init__(frozen, **kwargs)
        self.bins = check_count("bins", bins)
        self.soft_buckets = check_flag("soft_buckets", soft_buckets)

    def buckets(self, state: Tensors, candidate: Tensors) -> Tensors:
        """The bucket of every candidate and step, `[B, C, L]`, by frozen table: int32, or float32 for soft ones."""
        form = soft_similarity_buckets if self.soft_buckets else similarity_buckets
        result = {}
        for name in self.frozen_names:
            target, history, missing = frozen_pair(state, candidate, name)
            result[name] = form(cosine_similarity(target, history), self.bins, missing)
        return result


def frozen_pair(state: Tensors, candidate: Tensors, name: str) -> tuple[Tensor, Tensor, Tensor]:
    """Vectors of candidate and history, and where one of them is missing (bool `[B, C, L]`)."""
    rows = tensor_of(candidate, f"rows/{name}")[:, :, None], tensor_of(state, f"rows/{name}")[:, None, :]
    missing = ops.logical_or(ops.equal(rows[0], 0), ops.equal(rows[1], 0))
    return tensor_of(candidate, f"vectors/{name}"), tensor_of(state, f"vectors/{name}"), missing


def known_similarity(state: Tensors, candidate: Tensors, name: str) -> Tensor:
    """The cosine of each candidate's and each event's vector, float32 `[B, C, L]`; 0 where one of them is missing."""
    target, history, missing = frozen_pair(state, candidate, name)
    similarity = cosine_similarity(target, history)
    absent = ops.logical_or(missing, ops.isnan(similarity))
    return ops.stop_gradient(ops.where(absent, 0.0, ops.clip(similarity, -1.0, 1.0)))
