"""What follows from a constructor's arguments: the configuration, and how the weights of a layer start."""

import functools
import inspect
import json
import random
from typing import Any, ClassVar, Self, TypeVar

import keras
from typing_extensions import override

from tfctr.layers.arguments import check_keras
from tfctr.layers.registry import arguments_of

Shape = tuple[int | None, ...]
"""The shape of a tensor; None for an axis of any size."""

Part = TypeVar("Part", bound=keras.layers.Layer)


class Configured:
    """A class whose `get_config` follows from its constructor's signature.

    The configuration holds every argument that the constructor names, with the value that was given or else its
    default, in the form that JSON keeps: tuples become lists, and Keras objects become their serialized form, which
    `keras.initializers.get` and `keras.regularizers.get` read again.
    """

    _given: Any

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Record the arguments of the constructor."""
        made = super().__new__(cls)
        # Lists and dicts are copied, so that the caller may change theirs. The partial keeps Keras from tracking them.
        args, kwargs = keras.tree.map_structure(lambda leaf: leaf, (args, kwargs))
        made._given = functools.partial(cls, *args, **kwargs)
        return made

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments, and for a layer those of `keras.layers.Layer`."""
        bound = inspect.signature(type(self)).bind(*self._given.args, **self._given.keywords)
        bound.apply_defaults()
        config = {name: bound.arguments[name] for name in arguments_of(type(self))}
        inherited: dict[str, Any] = getattr(super(), "get_config", dict)()
        return {**json.loads(json.dumps(config, default=keras.saving.serialize_keras_object)), **inherited}


class _OfClass:
    """An attribute of a class that its instances do not have: the signature of an instance is that of its call."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def __get__(self, instance: Any, owner: type[Any]) -> Any:
        if instance is not None:
            raise AttributeError("__signature__")
        return self._value


class ConfiguredLayer(Configured, keras.layers.Layer):
    """A layer whose configuration follows from its constructor, and whose weights start as the caller says.

    A subclass that sets `weight_kinds` has two more arguments for each kind:

    - `<kind>_initializer`: how the weights of the kind start: a Keras initializer, or its name or configuration. None
      stands for the initial values of the publication, which the code names where it makes the weight.
    - `<kind>_regularizer`: the penalty on these weights: a Keras regularizer, or its name or configuration; or None.

    They hold for the weights that `make_weight` and `make_dense` make, and are passed on to parts with
    `weight_arguments`.
    """

    weight_kinds: ClassVar[tuple[str, ...]] = ()
    """The kinds of weights: `kernel` for matrices, `embeddings` for tables."""

    fixed_arguments: ClassVar[tuple[str, ...]] = ()
    """Arguments of a base or a part that this class decides by itself."""

    part_classes: ClassVar[tuple[type[Any], ...]] = ()
    """Classes of parts whose arguments this class takes too, to pass them on; see `passed_on`."""

    __signature__: ClassVar[Any]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Complete the signature: arguments that `**kwargs` passes on, and those of the kinds of weights."""
        super().__init_subclass__(**kwargs)
        bases = [vars(base) for base in cls.__mro__[: cls.__mro__.index(ConfiguredLayer) + 1]]
        sources = [inspect.signature(base["__init__"].__get__(cls)) for base in bases if "__init__" in base]
        found: dict[str, inspect.Parameter] = {}
        for source in (*sources, *map(inspect.signature, cls.part_classes)):
            # The arguments of a base or a part are told by name only, since those of the class come before them.
            by_name = bool(found)
            for one in source.parameters.values():
                if one.name not in (*cls.fixed_arguments, *found):
                    keyword = by_name and one.kind is not one.VAR_KEYWORD
                    found[one.name] = one.replace(kind=one.KEYWORD_ONLY) if keyword else one
        for name, _ in _arguments(cls):
            found[name] = inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None)
        cls.__signature__ = _OfClass(inspect.Signature(sorted(found.values(), key=lambda one: one.kind)))

    def __init__(self, **kwargs: Any) -> None:
        chosen = {name: check_keras(name, kwargs.pop(name, None), what) for name, what in _arguments(type(self))}
        super().__init__(**kwargs)
        for name, value in chosen.items():
            setattr(self, name, value)
        self._initializers_used = 0

    @classmethod
    def passed_on(cls, kwargs: dict[str, Any]) -> list[dict[str, Any]]:
        """Move the arguments of parts out of `kwargs`, and return those of each of `part_classes`."""
        weights = dict(_arguments(cls))
        names = [arguments_of(part).keys() - weights.keys() - {*cls.fixed_arguments} for part in cls.part_classes]
        given = {name: kwargs.pop(name) for name in set[str]().union(*names) & kwargs.keys()}
        return [{name: given[name] for name in taken & given.keys()} for taken in names]

    def weight_arguments(self, part: type[Any] | None = None) -> dict[str, Any]:
        """Return the initializer and regularizer arguments for a part: those that its class takes, or else all."""
        taken = arguments_of(part or type(self))
        return {name: self._fresh(getattr(self, name)) for name, _ in _arguments(type(self)) if name in taken}

    def make_part(
        self,
        part: type[Part],
        name: str,
        *args: Any,
        built_for: Any = None,
        initializer: Any = None,
        **kwargs: Any,
    ) -> Part:
        """Return a new layer, which is part of this layer: it has its dtype policy, initializers and regularizers.

        Args:
            part: the class of the new layer.
            *args: arguments of that class, as are `**kwargs`.
            built_for: the shape of its inputs, for which it is built at once; None leaves it to be built later.
            initializer: how its kernels start where the caller of this layer does not say; None for as its class says.
        """
        weights = self.weight_arguments(part)
        if initializer is not None and weights["kernel_initializer"] is None:
            weights["kernel_initializer"] = initializer
        made: Part = part(*args, name=name, dtype=self.dtype_policy, **weights, **kwargs)
        if built_for is not None:
            made.build(built_for)
        return made

    def make_weight(self, name: str, shape: Any, initializer: Any, kind: str = "kernel", **options: Any) -> Any:
        """Return a new weight of a kind.

        Args:
            initializer: how it starts where the caller of the layer does not say.
            kind: one of `weight_kinds`.
            **options: further arguments of `add_weight`.
        """
        return self.add_weight(name=name, shape=shape, **self._start(kind, initializer), **options)

    def make_dense(
        self, name: str, units: int, width: int | None = None, initializer: Any = "glorot_uniform", **options: Any
    ) -> keras.layers.Dense:
        """Return a new dense layer, which is part of this layer.

        Args:
            units: the width of its outputs.
            width: the width of its inputs, for which it is built at once; None leaves it to be built later.
            initializer: how its kernel starts where the caller of this layer does not say.
            **options: further arguments of `keras.layers.Dense`; `dtype` is by default the policy of this layer.
        """
        start = {f"kernel_{key}": value for key, value in self._start("kernel", initializer).items()}
        dense = keras.layers.Dense(units, name=name, **{"dtype": self.dtype_policy, **start, **options})
        if width is not None:
            dense.build((None, width))
        return dense

    def _start(self, kind: str, initializer: Any) -> dict[str, Any]:
        given = self._fresh(getattr(self, f"{kind}_initializer", None))
        regularizer = getattr(self, f"{kind}_regularizer", None)
        return {"initializer": initializer if given is None else given, "regularizer": regularizer}

    def _fresh(self, chosen: Any) -> Any:
        """An initializer of its own for each weight: one that is used twice makes equal weights, as does one seed."""
        if not isinstance(chosen, keras.initializers.Initializer):
            return chosen
        config = chosen.get_config()
        if isinstance(config.get("seed"), int):
            self._initializers_used += 1
            config["seed"] = random.Random(f"{config['seed']}/{self._initializers_used}").getrandbits(31)
        return type(chosen).from_config(config)


def _arguments(cls: type[ConfiguredLayer]) -> list[tuple[str, str]]:
    """The arguments of the kinds of weights, each with what it takes."""
    return [(f"{kind}_{what}", what) for kind in cls.weight_kinds for what in ("initializer", "regularizer")]


class SameShapeLayer(ConfiguredLayer):
    """A layer whose output has the shape of its first input."""

    @override
    def compute_output_shape(self, input_shape: Shape, **_: Any) -> Shape:
        return input_shape
