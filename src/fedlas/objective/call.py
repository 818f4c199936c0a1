"""How a model is called: which arguments it takes, and where its logits are."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fedlas._core.check import InputError


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """``model.eval()`` inside; each submodule's mode is restored, also after an error."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the module inside ``DistributedDataParallel``, ``DataParallel`` and ``torch.compile``, or itself.

    Example:
        >>> unwrapped(nn.DataParallel(nn.Linear(4, 3)))
        Linear(in_features=4, out_features=3, bias=True)
    """
    while True:
        # of torch.compile, whose class takes a second to import
        inner = getattr(model, "_orig_mod", None)
        if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            inner = model.module
        if not isinstance(inner, nn.Module):
            return model
        model = inner


@dataclass(frozen=True)
class Arguments:
    """What a model's ``forward`` takes.

    Attributes:
        required: Names without a default, that can be given by position.
        others: Names that need not be given, or must be given by name.
        most: Number of arguments by position; None for any number.
        any_name: Whether it takes any keyword.
    """

    required: tuple[str, ...]
    others: frozenset[str]
    most: int | None
    any_name: bool

    @classmethod
    def of(cls, model: nn.Module) -> Arguments:
        """Return the arguments of a model; for a wrapped one, those of the module inside."""
        inner = unwrapped(model)
        inner = getattr(inner, "called_as", inner)  # an ensemble is called as its first member
        try:
            parameters = inspect.signature(inner.forward).parameters.values()
        except (
            TypeError,
            ValueError,
        ):  # compiled by TorchScript, for example: it may take any argument
            return cls((), frozenset(), None, True)
        kinds = inspect.Parameter
        placed = [
            p for p in parameters if p.kind in (kinds.POSITIONAL_ONLY, kinds.POSITIONAL_OR_KEYWORD)
        ]
        required = tuple(p.name for p in placed if p.default is kinds.empty)
        named = {
            p.name
            for p in parameters
            if p.kind in (kinds.POSITIONAL_OR_KEYWORD, kinds.KEYWORD_ONLY)
        }
        any_number, any_name = (
            any(p.kind is kind for p in parameters)
            for kind in (kinds.VAR_POSITIONAL, kinds.VAR_KEYWORD)
        )
        return cls(
            required,
            frozenset(named - set(required)),
            None if any_number else len(placed),
            any_name,
        )

    def call(self, model: nn.Module, inputs: Any, keywords: Mapping[str, Any]) -> Any:
        """Return the model's output for the inputs of a batch; arguments and errors as :meth:`bind`."""
        positional, named = self.bind(model, inputs, keywords)
        return model(*positional, **named)

    def bind(
        self, model: nn.Module, inputs: Any, keywords: Mapping[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the arguments of ``forward``, by position and by name, for the inputs of a batch.

        Args:
            model: The model, wrapped or not.
            inputs: One input; a plain tuple or list of several, in the order of ``forward``; or a mapping from names to
                inputs. A model of one argument gets the whole tuple, and of a mapping with one entry the value.
            keywords: Further keywords.

        Raises:
            InputError: If ``forward`` takes other inputs.
        """
        others = dict(keywords)
        missing = [name for name in self.required if name not in keywords]
        if isinstance(inputs, Mapping):
            named = dict(inputs)
            if set(missing) <= set(named) and (
                self.any_name or set(named) <= {*missing, *self.others}
            ):
                return (), named | others
            if self.most != 1 and (len(named) != 1 or len(missing) > 1):
                raise self._unfit(model, f"inputs {', '.join(map(str, named))}")
            return (next(iter(named.values())) if len(named) == 1 else inputs,), others
        count = len(inputs) if type(inputs) in (tuple, list) else 1
        if count > 1 and len(missing) <= count and (self.most is None or count <= self.most):
            return tuple(inputs), others
        if len(missing) > 1:
            raise self._unfit(model, "one input" if count == 1 else f"{count} inputs")
        return (inputs,), others

    def _unfit(self, model: nn.Module, got: str) -> InputError:
        names = ", ".join((*self.required, *(f"{name}=" for name in sorted(self.others))))
        return InputError(
            f"a batch must hold the inputs that {type(unwrapped(model)).__name__}.forward takes, ({names})",
            got,
            "Pass several inputs as one tuple, ((a, b), target), or by name, {'a': a, 'b': b, 'label': target}.",
        )


def logits_of(output: object) -> Tensor:
    """Return the logits in a model's output: itself, its ``.logits``, or its entry ``"logits"`` or ``"out"``.

    Of a pair of tensors of one shape, such as an exported model's logits and probabilities, the first.

    Raises:
        InputError: If the output has no logits.
    """
    logits = output if isinstance(output, Tensor) else getattr(output, "logits", None)
    if logits is None and isinstance(output, Mapping):
        # "out": the segmentation models of torchvision
        logits = output.get("logits", output.get("out"))
    elif (
        isinstance(output, tuple)
        and len(output) == 2
        and all(isinstance(part, Tensor) for part in output)
    ):
        logits = output[0] if output[0].shape == output[1].shape else None
    if isinstance(logits, Tensor):
        return logits
    raise InputError(
        "the model must return logits, or an object with .logits",
        type(output).__name__,
        "Wrap the model in a module that returns the logits.",
    )


def class_logits(output: object) -> Tensor:
    """Return logits ``(N, C, ...)`` of a model's output; a single output is the logit of the second of two classes.

    A model with one output, ``(N,)`` or ``(N, 1, ...)`` as for ``nn.BCEWithLogitsLoss``, gets a first class with logit
    0, so that the softmax over both is the sigmoid of the output.

    Raises:
        InputError: If the output has no logits.

    Example:
        >>> import torch
        >>> class_logits(torch.tensor([[2.0], [-1.0]])).tolist()
        [[0.0, 2.0], [0.0, -1.0]]
    """
    logits = logits_of(output)
    logits = logits.unsqueeze(1) if logits.ndim == 1 else logits
    return (
        torch.cat([torch.zeros_like(logits), logits], dim=1)
        if logits.ndim > 1 and logits.shape[1] == 1
        else logits
    )
