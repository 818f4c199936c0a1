"""Losses on tempered logits, whose temperature and class bias are fitted to held-out predictions during training.

Both are this library's. The factor T before the loss comes from distillation (Hinton et al. 2015, arXiv 1503.02531):
it keeps the size of the gradient at any T. With the logarithm of the label's shares as the bias the loss is logit
adjustment (Menon et al. 2021, arXiv 2007.07314); after training, a temperature and a bias are the bias-corrected
temperature scaling of Alexandari et al. (2020, arXiv 1901.06852).
"""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar, Unpack

import torch
from torch import Tensor

from fedlas._core.check import InputError, check_number
from fedlas.losses._base import (
    LOSSES,
    Base,
    BaseOptions,
    Batch,
    LearnsFromValidation,
    LossOptions,
    LossWrapper,
    PreciseBuffers,
)
from fedlas.losses.ps_kd import PSKD
from fedlas.predictions import Predictions

_MIN_VARIANCE = 1e-12
"""Lower bound of a variance that is 0 because float64 rounds all probabilities of a class to 0 or 1."""
MAX_STEP = 0.2
"""Largest change of log T and of the bias per update, because validation results of early epochs are unreliable."""


def newton_log_temperature(predictions: Predictions) -> float:
    """Return an estimate of the optimal log-temperature: one Newton step on the NLL from ``T = 1``.

    ``mean(E_p[z] - z_y) / mean(Var_p[z])``: above 0 if over-confident, 0 if all logits of each sample are equal.

    Args:
        predictions: Logits ``(N, C)`` and target ``(N,)``; their weights count.

    Example:
        >>> sure = torch.tensor([[2.0, 0.0], [2.0, 0.0]])
        >>> round(newton_log_temperature(Predictions(sure, torch.tensor([0, 1]))), 3)
        1.813
    """
    logits = predictions.tensors().logits.double()
    weights = _sample_weights(predictions)
    probs = logits.softmax(dim=1)
    mean = (probs * logits).sum(dim=1)
    spread = weights @ (probs * (logits - mean[:, None]).square()).sum(dim=1)
    target_logit = logits.gather(1, predictions.tensors().target[:, None]).squeeze(1)
    return float(weights @ (mean - target_logit) / spread) if spread > 0 else 0.0


def newton_class_bias(predictions: Predictions) -> Tensor:
    """Return the bias correction per class: a Newton step on the NLL for each class, shrunk toward 0 for noise.

    ``(share of label k - mean(p_k)) / mean(p_k (1 - p_k))``, times ``max(0, 1 - 1 / z^2)``. With ``z`` the step in
    standard errors, that is the factor of James and Stein: a class whose share is right within chance keeps its logits.
    Each step assumes that the biases of the other classes do not change. If two classes are confused with each other,
    it is up to twice too long.

    Args:
        predictions: Logits ``(N, C)`` and target ``(N,)``; their weights count.

    Returns:
        ``(C,)``, float64.

    Example:
        >>> newton_class_bias(Predictions(torch.zeros(100, 2), torch.zeros(100, dtype=torch.long)))
        tensor([ 1.9800, -1.9800], dtype=torch.float64)
    """
    probs = predictions.tensors().logits.double().softmax(dim=1)
    weights = _sample_weights(predictions)
    share = torch.zeros_like(probs[0]).index_add_(0, predictions.tensors().target, weights)
    lacking = share - weights @ probs
    spread = probs * (1 - probs)
    chance = weights.square() @ spread
    beyond = torch.where(lacking.square() > chance, 1 - chance / lacking.square(), 0.0)
    return lacking / (weights @ spread).clamp(min=_MIN_VARIANCE) * beyond


def _sample_weights(predictions: Predictions) -> Tensor:
    """Return the sample weights ``(N,)`` float64, or ones if the predictions are unweighted."""
    tensors = predictions.tensors()
    if tensors.weights is None:
        return torch.ones_like(tensors.target, dtype=torch.float64)
    return tensors.weights


@LOSSES.register(
    "tempered",
    paper="fedlas",
    year=2026,
    url="",
    note="this library's own",
    tune={"rate": "0.1:1:log"},
)
class Tempered(PreciseBuffers, LearnsFromValidation, LossWrapper):
    """Wrapper ``T * base((logits + bias) / T)``, with T and class bias updated until held-out logits are calibrated.

    The optimum of the base may be predictions that are too soft, too sharp, or biased toward some classes. The tempered
    logits, which the base gets, go there. The logits themselves, the model's output, stay calibrated on held-out data.

    Args:
        num_classes: Number of classes C; None accepts any, if the base does.
        base: An object, a registry name, or ``{"name": ..., option: ...}``.
        rate: Share of the Newton step of log T that is taken, in [0, 1].
        bias_rate: The same for the bias; 0 learns none. It needs ``num_classes``, and held-out data with the class
            frequencies that the model will meet.
        **options: Those of every :class:`~fedlas.losses.Loss`; ``num_samples`` and ``num_epochs`` for a base that needs
            them.

    Attributes:
        base: The wrapped loss.
        log_temperature: Buffer, the logarithm of T, float32; 0 at first.
        bias: Buffer ``(C,)`` float32, 0 at first: by how much training labels favor each class. None if
            ``bias_rate`` is 0.

    State:
        The buffers change in :meth:`update_from_validation` only, by 0.2 at most. Under DDP each rank must pass the
        same predictions, as the training loop does. They stay float32 through ``.half()``.

    Raises:
        InputError: If an argument is out of range, a bias has no ``num_classes``, or the base reads the weight of the
            head, which T does not divide.

    Note:
        With cross-entropy as the base this is temperature scaling, learned during training. Report calibration on other
        data than those that set T. No base is known to be better under it than cross-entropy
        plus a calibrator; :class:`TemperedPast` has the figures.

    Example:
        >>> criterion = Tempered(base="ce")
        >>> sure = torch.tensor([[2.0, 0.0], [2.0, 0.0]])
        >>> criterion.update_from_validation(Predictions(sure, torch.tensor([0, 1])))  # half of them wrong
        >>> criterion.temperature.item()  # the loss now sees larger logits, so that the model's become smaller
        0.8187...
    """

    uses_sample_weights: ClassVar[bool] = True
    precise: ClassVar[tuple[str, ...]] = ("log_temperature", "bias")
    log_temperature: Tensor
    bias: Tensor | None

    def __init__(
        self,
        *,
        num_classes: int | None = None,
        base: Base = "ce",
        rate: float = 0.5,
        bias_rate: float = 0.0,
        **options: Unpack[BaseOptions],
    ) -> None:
        super().__init__(base, num_classes=num_classes, **options)
        if "head_weight" in self.base.needs:
            fix = "Choose a loss of the logits, such as ls or ps-kd."
            raise InputError(
                "base must not need head_weight, because the temperature scales only logits",
                self.base,
                fix,
            )
        self.rate = check_number("rate", rate, low=0, high=1)
        self.bias_rate = check_number("bias_rate", bias_rate, low=0, high=1)
        if self.bias_rate and num_classes is None:
            fix = "Pass num_classes, or bias_rate=0."
            raise InputError(
                "num_classes must be set if bias_rate is above 0", "num_classes=None", fix
            )
        self.register_buffer("log_temperature", torch.zeros((), dtype=torch.float32))
        bias = (
            torch.zeros(num_classes, dtype=torch.float32)
            if self.bias_rate and num_classes
            else None
        )
        self.register_buffer("bias", bias)

    @property
    def temperature(self) -> Tensor:
        """Temperature T that divides the logits, a scalar."""
        return self.log_temperature.exp()

    def per_sample(self, batch: Batch) -> Tensor:
        """Return the loss per position, ``(M,)``."""
        mixed = None if batch.mixed is None else self._temper_logits(batch.mixed)
        values: Tensor = self.base.per_sample(
            replace(batch, logits=self._temper_logits(batch.logits), mixed=mixed)
        )
        return self.temperature.to(batch.logits.dtype) * values

    def _temper_logits(self, logits: Tensor) -> Tensor:
        """Return ``(logits + bias) / T``."""
        if self.bias is not None:
            logits = logits + self.bias.to(logits.dtype)
        return logits / self.temperature.to(logits.dtype)

    def learn_from(self, predictions: Predictions) -> None:
        """Update T and the class bias from held-out predictions; T decreases if the predictions are over-confident.

        Args:
            predictions: Predictions on the validation set after an epoch; never on the test set.
        """
        self.log_temperature -= max(
            -MAX_STEP, min(MAX_STEP, self.rate * newton_log_temperature(predictions))
        )
        if self.bias is not None:
            self.bias -= (
                (self.bias_rate * newton_class_bias(predictions))
                .clamp(-MAX_STEP, MAX_STEP)
                .to(self.bias)
            )


@LOSSES.register(
    "tempered-past",
    paper="fedlas",
    year=2026,
    url="",
    dense=False,
    note="this library's own",
    tune={"alpha": "0.1:1", "keep": "0:0.98"},
)
class TemperedPast(Tempered):
    """PS-KD with a running average of past predictions as second target, on logits tempered as in :class:`Tempered`.

    ``q`` is the average of the model's predictions on the sample at earlier visits, at the temperature and bias of the
    loss. Such targets are softer for samples that are hard or wrongly labeled. They are too soft in all, and favor the
    classes that the training set favors. T and the bias keep both out of the model's output.

    Args:
        num_classes: Number of classes C.
        num_samples: Size of the training set that ``index`` points into.
        num_epochs: Epochs over which the weight of q rises to alpha; a recipe passes the length of its training, and
            your own loop must.
        alpha: Weight of q in the last epoch, in [0, 1].
        keep: Weight of the old average, in [0, 1).
        rate: As in :class:`Tempered`.
        bias_rate: As in :class:`Tempered`.
        **options: Those of every :class:`~fedlas.losses.Loss`.

    Attributes:
        base: The :class:`PSKD`, with the averages in its ``memory``.
        log_temperature: As in :class:`Tempered`.
        bias: As in :class:`Tempered`.

    State:
        As in :class:`Tempered` and :class:`PSKD`.

    Raises:
        InputError: If an argument is out of range; for dense logits; on CPU for an index outside the training set.

    Note:
        **No better than a calibrator on new data.** It learns ``1 + C`` numbers from validation. In the eleven settings
        of ``results/methods`` its NLL is below that of cross-entropy plus structured scaling in two and above it in
        three, and five of the settings chose alpha, keep and the bias. In a check on 17 settings that chose nothing it
        is below cross-entropy plus a temperature in one and above it in three (Holm), and never below cross-entropy
        plus a temperature and class bias. For wrong labels and rare classes fit a calibrator instead, such as
        ``structured``. Where a network does not come to fit its training images, past predictions are bad targets: NLL
        is up to 17 % higher after short training.

        In a loop of your own pass ``num_epochs``, the ``index`` of each sample in each call, and call
        :meth:`update_from_validation` after each epoch; otherwise T stays 1. It warns in the third pass without a call.

    Example:
        >>> criterion = TemperedPast(num_samples=1, num_classes=2, num_epochs=2)
        >>> logits, target, index = torch.tensor([[0.0, 0.0]]), torch.tensor([0]), torch.tensor([0])
        >>> criterion(logits, target, index=index)
        tensor(0.6931)
        >>> criterion.base.memory.rows
        tensor([[0.5000, 0.5000]], dtype=torch.float16)
    """

    needs: ClassVar[frozenset[str]] = frozenset({"index"})

    def __init__(
        self,
        *,
        num_classes: int,
        num_samples: int,
        num_epochs: int,
        alpha: float = 0.4,
        keep: float = 0.9,
        rate: float = 0.5,
        bias_rate: float = 0.5,
        **options: Unpack[LossOptions],
    ) -> None:
        base = PSKD(
            num_classes=num_classes, num_samples=num_samples, num_epochs=num_epochs, alpha=alpha, keep=keep
        )  # fmt: skip
        super().__init__(
            num_classes=num_classes,
            num_samples=num_samples,
            base=base,
            rate=rate,
            bias_rate=bias_rate,
            **options,
        )
