"""Deep multiple quantization network: a long history as a fixed number of clusters."""

import math
from typing import Any

import keras
from keras import ops
from typing_extensions import override

from tfctr.interests.base import AGE_BUCKETS, Interest, Tensor, Tensors, interest
from tfctr.layers.arguments import check_count, check_flag, check_heads, check_rate
from tfctr.layers.codebook import MultiCodebook
from tfctr.layers.hstu import HstuBlock, Variant
from tfctr.layers.initializers import xavier_normal
from tfctr.layers.masking import length_mask, masked_softmax, merge_heads, split_heads


@interest("dmqn")
class Dmqn(Interest):
    """The interest of DMQN: quantize the history, let the clusters interact, let the candidate attend to them.

        MCQM    z = clusters of the events, N codebooks of W codewords          see `MultiCodebook`
                z_w += r_w + [log(1 + size_w); mean age of the cluster] W_s     of clusters that are not empty
        ICIM    z = HSTU blocks over all N * W slots, both ways, empty slots masked
        CTAM    o_n = multi-head attention of the target over the W clusters of codebook n, with log(size_w) added to
                the score of cluster w
        output  [o_1; ...; o_N] W_O

    r is an embedding of the slot. `encode` computes everything but the query, the scores and W_O, so the state and the
    cost of a candidate do not grow with the history. Where all members of a cluster are alike, log(size) makes
    attention over clusters equal to attention over their members. A history without events gives zeros.

    Args:
        codebooks: N.
        codewords: W; N * W is about one hundred in the paper.
        blocks: HSTU blocks; 0 leaves ICIM out.
        variant: of the HSTU blocks, `research` or `stu`.
        slot_bias: whether the blocks of variant `research` have a learned bias for each pair of slots.
        num_heads: heads of the blocks and of each codebook's attention.
        size_term: whether log(size) is added to the scores.
        describe: whether the size and the mean age of a cluster are added to it, by W_s.
        assignment, similarity, scale, noise, learning, momentum, tau_start, tau_end, anneal_steps, reseed_below,
            balance: see `MultiCodebook`.
        dropout: of the blocks.
        seed: of the dropout, and of noise and reseeding in `MultiCodebook`.
        kernel_initializer, kernel_regularizer, embeddings_initializer, embeddings_regularizer: see `ConfiguredLayer`.

    Shapes, call arguments and conventions: see `Interest`. Output `[B, C, d]`. Ages are used where there are any.
    State: `key` and `value` `[B, N * H, W, d / H]`, `size` `[B, N, W]`: (2 d + 1) N W floats for any L, 66 kB at
    N = 4, W = 32, d = 64 in float32. The largest tensors of `encode` are `[B, L, N, W]` and `[B, L, N, d]`, never
    `[B, L, N, W, d]`: at these sizes and 10,000 events about 100 MB a user in serving and 110 to 170 MB in training.

    Example:
        >>> sequence = {"events": keras.random.normal((2, 50, 8)), "length": np.array([50, 3])}
        >>> candidate = {"target": keras.random.normal((2, 5, 8))}
        >>> tuple(Dmqn(codebooks=2, codewords=4)({"sequence": sequence, "candidate": candidate}).shape)
        (2, 5, 8)

    References:
        Wei et al., Deep Multiple Quantization Network on Long Behavior Sequence (2025), for the three parts. No code is
        published; the sizes, the ages, the slot embedding, the absence of a causal mask over clusters and the size term
        (after TWIN-V2) are choices made here.
    """

    weight_kinds = ("kernel", "embeddings")
    part_classes = (MultiCodebook,)

    def __init__(
        self,
        codebooks: int = 4,
        codewords: int = 32,
        blocks: int = 1,
        variant: Variant = "research",
        slot_bias: bool = False,
        num_heads: int = 2,
        size_term: bool = True,
        describe: bool = True,
        dropout: float = 0.0,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        (quantization,) = self.passed_on(kwargs)
        super().__init__(**kwargs)
        self.num_heads = check_count("num_heads", num_heads)
        self.size_term = check_flag("size_term", size_term)
        self.describe = check_flag("describe", describe)
        check_flag("slot_bias", slot_bias)
        check_rate("dropout", dropout)
        self.codebook = self.make_part(MultiCodebook, "codebook", codebooks, codewords, seed=seed, **quantization)
        bias = "slots" if slot_bias else "none"
        own = {"variant": variant, "num_heads": num_heads, "causal": False, "relative_bias": bias, "dropout": dropout}
        seeds = [None if seed is None else seed + i for i in range(check_count("blocks", blocks, least=0))]
        self.blocks = [
            self.make_part(HstuBlock, f"block{i}", codebooks * codewords, **own, seed=one)
            for i, one in enumerate(seeds)
        ]

    @override
    def build_width(self, width: int) -> None:
        check_heads(width, self.num_heads)
        books, words = self.codebook.codebooks, self.codebook.codewords
        self.codebook.build((None, None, width))
        slots = keras.initializers.RandomNormal(stddev=0.02)
        self.slots = self.make_weight("slots", (books, words, width), slots, kind="embeddings")
        if self.describe:
            self.description = self.make_dense("description", width, 2, use_bias=False)
        for block in self.blocks:
            block.build((None, books * words, width))
        shape = (books, width, width)
        self.key = self.make_weight("key", shape, xavier_normal((width, width)))
        self.value = self.make_weight("value", shape, xavier_normal((width, width)))
        self.query = self.make_dense("query", books * width, width, use_bias=False)
        self.output_dense = self.make_dense("output", width, books * width, use_bias=False)

    def diagnostics(self) -> dict[str, float]:
        """The figures of `CodebookHealth`."""
        return {f"codebook_{name}": value for name, value in self.codebook.health.figures().items()}

    @override
    def encode(self, sequence: Tensors, training: bool | None = None) -> Tensors:
        events, state = self.start(sequence)
        mask = length_mask(state["length"], ops.shape(events)[1])
        quantized = self.codebook(events, mask=mask, training=training)
        clusters, assignment = quantized["clusters"], quantized["assignment"]
        sizes = ops.sum(assignment, axis=1)
        full = sizes > 1e-6
        if self.describe:
            clusters = clusters + self.description(self._facts(sequence, assignment, sizes))
        clusters = ops.where(full[..., None], clusters + ops.cast(self.slots, self.compute_dtype), 0.0)
        batch, books, words, width = ops.shape(clusters)
        x = ops.reshape(clusters, (batch, books * words, width))
        for block in self.blocks:
            x = block(x, mask=ops.reshape(full, (batch, books * words)), training=training)
        clusters = ops.reshape(x, (batch, books, words, width))
        return {"key": self._heads(clusters, self.key), "value": self._heads(clusters, self.value), "size": sizes}

    def _facts(self, sequence: Tensors, assignment: Tensor, sizes: Tensor) -> Tensor:
        """log(1 + size) / 10 and the mean age bucket / 34, each about 0 to 1, `[B, N, W, 2]`."""
        ages = sequence.get("ages")
        mean_age = ops.zeros_like(sizes)
        if ages is not None:
            total = ops.einsum("blnw,bl->bnw", assignment, ops.cast(ages, "float32") / AGE_BUCKETS)
            mean_age = total / ops.maximum(sizes, 1e-6)
        return ops.cast(ops.stack([ops.log1p(sizes) / 10.0, mean_age], axis=-1), self.compute_dtype)

    def _heads(self, clusters: Tensor, kernel: Any) -> Tensor:
        """Each codebook's clusters by its own map, `[B, N * H, W, d / H]`."""
        mapped = ops.einsum("bnwd,nde->bnwe", clusters, ops.cast(kernel, self.compute_dtype))
        mapped = split_heads(mapped, self.num_heads)
        batch, books, heads, words, width = ops.shape(mapped)
        return ops.reshape(mapped, (batch, books * heads, words, width))

    @override
    def attend(self, state: Tensors, candidate: Tensors, context: Tensors, training: bool | None = None) -> Tensor:
        books, heads = self.codebook.codebooks, self.num_heads
        query = split_heads(self.query(self.target(candidate)), books * heads)
        key, value = (ops.cast(state[name], self.compute_dtype) for name in ("key", "value"))
        scores = ops.matmul(query, ops.swapaxes(key, -1, -2)) / math.sqrt(key.shape[-1])
        sizes = ops.repeat(ops.cast(state["size"], "float32"), heads, axis=1)[:, :, None, :]
        full = sizes > 1e-6
        scores = ops.cast(scores, "float32")
        if self.size_term:
            scores = scores + ops.log(ops.where(full, sizes, 1.0))
        weights = ops.cast(masked_softmax(scores, full), self.compute_dtype)
        return self.output_dense(merge_heads(ops.matmul(weights, value)))
