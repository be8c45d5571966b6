"""HSTU over the history."""

from typing import Any, Literal, get_args

import keras
from keras import ops
from typing_extensions import override

from tfctr.interests.base import SequenceFacts, Tensor, Tensors, interest, with_max_length
from tfctr.interests.target_attention import TargetAttention
from tfctr.layers.arguments import check_choice, check_count, check_rate
from tfctr.layers.hstu import HstuBlock, RelativeBias, Variant
from tfctr.layers.masking import length_mask, split_heads, zero_padding

Pooling = Literal["target_attention", "last"]


@interest("hstu")
class Hstu(TargetAttention):
    """HSTU blocks over the history, causal, oldest event first; then target attention, or the newest event's output.

        x = HSTU(events + position)
        output = target attention of the candidate over x, or x of the newest event for every candidate

    Positions are counted from the newest event, so they do not depend on the padding. The blocks read the history
    reversed, with the padding in front, and mask the padding. The time of an event comes from its age bucket:
    2^(bucket - 1) seconds before the newest event, which is right to a factor of two, at most 2^30. A history without
    events gives zeros. The attention scores take `[B, H, L, L]`; for histories of thousands of events, use `Dmqn`.

    Args:
        max_length: the most events in a history. The blocks divide their attention weights by this number.
        blocks: the number of blocks.
        variant: the form of the blocks, `research` or `stu`, see `HstuBlock`.
        relative_bias: the relative bias of the blocks, for the variant `research`: `none`, `position` or `time`.
        pooling: `target_attention` or `last`.
        num_heads: the number of heads in the blocks and in the target attention.
        dropout: the dropout rate in the blocks.
        seed: the seed of the dropout.
        kernel_initializer, kernel_regularizer, embeddings_initializer, embeddings_regularizer: see `ConfiguredLayer`.

    Shapes, call arguments and conventions: see `Interest`. Output `[B, C, d]`.
    State: `key` and `value` `[B, H, L, d_h]` and `length` `[B]`; with `last` only `vector` `[B, d]`.

    Raises:
        ValueError: for histories longer than `max_length`.

    Example:
        >>> sequence = {"events": keras.random.normal((2, 50, 8)), "length": np.array([50, 3])}
        >>> candidate = {"target": keras.random.normal((2, 5, 8))}
        >>> tuple(Hstu(num_heads=2)({"sequence": sequence, "candidate": candidate}).shape)
        (2, 5, 8)

    References:
        Zhai et al., Actions Speak Louder than Words (2024). The authors retrieve and rank with one sequence that holds
        the candidates; here, where the state is made before a candidate is known, the candidate attends to the output.
    """

    weight_kinds = ("kernel", "embeddings")
    fixed_arguments = ("attention_dim", "projections", "output_projection", "scale", "activation")

    def __init__(
        self,
        max_length: int = 1024,
        blocks: int = 2,
        variant: Variant = "research",
        relative_bias: RelativeBias = "position",
        pooling: Pooling = "target_attention",
        num_heads: int = 2,
        dropout: float = 0.0,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_heads=num_heads, seed=seed, **kwargs)
        self.max_length = check_count("max_length", max_length)
        self.relative_bias = relative_bias
        self.pooling = check_choice("pooling", pooling, get_args(Pooling))
        check_rate("dropout", dropout)
        bias = relative_bias if variant == "research" else "none"
        own = {"variant": variant, "num_heads": num_heads, "relative_bias": bias, "dropout": dropout}
        seeds = [None if seed is None else seed + i for i in range(check_count("blocks", blocks))]
        self.blocks = [
            self.make_part(HstuBlock, f"block{i}", max_length, **own, seed=one) for i, one in enumerate(seeds)
        ]

    @classmethod
    @override
    def complete(cls, options: dict[str, Any], sequence: SequenceFacts) -> dict[str, Any]:
        return with_max_length(options, sequence)

    @override
    def build_width(self, width: int) -> None:
        start = keras.initializers.RandomNormal(stddev=0.02)
        self.positions = self.make_weight("positions", (self.max_length, width), start, kind="embeddings")
        for block in self.blocks:
            block.build((None, None, width))
        if self.pooling == "target_attention":
            super().build_width(width)

    @override
    def encode(self, sequence: Tensors, training: bool | None = None) -> Tensors:
        events, state = self.start(sequence)
        if events.shape[1] is not None and events.shape[1] > self.max_length:
            raise ValueError(f"Histories may have at most {self.max_length} events. Received shape: {events.shape}")
        steps = ops.shape(events)[1]
        mask = length_mask(state["length"], steps)
        x = events + ops.cast(self.positions[:steps], self.compute_dtype)
        x, reversed_mask = ops.flip(zero_padding(x, mask), axis=1), ops.flip(mask, axis=1)
        times = None
        if self.relative_bias == "time":
            ages = sequence.get("ages")
            ages = ops.zeros_like(mask, dtype="int32") if ages is None else ages
            powers = ops.clip(ops.cast(ages, "int32") - 1, 0, 30)
            times = -ops.flip(ops.left_shift(ops.ones_like(powers), powers), axis=1)
        for block in self.blocks:
            x = block(x, mask=reversed_mask, timestamps=times, training=training)
        x = ops.flip(x, axis=1)
        if self.pooling == "last":
            return {"vector": x[:, 0]}
        key, value = (split_heads(dense(x), self.num_heads) for dense in (self.key, self.value))
        return {**state, "key": key, "value": value}

    @override
    def attend(self, state: Tensors, candidate: Tensors, context: Tensors, training: bool | None = None) -> Tensor:
        if self.pooling == "target_attention":
            return super().attend(state, candidate, context, training=training)
        return ops.zeros_like(self.target(candidate)) + self.stored(state, "vector")[:, None, :]
