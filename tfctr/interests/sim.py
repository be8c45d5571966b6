"""SIM: a search by category or by inner product, then attention over the events it found."""

from collections.abc import Sequence
from typing import Any

from keras import ops
from typing_extensions import override

from tfctr.interests.base import SequenceFacts, Tensor, Tensors, interest
from tfctr.interests.retrieved import RetrievedAttention, exact_events
from tfctr.layers.arguments import check_choice, check_flag, check_names, check_positive, check_units
from tfctr.layers.masking import length_mask
from tfctr.layers.retrieval import top_steps

SEARCHES = ("soft", "hard")


@interest("sim")
class Sim(RetrievedAttention):
    """Search-based interest: a general search finds K events, an exact attention reads them.

        hard:  found = the newest K events that share a category with the target
        soft:  r_i = (x_i W_b) . (t W_a);   found = the K events with the largest r_i
        output = target attention over the found events, see `RetrievedAttention`

    No gradient passes through the choice of the K events, so the soft search is trained by its own logit, `search`:

        u = sum_i r_i x_i,   logit = MLP([u ; t])

    u is linear in the candidate, u = (sum_i x_i (x_i W_b)^T) (t W_a): the matrix is part of the state, and no pass
    over the events is needed. The search runs in float32.

    Args:
        search: `soft` or `hard`.
        category: for the hard search, the candidate's feature whose ids are compared with those of an event, or a list
            of features. One equal id in one of the features is enough; a missing id is equal to no other. The soft
            search ignores this argument.
        auxiliary_units: widths of the hidden layers of the search's logit.
        auxiliary_weight: weight of that logit's cross-entropy in the loss.
        padding_competes: whether padded steps take part in the soft search with score 0, as in the public code. They
            take the places of events with negative scores, so what is found depends on how much padding there is.
        top_k, num_heads, attention_dim, age_dim, dropout, seed: see `RetrievedAttention`. In the paper each event
            also has an embedding of its time gap, which `age_dim` adds here.
        kernel_initializer, kernel_regularizer, embeddings_initializer, embeddings_regularizer: see `ConfiguredLayer`.

    Shapes, call arguments and conventions: see `Interest`. Output `[B, C, d]`; `attend` of the soft search returns
    `(output, {"search": logits [B, C]})`. Zeros for an empty history, and where no event is found.
    State: `key_value` `[B, L, 2 H d_h]`, `length` `[B]`; hard: `ids/<feature>` `[B, L]` or `[B, L, M]`; soft, float32:
    `search_key` `[B, L, H d_h]`, `search_sum` `[B, d, H d_h]`.
    Cost of a candidate: soft `L * d`, hard `L` comparisons for each pair of values; then K gathered rows of `2 d`.

    Example:
        >>> layer = Sim(search="hard", category="genre", top_k=2, num_heads=1)
        >>> sequence = {"events": keras.random.normal((1, 3, 4)), "length": ops.array([3])}
        >>> sequence["ids/genre"] = ops.array([[7, 8, 7]])
        >>> candidate = {"target": keras.random.normal((1, 2, 4)), "ids/genre": ops.array([[7, 9]])}
        >>> tuple(layer({"sequence": sequence, "candidate": candidate}).shape)
        (1, 2, 4)

    References:
        Pi et al., Search-based User Interest Modeling with Lifelong Sequential Behavior Data (CIKM 2020), eq. 1 to 5:
        the losses of search and attention have weight 1 each with the soft search. K = 50 as in the LongCTR benchmark,
        whose soft search has no logit of its own for the loss. Hard search over padded pages as in MUSE.
    """

    def __init__(
        self,
        search: str = "soft",
        category: str | Sequence[str] | None = None,
        auxiliary_units: Sequence[int] = (64,),
        auxiliary_weight: float = 1.0,
        padding_competes: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.mode = check_choice("search", search, SEARCHES)
        names = check_names("category", category, "feature") if category else ()
        weight = check_positive("auxiliary_weight", auxiliary_weight)
        if search == "hard":
            if not names:
                raise ValueError(f"`category` must be given for the hard search. Received: {category!r}")
            self.id_names = names
        else:
            self.auxiliary = {"search": weight}
        self.auxiliary_units = check_units("auxiliary_units", auxiliary_units)
        self.padding_competes = check_flag("padding_competes", padding_competes)
        if padding_competes and search == "hard":
            raise ValueError("`padding_competes` must be false for the hard search, which has no scores")

    @classmethod
    @override
    def complete(cls, options: dict[str, Any], sequence: SequenceFacts) -> dict[str, Any]:
        return {"category": sequence.category, **options}

    @override
    def build_width(self, width: int) -> None:
        super().build_width(width)
        if self.mode == "hard":
            return
        exact = {"use_bias": False, "dtype": "float32"}
        self.search_query = self.make_dense("search_query", self.inner, width, **exact)
        self.search_key = self.make_dense("search_key", self.inner, width, **exact)
        self.head = []
        before = 2 * width
        for i, units in enumerate([*self.auxiliary_units, 1]):
            activation = None if i == len(self.auxiliary_units) else "relu"
            name = f"search_head_{i}"
            self.head.append(self.make_dense(name, units, before, activation=activation, dtype="float32"))
            before = units

    @override
    def encode(self, sequence: Tensors, training: bool | None = None) -> Tensors:
        state = super().encode(sequence, training=training)
        if self.mode == "hard":
            return state
        events = exact_events(sequence, state["length"])
        key = self.search_key(events)
        return {**state, "search_key": key, "search_sum": ops.matmul(ops.swapaxes(events, -1, -2), key)}

    def scores(self, state: Tensors, candidate: Tensors) -> Tensor:
        """r, float32 `[B, C, L]`; 0 at padded steps."""
        query = self.search_query(ops.cast(candidate["target"], "float32"))
        return ops.matmul(query, ops.swapaxes(ops.cast(state["search_key"], "float32"), -1, -2))

    def pooled(self, state: Tensors, candidate: Tensors) -> Tensor:
        """u, float32 `[B, C, d]`."""
        query = self.search_query(ops.cast(candidate["target"], "float32"))
        return ops.matmul(query, ops.swapaxes(ops.cast(state["search_sum"], "float32"), -1, -2))

    def matches(self, state: Tensors, candidate: Tensors) -> Tensor:
        """Where candidate and event share a category, bool `[B, C, L]`; false at padded steps, which have no ids."""
        found = None
        for name in self.id_names:
            ours, theirs = (_several(tensors[f"ids/{name}"]) for tensors in (candidate, state))
            # One pair of values is compared at a time, since all pairs together would be [B, C, L, M, M].
            for i in range(ours.shape[-1]):
                wanted = ours[:, :, None, i]
                for j in range(theirs.shape[-1]):
                    equal = ops.logical_and(ops.equal(wanted, theirs[:, None, :, j]), ops.not_equal(wanted, 0))
                    found = equal if found is None else ops.logical_or(found, equal)
        return found

    @override
    def search(self, state: Tensors, candidate: Tensors) -> tuple[Tensor, Tensor]:
        if self.mode == "hard":
            mask = self.matches(state, candidate)
            return top_steps(ops.zeros_like(mask, dtype="float32"), mask, self.top_k)[1:]
        scores = self.scores(state, candidate)
        real = length_mask(state["length"], ops.shape(scores)[-1])[:, None, :]
        if not self.padding_competes:
            return top_steps(scores, real, self.top_k)[1:]
        _, indices, found = top_steps(ops.where(real, scores, 0.0), ops.ones_like(real), self.top_k)
        return indices, ops.logical_and(found, indices < state["length"][:, None, None])

    @override
    def attend(self, state: Tensors, candidate: Tensors, context: Tensors, training: bool | None = None) -> Any:
        output = super().attend(state, candidate, context, training=training)
        if self.mode == "hard":
            return output
        x = ops.concatenate([self.pooled(state, candidate), ops.cast(candidate["target"], "float32")], axis=-1)
        for dense in self.head:
            x = dense(x)
        return output, {"search": x[..., 0]}


def _several(ids: Tensor) -> Tensor:
    """Ids with an axis of values: `[B, S, M]`."""
    return ids[..., None] if len(ids.shape) == 2 else ids
