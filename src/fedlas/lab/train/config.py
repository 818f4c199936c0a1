"""How to train: everything the loop needs to know, checked when it is made."""

from __future__ import annotations

from dataclasses import dataclass, field

from fedlas._core.check import InputError, check_choice, check_count, check_number, suggestion
from fedlas.metrics import METRICS


@dataclass(frozen=True)
class OptimizerConfig:
    """Optimizer of a run.

    Args:
        name: ``sgd`` or ``adamw``.
        lr: Learning rate at the start.
        momentum: Of SGD.
        nesterov: Of SGD.
        weight_decay: Of the model's parameters.
        criterion_lr: Learning rate of the loss's own parameters; null is ``lr``.
        decay_criterion: Decay the loss's own parameters too, as the published FedLAS code does.
        clip_norm: Largest L2 norm of the gradient over model and loss together; null does not clip.
    """

    name: str = "sgd"
    lr: float = 0.1
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 5e-4
    criterion_lr: float | None = None
    decay_criterion: bool = False
    clip_norm: float | None = None

    def __post_init__(self) -> None:
        check_choice("optimizer", "name", self.name, ("sgd", "adamw"))
        for name in ("lr", "weight_decay"):
            check_number("optimizer", name, getattr(self, name), low=0)
        check_number("optimizer", "momentum", self.momentum, low=0, high=1)
        if self.nesterov and self.momentum == 0:
            raise InputError("optimizer", "nesterov needs momentum above 0", 0, "Set momentum, e.g. 0.9.")
        if self.criterion_lr is not None:
            check_number("optimizer", "criterion_lr", self.criterion_lr, low=0)
        if self.clip_norm is not None:
            check_number("optimizer", "clip_norm", self.clip_norm, low=0, low_open=True)


@dataclass(frozen=True)
class ScheduleConfig:
    """How the learning rate changes from epoch to epoch.

    Args:
        name: ``milestones`` (times ``factor`` at each), ``cosine`` (to 0 at the end), ``constant``, or ``swa`` (falls
            on a line from the first of two milestones to ``factor`` at the second, then stays there: the phase whose
            weights ``train.average=swa`` averages).
        milestones: Fractions of the run in (0, 1), or epochs if at least 1.
        factor: What a milestone multiplies the rate by.
        warmup_epochs: Epochs over which the rate rises linearly first.
    """

    name: str = "milestones"
    milestones: list[float] = field(default_factory=lambda: [0.5, 0.75])
    factor: float = 0.1
    warmup_epochs: int = 0

    def __post_init__(self) -> None:
        check_choice("schedule", "name", self.name, ("milestones", "cosine", "constant", "swa"))
        check_number("schedule", "factor", self.factor, low=0, high=1, low_open=True)
        check_count("schedule", "warmup_epochs", self.warmup_epochs, low=0)
        for milestone in self.milestones:
            check_number("schedule", "milestones", milestone, low=0, low_open=True)
        if self.name == "swa" and len(self.milestones) != 2:
            raise InputError(
                "schedule", "swa needs two milestones", self.milestones, "Write e.g. schedule.milestones=[0.4,0.7]."
            )

    def milestone_epochs(self, epochs: int) -> list[int]:
        """Milestones in epochs of a run of ``epochs``; a fraction is rounded, to the first epoch's end at the earliest.

        Raises:
            InputError: If one is not before the end of the run, or the two of ``swa`` are in the wrong order.
        """
        resolved = [max(1, round(m * epochs)) if m < 1 else round(m) for m in self.milestones]
        late = [m for m, epoch in zip(self.milestones, resolved, strict=True) if m >= 1 and epoch >= epochs]
        if self.name in ("milestones", "swa") and late:
            raise InputError(
                "schedule",
                f"milestones must come before the last epoch ({epochs})",
                late,
                "Write them as fractions such as 0.5, or train longer.",
            )
        if self.name == "swa" and resolved[0] > resolved[1]:
            raise InputError("schedule", "milestones of swa must rise", self.milestones, "Swap them.")
        return resolved


@dataclass(frozen=True)
class TrainConfig:
    """The training loop.

    Args:
        epochs: Passes over the training part.
        batch_size: Samples of a step, over all processes together.
        precision: ``fp32``, or ``bf16`` to run the forward pass in autocast. Weights, losses, statistics and
            predictions are float32 either way.
        select: Validation metric that chooses the best epoch (see :func:`check_select`); the last of equals wins, as it
            trained longer.
        drop_last: Leave out a last, smaller batch.
        num_bins: Bins of every calibration error.
        checkpoint_every: Epochs between checkpoints; the last epoch always writes one.
        accumulate: Parts that a process cuts its batch into and runs one after the other, to make one step of them: for
            batches that do not fit into memory. ``batch_size`` stays the samples of a step. What moves or looks once a
            forward pass (NCI, batch norms, losses that look at a whole batch) does so once a part: see
            ``docs/scale.md``.
        channels_last: Keep images and convolutions with channels last in memory, which tensor cores prefer. Results
            differ by rounding.
        compile: Run the objective through ``torch.compile``.
        save_features: Save the input of the classifier head with the final predictions, ``4 D`` bytes a sample: what
            calibrators and scores that look at features need.
        average: ``none``; ``ema``, an exponential moving average of the weights after every step; or ``swa``, the mean
            of the weights at the ends of epochs (an epoch then costs a forward pass more over the training part, for
            the statistics of batch norms). Of the model, not of the loss. Once it has begun, averaged weights alone are
            validated, can be the best, and predict. ``swa`` is meant for a rate that stays up: ``schedule.name=swa``.
        average_decay: Of ``ema``, a step; at step t at most (1 + t) / (10 + t).
        average_start: Share of the epochs before averaging begins, in [0, 1); null is 0 for ``ema``, 0.75 for ``swa``.
    """

    epochs: int = 30
    batch_size: int = 128
    precision: str = "fp32"
    select: str = "accuracy"
    drop_last: bool = False
    num_bins: int = 15
    checkpoint_every: int = 1
    accumulate: int = 1
    channels_last: bool = False
    compile: bool = False
    save_features: bool = True
    average: str = "none"
    average_decay: float = 0.999
    average_start: float | None = None

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "num_bins", "checkpoint_every", "accumulate"):
            check_count("train", name, getattr(self, name))
        if self.accumulate > self.batch_size:
            expected = f"accumulate must be at most batch_size {self.batch_size}"
            raise InputError("train", expected, self.accumulate, "Choose fewer parts.")
        check_choice("train", "precision", self.precision, ("fp32", "bf16"))
        check_choice("train", "average", self.average, ("none", "ema", "swa"))
        check_number("train", "average_decay", self.average_decay, low=0, high=1)
        if self.average_start is not None:
            check_number("train", "average_start", self.average_start, low=0, high=1)

    @property
    def first_average(self) -> int:
        """First epoch, counted from 1, whose weights are averaged; the last one at the latest."""
        start = self.average_start
        if start is None:
            start = 0.75 if self.average == "swa" else 0.0
        return min(round(start * self.epochs), self.epochs - 1) + 1


def check_select(metric: str) -> str:
    """Return ``metric`` if it can choose the best epoch: registered, and computed from logits and target alone.

    Raises:
        InputError: Otherwise; the nearest metric that can is named.
    """
    if metric in METRICS:
        about = METRICS[metric].metadata
        if about.get("default", True) and not about.get("needs"):
            return metric
    able = [e.name for e in METRICS.entries() if e.metadata.get("default", True) and not e.metadata.get("needs")]
    raise InputError(
        "train.select",
        "it must be a registered metric of logits and target alone",
        repr(metric),
        f"Choose one of: {', '.join(able)}." if metric in METRICS else suggestion(metric, able),
    )
