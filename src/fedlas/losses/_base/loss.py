"""``Loss``, the base class of all losses: required tensors, precision, class weights, reductions; and the registry.

``Loss.forward`` leaves autocast, checks its input and flattens everything to a ``Batch`` of ``M`` positions (``M = N``
for plain classification). A subclass sees only that batch.

On a CPU ``exp`` of ``(N, C)`` costs half a softmax, and a power with a real exponent two. So the focal family raises
one number a sample to a power.
"""

from __future__ import annotations

import inspect
import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self, TypedDict, Unpack, get_args

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from fedlas._core.abstract import Abstract
from fedlas._core.autocast import without_autocast
from fedlas._core.check import InputError, check_choice, check_count, describe
from fedlas._core.registry import Registry
from fedlas.losses import HOMES
from fedlas.losses._base.batch import (
    EXTRAS,
    Batch,
    Reduction,
    can_read_values,
    is_in_functorch_transform,
    make_batch,
    missing_tensor_error,
    reduce,
)
from fedlas.losses._base.refusals import (
    check_depends_on_logits,
    check_masked_logits,
    check_position_losses,
)
from fedlas.losses._base.untrained import UntrainedParameterWatch

Variant = Literal["paper", "reference"]
"""The formula of the paper, or of published code where the two differ."""

LOSSES: Registry[type[Loss]] = Registry(
    "loss", lazy_modules=[f"fedlas.losses.{module}" for module in HOMES], paper="", year=0, url=""
)
"""All training losses by name.

All are optional: ``paper_metadata``, ``year``, ``url``; ``shift_invariant`` (False: a constant added to all logits of a
row changes the loss), ``dense`` (False: it takes one prediction a sample), ``detached`` (True: a weight in it has no
gradient, so its gradient is not that of its value), ``pairwise`` (True: its cost grows with the square of the batch or
of the classes), ``signed`` (names of numeric options that may be negative), ``order_invariant`` (False: the order of
the batch matters), ``note`` (the origin of the code, if it is not only the paper), ``tune`` (the options that
``fedlas tune`` searches by default, with their ranges, e.g. ``{"alpha": "0.01:0.3:log"}``; in a loss around another one
it also searches the base's).
"""


@dataclass(frozen=True)
class Mixed:
    """Mixed inputs and targets that replace a training batch, returned by ``mix(inputs, target)`` of a loss.

    Attributes:
        inputs: The inputs; the model's logits for them are passed as ``logits``.
        target: Hard or soft targets of the inputs.
        views: Further inputs, each shaped like ``inputs``; their logits are passed as ``mixed``.
        shares: Share of the main class in each view, ``(N, K)`` or ``(N, K, d1, ...)`` of K views; passed as
            ``mixed_share``.

    Example:
        >>> Mixed(inputs=torch.zeros(4, 1, 8, 8), target=torch.tensor([0, 1, 2, 0])).views
        ()
    """

    inputs: Tensor
    target: Tensor
    views: tuple[Tensor, ...] = ()
    shares: Tensor | None = None


class LossOptions(TypedDict, total=False):
    """Keyword options that every loss accepts: ``reduction``, ``ignore_index`` and class ``weight``; see :class:`Loss`.

    Example:
        >>> from fedlas.losses import LabelSmoothing
        >>> options: LossOptions = {"reduction": "sum", "weight": [1.0, 2.0]}
        >>> LabelSmoothing(alpha=0.1, **options).reduction
        'sum'
    """

    reduction: Reduction
    ignore_index: int
    weight: Tensor | Sequence[float] | None


class Loss(nn.Module, Abstract):
    """Base class of all training losses: ``criterion(logits, target, *, features=None, index=None, ...)``.

    A subclass implements :meth:`per_sample` on a checked, flattened :class:`Batch`. In ``needs`` it names the tensors
    that it takes in addition to logits and target: ``features``, ``index``, ``mixed``, ``mixed_share``,
    ``head_weight``. It may have two more methods: ``update_from_validation(predictions)``, called after each
    validation (:class:`~fedlas.losses.LearnsFromValidation` has it), and ``mix(inputs, target)``, which returns a
    :class:`Mixed` to train on instead of the batch. All the rest is shared: half precision is computed in float32 and
    outside autocast, dense inputs are flattened, ignored positions are masked, class weights and reductions follow
    ``F.cross_entropy``.

    Args:
        reduction: ``"mean"``, ``"sum"`` or ``"none"``. The mean divides by the summed weights of the valid positions
            (by the number of positions for soft targets), exactly as ``F.cross_entropy`` does.
        ignore_index: Target value of positions that are left out of the loss and of every statistic.
        weight: Class weights ``(C,)``, non-negative; kept as a buffer.

    Note:
        On CPU, targets out of range and batches without a valid position raise an error. On an accelerator, and inside
        ``torch.compile``, this check would stall the device. There a target out of range trips the device's own
        assertion, and a batch without a valid position has the mean 0 and no gradient.

        If all class weights of a batch are 0, its mean is 0 (``F.cross_entropy`` has NaN), and nothing is learned from
        it: no gradient, and no statistic moves.

        **Masked classes.** A logit of -inf gives a class the probability 0. A loss that is a function of the
        probabilities has a value there, since ``0 log 0 = 0``: it says ``masked_classes = True``, and the result is the
        limit of ever lower logits. The others are infinite or undefined by their formula (uniform smoothing, logit
        distances, norms, the gate): they refuse such logits on CPU, and give NaN or infinity elsewhere. For every loss
        the target must not be masked, or for soft targets have the share 0.

        Under DDP each rank divides by its own valid positions (or weights), as ``F.cross_entropy`` does. Equal counts
        on all ranks give the mean of the whole batch; unequal ones give the mean of the ranks' means.

    Example:
        >>> class Squared(Loss):
        ...     def per_sample(self, batch):
        ...         return batch.cross_entropy().square()
        >>> Squared()(torch.tensor([[1.0, 0.0]]), torch.tensor([0]))
        tensor(0.0981)
        >>> Squared(reduction="none", ignore_index=-1)(torch.zeros(2, 2), torch.tensor([0, -1]))
        tensor([0.4805, 0.0000])
    """

    needs: ClassVar[frozenset[str]] = frozenset()
    strength: ClassVar[str | None] = None
    """Name of the option that sets how strong the regularization is; :meth:`with_strength` takes another value."""
    masked_classes: ClassVar[bool] = False
    """Whether logits of -inf, which mask impossible classes, are accepted; see the Note of the class."""
    _nonfinite_if_masked: ClassVar[bool] = False
    """Whether the loss has no memory, and for hard targets is infinite or NaN where a logit of -inf is refused.

    Then a look at the value replaces one at all logits.
    """
    strength_bound: float = float("inf")
    """The largest valid strength."""
    num_classes: int | None = None
    """Number of classes that the loss was built for; None accepts any."""
    weight: Tensor | None
    _watch: UntrainedParameterWatch | None = None
    _watch_done = False
    """Whether training steps have shown that gradients reach the logits, and that its parameters are trained."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Replace ``**options`` in the signature by the options of the base class, for registry, listings and help."""
        super().__init_subclass__(**kwargs)
        # As in the base class: its signature is spelled out already, so options pass through any number of classes.
        signature = inspect.signature(cls.__init__)
        *parameters, last = signature.parameters.values()
        if last.kind is last.VAR_KEYWORD and (
            names := _unpacked_option_names(last.annotation, cls.__init__.__globals__)
        ):
            inherited = inspect.signature(super(cls, cls).__init__).parameters.values()
            parameters += [
                option for option in inherited if option.name in names - signature.parameters.keys()
            ]
            cls.__init__.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]

    def __init__(
        self,
        *,
        reduction: Reduction = "mean",
        ignore_index: int = -100,
        weight: Tensor | Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        self.reduction: Reduction = check_choice("reduction", reduction, get_args(Reduction))
        self.ignore_index = check_count("ignore_index", ignore_index, low=None)
        self.register_buffer("weight", copy_class_weights(weight))

    @abstractmethod
    def per_sample(self, batch: Batch) -> Tensor:
        """Return the class-weighted loss per position, ``(M,)``; values at ignored positions are arbitrary."""

    def with_strength(self, batch: Batch, strength: Tensor | float) -> Tensor:  # noqa: ARG002 (for subclasses)
        """Return the loss per position ``(M,)`` with another strength: a float, or one value per position ``(M,)``.

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
        mixed_share: Tensor | None = None,
        head_weight: Tensor | None = None,
    ) -> Tensor:
        """Return the loss of a batch, reduced by ``reduction``.

        Args:
            logits: ``(N, C)`` or dense ``(N, C, d1, ...)``, any floating dtype.
            target: Class indices ``(N,)`` or ``(N, d1, ...)``, or soft targets shaped like ``logits``.
            features: Input of the classifier head, ``(N, D)``; for dense logits also ``(N, D, d1, ...)``.
            index: Position of each sample in the training set, ``(N,)`` int64. Not needed in ``eval()``, where a sample
                without it has no history.
            mixed: Logits of K mixed versions of each sample, ``(N, K, C)`` or ``(N, K, C, d1, ...)``. Not needed in
                ``eval()``.
            mixed_share: Share of the main class in each mixed version, ``(N, K)`` or ``(N, K, d1, ...)``; 1 of
                samples of one class. Not needed in ``eval()``.
            head_weight: Weight of the classifier head, ``(C, D)``.

        Returns:
            A scalar, or the shape of a hard target for ``reduction="none"`` (0 where ignored); float32, or float64 for
            float64 logits.

        Raises:
            TypeError: If one of ``needs`` was not passed.
            InputError: For wrong shapes, dtypes or devices, and on CPU for targets that are out of range or all
                ignored and for masked classes that the loss does not accept. The state is then unchanged. Also if
                :meth:`per_sample` returns another shape, or in the first training step does not depend on the logits.
        """
        passed = (features, index, mixed, mixed_share, head_weight)
        extras = {
            name: value for name, value in zip(EXTRAS, passed, strict=True) if value is not None
        }
        device = logits.device.type if isinstance(logits, Tensor) else "cpu"
        with without_autocast(device):
            try:
                value = self._forward(logits, target, extras)
            except RuntimeError as error:
                if not (self.training and is_in_functorch_transform()):
                    raise
                raise InputError(
                    "a loss with state must be in eval() mode inside torch.func transforms",
                    "train() mode",
                    "Call criterion.eval() first, or differentiate with autograd.",
                ) from error
        if self.training and not self._watch_done:
            self._watch_training(value, logits)
        return value

    def _forward(self, logits: Tensor, target: Tensor, extras: dict[str, Tensor]) -> Tensor:
        if absent := self.needs - extras.keys():
            # Validation batches have neither mixed samples nor training-set indices.
            for need in EXTRAS:
                if need in absent and (self.training or not need.startswith(("mixed", "index"))):
                    raise missing_tensor_error(need)
        batch = make_batch(
            logits, target, extras, ignore_index=self.ignore_index, weight=self.weight,
            averaged=self.reduction == "mean", allow_masked=self.masked_classes, num_classes=self.num_classes,
            check_masked=not self._nonfinite_if_masked,
        )  # fmt: skip
        value = self.reduced_loss(batch)
        if self._nonfinite_if_masked and can_read_values(value):
            total = value if value.ndim == 0 else value.detach().sum()
            if not math.isfinite(total.item()):
                check_masked_logits(
                    batch.logits.detach(), batch.target, batch.valid, self.masked_classes
                )
        return value

    def _watch_training(self, value: Tensor, logits: Tensor) -> None:
        """Check that gradients reach the logits, and that an optimizer updates the parameters of the loss."""
        if (
            torch.compiler.is_compiling()
            or is_in_functorch_transform()
            or not torch.is_grad_enabled()
        ):
            return
        if not logits.requires_grad:
            return
        if self._watch is None:
            check_depends_on_logits(value, logits, type(self).__name__)
            self._watch = UntrainedParameterWatch()
        self._watch.observe_batch(self.parameters(), logits, type(self).__name__)
        self._watch_done = self._watch.done

    def reduced_loss(self, batch: Batch) -> Tensor:
        """Return the loss of the batch: the losses per position, reduced by ``reduction``."""
        values = check_position_losses(
            self.per_sample(batch), batch.logits.shape[0], type(self).__name__
        )
        return reduce(values, batch, self.reduction)

    def extra_repr(self) -> str:
        """Return the scalar options for ``repr``; ``reduction`` and ``ignore_index`` only if not the default."""
        values = {key: getattr(self, key, None) for key in inspect.signature(type(self)).parameters}
        return ", ".join(
            f"{key}={value!r}"
            for key, value in values.items()
            if isinstance(value, int | float | str)
            and value != {"reduction": "mean", "ignore_index": -100}.get(key)
        )


class LossWithStrength(Loss):
    """Base class of losses with a strength option, named by ``strength``; subclasses implement ``with_strength``.

    Example:
        >>> class Tempered(LossWithStrength):
        ...     def __init__(self, alpha=0.5, **options):
        ...         super().__init__(**options)
        ...         self.alpha = alpha
        ...     def with_strength(self, batch, strength):
        ...         return strength * batch.cross_entropy()
        >>> Tempered(alpha=0.25)(torch.zeros(1, 2), torch.tensor([0]))
        tensor(0.1733)
    """

    strength = "alpha"

    def per_sample(self, batch: Batch) -> Tensor:
        """Return the loss per position, ``(M,)``."""
        return self.with_strength(batch, getattr(self, self.strength))

    @abstractmethod
    def with_strength(self, batch: Batch, strength: Tensor | float) -> Tensor:
        """Return the loss per position ``(M,)`` with another strength: a float, or one value per position ``(M,)``."""


class PenalizedLoss(LossWithStrength):
    """Base class of losses of the form ``loss + alpha * penalty``; subclasses implement ``parts``.

    The penalty of a position is weighted like its cross-entropy.

    Example:
        >>> class Pulled(PenalizedLoss):
        ...     alpha = 0.1
        ...     def parts(self, batch):
        ...         return batch.cross_entropy(), batch.logits.square().sum(dim=1)
        >>> Pulled()(torch.tensor([[1.0, 1.0]]), torch.tensor([0]))
        tensor(0.8931)
    """

    @abstractmethod
    def parts(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the class-weighted loss ``(M,)`` and the penalty, unweighted, per position ``(M,)`` or a scalar."""

    def with_strength(self, batch: Batch, strength: Tensor | float) -> Tensor:
        """Return the loss per position ``(M,)``, with ``strength``, a float or ``(M,)``, in place of alpha."""
        values, penalty = self.parts(batch)
        check_position_losses(values, batch.logits.shape[0], type(self).__name__)
        if isinstance(strength, Tensor):
            return values + strength * batch.apply_class_weights(penalty)
        return torch.add(values, batch.apply_class_weights(penalty), alpha=strength)


class PreciseBuffers(nn.Module):
    """Mixin whose buffers named in ``precise`` keep their dtype through ``.half()``, ``.bfloat16()``, ``.double()``.

    An average or a count in half precision would stop moving. The buffers still follow the module to other devices.
    """

    precise: ClassVar[tuple[str, ...]] = ()
    """Names of those buffers; one may be None."""

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Self:
        before = {
            name: buffer for name in self.precise if (buffer := getattr(self, name)) is not None
        }
        super()._apply(fn, recurse)
        for name, buffer in before.items():
            converted = getattr(self, name)
            if converted.dtype != buffer.dtype:
                setattr(self, name, buffer.to(converted.device))
        return self


def _unpacked_option_names(annotation: Any, scope: dict[str, Any]) -> set[str]:
    """Return the option names in an ``Unpack[...]`` annotation; without annotation the names in ``LossOptions``."""
    if isinstance(annotation, str):  # its module imports annotations from __future__
        try:
            annotation = eval(annotation, scope)
        except NameError:  # imported for type checking only
            annotation = Unpack[LossOptions] if "LossOptions" in annotation else None
    elif annotation is inspect.Parameter.empty:
        annotation = Unpack[LossOptions]
    return {
        name for options in get_args(annotation) for name in getattr(options, "__annotations__", ())
    }


def paper_metadata(title: str, year: int, arxiv_id: str) -> dict[str, Any]:
    """Return the registry metadata of a loss whose paper is on arXiv."""
    return {"paper": title, "year": year, "url": f"https://arxiv.org/abs/{arxiv_id}"}


def copy_class_weights(weight: object) -> Tensor | None:
    """Return validated class weights ``(C,)`` as a new tensor in the default dtype, or None for None."""
    if weight is None:
        return None
    try:
        values = torch.as_tensor(weight, dtype=torch.get_default_dtype()).detach().clone()
    except (TypeError, ValueError, RuntimeError):
        values = None
    row = (
        values is not None
        and values.ndim == 1
        and bool(torch.isfinite(values).all())
        and bool((values >= 0).all())
    )
    if values is None or not row or not bool(values.any()):
        raise InputError(
            "class weights must be (C,), finite, non-negative and not all 0",
            describe(weight),
            "Pass one weight per class.",
        )
    return values


def map_row_blocks(function: Callable[..., Tensor], block_size: int, *tensors: Tensor) -> Tensor:
    """Return the concatenated results of ``function`` on blocks of at most ``block_size`` rows of ``tensors``."""
    # Several blocks are computed again in backward, so that one of them is in memory at a time.
    blocks = list(zip(*(tensor.split(block_size) for tensor in tensors), strict=True))
    if len(blocks) == 1:
        return function(*tensors)
    return torch.cat(
        [
            checkpoint(function, *block, use_reentrant=False, preserve_rng_state=False)
            for block in blocks
        ]
    )
