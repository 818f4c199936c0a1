"""Finding the head of a model on its first batch, then reading the head's input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from torch import Tensor, nn

from fedlas._core.check import InputError
from fedlas.features import find_head
from fedlas.features.readers import HeadInput, NoFeatures, Reader, RunOutput, find_head_by_run
from fedlas.objective.call import class_logits, extract_logits

_NO_HEAD = "no module outputs the logits"


class HeadSearch:
    """Reader of the head's input that finds the head of the model on the first batch.

    Args:
        head: Dotted name of the head, or the module; None: search for it.
        required: Whether a model without a head raises InputError; otherwise the model runs without features.

    Attributes:
        note: Reason why there are no features; empty if there are features.
    """

    def __init__(self, head: str | nn.Module | None = None, *, required: bool) -> None:
        self._head = head
        self._required = required
        self._reader: Reader | None = None
        self.note = ""

    @property
    def heads(self) -> tuple[nn.Module, ...]:
        """The heads, or an empty tuple before the first batch."""
        return () if self._reader is None else self._reader.heads

    def __call__(
        self, model: nn.Module, inputs: Sequence[Any], options: Mapping[str, Any]
    ) -> RunOutput:
        """Return the model's output and the head's input."""
        if self._reader is None:
            self._reader = self._find_reader(model, inputs, options)
        return self._reader(model, inputs, options)

    def remove(self) -> None:
        """Remove the hooks on the heads."""
        if self._reader is not None:
            self._reader.remove()

    def _find_reader(
        self, model: nn.Module, inputs: Sequence[Any], options: Mapping[str, Any]
    ) -> Reader:
        """Return the reader for the heads of the model, or a reader without features if there is no head."""
        if self._head is not None:
            return HeadInput([find_head(model, self._head)])
        members = getattr(model, "members", None)
        networks = list(members) if members is not None else [model]
        heads = [self._find_network_head(network, inputs, options) for network in networks]
        if self._required:
            # find_head raises an error that lists the candidates.
            return HeadInput(
                [head or find_head(network) for head, network in zip(heads, networks, strict=True)]
            )
        found_heads = [head for head in heads if head is not None]
        if len(found_heads) < len(heads):
            self.note = _NO_HEAD
            return NoFeatures()
        reader = HeadInput(found_heads)
        self.note = _describe_mismatch(reader, model, inputs, options)
        if not self.note:
            return reader
        reader.remove()
        return NoFeatures()

    def _find_network_head(
        self, network: nn.Module, inputs: Sequence[Any], options: Mapping[str, Any]
    ) -> nn.Module | None:
        """Return the head of one network, or None."""

        def logits() -> Tensor:
            return extract_logits(network(*inputs, **options))

        head = find_head_by_run(network, logits)
        if head is None:
            # If the output of the head is then scaled or averaged, search for it by its usual name.
            with suppress(InputError):
                head = find_head(network)
        return head


def _describe_mismatch(
    reader: Reader, model: nn.Module, inputs: Sequence[Any], options: Mapping[str, Any]
) -> str:
    """Return why the head's input cannot serve as features of the logits, or an empty string."""
    try:
        output, features = reader(model, inputs, options)
        logits = class_logits(output)
    except InputError:
        return "the head does not run exactly once, on one tensor"
    if features is None or not features.is_floating_point():
        return "the head's input is not a tensor of floats"
    if (
        features.ndim != logits.ndim
        or features.shape[2:] != logits.shape[2:]
        or len(features) != len(logits)
    ):
        return f"the head's input {tuple(features.shape)} does not match the logits {tuple(logits.shape)} row by row"
    return ""
