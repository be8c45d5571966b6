"""Target attention over ids beside what the similarities say by themselves: late fusion."""

from typing import Any, Literal, get_args

from keras import ops
from typing_extensions import override

from tfctr.interests.base import Tensor, Tensors, interest
from tfctr.interests.frozen import BucketInterest, Frozen, FrozenInterest
from tfctr.interests.simtier import SimilarityHistogram
from tfctr.interests.target_attention import TargetAttention
from tfctr.layers.arguments import check_choice
from tfctr.layers.export import tfctr_export
from tfctr.layers.similarity import bucket_lookup, bucket_sum, pool_buckets, score_buckets

Branch = Literal["attention", "histogram"]


@tfctr_export
class SimilarityAttention(BucketInterest, TargetAttention):
    """Target attention over the similarities of the events alone: keys and values are rows of their buckets.

        q = t W_Q,  K_i = E_K[b_i],  V_i = E_V[b_i]
        output = concat_h(softmax(q_h K_h^T / sqrt(d_h)) V_h)

    Args:
        frozen: the frozen table.
        bins: how many buckets over [-1, 1]; one more stands for a missing vector.
        soft_buckets: whether a similarity between the centres of two buckets has a share of both.
        num_heads, attention_dim, scale, activation, dropout, seed: see `TargetAttention`.
        kernel_initializer, kernel_regularizer, embeddings_initializer, embeddings_regularizer: see `ConfiguredLayer`.

    Shapes, call arguments and conventions: see `Interest`. Output `[B, C, H * d_h]`.
    State: `rows/<frozen>` `[B, L]`, `length` `[B]`.
    """

    weight_kinds = ("kernel", "embeddings")
    fixed_arguments = ("projections", "output_projection")

    def __init__(self, frozen: str, **kwargs: Any) -> None:
        super().__init__(frozen, output_projection=False, **kwargs)

    @override
    def build_width(self, width: int) -> None:
        inner = self.attention_dim or width
        self.query = self.make_dense("query", inner, width, use_bias=False)
        self.key_table, self.value_table = (
            self.make_weight(name, (self.bins + 1, inner), "random_uniform", kind="embeddings")
            for name in ("key_table", "value_table")
        )

    @override
    def encode(self, sequence: Tensors, training: bool | None = None) -> Tensors:
        return self.start(sequence)[1]

    @override
    def attend(self, state: Tensors, candidate: Tensors, context: Tensors, training: bool | None = None) -> Tensor:
        (buckets,) = self.buckets(state, candidate).values()
        added = score_buckets(self.queries(candidate), ops.cast(self.key_table, self.compute_dtype), self.num_heads)
        weights = self.attention(bucket_lookup(added, buckets), state, training)
        # Sums of many small numbers: float32 also under half precision.
        histogram = ops.cast(bucket_sum(ops.cast(weights, "float32"), buckets, self.bins + 1), self.compute_dtype)
        return pool_buckets(histogram, ops.cast(self.value_table, self.compute_dtype))


@interest("ta_late")
class LateFusionAttention(FrozenInterest):
    """Target attention over the ids of the events and a branch over their similarities, which meet at the end only.

        r_id = target attention over X, without W_O
        r_s  = concat_h(softmax(q'_h E_K[b]_h^T / sqrt(d_h)) E_V[b]_h),  q' = t W_Q'       one for each frozen table
        output = [r_id ; r_s] W_O

    The branch of the similarities is the attention of `DecoupledTargetAttention` without ids: its keys and values are
    only looked up, its weights are its own. So what differs between the two is just where ids and similarities meet.
    Nothing larger than `[B, H, C, max(L, N)]` is built: the attention's sum is h E_V, where h is the histogram of the
    weights by bucket.

    With `branch="histogram"` r_s is `SimilarityHistogram`, and the whole is target attention with SimTier beside it.

    Args:
        frozen: the frozen table, or several: each has its own similarity and its own branch.
        branch: `attention` or `histogram`.
        bins: how many buckets over [-1, 1]; one more stands for a missing vector.
        soft_buckets: whether a similarity between the centres of two buckets has a share of both.
        counts: of the histogram, see `SimilarityHistogram`.
        num_heads, attention_dim, scale, activation, dropout, seed: of the attention over ids, and of that over
            similarities; see `TargetAttention`.
        kernel_initializer, kernel_regularizer, embeddings_initializer, embeddings_regularizer: see `ConfiguredLayer`.

    Shapes, call arguments and conventions: see `Interest`. Output `[B, C, d]`.
    State: `key` and `value` `[B, H, L, d_h]`, `rows/<frozen>` `[B, L]`, `length` `[B]`.

    Example:
        >>> layer = LateFusionAttention("text", num_heads=2, bins=10)
        >>> content = {"rows/text": ops.ones((1, 5), "int32"), "vectors/text": ops.full((1, 5, 4), 0.5)}
        >>> sequence = {"events": keras.random.normal((1, 5, 8)), "length": ops.array([3]), **content}
        >>> candidate = {"target": keras.random.normal((1, 5, 8)), **content}
        >>> tuple(layer({"sequence": sequence, "candidate": candidate}).shape)
        (1, 5, 8)

    References:
        Fan et al., Decoupled Multimodal Fusion (2025), figure 2b and table 3: ids and similarities in parallel, fused
        at the end, in O(L d^2 + B L d). What the branch of the similarities is, is not published; attention over them
        is our reconstruction. `histogram` is TA+SIMTIER, the base of the paper's experiment in production.
    """

    weight_kinds = ("kernel", "embeddings")
    part_classes = (TargetAttention, SimilarityAttention, SimilarityHistogram)
    fixed_arguments = (*SimilarityAttention.fixed_arguments, "units", "hidden_units")

    def __init__(self, frozen: Frozen, branch: Branch = "attention", seed: int | None = None, **kwargs: Any) -> None:
        over_ids, over_similarities, of_histogram = self.passed_on(kwargs)
        super().__init__(frozen, **kwargs)
        self.branch = check_choice("branch", branch, get_args(Branch))
        self.attention = self.make_part(TargetAttention, "attention", output_projection=False, seed=seed, **over_ids)
        self.branches: list[BucketInterest] = []
        if branch == "histogram":
            self.branches = [self.make_part(SimilarityHistogram, "histogram", frozen, **of_histogram)]
            return
        for i, name in enumerate(self.frozen_names, start=1):
            over_similarities["seed"] = None if seed is None else seed + i
            part = self.make_part(SimilarityAttention, f"similarity_{name}", name, **over_similarities)
            self.branches.append(part)

    @override
    def build_width(self, width: int) -> None:
        for part in (self.attention, *self.branches):
            part.build({"sequence": {"events": (None, None, width)}})
        inner = self.attention.attention_dim or width
        joined = inner + (width if self.branch == "histogram" else inner * len(self.branches))
        self.output_dense = self.make_dense("output", width, joined, use_bias=False)

    @override
    def encode(self, sequence: Tensors, training: bool | None = None) -> Tensors:
        state = self.start(sequence)[1]
        return {**self.attention.encode(sequence, training=training), **state}

    @override
    def attend(self, state: Tensors, candidate: Tensors, context: Tensors, training: bool | None = None) -> Tensor:
        parts = (self.attention, *self.branches)
        found = [part.attend(state, candidate, context, training=training) for part in parts]
        return self.output_dense(ops.concatenate(found, axis=-1))
