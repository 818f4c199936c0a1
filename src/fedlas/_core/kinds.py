"""Decorator that checks the types of arguments against a function's annotations."""

from __future__ import annotations

import ast
import functools
import inspect
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ParamSpec, TypeVar

from fedlas._core.check import InputError, describe, is_dense, is_module, is_tensor

P = ParamSpec("P")
R = TypeVar("R")


def check_argument_types(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a function so that arguments of another type than the annotated one raise InputError before it runs.

    The kinds are those of ``_KINDS``. Numbers, ranges, shapes and the elements of a sequence are left to the function.
    It costs about 0.3 us an argument, so it is for calls, not for what a training step repeats.

    Raises:
        InputError: From the decorated function, for an argument of another kind.

    Example:
        >>> @check_argument_types
        ... def share(names: Sequence[str] | None) -> None: ...
        >>> share(3)
        Traceback (most recent call last):
        fedlas._core.errors.InputError: share: names must be a sequence or None; got int 3. Pass a sequence or None.
    """
    parameters = list(inspect.signature(function).parameters.values())
    order = [
        each.name
        for each in parameters
        if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)
    ]
    kinds = {
        p.name: _annotated_types(p.annotation) for p in parameters if isinstance(p.annotation, str)
    }
    place = function.__qualname__.removesuffix(".__init__")

    @functools.wraps(function)
    def call_checked(*args: P.args, **options: P.kwargs) -> R:
        for name, value in (*zip(order, args, strict=False), *options.items()):
            accepted = kinds.get(name)
            if accepted and not any(_TYPE_TESTS[kind][1](value) for kind in accepted):
                owner = place
                if order[:1] == ["self"]:  # the class itself, not the base that defines the method
                    owner = ".".join([type(args[0]).__name__, *place.split(".")[1:]])
                words = " or ".join(_TYPE_TESTS[kind][0] for kind in accepted)
                fix = " or ".join(
                    _CONSTRUCTORS.get(kind, _TYPE_TESTS[kind][0]) for kind in accepted
                )
                fix = f"Pass {fix}."
                if "Predictions" in accepted and hasattr(value, "pooled"):
                    fix = PASS_ONE_LABEL
                error = InputError(f"must be {words}", describe(value), fix, argument=name)
                error.owner = owner
                raise error
        return function(*args, **options)

    return call_checked


def _annotated_types(annotation: str) -> list[str]:
    """Return the type names in an annotation, or an empty list if any of them is unknown."""
    nodes: list[ast.expr] = [ast.parse(annotation, mode="eval").body]
    names = []
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.BinOp):  # a | b
            nodes += [node.right, node.left]
        elif isinstance(node, ast.Subscript):  # Sequence[str]
            nodes.append(node.value)
        else:
            names.append(ast.unparse(node).rpartition(".")[2])
    return names if all(name in _TYPE_TESTS for name in names) else []


def _is_collection(value: object, method: str = "__getitem__") -> bool:
    """Return whether a value is a collection with ``method``; text, classes, scalars and sparse tensors are not."""
    if isinstance(value, str | bytes | type) or getattr(value, "ndim", 1) == 0:
        return False
    return is_dense(value) and not value.is_meta if is_tensor(value) else hasattr(value, method)


def _class_name_test(*names: str) -> Callable[[object], bool]:
    """Return a predicate: whether an object's class or a base has one of these names, which need not be imported."""
    return lambda value: any(base.__name__ in names for base in type(value).__mro__)


_TYPE_TESTS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "None": ("None", lambda value: value is None),
    "bool": ("True or False", _class_name_test("bool", "bool_")),
    "str": ("a string", lambda value: isinstance(value, str)),
    "Path": ("a path", lambda value: isinstance(value, os.PathLike)),
    "Tensor": ("a tensor", is_tensor),
    "Module": ("an nn.Module", is_module),
    "Mapping": ("a mapping", lambda value: isinstance(value, Mapping)),
    "Callable": ("a callable", callable),
    "Sequence": (
        "a sequence",
        lambda value: _is_collection(value) and not isinstance(value, Mapping),
    ),
    "Iterable": (
        "an iterable",
        lambda value: isinstance(value, Iterable) and _is_collection(value, "__iter__"),
    ),
    **{
        name: (name, _class_name_test(name))
        for name in (
            "BayesianConfig",
            "Calibration",
            "Columns",
            "Missing",
            "MultiLabel",
            "NullReplicates",
            "Optimizer",
            "Predictions",
            "Rule",
            "Source",
            "StreamingMetrics",
            "TableCalibration",
            "TopLabel",
        )
    },
    "AnyPredictions": ("Predictions or TopLabel", _class_name_test("Predictions", "TopLabel")),
}
"""For each kind, by its name in annotations: words for it, and a test."""

PASS_ONE_LABEL = "Pass one label, several.label(name), or all, several.pooled(); fedlas.report takes them as they are."
"""What to pass where several labels a sample are not taken."""
_CONSTRUCTORS = {
    "Predictions": "Predictions(logits, target), or Predictions.from_probs(probs, target)",
    "MultiLabel": "fedlas.MultiLabel(logits, target)",
    "AnyPredictions": "Predictions(logits, target), or TopLabel(confidence, correct)",
}


def is_lazy_frame(frame: object) -> bool:
    """Return whether a frame is evaluated lazily: a polars ``LazyFrame`` or a DuckDB relation."""
    return (hasattr(frame, "collect_schema") and hasattr(frame, "collect")) or hasattr(
        frame, "to_arrow_table"
    )
