"""Configuration of the training loop, and the metrics that can select the best epoch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args, get_origin, get_type_hints

from fedlas._core.check import InputError, check_choice, check_count, check_number, suggestion
from fedlas.calibrators import TemperatureScaling
from fedlas.calibrators.fit_notes import fit_with_notes
from fedlas.metrics import METRICS
from fedlas.metrics.row_mean import nll
from fedlas.predictions import Predictions

REFINED_NLL = "refined_nll"
"""Name of :func:`refined_nll` as a selection metric; no test metric, since its temperature fits the same data."""


def check_selection_metric(metric: str, option: str = "train.select") -> str:
    """Return ``metric`` if it can select the best epoch: computed from logits and target alone, or ``refined_nll``.

    Raises:
        InputError: For any other metric; the message names the nearest valid one.
    """
    able = [e.name for e in METRICS.entries() if e.default and not e.needs]
    able.append(REFINED_NLL)
    if (name := str(metric).lower()) in able:
        return name
    raise InputError(
        f"{option} must be a registered metric of logits and target alone, or {REFINED_NLL}",
        repr(metric),
        f"Choose one of: {', '.join(able)}." if metric in METRICS else suggestion(metric, able),
    )


def selection_score(metric: str, value: float) -> float:
    """Return a selection score, higher for a better value of ``metric``; signed metrics are best at 0."""
    higher = False if metric == REFINED_NLL else METRICS[metric].higher_is_better
    return -abs(value) if higher is None else value if higher else -value


def refined_nll(predictions: Predictions) -> float:
    """Return the NLL after temperature scaling fitted to the same predictions.

    Args:
        predictions: Predictions of the validation part.

    Source:
        Berta, Holzmüller, Jordan, Bach 2025, "Rethinking Early Stopping: Refine, Then Calibrate" (arXiv 2501.19195).

    Example:
        >>> import torch
        >>> logits, target = torch.tensor([[9.0, 0.0]] * 4), torch.tensor([0, 0, 0, 1])
        >>> round(refined_nll(Predictions(logits, target)), 4)  # that of 3/4, however sure the logits are
        0.5623
    """
    fitted, _ = fit_with_notes(TemperatureScaling(), predictions)
    return nll(fitted.transform(predictions))


AverageName = Literal["none", "ema", "swa"]
Precision = Literal["auto", "fp32", "bf16"]


def check_literals(kind: type, values: Mapping[str, Any], section: str) -> None:
    """Raise InputError if a ``Literal`` field of a dataclass has a value that is not declared.

    Args:
        kind: The dataclass.
        values: Values by field; missing fields are not checked.
        section: The section of a recipe that holds them.

    Raises:
        InputError: For any other value; the message names the nearest valid one.
    """
    for name, hint in get_type_hints(kind).items():
        if get_origin(hint) is Literal and name in values:
            check_choice(f"{section}.{name}", values[name], get_args(hint))


@dataclass(frozen=True)
class OptimizerConfig:
    """Configuration of the optimizer.

    Args:
        name: ``sgd`` or ``adamw``.
        lr: Learning rate at the start.
        momentum: Momentum of SGD, in [0, 1].
        nesterov: Whether SGD uses Nesterov's momentum.
        weight_decay: Weight decay of the model's parameters.
        criterion_lr: Learning rate of the loss's own parameters; null is ``lr``.
        decay_criterion: Whether the loss's own parameters decay too, as in the published FedLAS code.
        clip_norm: Largest L2 norm of the gradient over model and loss together; null does not clip.
        layer_decay: Factor of the rate from a layer to the one before it, in (0, 1], as for fine-tuning transformers;
            null has one rate. See :func:`~fedlas.lab.train.layers.layer_lr_factors`.
        layer_rates: Factor of the rate by name of a layer, such as ``{stages.0: 0.1, fc: 10}``, in place of what
            ``layer_decay`` gives.
    """

    name: Literal["sgd", "adamw"] = "sgd"
    lr: float = 0.1
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 5e-4
    criterion_lr: float | None = None
    decay_criterion: bool = False
    clip_norm: float | None = None
    layer_decay: float | None = None
    layer_rates: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_literals(type(self), vars(self), "optimizer")
        if self.layer_decay is not None:
            check_number("optimizer.layer_decay", self.layer_decay, low=0, high=1, low_open=True)
        for layer, rate in self.layer_rates.items():
            if check_number(f"optimizer.layer_rates.{layer}", rate, low=0) == 0:
                raise InputError(
                    f"optimizer.layer_rates.{layer} must be above 0",
                    0,
                    f"Write model.freeze=[{layer}], which also freezes its batch norms.",
                )
        for name in ("lr", "weight_decay", "criterion_lr"):
            if (value := getattr(self, name)) is not None:
                check_number(f"optimizer.{name}", value, low=0)
        check_number("optimizer.momentum", self.momentum, low=0, high=1)
        if self.nesterov and self.momentum == 0:
            raise InputError(
                "optimizer.nesterov requires optimizer.momentum above 0",
                0,
                "Set momentum, e.g. 0.9.",
            )
        if self.clip_norm is not None:
            check_number("optimizer.clip_norm", self.clip_norm, low=0, low_open=True)


@dataclass(frozen=True)
class ScheduleConfig:
    """Configuration of the learning rate schedule over epochs.

    Args:
        name: ``milestones`` (times ``factor`` at each), ``cosine`` (to 0 at the end), ``one-cycle`` (rises linearly for
            a quarter of the run, then falls to 0), ``constant``, or ``swa`` (falls linearly from the first of
            two milestones to ``factor`` at the second, then stays there; in this last phase ``train.average=swa``
            averages weights).
        milestones: Fractions of the run in (0, 1), or epochs if at least 1.
        factor: Factor by which a milestone multiplies the rate.
        warmup_epochs: Epochs at the start in which the rate rises linearly.
    """

    name: Literal["milestones", "cosine", "one-cycle", "constant", "swa"] = "milestones"
    milestones: list[float] = field(default_factory=lambda: [0.5, 0.75])
    factor: float = 0.1
    warmup_epochs: int = 0

    def __post_init__(self) -> None:
        check_literals(type(self), vars(self), "schedule")
        check_number("schedule.factor", self.factor, low=0, high=1, low_open=True)
        check_count("schedule.warmup_epochs", self.warmup_epochs, low=0)
        for milestone in self.milestones:
            check_number("schedule.milestones", milestone, low=0, low_open=True)
        if self.name == "swa" and len(self.milestones) != 2:
            raise InputError(
                "schedule.name=swa requires two milestones",
                self.milestones,
                "Write e.g. schedule.milestones=[0.4,0.7].",
            )

    def milestone_epochs(self, epochs: int) -> list[int]:
        """Return the milestones in epochs for a run of ``epochs``; fractions are rounded, to at least 1.

        Raises:
            InputError: If a milestone is not before the end of the run, or the milestones of ``swa`` do not increase.
        """
        resolved = [max(1, round(m * epochs)) if m < 1 else round(m) for m in self.milestones]
        late = [
            m
            for m, epoch in zip(self.milestones, resolved, strict=True)
            if m >= 1 and epoch >= epochs
        ]
        if self.name in ("milestones", "swa") and late:
            raise InputError(
                f"schedule.milestones must come before the last epoch ({epochs})",
                late,
                "Write them as fractions such as 0.5, or train longer.",
            )
        if self.name == "swa" and resolved[0] > resolved[1]:
            raise InputError(
                "schedule.milestones must increase for schedule.name=swa",
                self.milestones,
                "Swap them.",
            )
        return resolved


@dataclass(frozen=True)
class TrainConfig:
    """Configuration of the training loop.

    Args:
        epochs: Passes over the training part.
        batch_size: Samples of a step, over all processes together.
        precision: ``fp32``; ``bf16`` to run the forward pass in autocast; or ``auto``, which is ``bf16`` on a GPU that
            computes it natively and ``fp32`` on every processor. Weights, losses, statistics and predictions are
            float32 in any case. A run keeps the precision that it began with, on whatever machine it is resumed.
        select: Validation metric that chooses the best epoch (see
            :func:`~fedlas.lab.train.config.check_selection_metric`). Among equal epochs the last
            wins, because it trained longer.
        probe_epochs: First epochs, in which the head alone is trained at the full rate, and the layers before it rest:
            linear probing, then fine-tuning. The schedule begins after them.
        drop_last: Leave out a last, smaller batch.
        num_bins: Bins of every calibration error.
        checkpoint_every: Epochs between checkpoints; the last epoch always writes one.
        accumulate: Number of parts that a process cuts its batch into, for batches that do not fit into memory. The
            parts run one after the other and make one step; ``batch_size`` remains the samples of a step. NCI, batch
            norms and losses of a whole batch see one part at a time: see ``docs/several-gpus.md``.
        channels_last: Keep images and convolutions with channels last in memory, which convolutions prefer. Results
            differ by rounding. Null is true on processors and CUDA GPUs; like the precision, a run keeps it.
        compile: Run the objective through ``torch.compile``.
        save_features: Save the input of the classifier head with the final predictions, ``4 D`` bytes per sample.
            Calibrators and scores that use features need it.
        average: ``none``; ``ema``, an exponential moving average of the weights after every step; or ``swa``, the mean
            of the weights at the ends of epochs, which costs one more forward pass over the training part per epoch
            for the statistics of batch norms. It averages the model, not the loss. Once averaging has begun, only
            averaged weights are validated, may be the best, and predict. ``swa`` needs a learning rate that stays high:
            ``schedule.name=swa``.
        average_decay: Decay of ``ema`` per step; at step t at most (1 + t) / (10 + t).
        average_start: Share of the epochs before averaging begins, in [0, 1]; null is 0 for ``ema``, 0.75 for ``swa``.
    """

    epochs: int = 30
    batch_size: int = 128
    precision: Precision = "auto"
    select: str = "accuracy"
    probe_epochs: int = 0
    drop_last: bool = False
    num_bins: int = 15
    checkpoint_every: int = 1
    accumulate: int = 1
    channels_last: bool | None = None
    compile: bool = False
    save_features: bool = True
    average: AverageName = "none"
    average_decay: float = 0.999
    average_start: float | None = None

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "num_bins", "checkpoint_every", "accumulate"):
            check_count(f"train.{name}", getattr(self, name))
        if self.accumulate > self.batch_size:
            raise InputError(
                f"train.accumulate must be at most train.batch_size ({self.batch_size})",
                self.accumulate,
                "Choose fewer parts.",
            )
        if check_count("train.probe_epochs", self.probe_epochs, low=0) >= self.epochs:
            raise InputError(
                f"train.probe_epochs must be below train.epochs ({self.epochs})",
                self.probe_epochs,
                "To train the head alone, write model.tune=head.",
            )
        check_literals(type(self), vars(self), "train")
        check_number("train.average_decay", self.average_decay, low=0, high=1)
        if self.average_start is not None:
            check_number("train.average_start", self.average_start, low=0, high=1)

    @property
    def first_averaged_epoch(self) -> int:
        """First epoch, counted from 1, whose weights are averaged; at most the last epoch."""
        start = self.average_start
        if start is None:
            start = 0.75 if self.average == "swa" else 0.0
        return min(round(start * self.epochs), self.epochs - 1) + 1
