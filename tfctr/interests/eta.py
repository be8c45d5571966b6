"""ETA: hash codes find the events, target attention reads them."""

from typing import Any

import keras
from keras import ops
from typing_extensions import override

from tfctr.interests.base import Tensor, Tensors, interest
from tfctr.interests.retrieved import RetrievedAttention, exact_events
from tfctr.layers.arguments import check_count
from tfctr.layers.masking import length_mask
from tfctr.layers.retrieval import CODE_BITS, code_signs, sign_codes, top_steps


@interest("eta")
class Eta(RetrievedAttention):
    """Efficient target attention: the K events whose hash code is nearest to the candidate's.

        bit_j(x) = [x . r_j > 0],   r_j ~ N(0, 1), fixed
        found = the K events with the smallest Hamming distance to the target, the newer first where it is equal
        output = target attention over them, see `RetrievedAttention`

    The codes of the history are in the state, 16 bits to a number. The random directions are weights that are never
    trained: they are saved with the model, and a code means something only beside them. No gradient passes through
    the search.

    Args:
        hash_bits: the number of random directions.
        top_k, num_heads, attention_dim, age_dim, dropout: see `RetrievedAttention`.
        seed: of the dropout and of the random directions.
        kernel_initializer, kernel_regularizer, embeddings_initializer, embeddings_regularizer: see `ConfiguredLayer`.

    Shapes, call arguments and conventions: see `Interest`. Output `[B, C, d]`; zeros for an empty history, where the
    reference averages the padding.
    State: `codes` int32 `[B, L, ceil(hash_bits / 16)]`, `key_value` `[B, L, 2 H d_h]`, `length` `[B]`.
    Cost of a candidate: a product with the signs, `L * hash_bits`, and the choice of K of L.

    Example:
        >>> sequence = {"events": keras.random.normal((1, 5, 4)), "length": ops.array([3])}
        >>> candidate = {"target": keras.random.normal((1, 2, 4))}
        >>> tuple(Eta(top_k=2, num_heads=1)({"sequence": sequence, "candidate": candidate}).shape)
        (1, 2, 4)

    References:
        Chen et al., End-to-End User Behavior Retrieval in Click-Through Rate Prediction Model (2021); 32 bits and
        K = 50 as in the LongCTR benchmark.
    """

    def __init__(self, hash_bits: int = 32, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.hash_bits = check_count("hash_bits", hash_bits)

    @override
    def build_width(self, width: int) -> None:
        super().build_width(width)
        self.rotation = self.add_weight(
            name="rotation",
            shape=(width, self.hash_bits),
            initializer=keras.initializers.RandomNormal(stddev=1.0, seed=self.seed),
            trainable=False,
            autocast=False,
        )

    @override
    def encode(self, sequence: Tensors, training: bool | None = None) -> Tensors:
        state = super().encode(sequence, training=training)
        return {**state, "codes": self.codes(exact_events(sequence, state["length"]))}

    def codes(self, x: Tensor) -> Tensor:
        """The bits of float32 `[..., d]`, 16 to an int32."""
        groups = -(-self.hash_bits // CODE_BITS)
        # A direction of zeros gives the bit 0 on both sides, hence no distance.
        rotation = ops.pad(ops.convert_to_tensor(self.rotation), [(0, 0), (0, groups * CODE_BITS - self.hash_bits)])
        return sign_codes(x, ops.reshape(rotation, (-1, groups, CODE_BITS)))

    def distances(self, state: Tensors, candidate: Tensors) -> Tensor:
        """Hamming distances, float32 `[B, C, L]`; those of padded steps mean nothing."""
        target = code_signs(self.codes(ops.cast(candidate["target"], "float32")))
        history = code_signs(state["codes"])
        return (target.shape[-1] - ops.matmul(target, ops.swapaxes(history, -1, -2))) / 2.0

    @override
    def search(self, state: Tensors, candidate: Tensors) -> tuple[Tensor, Tensor]:
        distances = self.distances(state, candidate)
        mask = length_mask(state["length"], ops.shape(distances)[-1])[:, None, :]
        return top_steps(-distances, mask, self.top_k)[1:]
