"""The block of HSTU (hierarchical sequential transduction units) in its two published forms."""

import math
from typing import Any, Literal

import keras
from keras import ops
from typing_extensions import override

from tfctr.layers.arguments import check_choice, check_count, check_flag, check_optional_count, check_rate
from tfctr.layers.configured import SameShapeLayer, Shape
from tfctr.layers.dropout import Dropout
from tfctr.layers.export import tfctr_export
from tfctr.layers.initializers import xavier_normal
from tfctr.layers.masking import split_heads, zero_padding

Variant = Literal["research", "stu"]
RelativeBias = Literal["none", "position", "time", "slots"]
RELATIVE_BIASES = ("none", "position", "time", "slots")
TIME_BUCKETS = 129
TIME_BUCKET_WIDTH = 0.301
_EPSILON = 1e-6


@tfctr_export
class HstuBlock(SameShapeLayer):
    """Attention without a softmax, gated, without a feed-forward part.

        u, v, q, k = split(f(norm(x)))
        a_i = sum_j silu(s q_i . k_j + bias_ij) / N * visible_ij * v_j
        y_i = x_i + W g_i (+ b),    g = u * norm(a), or [u; a'; u * norm(a)]

    `research` is the form of the public benchmarks: SiLU on all of u, v, q, k; s = 1; norms without scale and shift; an
    optional relative bias; an output map with a bias, over u * norm(a), or with `concatenate` over
    [u; norm(a); u * norm(a)]. `stu` is the production form: SiLU on u only; s = 1 / sqrt(query_dim); norms with scale
    and shift; no relative bias; an output map without a bias over [u; a; u * norm(a)].

    N is `max_length`, not the padded length of a batch, so that the scores of a request do not depend on the other
    requests in its batch.

    The tables of the relative bias count as embeddings for initializer and regularizer.

    Args:
        max_length: N, and the size of the relative bias.
        variant: `research` or `stu`.
        num_heads: H.
        value_dim: the width of a head's values; by default the width of the inputs divided by H.
        query_dim: the width of a head's queries and keys; by default the width of the inputs divided by H.
        causal: whether a step sees only itself and earlier ones; else all real steps.
        relative_bias: for `research`: `none`; `position`, a number for each distance; `time`, in addition a number for
            each bucket floor(ln(max(|t_{i+1} - t_j|, 1)) / 0.301), at most 128; `slots`, a number for each pair (i, j).
        concatenate: for `research`: what the output map reads, see above.
        group_norm: for `stu`: whether to normalize each head of a by itself, with one scale and one shift per head.
        window: how many positions back a step can see; 0 for all.
        context_length: the number of first steps that are a prefix, which sees all steps but the targets.
        dropout: the rate on the inputs of the output map.
        seed: the seed of the dropout.

    Call arguments:
        inputs: float `[B, L, d]`, L at most `max_length`, oldest first.
        mask: bool `[B, L]`, true for real steps; None if all are.
        timestamps: int `[B, L]` in seconds, for `relative_bias="time"`. Floats are refused: Keras would round them to
            the compute dtype, and a bfloat16 of today's time is right to months only.
        num_targets: int `[B]`, the number of last real steps that are targets, which see only the history and
            themselves.
        training: whether to drop out.

    Output shape: `[B, L, d]`, zeros at padded steps.

    Example:
        >>> tuple(HstuBlock(max_length=50, num_heads=2)(keras.random.normal((3, 20, 8))).shape)
        (3, 20, 8)

    References:
        Zhai et al., Actions Speak Louder than Words (2024), equations 1 to 3; the two forms are those of the authors'
        generative-recommenders repository, research/modeling/sequential/hstu.py and modules/stu.py.
    """

    weight_kinds = ("kernel", "embeddings")

    def __init__(
        self,
        max_length: int,
        variant: Variant = "research",
        num_heads: int = 2,
        value_dim: int | None = None,
        query_dim: int | None = None,
        causal: bool = True,
        relative_bias: RelativeBias = "none",
        concatenate: bool = False,
        group_norm: bool = False,
        window: int = 0,
        context_length: int = 0,
        dropout: float = 0.0,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.variant = check_choice("variant", variant, ("research", "stu"))
        allowed = ("none",) if variant == "stu" else RELATIVE_BIASES
        self.relative_bias = check_choice(f"relative_bias` of `{variant}", relative_bias, allowed)
        self.max_length = check_count("max_length", max_length)
        self.num_heads = check_count("num_heads", num_heads)
        self.value_dim = check_optional_count("value_dim", value_dim)
        self.query_dim = check_optional_count("query_dim", query_dim)
        self.causal = check_flag("causal", causal)
        self.concatenate = check_flag("concatenate", concatenate)
        self.group_norm = check_flag("group_norm", group_norm)
        self.window = check_count("window", window, least=0)
        self.context_length = check_count("context_length", context_length, least=0)
        affine = variant == "stu"
        self.norm_in = self._norm("norm_in", affine)
        self.norm_out = self._norm("norm_out", affine and not group_norm)
        rate = check_rate("dropout", dropout)
        self.drop = self.make_part(Dropout, "dropout", rate, seed=seed)
        self.supports_masking = True

    def _norm(self, name: str, affine: bool) -> keras.layers.LayerNormalization:
        return self.make_part(keras.layers.LayerNormalization, name, epsilon=_EPSILON, center=affine, scale=affine)

    @override
    def build(self, input_shape: Shape) -> None:
        dim = input_shape[-1]
        if dim is None or ((self.value_dim is None or self.query_dim is None) and dim % self.num_heads):
            raise ValueError(f"The width must be a multiple of {self.num_heads} heads. Received shape: {input_shape}")
        heads, research = self.num_heads, self.variant == "research"
        self.value_width = self.value_dim or dim // heads
        self.query_width = self.query_dim or dim // heads
        start = keras.initializers.RandomNormal(stddev=0.02) if research else xavier_normal()
        units, width = 2 * heads * (self.value_width + self.query_width), heads * self.value_width
        self.uvqk = self.make_dense("uvqk", units, dim, start, use_bias=not research)
        gated = width if research and not self.concatenate else 3 * width
        self.output_map = self.make_dense("output", dim, gated, use_bias=research)
        self.norm_in.build((None, None, dim))
        self.norm_out.build((None, None, heads, self.value_width) if self.group_norm else (None, None, width))
        if self.group_norm:
            self.gamma = self.add_weight(name="group_gamma", shape=(heads,), initializer="ones")
            self.beta = self.add_weight(name="group_beta", shape=(heads,), initializer="zeros")
        if self.relative_bias in ("position", "time"):
            self.position_bias = self._bias_table("position_bias", 2 * self.max_length - 1)
        if self.relative_bias == "time":
            self.time_bias = self._bias_table("time_bias", TIME_BUCKETS)
        if self.relative_bias == "slots":
            self.slot_bias = self._bias_table("slot_bias", self.max_length, self.max_length)
        self.built = True

    def _bias_table(self, name: str, *shape: int) -> Any:
        return self.make_weight(name, shape, keras.initializers.RandomNormal(stddev=0.02), kind="embeddings")

    @override
    def call(
        self,
        inputs: Any,
        mask: Any = None,
        timestamps: Any = None,
        num_targets: Any = None,
        training: bool | None = None,
    ) -> Any:
        if inputs.shape[1] is not None and inputs.shape[1] > self.max_length:
            raise ValueError(
                f"`inputs` may have at most {self.max_length} steps. Received shape: {tuple(inputs.shape)}"
            )
        steps, heads = ops.shape(inputs)[1], self.num_heads
        mask = ops.ones(ops.shape(inputs)[:2], dtype="bool") if mask is None else ops.cast(mask, "bool")
        inputs = zero_padding(inputs, mask)
        widths = (self.value_width, self.value_width, self.query_width, self.query_width)
        mixed = self.uvqk(self.norm_in(inputs))
        ends = [heads * sum(widths[: i + 1]) for i in range(3)]
        u, v, q, k = ops.split(ops.silu(mixed) if self.variant == "research" else mixed, ends, axis=-1)
        u = ops.silu(u) if self.variant == "stu" else u
        v, q, k = (split_heads(part, heads) for part in (zero_padding(v, mask), q, k))
        scores = ops.matmul(q, ops.swapaxes(k, -1, -2))
        if self.variant == "stu":
            scores = scores / math.sqrt(self.query_width)
        bias = self._bias(steps, timestamps)
        if bias is not None:
            scores = scores + ops.cast(bias, scores.dtype)
        # Divided before the product, since the product may run in half precision.
        weights = ops.silu(scores) / self.max_length
        visible = self._visible(steps, mask, num_targets)
        weights = ops.where(visible[:, None], weights, ops.zeros_like(weights))
        attended = ops.transpose(ops.matmul(weights, v), (0, 2, 1, 3))
        return zero_padding(inputs + self.output_map(self._gate(u, attended, training)), mask)

    def _gate(self, u: Any, attended: Any, training: bool | None) -> Any:
        """The inputs of the output map, from u `[B, L, H * dv]` and a `[B, L, H, dv]`."""
        flat = ops.reshape(attended, ops.shape(u))
        if self.group_norm:
            scale, shift = (ops.cast(one, self.compute_dtype)[:, None] for one in (self.gamma, self.beta))
            normed = ops.reshape(self.norm_out(attended) * scale + shift, ops.shape(u))
        else:
            normed = self.norm_out(flat)
        gated = u * normed
        if self.variant == "stu":
            gated = ops.concatenate([u, flat, gated], axis=-1)
        elif self.concatenate:
            gated = ops.concatenate([u, normed, gated], axis=-1)
        return self.drop(gated, training=training)

    def _bias(self, steps: Any, timestamps: Any) -> Any:
        """The relative bias, `[L, L]` or `[B, 1, L, L]`; None if there is none."""
        if self.relative_bias == "none":
            return None
        if self.relative_bias == "slots":
            return self.slot_bias[:steps, :steps]
        places = ops.arange(steps, dtype="int32")
        position = ops.take(self.position_bias, self.max_length - 1 + places[None, :] - places[:, None])
        if self.relative_bias == "position":
            return position
        if timestamps is None:
            raise ValueError('`relative_bias="time"` needs `timestamps`.')
        times = ops.convert_to_tensor(timestamps)
        dtype = keras.backend.standardize_dtype(times.dtype)
        if "int" not in dtype:
            raise ValueError(f"`timestamps` must be whole seconds in an integer type. Received: {dtype}")
        # Row i uses the time of step i + 1, since that is the event that step i predicts.
        following = ops.concatenate([times[:, 1:], times[:, -1:]], axis=1)
        gaps = ops.cast(ops.abs(following[:, :, None] - times[:, None, :]), "float32")
        buckets = ops.floor(ops.log(ops.maximum(gaps, 1.0)) / TIME_BUCKET_WIDTH)
        buckets = ops.cast(ops.clip(buckets, 0, TIME_BUCKETS - 1), "int32")
        return position + ops.take(self.time_bias, buckets)[:, None]

    def _visible(self, steps: Any, mask: Any, num_targets: Any) -> Any:
        """Whether a step (row) sees a real step (column): bool `[B, L, L]`."""
        places = ops.arange(steps, dtype="int32")[None, :]
        own = ops.equal(places[:, :, None], places[:, None, :])
        real = ops.sum(ops.cast(mask, "int32"), axis=1)[:, None]
        if self.context_length:
            # All steps of the prefix have the first position.
            places = ops.maximum(places - self.context_length + 1, 0)
            real = real - self.context_length + 1
        if num_targets is not None:
            # All targets have the position after the last one of the history.
            real = real - ops.cast(num_targets, "int32")[:, None]
            places = ops.minimum(places, real)
        rows, columns = places[:, :, None], places[:, None, :]
        back = rows - columns if self.causal else ops.abs(rows - columns)
        visible = ops.logical_or(own, back > 0)
        if self.window:
            visible = ops.logical_and(visible, back <= self.window)
        if self.context_length:
            visible = ops.logical_or(visible, ops.logical_and(rows == 0, columns < real[:, :, None]))
        return ops.logical_and(visible, mask[:, None, :])
