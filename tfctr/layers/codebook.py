"""The quantization of a long history by codebooks, whose codewords gather the events that are nearest to them."""

import math
from typing import Any, Literal

import keras
from keras import ops
from typing_extensions import override

from tfctr.layers.arguments import check_choice, check_count, check_flag, check_not_negative, check_rate
from tfctr.layers.configured import ConfiguredLayer, Shape
from tfctr.layers.export import tfctr_export
from tfctr.layers.initializers import xavier_normal
from tfctr.layers.masking import zero_padding
from tfctr.layers.tokens import known_width

Assignment = Literal["straight_through", "soft"]
_USAGE_MOMENTUM = 0.99
_EMPTY = 1e-6
_NOISE_ROWS = 4096


@tfctr_export
class MultiCodebook(ConfiguredLayer):
    """Several codebooks, each of which splits the events of a history into clusters.

    For each codebook n of W codewords c_nw:

        h_l = x_l W_n + b_n,    s_lw = h_l . c_nw / sqrt(d)
        A_lw = how far event l belongs to codeword w
        size_w = sum_l A_lw,    z_w = sum_l A_lw h_l / size_w;   zeros for an empty cluster

    In training A comes from softmax((s + g) / tau), with Gumbel noise g. The temperature tau falls exponentially from
    `tau_start` to `tau_end` over `anneal_steps` training steps. With `soft`, A is this softmax. With `straight_through`
    the forward pass takes the one best codeword, and the gradient is that of the softmax. Serving does the same without
    noise, at the temperature that training has reached.

    A codeword that hardly any event chooses learns nothing. With `reseed_below`, a codeword whose moving share of the
    events falls below that part of an equal share moves onto a random event of the batch. It moves by an offset that is
    not trained, since only such variables can be changed inside a training step on every backend.

    Args:
        codebooks: N, the number of codebooks.
        codewords: W, the number of codewords of each codebook.
        assignment: `straight_through` or `soft`.
        tau_start: the temperature at the first step.
        tau_end: the temperature from `anneal_steps` on.
        anneal_steps: the number of training steps in which the temperature falls.
        noise: whether there is Gumbel noise in training.
        reseed_below: the part of an equal share below which a codeword moves, see above; 0 for never.
        balance: the weight of a penalty, the variance over codewords of W times their share of the batch's events.
        seed: the seed of codebooks, noise and re-seeding.

    Call arguments:
        inputs: float `[B, L, d]`.
        mask: bool `[B, L]`, true for real events.
        training: whether to draw noise, anneal the temperature, and update the usage.

    Output shape: `{"clusters": [B, N, W, d], "assignment": [B, L, N, W]}`, the second float32, zeros at padded events.

    Example:
        >>> made = MultiCodebook(2, 4)(keras.random.normal((3, 20, 8)), mask=ops.ones((3, 20), "bool"))
        >>> tuple(made["clusters"].shape)
        (3, 2, 4, 8)

    References:
        Wei et al., Deep Multiple Quantization Network (2025), MCQM: maps, inner products, Gumbel-Softmax and pooling.
        The scale 1 / sqrt(d), mean pooling, temperatures and re-seeding are not published.
    """

    weight_kinds = ("kernel", "embeddings")

    def __init__(
        self,
        codebooks: int,
        codewords: int,
        assignment: Assignment = "straight_through",
        tau_start: float = 1.0,
        tau_end: float = 0.3,
        anneal_steps: int = 1000,
        noise: bool = True,
        reseed_below: float = 0.1,
        balance: float = 0.0,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not 0.0 < tau_end <= tau_start:
            raise ValueError(f"0 < `tau_end` <= `tau_start` must hold. Received: {tau_end} and {tau_start}")
        self.codebooks = check_count("codebooks", codebooks)
        self.codewords = check_count("codewords", codewords)
        self.assignment = check_choice("assignment", assignment, ("straight_through", "soft"))
        self.tau_start = tau_start
        self.tau_end = tau_end
        self.anneal_steps = check_count("anneal_steps", anneal_steps)
        self.noise = check_flag("noise", noise)
        self.reseed_below = check_rate("reseed_below", reseed_below)
        self.balance = check_not_negative("balance", balance)
        self.seed = seed
        self.generator = keras.random.SeedGenerator(seed)
        self.supports_masking = True

    @override
    def build(self, input_shape: Shape) -> None:
        width = known_width(input_shape)
        shape = (self.codebooks, self.codewords, width)
        self.map = self.make_dense("map", self.codebooks * width, width, xavier_normal((width, width)))
        start = keras.initializers.RandomNormal(stddev=1.0 / math.sqrt(width), seed=self.seed)
        # Without autocast, since an offset that is read in half precision and written back would lose precision.
        whole: dict[str, Any] = {"dtype": "float32", "autocast": False}
        self.codebook = self.make_weight("codebook", shape, start, kind="embeddings", **whole)
        self.offset = self.add_weight(name="offset", shape=shape, initializer="zeros", trainable=False, **whole)
        equal = keras.initializers.Constant(1.0 / self.codewords)
        self.usage = self.add_weight(name="usage", shape=shape[:2], initializer=equal, trainable=False, **whole)
        self.step = self.add_weight(
            name="step", shape=(), initializer="zeros", trainable=False, **{**whole, "dtype": "int32"}
        )
        self.built = True

    @override
    def call(self, inputs: Any, mask: Any, training: bool | None = None) -> dict[str, Any]:
        batch, steps, width = ops.shape(inputs)
        mapped = ops.reshape(self.map(inputs), (batch, steps, self.codebooks, width))
        words = self.codebook + self.offset
        # Float32 under every policy, since training and serving could otherwise decide near ties in different ways.
        scores = ops.einsum("blnd,nwd->blnw", ops.cast(mapped, "float32"), words) / math.sqrt(width)
        chosen = self._assign(scores, training)
        real = ops.cast(mask, "float32")[:, :, None, None]
        chosen = ops.where(real > 0, chosen, ops.zeros_like(chosen))
        if training:
            self._watch(chosen, mapped, mask, words)
        sizes = ops.sum(chosen, axis=1)
        # A sum of many bfloat16 numbers loses the small ones: on CPU a mean over 1,000 events was a fifth too small.
        sums = ops.einsum("blnw,blnd->bnwd", chosen, ops.cast(zero_padding(mapped, mask), "float32"))
        full = ops.cast(sizes > _EMPTY, "float32")
        shares = full / ops.maximum(sizes, _EMPTY)
        return {"clusters": ops.cast(sums * shares[..., None], self.compute_dtype), "assignment": chosen}

    @property
    def tau(self) -> Any:
        """The temperature at the present step."""
        progress = ops.minimum(ops.cast(self.step, "float32") / self.anneal_steps, 1.0)
        return self.tau_start * ops.exp(progress * math.log(self.tau_end / self.tau_start))

    def _assign(self, scores: Any, training: bool | None) -> Any:
        if self.codewords == 1:  # Keras warns about a softmax of one number.
            return ops.ones_like(scores)
        tau = self.tau
        if training and self.noise:
            scores = scores + self._gumbel(scores)
        if self.assignment == "soft":
            return ops.softmax(scores / tau, axis=-1)
        best = ops.one_hot(ops.argmax(scores, axis=-1), self.codewords, dtype="float32")
        if not training:
            return best
        soft = ops.softmax(scores / tau, axis=-1)
        return best + (soft - ops.stop_gradient(soft))

    def _gumbel(self, scores: Any) -> Any:
        """Gumbel noise of the shape of the scores.

        Each event takes a random row of a table of noise that is drawn anew every step. Noise of its own for each event
        would make a training step twenty times slower: XLA on CPU draws such numbers again wherever they are read.
        """
        uniform = keras.random.uniform(
            (_NOISE_ROWS, self.codewords), 1e-7, 1.0 - 1e-7, dtype="float32", seed=self.generator
        )
        shape = ops.shape(scores)
        count = shape[0] * shape[1] * shape[2]
        rows = keras.random.randint((count,), 0, _NOISE_ROWS, dtype="int32", seed=self.generator)
        return ops.reshape(ops.take(-ops.log(-ops.log(uniform)), rows, axis=0), shape)

    def _watch(self, chosen: Any, mapped: Any, mask: Any, words: Any) -> None:
        """Count the step, update the moving usage, re-seed dead codewords, and add the penalty."""
        events = ops.maximum(ops.sum(ops.cast(mask, "float32")), 1.0)
        share = ops.sum(chosen, axis=(0, 1)) / events
        if self.balance:
            self.add_loss(self.balance * ops.mean(ops.var(share * self.codewords, axis=-1)))
        usage = _USAGE_MOMENTUM * self.usage + (1.0 - _USAGE_MOMENTUM) * ops.stop_gradient(share)
        if self.reseed_below:
            drawn, real = self._random_events(mapped, mask)
            dead = ops.logical_and(usage < self.reseed_below / self.codewords, real)
            # On JAX `where` takes tensors, but no variables.
            offset = ops.convert_to_tensor(self.offset)
            self.offset.assign(ops.where(dead[..., None], offset + ops.stop_gradient(drawn - words), offset))
            usage = ops.where(dead, 1.0 / self.codewords, usage)
        self.usage.assign(usage)
        self.step.assign(self.step + 1)

    def _random_events(self, mapped: Any, mask: Any) -> tuple[Any, Any]:
        """A random event for each codeword, mapped by its codebook, float32 `[N, W, d]`; and whether there is one."""
        batch, steps, codebooks, width = ops.shape(mapped)
        shape = (self.codebooks, self.codewords)
        length = ops.sum(ops.cast(mask, "int32"), axis=1)
        row = ops.cast(keras.random.uniform(shape, seed=self.generator) * ops.cast(batch, "float32"), "int32")
        row = ops.minimum(row, batch - 1)
        of_row = ops.take(length, row)
        step = ops.cast(keras.random.uniform(shape, seed=self.generator) * ops.cast(of_row, "float32"), "int32")
        step = ops.clip(step, 0, ops.maximum(of_row - 1, 0))
        place = (row * steps + step) * codebooks + ops.arange(self.codebooks, dtype="int32")[:, None]
        drawn = ops.take(ops.reshape(mapped, (batch * steps * codebooks, width)), place, axis=0)
        return ops.cast(drawn, "float32"), of_row > 0

    def perplexity(self) -> float:
        """exp(entropy) of the moving usage, averaged over codebooks: from 1 (one codeword) to W (all alike)."""
        share = self.usage / ops.sum(self.usage, axis=-1, keepdims=True)
        entropy = -ops.sum(share * ops.log(ops.maximum(share, 1e-12)), axis=-1)
        return float(ops.convert_to_numpy(ops.mean(ops.exp(entropy))))
