"""SDIM: the events that collide with the candidate in a hash table, summed."""

from typing import Any

import keras
from keras import ops
from typing_extensions import override

from tfctr.interests.base import Interest, Tensor, Tensors, interest
from tfctr.interests.retrieved import exact_events
from tfctr.layers.arguments import check_count, check_flag
from tfctr.layers.retrieval import CODE_BITS, gather_steps, sign_codes
from tfctr.layers.vectors import unit_length


@interest("sdim")
class Sdim(Interest):
    """Sampling-based interest: in each of several hash tables, the sum of the events in the candidate's bucket.

        bucket_r(x) = the signs of x in `hash_bits` fixed random directions of table r
        output = mean_r l2( sum_i [bucket_r(x_i) = bucket_r(t)] x_i )

    In expectation an event weighs (1 - angle(x_i, t) / pi)^hash_bits: an attention without a softmax. The sums of all
    buckets know nothing of the candidate and are the whole state, whose size does not grow with the history; a
    candidate costs `num_hashes` look-ups. The only weights are the random directions: drawn once, never trained,
    saved with the model. The candidate's embedding gets no gradient here.

    Args:
        num_hashes: the number of tables.
        hash_bits: the bits of a bucket; a table has 2^hash_bits buckets.
        l2_normalise: whether each sum is brought to length 1 before the mean; sums of zero stay zero.
        seed: of the random directions.

    Shapes, call arguments and conventions: see `Interest`. Output `[B, C, d]`; zeros for an empty history, and where
    no event shares a bucket.
    State: `buckets` `[B, num_hashes * 2^hash_bits, d]`.

    Example:
        >>> layer = Sdim(num_hashes=4, hash_bits=2)
        >>> sequence = {"events": keras.random.normal((1, 500, 8)), "length": ops.array([300])}
        >>> state = layer.encode(sequence)
        >>> tuple(state["buckets"].shape)
        (1, 16, 8)
        >>> tuple(layer.attend(state, {"target": keras.random.normal((1, 2, 8))}, {}).shape)
        (1, 2, 8)

    References:
        Cao et al., Sampling Is All You Need on Modeling Long-Term User Behaviors for CTR Prediction (2022): deployed
        with 48 directions in tables of 3 bits. The LongCTR benchmark uses one table of 4 bits without the l2 norm.
    """

    def __init__(
        self,
        num_hashes: int = 16,
        hash_bits: int = 3,
        l2_normalise: bool = True,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.num_hashes = check_count("num_hashes", num_hashes)
        self.hash_bits = check_count("hash_bits", hash_bits)
        if hash_bits > CODE_BITS:
            raise ValueError(f"`hash_bits` must be at most {CODE_BITS}. Received: {hash_bits}")
        self.l2_normalise = check_flag("l2_normalise", l2_normalise)
        self.seed = seed

    @override
    def build_width(self, width: int) -> None:
        self.rotation = self.add_weight(
            name="rotation",
            shape=(width, self.num_hashes, self.hash_bits),
            initializer=keras.initializers.RandomNormal(stddev=1.0, seed=self.seed),
            trainable=False,
            autocast=False,
        )

    @override
    def encode(self, sequence: Tensors, training: bool | None = None) -> Tensors:
        _, state = self.start(sequence)
        # Sums of thousands of events in float32, whatever the precision of the rest; padding is zero and adds nothing.
        events = exact_events(sequence, state["length"])
        size = 2**self.hash_bits
        codes = ops.one_hot(self.codes(events), size, dtype="float32")
        batch, steps, _ = ops.shape(events)
        codes = ops.reshape(codes, (batch, steps, self.num_hashes * size))
        sums = ops.matmul(ops.swapaxes(codes, -1, -2), events)
        if self.l2_normalise:
            sums = unit_length(sums)
        return {"buckets": ops.cast(sums, self.compute_dtype)}

    def codes(self, x: Tensor) -> Tensor:
        """The bucket in each table, int32 `[..., num_hashes]`, of float32 `[..., d]`."""
        return sign_codes(x, ops.convert_to_tensor(self.rotation))

    @override
    def attend(self, state: Tensors, candidate: Tensors, context: Tensors, training: bool | None = None) -> Tensor:
        codes = self.codes(ops.cast(candidate["target"], "float32"))
        tables = ops.arange(self.num_hashes, dtype="int32") * 2**self.hash_bits
        return ops.mean(gather_steps(ops.cast(state["buckets"], self.compute_dtype), codes + tables), axis=-2)
