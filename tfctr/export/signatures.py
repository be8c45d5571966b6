"""The served signatures, built from the two towers and the raw function."""

import hashlib
import math
from collections.abc import Iterable, Mapping
from typing import Any

import tensorflow as tf

from tfctr.errors import UserError
from tfctr.export.fold import served_scorer, served_weights
from tfctr.features.assets import FeatureAssets
from tfctr.features.columns import MODEL_TAG, length_name
from tfctr.features.inputs import raw_inputs
from tfctr.features.parsing import parse_examples
from tfctr.features.transform import FileLookups, RawFunction
from tfctr.models.model import RankingModel
from tfctr.models.scorer import Scorer

PROBABILITIES = "probabilities"
_BAD_TAG = -1


def wire_name(state_name: str) -> str:
    """The name of a state tensor in a signature: `history/events` becomes `state_history_events`.

    A client passes the outputs of `user_tower` to `score` under the same names. TensorFlow changes "/" to "_" in
    the names of inputs but not of outputs, so the names in a signature must have no "/".
    """
    return f"state_{state_name.replace('/', '_')}"


class _Untracked:
    """A holder of the model, the served scorer and the functions that TensorFlow's object tracking does not follow.

    A tracked function would be traced once more when it is saved, and saved beside its signature.
    """

    def __init__(self, model: RankingModel, scorer: Scorer) -> None:
        self.model = model
        self.scorer = scorer
        self.functions: dict[str, Any] = {}

    def add(self, name: str, function: Any, specs: Any) -> Any:
        self.functions[name] = tf.function(function, input_signature=[specs], autograph=False)
        return self.functions[name].get_concrete_function()


class RankingModule(tf.Module):
    """The signatures of a SavedModel: a model together with its raw function.

    All signatures return p = sigmoid(logit + ln(negative_sampling_rate)). A model that was trained on a sample of the
    negatives thus predicts probabilities for the full traffic.

    An invalid row (a length outside [0, L], an infinite number, a state that was altered or comes from another version)
    gets NaN. The other rows of the batch keep their scores.

    A model that reads nothing of a user has no `user_tower`, and its `score` takes candidates and context alone.

    Args:
        state_dtype: "float32", or "float16" for a state of half the size.
        fold: Serve the folded backbone, which is smaller and has equal outputs. The model itself is not changed.
        max_rows: The most rows of a request of `serving_default` and `user_tower`, each with a whole history. TF
            Serving has no such limit, and a message of a few bytes can stand for millions of equal rows.
        max_candidates: The most candidates of all rows of a request of `score` together.
        max_string_bytes: The most bytes of all strings of a request together, which are parsed or split into many times
            as much.
    """

    def __init__(
        self,
        model: RankingModel,
        assets: FeatureAssets,
        state_dtype: str = "float32",
        fold: bool = True,
        max_rows: int = 4096,
        max_candidates: int = 16_384,
        max_string_bytes: int = 2**24,
    ) -> None:
        super().__init__()
        self._max_rows = max_rows
        self._max_candidates = max_candidates
        self._max_string_bytes = max_string_bytes
        self._untracked = _Untracked(model, served_scorer(model, fold))
        # Only the weights that the signatures read are tracked. Tracking the model would save its optimizer as well.
        self.weights = [weight.value for weight in served_weights(model, self.scorer)]
        self.file = assets.file
        self.lookups = FileLookups(assets)
        self.raw_function = RawFunction(assets.file, self.lookups)
        self.state_dtype = tf.as_dtype(state_dtype)
        self.model_tag = model_tag(model, assets)
        self._shift = math.log(assets.file.negative_sampling_rate)
        raw = raw_inputs(assets.file)
        self.user_specs = {s.name: tf.TensorSpec([None, *s.shape], s.dtype, s.name) for s in raw if s.side == "user"}
        self.candidate_specs = {
            s.name: tf.TensorSpec([None, None], s.dtype, s.name) for s in raw if s.side == "candidate"
        }
        self.context_specs = {s.name: tf.TensorSpec([None], s.dtype, s.name) for s in raw if s.side == "context"}
        self._state_names: dict[str, str] = {}
        self.state_specs: dict[str, Any] = {}
        if self.user_specs:
            outputs = self._untracked.add("user_tower", self._user_tower, self.user_specs).structured_outputs
            self.state_specs = {name: tf.TensorSpec(t.shape, t.dtype, name) for name, t in outputs.items()}
        taken = sorted(set(self.state_specs) & (set(self.candidate_specs) | set(self.context_specs)))
        if taken:
            raise UserError(f"the features {taken} have names that the state needs; rename them in the feature file")
        score_specs = {**self.state_specs, **self.candidate_specs, **self.context_specs}
        self._untracked.add("score", self._score, score_specs)
        self._untracked.add("serving_default", self._serving_default, tf.TensorSpec([None], tf.string, "examples"))

    @property
    def scorer(self) -> Scorer:
        """The served scorer: that of the model, or one with a folded backbone."""
        return self._untracked.scorer

    def signatures(self) -> dict[str, Any]:
        """The concrete functions by signature name."""
        return {name: function.get_concrete_function() for name, function in self._untracked.functions.items()}

    def user_tower(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """The state of users, by the names that `score` takes."""
        return dict(self._untracked.functions["user_tower"](inputs))

    def score(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Probabilities of candidates [B, C]."""
        return dict(self._untracked.functions["score"](inputs))

    def serving_default(self, examples: Any) -> dict[str, Any]:
        """Probabilities of serialized examples [N]."""
        return dict(self._untracked.functions["serving_default"](examples))

    def _user_tower(self, inputs: dict[str, Any]) -> dict[str, Any]:
        rows = tf.shape(next(iter(inputs.values())), tf.int64)[0]
        limits = [_at_most(rows, self._max_rows, "rows", "max_rows"), *self._short_strings(inputs.values())]
        raw = _checked(inputs, self.user_specs, limits)
        model_side = self.raw_function.user(raw)
        state = self._untracked.model.user_tower(_in_tables(model_side), training=False)
        good = self._good_user(raw, model_side)
        self._state_names = {wire_name(name): name for name in state}
        if len(self._state_names) < len(state):
            raise UserError("parts of two sequences' states have the same name; rename one of the sequences")
        wire = {wire_name(name): self._to_wire(tensor) for name, tensor in state.items()}
        tag = tf.where(good, tf.constant(self.model_tag, tf.int64), tf.constant(_BAD_TAG, tf.int64))
        return {**wire, MODEL_TAG: tag}

    def _score(self, inputs: dict[str, Any]) -> dict[str, Any]:
        specs = {**self.state_specs, **self.candidate_specs, **self.context_specs}
        candidates = tf.size(inputs[next(iter(self.candidate_specs))], tf.int64)
        limits = [_at_most(candidates, self._max_candidates, "candidates", "max_candidates")]
        inputs = _checked(inputs, specs, [*limits, *self._short_strings(inputs.values())])
        good = tf.equal(inputs[MODEL_TAG], self.model_tag) if self.state_specs else tf.constant(True)
        state = {}
        for wire, name in self._state_names.items():
            state[name], intact = self._from_wire(name, inputs[wire])
            good &= intact
        return {PROBABILITIES: self._probabilities(state, inputs, inputs, good)}

    def _serving_default(self, examples: Any) -> dict[str, Any]:
        limits = [_at_most(tf.size(examples, tf.int64), self._max_rows, "examples", "max_rows")]
        with tf.control_dependencies([*limits, *self._short_strings([examples])]):
            raw = parse_examples(tf.identity(examples), self.file)
        model_side = self.raw_function.user(raw)
        state = self._untracked.model.user_tower(_in_tables(model_side), training=False)
        wire = {name: self._to_wire(tensor) for name, tensor in state.items()}
        state = {name: self._from_wire(name, tensor)[0] for name, tensor in wire.items()}
        candidate = {name: raw[name][:, None] for name in self.candidate_specs}
        context = {name: raw[name] for name in self.context_specs}
        probabilities = self._probabilities(state, candidate, context, self._good_user(raw, model_side))
        return {PROBABILITIES: probabilities[:, 0]}

    def _short_strings(self, inputs: Iterable[Any]) -> list[Any]:
        """The check of what the strings of a request have together; none where it has none."""
        lengths = [tf.strings.length(one) for one in inputs if one.dtype == tf.string]
        if not lengths:
            return []
        total = tf.add_n([tf.reduce_sum(tf.cast(one, tf.int64)) for one in lengths])
        return [_at_most(total, self._max_string_bytes, "bytes of strings", "max_string_bytes")]

    def _probabilities(self, state: Any, candidate: Any, context: Any, good_user: Any) -> Any:
        """Probabilities [B, C], with NaN for invalid users (`good_user` is [B], or one for all) and candidates."""
        candidate_side = self.raw_function.candidate(candidate)
        context_side = self.raw_function.context(context)
        packed = {"state": state, "candidate": _in_tables(candidate_side), "context": _in_tables(context_side)}
        logits = self.scorer(packed, training=False)
        probabilities = tf.sigmoid(tf.cast(logits, tf.float32) + self._shift)
        good = good_user & _finite(context_side, axes_kept=1, like=probabilities)
        good = good[:, None] & _finite(candidate_side, axes_kept=2, like=probabilities)
        return tf.where(good, probabilities, tf.constant(float("nan")))

    def _good_user(self, raw: Mapping[str, Any], model_side: Mapping[str, Any]) -> Any:
        good = _finite(model_side, axes_kept=1, like=next(iter(raw.values())))
        for name, sequence in self.file.sequences.items():
            length = raw[length_name(name)]
            good &= (length >= 0) & (length <= sequence.max_length)
        return good

    def _to_wire(self, tensor: Any) -> Any:
        return tf.cast(tensor, self.state_dtype) if tensor.dtype.is_floating else tensor

    def _from_wire(self, name: str, tensor: Any) -> tuple[Any, Any]:
        """The tensor in the form that the scorer takes, and which rows [B] are valid."""
        kept = range(1, tensor.shape.rank)
        if tensor.dtype.is_floating:
            return tf.cast(tensor, tf.float32), tf.reduce_all(tf.math.is_finite(tensor), axis=list(kept))
        limit = self._limit(name)
        if limit is None:
            return tensor, tf.ones(tf.shape(tensor)[:1], tf.bool)
        # Looking up an id outside the table raises an error on CPU and returns zeros on GPU. Here it is an invalid row.
        inside = (tensor >= 0) & (tensor <= limit)
        return tf.clip_by_value(tensor, 0, limit), tf.reduce_all(inside, axis=list(kept))

    def _limit(self, name: str) -> int | None:
        """The largest valid value of an integer state tensor, or None if any value is valid."""
        interest, _, tensor = name.partition("/")
        if tensor == "length":
            return self.file.sequences[self.scorer.entries[interest].sequence].max_length
        if tensor.startswith("rows/"):
            return self._untracked.model.embeddings.frozen_shapes[tensor.removeprefix("rows/")][0] - 1
        return None


def _finite(tensors: Mapping[str, Any], axes_kept: int, like: Any) -> Any:
    """Whether all floats are finite and no row of a table (int32) is negative, by the first `axes_kept` axes."""
    good = tf.ones(tf.shape(like)[:axes_kept], tf.bool)
    for tensor in tensors.values():
        if tensor.dtype.is_floating or tensor.dtype == tf.int32:
            valid = tf.math.is_finite(tensor) if tensor.dtype.is_floating else tensor >= 0
            good &= tf.reduce_all(valid, axis=list(range(axes_kept, tensor.shape.rank)))
    return good


def _in_tables(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """The tensors with row 0 in place of row -1, which marks a bad value and is in no table."""
    return {name: tf.maximum(one, 0) if one.dtype == tf.int32 else one for name, one in tensors.items()}


def _checked(inputs: Mapping[str, Any], specs: Mapping[str, Any], limits: list[Any]) -> dict[str, Any]:
    """The inputs, after checks of their shapes in the graph, because TF Serving does not check them.

    Fixed dimensions must be those of the signature. Dimension 0 must be equal for all inputs, dimension 1 for all
    candidate inputs. `limits` are operations of `_at_most`.
    """
    checked = {name: tf.ensure_shape(inputs[name], spec.shape) for name, spec in specs.items()}
    candidates = [name for name, spec in specs.items() if spec.shape.rank == 2 and spec.shape[1] is None]
    checks = [*limits]
    for axis, what, names in ((0, "one row a request", list(specs)), (1, "the candidates", candidates)):
        for name in names[1:]:
            sizes = (tf.shape(checked[tensor])[axis] for tensor in (name, names[0]))
            message = f"`{name}` and `{names[0]}` must have the same dimension {axis} ({what})"
            checks.append(tf.debugging.assert_equal(*sizes, message=message))
    with tf.control_dependencies(checks):
        return {name: tf.identity(tensor) for name, tensor in checked.items()}


def _at_most(count: Any, limit: int, what: str, option: str) -> Any:
    """An operation that fails if a request has too many of something."""
    message = f"a request may have {limit} {what} (`{option}` of the export). Received:"
    # The op itself: `tf.debugging.Assert` puts a branch around it, which takes longer than the comparison.
    return tf.raw_ops.Assert(condition=count <= limit, data=[message, count])


def model_tag(model: RankingModel, assets: FeatureAssets) -> int:
    """A positive 63-bit hash of weights, configuration and feature assets, which identifies the model of a state."""
    digest = hashlib.sha256(assets.fingerprint.encode())
    digest.update(model.model_config.model_dump_json().encode())
    for variable in model.weights:
        digest.update(f"{variable.name} {variable.shape}".encode())
        digest.update(tf.convert_to_tensor(variable).numpy().tobytes())
    return int.from_bytes(digest.digest()[:8], "little") >> 1
