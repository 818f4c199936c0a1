"""Finding the classifier head and the global pool of a model, and capturing the input of a module."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn

from fedlas._core.check import InputError, check_count, describe, suggestion
from fedlas._core.kinds import check_argument_types
from fedlas._core.threads import ThreadLocal

# Names of the classifier in common libraries, in the order of the search.
_HEAD_NAMES = ("fc", "classifier", "head", "heads", "score", "classification_head", "last_linear")
# Names of the global pool in torchvision, timm and this library, in the order of the search.
_POOL_NAMES = ("avgpool", "global_pool", "head.global_pool", "pool", "classifier.0", "head.pool")
# Names of a second head, whose logits are averaged with or added to the logits of the first.
_SECOND_HEAD_NAMES = ("head_dist", "dist_head", "aux_head")


class HeadNotFoundError(InputError):
    """No layer, or more than one, can be the head; running the model on a batch may still find it."""


def check_model(model: object) -> None:
    """Raise InputError unless ``model`` is a module.

    Raises:
        InputError: If ``model`` is not an ``nn.Module``.
    """
    if not isinstance(model, nn.Module):
        raise InputError(
            "the model must be an nn.Module", describe(model), "Pass the model itself."
        )


def find_submodule(argument: str, model: nn.Module, part: str | nn.Module) -> nn.Module:
    """Return the submodule of ``model`` with this dotted name, or the given module if it is a submodule.

    Args:
        argument: Name of the argument for errors, such as ``"head"``.
        model: The model.
        part: Dotted name of the submodule, or the submodule.

    Raises:
        InputError: If the model has no such submodule.
    """
    if isinstance(part, nn.Module):
        if all(part is not module for module in model.modules()):
            raise InputError(
                f"{argument} must be a module of the model",
                part,
                "Pass a submodule or its dotted name.",
            )
        return part
    names = {name: module for name, module in model.named_modules() if name}
    if not isinstance(part, str) or part not in names:
        raise InputError(
            f"{argument} must name a module of the model",
            repr(part),
            suggestion(str(part), names),
        )
    return names[part]


def find_head(
    model: nn.Module, head: str | nn.Module | None = None, *, num_classes: int | None = None
) -> nn.Module:
    """Return the classifier head of ``model``.

    Args:
        model: Any classifier.
        head: Dotted name of the head, or the module itself; None searches: timm's ``get_classifier()``, then the names
            in torchvision and Hugging Face models, then the last layer of an ``nn.Sequential``, then a single linear
            layer that fits.
        num_classes: Number of logits, if known; candidates with another number of outputs are skipped.

    Returns:
        A module that is part of ``model``.

    Raises:
        InputError: If no layer or several layers fit, or the named head does not exist; candidates are listed. A model
            whose logits come from several heads (distilled and multi-scale transformers, VOLO) has none.

    Note:
        The head is the last layer with weights, which need not be the last operation: SqueezeNet averages its class map
        after the head, and so has features for every position rather than for every image.

    Example:
        >>> find_head(nn.Sequential(nn.Flatten(), nn.Linear(4, 3)))
        Linear(in_features=4, out_features=3, bias=True)
    """
    check_model(model)
    if num_classes is not None:
        check_count("num_classes", num_classes)
    if head is not None:
        return find_submodule("head", model, head)
    _check_single_head(model)
    # The usual places.
    for candidate in _iter_usual_heads(model):
        if num_classes is None and isinstance(candidate, nn.Conv2d):
            return candidate  # no model has another convolution under these names
        fitting = [layer for layer in candidate.modules() if _has_outputs(layer, num_classes)]
        if fitting:
            # a classifier of several layers ends in the one that makes the logits
            return fitting[-1]

    # In a Sequential the last layer with weights outputs the logits; else search for a single linear layer that fits.
    last = (
        [part for part in model if _has_weights(part)][-1:]
        if isinstance(model, nn.Sequential)
        else []
    )
    for part in last:
        with suppress(InputError):
            return find_head(part, num_classes=num_classes)
    linear = [
        (name, layer)
        for name, layer in model.named_modules()
        if _has_outputs(layer, num_classes, conv=False)
    ]
    if len(linear) == 1:
        return linear[0][1]
    if not linear and num_classes is not None:
        _check_num_outputs(model, num_classes)
    outputs = "" if num_classes is None else f" with {num_classes} outputs"
    raise HeadNotFoundError(
        f"the model must have one recognizable classifier head{outputs}",
        f"{type(model).__name__} with {_list_layers(linear) or 'no linear layer'}",
        "Pass its name, e.g. fedlas.Objective(model, criterion, head='classifier.3').",
    )


def _check_num_outputs(model: nn.Module, num_classes: int) -> None:
    """Raise InputError if the model has a head, but with another number of outputs."""
    names = {id(layer): name for name, layer in model.named_modules()}
    layers = [
        layer
        for place in _iter_usual_heads(model)
        for layer in place.modules()
        if _num_outputs(layer)
    ][-1:]
    layers = layers or [layer for layer in model.modules() if _num_outputs(layer, conv=False)][-1:]
    if layers and id(layers[0]) in names:
        outputs = _num_outputs(layers[0])
        raise InputError(
            f"the model must have a classifier head with {num_classes} outputs, one per class of the criterion",
            f"{type(model).__name__} with {_list_layers([(names[id(layers[0])], layers[0])])}, which has "
            f"{outputs} outputs",
            "Wrap the criterion for a model with one output: fedlas.losses.OneLogit(FedLAS(num_classes=2))."
            if outputs == 1
            else f"Build the criterion with num_classes={outputs}, or the model with {num_classes} outputs; "
            "if another layer is the head, pass its name: head='classifier.3'.",
        )


def _list_layers(layers: list[tuple[str, nn.Module]]) -> str:
    """Return the last five layers as text, with their names."""
    return ", ".join(f"{name or '(the model itself)'} ({layer})" for name, layer in layers[-5:])


def _check_single_head(model: nn.Module) -> None:
    """Raise InputError if the logits come from several heads, so that features are ambiguous."""
    get_classifier = getattr(model, "get_classifier", None)
    heads = get_classifier() if callable(get_classifier) else None
    heads = (
        [part for part in heads if _has_weights(part)]
        if isinstance(heads, tuple | list | nn.ModuleList)
        else []
    )
    if not heads:
        first_head = [*_iter_usual_heads(model)][:1]
        owners = [model, *first_head]  # a second head may be part of the first one's module
        heads = [
            head
            for owner in owners
            for name in _SECOND_HEAD_NAMES
            if _has_weights(head := getattr(owner, name, None))
        ]
        heads = [*first_head, *heads] if heads else []
    if len(heads) > 1:
        names = {id(module): name for name, module in model.named_modules() if name}
        head_names = ", ".join(names[id(head)] for head in heads if id(head) in names)
        raise InputError(
            "the logits must come from one head",
            f"{type(model).__name__} with several heads, {head_names}",
            "Use a model with one head, or pass the name of the head whose input to use, e.g. "
            f"fedlas.Objective(model, criterion, head={head_names.split(', ')[0]!r}).",
        )


def _has_weights(module: object) -> bool:
    """Return whether an object is a module with parameters."""
    return isinstance(module, nn.Module) and next(module.parameters(), None) is not None


def _iter_usual_heads(model: nn.Module) -> Iterator[nn.Module]:
    """Yield the modules that usually are the head: timm's ``get_classifier()``, then common attribute names."""
    get_classifier = getattr(model, "get_classifier", None)
    if callable(get_classifier):
        head = get_classifier()
        if isinstance(head, nn.Module):
            yield head
    for name in _HEAD_NAMES:
        head = getattr(model, name, None)
        if isinstance(head, nn.Module):
            yield head


def _has_outputs(layer: nn.Module, num_classes: int | None, *, conv: bool = True) -> bool:
    """Return whether a layer has outputs, as many as ``num_classes`` if given."""
    outputs = _num_outputs(layer, conv=conv and num_classes is not None)
    return outputs is not None and num_classes in (None, outputs)


def _num_outputs(layer: nn.Module, *, conv: bool = True) -> int | None:
    """Return the number of outputs of a linear layer, or with ``conv`` of a convolution; None for other layers."""
    outputs = getattr(layer, "out_features", None)
    # nn.Linear, or acts as one
    if isinstance(outputs, int) and isinstance(getattr(layer, "in_features", None), int):
        return outputs
    return (
        layer.out_channels
        if conv and isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d)
        else None
    )


def find_pool(model: nn.Module, pool: str | nn.Module | None = None) -> nn.Module:
    """Return the global pool of ``model``.

    Args:
        model: Any classifier that pools a map ``(N, D, H, W)`` in a module of its own.
        pool: Dotted name of the module whose input is the map, or the module itself; None searches the names in
            torchvision, timm and this library.

    Returns:
        A module that is part of ``model``. Whether its input is a map is known only when the model runs.

    Raises:
        InputError: If there is none, as in a transformer or a model that pools by a function; or the named one does
            not exist.

    Example:
        >>> find_pool(nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2)), "1")
        AdaptiveAvgPool2d(output_size=1)
    """
    check_model(model)
    if pool is not None:
        return find_submodule("pool", model, pool)
    names = dict(model.named_modules())
    for name in _POOL_NAMES:
        matches = names.get(name)
        if matches is not None and (name != "classifier.0" or "Pool" in type(matches).__name__):
            return matches
    raise InputError(
        "the model must pool its last feature map in a separate module, such as 'avgpool'",
        f"no such module in {type(model).__name__}",
        "Pass the module whose input is the feature map, e.g. fedlas.Objective(model, criterion, features='norm').",
    )


class _Capture:
    """Captured tensor and number of calls of a module during a forward pass."""

    listening = False
    captured: Tensor | None = None
    calls = 0


class _ThreadLocalCapture(ThreadLocal, _Capture):
    """Capture with separate values for each thread."""


class FeatureTap:
    """Captures the first positional input of a module during one forward pass.

    If the module is a convolution on a single position, ``(N, D, 1, 1)``, the result is ``(N, D)``.

    Args:
        module: The module whose input to capture, usually the classifier head.
        flatten: Expect a map ``(N, D, ...)`` and return it as ``(N, D * ...)``, all positions of a sample in one row.

    State:
        A forward pre-hook on the module. It keeps a tensor only between :meth:`start` and :meth:`stop`, so other uses
        of the model do not keep activations alive. :meth:`remove` removes the hook. Each thread has its own start, stop
        and tensor: one tap serves a model that several threads run at once.

    Note:
        The hook is part of the module: ``copy.deepcopy`` and pickling include it, ``state_dict`` does not.

    Example:
        >>> import torch
        >>> model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
        >>> tap = FeatureTap(model[2])
        >>> tap.start()
        >>> logits = model(torch.randn(5, 4))
        >>> tap.stop().shape
        torch.Size([5, 3])
    """

    @check_argument_types
    def __init__(self, module: nn.Module, *, flatten: bool = False) -> None:
        check_model(module)
        self._flatten = flatten
        self._conv = isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d)
        self._by_thread = _ThreadLocalCapture()
        self._traced = _Capture()
        self._handle = module.register_forward_pre_hook(self._hook)

    def _hook(self, _: nn.Module, args: tuple[Any, ...]) -> None:
        capture = self._capture
        if capture.listening:
            capture.captured = args[0] if args else None
            capture.calls += 1

    @property
    def _capture(self) -> _Capture:
        # A compiled graph returns the tensor itself, so the attributes matter only while one thread traces it; and not
        # every version of the compiler can trace attributes of a thread.
        return self._traced if torch.compiler.is_compiling() else self._by_thread

    def start(self) -> None:
        """Start capturing, for the next forward pass."""
        self.cancel()
        self._capture.listening = True

    def stop(self) -> Tensor:
        """Return the tensor captured since :meth:`start`, and drop the reference to it.

        Raises:
            InputError: If the module did not run exactly once, or had no positional tensor; with ``flatten``, if that
                is not a map.
        """
        captured = self._capture.captured
        calls = self._capture.calls
        self.cancel()
        if calls != 1:
            raise InputError(
                f"{'the pool' if self._flatten else 'the head'} must run exactly once in a forward pass",
                f"{calls} runs",
                "Pass the module whose input is the feature map, e.g. Objective(model, criterion, features='avgpool')."
                if self._flatten
                else "Pass the module that outputs the logits, e.g. Objective(model, criterion, head='fc').",
            )
        if not isinstance(captured, Tensor):
            raise InputError(
                "the head's first argument must be a tensor",
                describe(captured),
                "Pass another module as the head.",
            )
        if self._conv and captured.ndim > 2 and captured.shape[2:].numel() == 1:
            # a head of one 1 x 1 convolution is a linear layer on a pooled map
            return captured.flatten(1)
        if not self._flatten:
            return captured
        if captured.ndim < 3:
            raise InputError(
                "the input of the pool must be a feature map (N, D, ...)",
                describe(captured),
                "Pass a module whose input is the feature map, e.g. Objective(model, criterion, features='avgpool').",
            )
        return captured.flatten(1)

    def cancel(self) -> None:
        """Stop listening and drop the captured tensor; for a forward pass that failed."""
        capture = self._capture
        capture.listening = False
        capture.captured = None
        capture.calls = 0

    def remove(self) -> None:
        """Remove the hook from the module."""
        self._handle.remove()
