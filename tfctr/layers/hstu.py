"""The block of HSTU, hierarchical sequential transduction units, in its two published forms."""

import math
from typing import Any, Literal

import keras
from keras import ops

from tfctr.layers.arguments import check_count, check_flag, check_rate
from tfctr.layers.export import tfctr_export
from tfctr.layers.initializers import xavier_normal
from tfctr.layers.masking import zero_padding

Variant = Literal["research", "stu"]
RelativeBias = Literal["none", "position", "time", "slots"]
RELATIVE_BIASES = ("none", "position", "time", "slots")
TIME_BUCKETS = 129
TIME_BUCKET_WIDTH = 0.301
_EPSILON = 1e-6


@tfctr_export
class HstuBlock(keras.layers.Layer):
    """Attention without a softmax, gated, without a feed-forward part.

        u, v, q, k = split(f(norm(x)))
        a_i = sum_j silu(s q_i . k_j + bias_ij) / N * visible_ij * v_j
        y_i = x_i + W g_i (+ b),    g = u * norm(a), or [u; a'; u * norm(a)]

    `research` is the form of the public benchmarks: SiLU on all of u, v, q, k; s = 1; norms without scale and shift; an
    optional relative bias; an output map with a bias, over u * norm(a), or with `concatenate` over
    [u; norm(a); u * norm(a)]. `stu` is the production form: SiLU on u only; s = 1 / sqrt(query_dim); norms with scale
    and shift; no relative bias; an output map without a bias over [u; a; u * norm(a)].

    N is `max_length`, never the padded length of a batch: else scores would change with what a request is batched with.

    Args:
        max_length: N, and the size of the relative bias.
        variant: `research` or `stu`.
        num_heads: H.
        value_dim: width of a head's values; the width of the inputs divided by H when left out.
        query_dim: width of a head's queries and keys; likewise.
        causal: whether a step sees only itself and earlier ones; else all real steps.
        relative_bias: of `research`: `none`; `position`, a number for each distance; `time`, that and a number for each
            bucket floor(ln(max(|t_{i+1} - t_j|, 1)) / 0.301), at most 128; `slots`, a number for each pair (i, j).
        concatenate: of `research`: see above.
        group_norm: of `stu`: normalize each head of a by itself, with one scale and shift a head.
        window: steps see at most so many positions back; 0 for all.
        context_length: so many first steps are a prefix that sees all steps but targets.
        dropout: of what the output map reads.
        seed: of the dropout.

    Call arguments:
        inputs: float `[B, L, d]`, L at most `max_length`, oldest first.
        mask: bool `[B, L]`, true for real steps; all when left out.
        timestamps: `[B, L]` in seconds, for `relative_bias="time"`.
        num_targets: int `[B]`: so many last real steps are targets, which see the history and themselves only.
        training: whether to drop out.

    Output shape:
        `[B, L, d]`, zeros at padded steps.

    Example:
        >>> tuple(HstuBlock(max_length=50, num_heads=2)(keras.random.normal((3, 20, 8))).shape)
        (3, 20, 8)

    References:
        Zhai et al., Actions Speak Louder than Words (2024), equations 1 to 3; the two forms are those of the authors'
        generative-recommenders repository, research/modeling/sequential/hstu.py and modules/stu.py.
    """

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
        if variant not in ("research", "stu"):
            raise ValueError(f"`variant` must be research or stu. Received: {variant!r}")
        if relative_bias not in RELATIVE_BIASES or (variant == "stu" and relative_bias != "none"):
            allowed = "none" if variant == "stu" else ", ".join(RELATIVE_BIASES)
            raise ValueError(
                f"`relative_bias` of variant {variant} must be one of {allowed}. Received: {relative_bias!r}"
            )
        self.max_length = check_count("max_length", max_length)
        self.variant = variant
        self.num_heads = check_count("num_heads", num_heads)
        self.value_dim = None if value_dim is None else check_count("value_dim", value_dim)
        self.query_dim = None if query_dim is None else check_count("query_dim", query_dim)
        self.causal = check_flag("causal", causal)
        self.relative_bias = relative_bias
        self.concatenate = check_flag("concatenate", concatenate)
        self.group_norm = check_flag("group_norm", group_norm)
        self.window = _whole_number("window", window)
        self.context_length = _whole_number("context_length", context_length)
        self.dropout = check_rate("dropout", dropout)
        self.seed = seed
        affine = variant == "stu"
        self.norm_in = self._norm("norm_in", affine)
        self.norm_out = self._norm("norm_out", affine and not group_norm)
        self.drop = keras.layers.Dropout(dropout, seed=seed, dtype=self.dtype_policy, name="dropout")
        self.supports_masking = True

    def _norm(self, name: str, affine: bool) -> keras.layers.LayerNormalization:
        return keras.layers.LayerNormalization(
            epsilon=_EPSILON, center=affine, scale=affine, dtype=self.dtype_policy, name=name
        )

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Create the maps and the biases."""
        dim = input_shape[-1]
        if dim is None or ((self.value_dim is None or self.query_dim is None) and dim % self.num_heads):
            raise ValueError(f"The width must be a multiple of {self.num_heads} heads. Received shape: {input_shape}")
        heads, research = self.num_heads, self.variant == "research"
        self.value_width = self.value_dim or dim // heads
        self.query_width = self.query_dim or dim // heads
        start = keras.initializers.RandomNormal(stddev=0.02) if research else xavier_normal()
        self.uvqk = keras.layers.Dense(
            2 * heads * (self.value_width + self.query_width),
            use_bias=not research,
            kernel_initializer=start,
            dtype=self.dtype_policy,
            name="uvqk",
        )
        self.output_map = keras.layers.Dense(
            dim, use_bias=research, kernel_initializer="glorot_uniform", dtype=self.dtype_policy, name="output"
        )
        width = heads * self.value_width
        self.norm_in.build((None, None, dim))
        self.uvqk.build((None, None, dim))
        self.norm_out.build((None, None, heads, self.value_width) if self.group_norm else (None, None, width))
        self.output_map.build((None, None, width if research and not self.concatenate else 3 * width))
        small = keras.initializers.RandomNormal(stddev=0.02)
        if self.group_norm:
            self.gamma = self.add_weight(name="group_gamma", shape=(heads,), initializer="ones")
            self.beta = self.add_weight(name="group_beta", shape=(heads,), initializer="zeros")
        if self.relative_bias in ("position", "time"):
            self.position_bias = self.add_weight(
                name="position_bias", shape=(2 * self.max_length - 1,), initializer=small
            )
        if self.relative_bias == "time":
            self.time_bias = self.add_weight(name="time_bias", shape=(TIME_BUCKETS,), initializer=small)
        if self.relative_bias == "slots":
            shape = (self.max_length, self.max_length)
            self.slot_bias = self.add_weight(name="slot_bias", shape=shape, initializer=small)
        self.built = True

    def call(
        self,
        inputs: Any,
        mask: Any = None,
        timestamps: Any = None,
        num_targets: Any = None,
        training: bool | None = None,
    ) -> Any:
        """Apply the block; see the class."""
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
        v, q, k = (self._by_head(part) for part in (zero_padding(v, mask), q, k))
        scores = ops.matmul(q, ops.swapaxes(k, -1, -2))
        if self.variant == "stu":
            scores = scores / math.sqrt(self.query_width)
        bias = self._bias(steps, timestamps)
        if bias is not None:
            scores = scores + ops.cast(bias, scores.dtype)
        # Divided before the product, which may run in half precision.
        weights = ops.silu(scores) / self.max_length
        visible = self._visible(steps, mask, num_targets)
        weights = ops.where(visible[:, None], weights, ops.zeros_like(weights))
        attended = ops.transpose(ops.matmul(weights, v), (0, 2, 1, 3))
        return zero_padding(inputs + self.output_map(self._gate(u, attended, training)), mask)

    def _by_head(self, x: Any) -> Any:
        batch, steps, width = ops.shape(x)
        return ops.transpose(ops.reshape(x, (batch, steps, self.num_heads, width // self.num_heads)), (0, 2, 1, 3))

    def _gate(self, u: Any, attended: Any, training: bool | None) -> Any:
        """What the output map reads, from u `[B, L, H * dv]` and a `[B, L, H, dv]`."""
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
        """The relative bias, `[L, L]` or `[B, 1, L, L]`; None for none."""
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
        times = ops.cast(timestamps, "float32") if not _whole(timestamps) else timestamps
        # The row of a step asks with the time of the next one: what it predicts happens then.
        following = ops.concatenate([times[:, 1:], times[:, -1:]], axis=1)
        gaps = ops.cast(ops.abs(following[:, :, None] - times[:, None, :]), "float32")
        buckets = ops.floor(ops.log(ops.maximum(gaps, 1.0)) / TIME_BUCKET_WIDTH)
        buckets = ops.cast(ops.clip(buckets, 0, TIME_BUCKETS - 1), "int32")
        return position + ops.take(self.time_bias, buckets)[:, None]

    def _visible(self, steps: Any, mask: Any, num_targets: Any) -> Any:
        """Which step `[B, L, ...]` sees which real step `[B, ..., L]`."""
        places = ops.arange(steps, dtype="int32")[None, :]
        own = ops.equal(places[:, :, None], places[:, None, :])
        real = ops.sum(ops.cast(mask, "int32"), axis=1)[:, None]
        if self.context_length:
            # The prefix is one position, the first.
            places = ops.maximum(places - self.context_length + 1, 0)
            real = real - self.context_length + 1
        if num_targets is not None:
            # All targets share the position after the history's last.
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

    def compute_output_shape(self, input_shape: tuple[int | None, ...], **_: Any) -> tuple[int | None, ...]:
        """The shape of the inputs."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        names = (
            "max_length variant num_heads value_dim query_dim causal relative_bias concatenate group_norm window "
            "context_length dropout seed"
        )
        return {**super().get_config(), **{name: getattr(self, name) for name in names.split()}}


def _whole(x: Any) -> bool:
    """Whether a tensor holds integers, whose differences are exact where float32's are not."""
    return "int" in str(getattr(x.dtype, "name", x.dtype))


def _whole_number(name: str, value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"`{name}` must be a whole number of at least 0. Received: {value!r}")
    return value
