"""The quantization of a long history by codebooks, whose codewords gather the events that are nearest to them."""

import math
from typing import Any, Literal

import keras
from keras import ops
from typing_extensions import override

from tfctr.layers.arguments import (
    check_choice,
    check_count,
    check_not_negative,
    check_number,
    check_positive,
    check_rate,
)
from tfctr.layers.codebook_health import CodebookHealth
from tfctr.layers.configured import ConfiguredLayer, Shape
from tfctr.layers.export import tfctr_export
from tfctr.layers.initializers import xavier_normal
from tfctr.layers.masking import zero_padding
from tfctr.layers.tokens import known_width
from tfctr.layers.vectors import length, unit_length

Assignment = Literal["straight_through", "soft"]
Similarity = Literal["cosine", "dot"]
Noise = Literal["none", "scaled", "unit"]
Learning = Literal["moving_average", "gradient", "frozen"]
_COSINE_SCALE = 10.0
_USAGE_MOMENTUM = 0.99
_EMPTY = 1e-6
_NOISE_ROWS = 4096
_WATCHED = 8
"""The figures of `CodebookHealth` are of one history in so many."""


@tfctr_export
class MultiCodebook(ConfiguredLayer):
    """Several codebooks, each of which splits the events of a history into clusters.

    For each codebook n of W codewords c_nw:

        h_l = x_l W_n + b_n
        s_lw = scale * cosine(h_l, c_nw)                        with `similarity` `cosine`
        s_lw = scale * h_l . c_nw                               with `dot`
        A_lw = how far event l belongs to codeword w
        size_w = sum_l A_lw,    z_w = sum_l A_lw h_l / size_w;  zeros for an empty cluster

    A comes from softmax(s / tau). The temperature tau falls exponentially from `tau_start` to `tau_end` over
    `anneal_steps` training steps. With `soft`, A is this softmax. With `straight_through` the forward pass takes the
    one best codeword, and the gradient is that of the softmax. Serving does the same at the temperature that training
    has reached. With `noise`, training takes softmax((s + v g) / tau) with Gumbel noise g, and v = 1 (`unit`) or
    v = tau (`scaled`); then it puts an event into the cluster of serving with the chance max_w softmax(s / v)_w only.
    Without noise the two agree.

    A codeword with `learning` `moving_average` moves in every step towards the mean of its members, the events of the
    batch whose largest score is that codeword's, without noise: c <- momentum c + (1 - momentum) mean, of h / |h| where
    cosines are compared. A codeword that hardly any event chooses learns nothing. With `reseed_below`, a codeword whose
    moving share of the events, without noise, falls below that part of an equal share moves onto a random event of the
    batch. A codeword is the sum of its start, which only `gradient` trains, and an offset, which moves: only variables
    that are not trained can be changed inside a training step on every backend.

    Args:
        codebooks: N, the number of codebooks.
        codewords: W, the number of codewords of each codebook.
        assignment: `straight_through` or `soft`.
        similarity: `cosine` or `dot`.
        scale: what similarities are multiplied by; None for 10 (`cosine`) or 1 / sqrt(d) (`dot`).
        noise: `none`, `scaled` or `unit`.
        learning: how codewords learn: `moving_average`, `gradient`, or `frozen`, not at all.
        momentum: of the moving average.
        tau_start: the temperature at the first step.
        tau_end: the temperature from `anneal_steps` on.
        anneal_steps: the number of training steps in which the temperature falls.
        reseed_below: the part of an equal share below which a codeword moves, see above; 0 for never.
        balance: the weight of a penalty, the variance over codewords of W times their share of the batch's events.
        seed: the seed of codebooks, noise and re-seeding.

    Call arguments:
        inputs: float `[B, L, d]`.
        mask: bool `[B, L]`, true for real events.
        training: whether to draw noise, anneal the temperature, and move the codewords.

    Output shape: `{"clusters": [B, N, W, d], "assignment": [B, L, N, W]}`, the second float32, zeros at padded events.

    Example:
        >>> made = MultiCodebook(2, 4)(keras.random.normal((3, 20, 8)), mask=ops.ones((3, 20), "bool"))
        >>> tuple(made["clusters"].shape)
        (3, 2, 4, 8)

    References:
        Wei et al., Deep Multiple Quantization Network (2025), MCQM: maps, inner products, Gumbel-Softmax and pooling:
        `similarity="dot", noise="unit", learning="gradient", reseed_below=0.0`. The scale 1 / sqrt(d), mean pooling and
        the temperatures are not published. Cosines, their scale, training without noise, moving averages (after van den
        Oord et al., Neural Discrete Representation Learning, 2017, appendix A.1) and re-seeding are additions.
    """

    weight_kinds = ("kernel", "embeddings")

    def __init__(
        self,
        codebooks: int,
        codewords: int,
        assignment: Assignment = "straight_through",
        similarity: Similarity = "cosine",
        scale: float | None = None,
        noise: Noise = "none",
        learning: Learning = "moving_average",
        momentum: float = 0.95,
        tau_start: float = 1.0,
        tau_end: float = 0.3,
        anneal_steps: int = 1000,
        reseed_below: float = 0.1,
        balance: float = 0.0,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not 0.0 < check_number("tau_end", tau_end) <= check_number("tau_start", tau_start):
            raise ValueError(f"0 < `tau_end` <= `tau_start` must hold. Received: {tau_end} and {tau_start}")
        self.codebooks = check_count("codebooks", codebooks)
        self.codewords = check_count("codewords", codewords)
        self.assignment = check_choice("assignment", assignment, ("straight_through", "soft"))
        self.tau_start = tau_start
        self.tau_end = tau_end
        self.anneal_steps = check_count("anneal_steps", anneal_steps)
        self.similarity = check_choice("similarity", similarity, ("cosine", "dot"))
        self.scale = None if scale is None else check_positive("scale", scale)
        self.noise = check_choice("noise", noise, ("none", "scaled", "unit"))
        self.learning = check_choice("learning", learning, ("moving_average", "gradient", "frozen"))
        self.momentum = check_rate("momentum", momentum)
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
        trained = self.learning == "gradient"
        self.codebook = self.make_weight("codebook", shape, start, kind="embeddings", trainable=trained, **whole)
        # On several devices the codewords move by the mean of what each device's events ask for.
        moving: dict[str, Any] = {"trainable": False, "aggregation": "mean", **whole}
        self.offset = self.add_weight(name="offset", shape=shape, initializer="zeros", **moving)
        equal = keras.initializers.Constant(1.0 / self.codewords)
        self.usage = self.add_weight(name="usage", shape=shape[:2], initializer=equal, **moving)
        self.step = self.add_weight(
            name="step", shape=(), initializer="zeros", trainable=False, **{**whole, "dtype": "int32"}
        )
        self.health = self.make_part(CodebookHealth, "health", *shape[:2], built_for=(shape[0], None, None, shape[1]))
        self.built = True

    @override
    def call(self, inputs: Any, mask: Any, training: bool | None = None) -> dict[str, Any]:
        mapped = zero_padding(self._mapped(inputs), mask[None])
        words = self.codebook + self.offset
        # Float32 under every policy, since training and serving could otherwise decide near ties in different ways.
        compared = self._compared(ops.cast(mapped, "float32"))
        scores = self._scale(inputs.shape[-1]) * ops.einsum("nbld,nwd->nblw", compared, self._compared(words))
        chosen = zero_padding(self._assign(scores, training), mask[None])
        if training:
            self._watch(chosen, scores, compared, mask, words)
        sizes = ops.sum(chosen, axis=2)
        # A sum of many bfloat16 numbers loses the small ones: on CPU a mean over 1,000 events was a fifth too small.
        sums = ops.einsum("nblw,nbld->nbwd", chosen, ops.cast(mapped, "float32"))
        full = ops.cast(sizes > _EMPTY, "float32")
        shares = full / ops.maximum(sizes, _EMPTY)
        clusters = ops.swapaxes(ops.cast(sums * shares[..., None], self.compute_dtype), 0, 1)
        return {"clusters": clusters, "assignment": ops.transpose(chosen, (1, 2, 0, 3))}

    def _mapped(self, inputs: Any) -> Any:
        """The events as each codebook sees them, `[N, B, L, d]`.

        Codebooks come first in all that is as large as this: products of matrices for each codebook and history take
        what lies together as it is, and copies into that order took a third of a training step.
        """
        batch, steps, width = ops.shape(inputs)
        kernel = ops.cast(self.map.kernel, self.compute_dtype)
        kernel = ops.swapaxes(ops.reshape(kernel, (width, self.codebooks, width)), 0, 1)
        bias = ops.cast(ops.reshape(self.map.bias, (self.codebooks, 1, width)), self.compute_dtype)
        mapped = ops.matmul(ops.reshape(inputs, (1, batch * steps, width)), kernel) + bias
        return ops.reshape(mapped, (self.codebooks, batch, steps, width))

    @property
    def tau(self) -> Any:
        """The temperature at the present step."""
        progress = ops.minimum(ops.cast(self.step, "float32") / self.anneal_steps, 1.0)
        return self.tau_start * ops.exp(progress * math.log(self.tau_end / self.tau_start))

    def _scale(self, width: int) -> float:
        if self.scale is not None:
            return self.scale
        return _COSINE_SCALE if self.similarity == "cosine" else 1.0 / math.sqrt(width)

    def _compared(self, vectors: Any) -> Any:
        """The vectors as they are compared: of length 1 where their cosines are."""
        return unit_length(vectors) if self.similarity == "cosine" else vectors

    def _softmax(self, scores: Any) -> Any:
        # Keras warns about a softmax of one number.
        return ops.softmax(scores, axis=-1) if self.codewords > 1 else ops.ones_like(scores)

    def _best(self, scores: Any) -> Any:
        return ops.one_hot(ops.argmax(scores, axis=-1), self.codewords, dtype="float32")

    def _assign(self, scores: Any, training: bool | None) -> Any:
        if training and self.noise != "none":
            scores = scores + self._noise_scale() * self._gumbel(scores)
        if self.assignment == "soft":
            return self._softmax(scores / self.tau)
        best = self._best(scores)
        if not training:
            return best
        soft = self._softmax(scores / self.tau)
        return best + (soft - ops.stop_gradient(soft))

    def _noise_scale(self) -> Any:
        return self.tau if self.noise == "scaled" else 1.0

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

    def _watch(self, chosen: Any, scores: Any, compared: Any, mask: Any, words: Any) -> None:
        """Count the step, add the penalty, and look at the events without noise: move the codewords, keep figures."""
        events = ops.maximum(ops.sum(ops.cast(mask, "float32")), 1.0)
        if self.balance:
            share = ops.sum(chosen, axis=(1, 2)) / events
            self.add_loss(self.balance * ops.mean(ops.var(share * self.codewords, axis=-1)))
        scores, compared = ops.stop_gradient(scores), ops.stop_gradient(compared)
        word = zero_padding(self._best(scores), mask[None])
        self._keep_figures(scores, word, compared, words)
        members = ops.einsum("nblw,bl->nw", word, ops.cast(mask, "float32"))
        usage = _USAGE_MOMENTUM * self.usage + (1.0 - _USAGE_MOMENTUM) * members / events
        move = ops.zeros_like(words)
        if self.learning == "moving_average":
            mean = ops.einsum("nblw,nbld->nwd", word, compared) / ops.maximum(members, 1.0)[..., None]
            move = ops.where(members[..., None] > 0, (1.0 - self.momentum) * (mean - words), move)
        if self.reseed_below:
            drawn, real = self._random_events(compared, mask)
            dead = ops.logical_and(usage < self.reseed_below / self.codewords, real)
            move = ops.where(dead[..., None], drawn - words, move)
            usage = ops.where(dead, 1.0 / self.codewords, usage)
        self.offset.assign(self.offset + ops.stop_gradient(move))
        self.usage.assign(usage)
        self.step.assign(self.step + 1)

    def _keep_figures(self, scores: Any, word: Any, compared: Any, words: Any) -> None:
        # One history in eight tells as much, and all of them took a seventh of a training step.
        scores, word, compared = (whole[:, ::_WATCHED] for whole in (scores, word, compared))
        largest = ops.max(scores, axis=-1)
        agreement = ops.ones_like(largest)
        if self.noise != "none":
            # The largest of the softmax, without the others.
            agreement = 1.0 / ops.sum(ops.exp((scores - largest[..., None]) / self._noise_scale()), axis=-1)
        fit = largest / self._scale(words.shape[-1])
        if self.similarity == "dot":
            lengths = length(compared) * ops.einsum("nblw,nw->nbl", word, length(words))
            fit = fit / ops.maximum(lengths, 1e-12)
        self.health(scores, word=word, agreement=agreement, fit=fit)

    def _random_events(self, compared: Any, mask: Any) -> tuple[Any, Any]:
        """A random event for each codeword as its codebook compares it, `[N, W, d]`; and whether there is one."""
        _, batch, steps, width = ops.shape(compared)
        shape = (self.codebooks, self.codewords)
        length = ops.sum(ops.cast(mask, "int32"), axis=1)
        row = ops.cast(keras.random.uniform(shape, seed=self.generator) * ops.cast(batch, "float32"), "int32")
        row = ops.minimum(row, batch - 1)
        of_row = ops.take(length, row)
        step = ops.cast(keras.random.uniform(shape, seed=self.generator) * ops.cast(of_row, "float32"), "int32")
        step = ops.clip(step, 0, ops.maximum(of_row - 1, 0))
        place = (ops.arange(self.codebooks, dtype="int32")[:, None] * batch + row) * steps + step
        drawn = ops.take(ops.reshape(compared, (self.codebooks * batch * steps, width)), place, axis=0)
        return drawn, of_row > 0
