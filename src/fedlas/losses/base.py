"""The contract of a loss, and what all share: needs, precision, class weights, reduction.

``Loss.forward`` leaves autocast, checks its input and flattens everything to a ``Batch`` of ``M`` positions (``M = N``
for plain classification). A subclass sees nothing else. Ignored positions stay in the batch, with a mask: selecting
them would make shapes depend on data, which stalls an accelerator and breaks ``torch.compile(fullgraph=True)``. Where
nothing is ignored, which is free to find out on a CPU, the mask is None and costs nothing.

On a CPU a boolean mask of ``(N, C)`` costs a third of a softmax, ``exp`` half of one, a power with a real exponent
four. So the focal family raises one number a sample to a power, and the penalties of MbLS and ACLS find their extremes
with one reused buffer (``extremes.py``). For hard targets ``l_i = logsumexp(z) - z_y + alpha_i (z_y - mean_k z_k)``:
one softmax pass forward, one backward, and nothing of size ``(N, C)`` kept in between but the logits.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar, TypedDict

import torch
from torch import Tensor, nn

from fedlas._core.check import InputError, check_choice, check_count, describe
from fedlas._core.registry import Registry
from fedlas.losses.batch import Batch, prepare, reduce

__all__ = ["LOSSES", "Batch", "Loss", "LossOptions", "Mixed", "prepare", "reduce", "without_autocast"]

LOSSES: Registry[type[Loss]] = Registry("loss")
"""Every training loss by name.

Metadata: ``paper``, ``year``, ``url``; optional ``shift_invariant`` (False: adding a constant to all logits of a row
changes the loss), ``pairwise`` (True: its cost grows with the square of the batch or of the classes), ``signed``
(names of numeric options that may be negative), ``order_invariant`` (False: the order of the batch matters), ``note``
(where it comes from, if not simply from the paper), ``tune`` (what ``fedlas tune`` searches unless told otherwise:
ranges of options, written as there, e.g. ``{"alpha": "0.01:0.3:log"}``; for a loss around another one, the base's too).
"""


@dataclass(frozen=True)
class Mixed:
    """What a loss with ``mix(inputs, target)`` wants the model to see instead of a batch.

    Attributes:
        inputs: The batch; its logits are what the loss gets as ``logits``.
        target: Its target, hard or soft.
        views: Further inputs, each like ``inputs``; their logits are what the loss gets as ``mixed``.
    """

    inputs: Tensor
    target: Tensor
    views: tuple[Tensor, ...] = ()


class LossOptions(TypedDict, total=False):
    """The options that every loss has, see :class:`Loss`; its own come before ``**options: Unpack[LossOptions]``."""

    reduction: str
    ignore_index: int
    weight: Tensor | Sequence[float] | None


class Loss(nn.Module, ABC):
    """Base of every training loss: ``criterion(logits, target, *, features=None, index=None, ...)``.

    A subclass implements :meth:`per_sample` on a checked, flattened :class:`Batch` and names what it wants beyond
    logits and target in ``needs``, out of ``features``, ``index``, ``mixed`` and ``head_weight``. It may have two more
    methods: ``update_from_validation(predictions)``, called after each validation, and ``mix(inputs, target)``, which
    returns a :class:`Mixed` to train on in place of a batch. Everything else here is shared: half precision is computed
    in float32 and autocast is left, dense inputs are flattened, ignored positions are masked, class weights and
    reductions follow ``F.cross_entropy``.

    Args:
        reduction: ``"mean"``, ``"sum"`` or ``"none"``. The mean divides by the summed weights of the valid positions
            (by the number of positions for soft targets), exactly as ``F.cross_entropy`` does.
        ignore_index: Target value that marks a position to leave out of the loss and out of every statistic.
        weight: Class weights ``(C,)``, non-negative; kept as a buffer.

    Note:
        On CPU, targets out of range and batches without a valid position raise an error. On an accelerator, and inside
        ``torch.compile``, looking would stall the device: there a target out of range trips the device's own assertion,
        and a batch without a valid position has the mean NaN, as with ``F.cross_entropy``.

        Under DDP each rank divides by its own valid positions (or weights), as ``F.cross_entropy`` does. Equal counts
        on all ranks give the mean of the whole batch; unequal ones give the mean of the ranks' means.
    """

    needs: ClassVar[frozenset[str]] = frozenset()
    strength: ClassVar[str | None] = None
    """Name of the option that says how strongly the loss regularises; :meth:`with_strength` takes another value."""
    strength_bound: float = float("inf")
    """The largest strength that it takes."""
    weight: Tensor | None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Spell out ``**options`` for whatever reads a loss's signature: registry, listings, tuning, ``help``."""
        super().__init_subclass__(**kwargs)
        signature = inspect.signature(cls.__init__)
        *own, last = signature.parameters.values()
        if last.kind is last.VAR_KEYWORD and (last.annotation is last.empty or "LossOptions" in str(last.annotation)):
            _, *shared = inspect.signature(Loss.__init__).parameters.values()
            cls.__init__.__signature__ = signature.replace(parameters=[*own, *shared])  # type: ignore[attr-defined]

    def __init__(
        self, *, reduction: str = "mean", ignore_index: int = -100, weight: Tensor | Sequence[float] | None = None
    ) -> None:
        super().__init__()
        self.reduction = check_choice(type(self).__name__, "reduction", reduction, ("mean", "sum", "none"))
        self.ignore_index = check_count(type(self).__name__, "ignore_index", ignore_index, low=None)
        self.register_buffer("weight", None if weight is None else _class_weights(type(self).__name__, weight))

    @abstractmethod
    def per_sample(self, batch: Batch) -> Tensor:
        """Loss of each position ``(M,)``, class weights included; values at ignored positions are discarded."""

    def with_strength(self, batch: Batch, strength: Tensor | float) -> Tensor:  # noqa: ARG002 (for subclasses)
        """Loss of each position ``(M,)`` with another strength, a float or one for each position ``(M,)``.

        Raises:
            TypeError: If the loss has no strength.
        """
        raise TypeError(f"{type(self).__name__} has no strength.")

    def forward(
        self,
        logits: Tensor,
        target: Tensor,
        *,
        features: Tensor | None = None,
        index: Tensor | None = None,
        mixed: Tensor | None = None,
        head_weight: Tensor | None = None,
    ) -> Tensor:
        """Loss of a batch.

        Args:
            logits: ``(N, C)`` or dense ``(N, C, d1, ...)``, any floating dtype.
            target: Class indices ``(N,)`` or ``(N, d1, ...)``, or soft targets shaped like ``logits``.
            features: Input of the classifier head, ``(N, D)``; for dense logits also ``(N, D, d1, ...)``.
            index: Position of each sample in the training set, ``(N,)`` int64.
            mixed: Logits of K mixed versions of each sample, ``(N, K, C)`` or ``(N, K, C, d1, ...)``. Not needed in
                ``eval()``.
            head_weight: Weight of the classifier head, ``(C, D)``.

        Returns:
            A scalar, or the shape of a hard target for ``reduction="none"`` (0 where ignored); float32, or float64 for
            float64 logits.

        Raises:
            TypeError: If something in ``needs`` was not passed.
            InputError: For wrong shapes or dtypes, and on CPU for targets out of range or nothing but ignored targets.
                Nothing has changed then.
        """
        with without_autocast(logits.device.type if isinstance(logits, Tensor) else "cpu"):
            given = {"features": features, "index": index, "mixed": mixed, "head_weight": head_weight}
            return self._forward(logits, target, given)

    def _forward(self, logits: Tensor, target: Tensor, given: dict[str, Tensor | None]) -> Tensor:
        name = type(self).__name__
        for need, value in given.items():
            if value is None and need in self.needs and (self.training or need != "mixed"):
                raise TypeError(
                    f"{name}: {need} must be passed ({_SHAPES[need]}); got None. "
                    f"Call {name}(...)(logits, target, {need}={need}), or wrap model and loss in fedlas.Objective."
                )
        batch = prepare(name, logits, target, **given, ignore_index=self.ignore_index, weight=self.weight)
        return reduce(self.per_sample(batch), batch, self.reduction)

    def extra_repr(self) -> str:
        """The options that are plain values, the shared ones where they differ from the defaults, for ``repr``."""
        values = {key: getattr(self, key, None) for key in inspect.signature(type(self)).parameters}
        usual = {"reduction": "mean", "ignore_index": -100}
        return ", ".join(
            f"{key}={value!r}"
            for key, value in values.items()
            if isinstance(value, int | float | str) and value != usual.get(key)
        )


_SHAPES = {
    "features": "the classifier head's input, (N, D)",
    "index": "positions in the training set, (N,)",
    "mixed": "logits of mixed samples, (N, K, C)",
    "head_weight": "the classifier head's weight, (C, D)",
}


def without_autocast(device: str) -> AbstractContextManager[Any]:
    """A context in which operations on ``device`` (its type) run in the precision of their inputs."""
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        return torch.autocast(device, enabled=False)
    return nullcontext()


def _class_weights(owner: str, weight: Any) -> Tensor:
    """A copy of class weights ``(C,)`` in the default dtype."""
    try:
        found = torch.as_tensor(weight, dtype=torch.get_default_dtype()).detach().clone()
    except (TypeError, ValueError, RuntimeError):
        found = None
    if found is None or found.ndim != 1 or bool((found < 0).any()) or not bool(torch.isfinite(found).all()):
        raise InputError(
            owner, "weight must be (C,), finite and non-negative", describe(weight), "Pass one weight for each class."
        )
    return found
