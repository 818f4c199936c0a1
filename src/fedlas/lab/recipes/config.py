"""Sections of a recipe for data and model, and typed sections from plain values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

from fedlas._core.check import InputError, check_count, check_number, suggestion
from fedlas._core.extras import require
from fedlas.lab.data.base import check_statistic
from fedlas.lab.data.shift import Corruption
from fedlas.lab.data.shift.label_noise import LabelNoise
from fedlas.lab.train.config import check_literals
from fedlas.zoo.uncertainty.bayesian_layers import BayesianConfig

__all__ = ["DataConfig", "ModelConfig", "refuse_unknown", "typed"]

T = TypeVar("T")


@dataclass(frozen=True)
class DataConfig:
    """Data of a run.

    Args:
        name: Registered data set.
        root: Folder of its files; null searches ``$FEDLAS_DATA`` and the usual places.
        val_size: Samples (or a fraction) of the training part that are held out for selection and temperature.
        train_size: Training samples, stratified; null takes all others.
        test_size: Test samples, stratified; null takes all.
        split_seed: Seed of the division into parts; null is the run's seed. With a common one, runs of several seeds
            are validated on the same samples, as an ensemble needs to be calibrated on them.
        hold_out_classes: Classes, by number or name, that are neither trained nor tested on. Their test images are kept
            as unknown ones, for ``fedlas ood``. The other classes are numbered anew from 0.
        long_tail: Training images of the first class for each of the last; the classes between shrink exponentially.
            Null keeps all images.
        label_noise: Wrong training labels: a section with ``rate`` and ``kind`` (``symmetric`` or ``asymmetric``); null
            changes no label. ``splits.npz`` says which labels are wrong.
        cross_fit: Number of models, at least 2, each trained without one part of the training images, whose predictions
            of that part are for the losses ``cross-fitted`` and ``instance-smoothing``. Others do not use them.
        corruption: Corrupted test images: a section with ``name``, ``severity`` (1 to 5) and ``seed``; null corrupts
            none. ``fedlas shift`` measures finished runs under all corruptions.
        test_mean: Mean by channel that normalizes the run's own test images; null is the mean of the data, which is
            right. Published code for CIFAR-100 tests with another mean than it trains with.
        test_std: Standard deviation by channel, given together with ``test_mean``.
        workers: Processes that read images from disk; null is one per core, at most eight. It changes only the speed.
        options: Further options of the data set; a recipe has them among the others.
    """

    name: str
    root: str | None = None
    val_size: int | float = 0.1
    train_size: int | None = None
    test_size: int | None = None
    split_seed: int | None = None
    hold_out_classes: list[int | str] | None = None
    long_tail: float | None = None
    label_noise: LabelNoise | None = None
    cross_fit: int | None = None
    corruption: Corruption | None = None
    test_mean: list[float] | None = None
    test_std: list[float] | None = None
    workers: int | None = None
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.split_seed is not None:
            check_count("data", "split_seed", self.split_seed, low=0)
        if check_number("data", "val_size", self.val_size) <= 0:
            raise InputError(
                "data",
                "val_size must be above 0, since epochs and temperature are never chosen on the test part",
                self.val_size,
                "Hold out e.g. 0.1 of the training part.",
            )
        # One of the two alone would mix the statistics of two parts.
        if (self.test_mean is None) != (self.test_std is None):
            raise InputError("data", "test_mean and test_std must both be given", "one of them", "Give the other too.")
        given = {"test_mean": self.test_mean, "test_std": self.test_std, **self.options}
        for name in ("mean", "std", "test_mean", "test_std"):
            if given.get(name) is not None:
                check_statistic("data", name, given[name])
        if self.cross_fit is not None:
            check_count("data", "cross_fit", self.cross_fit, low=2)
        if self.workers is not None:
            check_count("data", "workers", self.workers, low=0)
        if self.long_tail is not None and check_number("data", "long_tail", self.long_tail) < 1:
            raise InputError("data", "long_tail must be at least 1", self.long_tail, "Choose e.g. 100 for 100 to 1.")


@dataclass(frozen=True)
class ModelConfig:
    """Model of a run.

    Args:
        name: Registered model, or ``timm:NAME``.
        weights: File of pre-trained weights to start from (see :func:`fedlas.lab.models.load_weights`); null starts
            untrained.
        bayesian: Gaussian weights (Bayes by backprop): ``true``, or a section of options; null has plain weights. The
            prior replaces weight decay, which must be 0.
        options: Options of the model, such as ``width``; a recipe has them next to the name.
    """

    name: str
    weights: str | None = None
    bayesian: BayesianConfig | None = None
    options: dict[str, Any] = field(default_factory=dict)


def refuse_unknown(section: str, content: Mapping[str, Any], known: Iterable[str]) -> None:
    """Refuse a key of a section that is not ``known``; the nearest one is named."""
    names = [f"{section}.{key}" if section else key for key in known]
    for key in content:
        full = f"{section}.{key}" if section else str(key)
        if full not in names:
            raise InputError("recipe", "every key must be known", repr(full), suggestion(full, names))


def typed(kind: type[T], content: Any, section: str) -> T:
    """A dataclass from a mapping, types checked and numbers in strings converted (YAML reads ``1e-4`` as a string)."""
    if not isinstance(content, Mapping):
        raise InputError("recipe", f"{section} must be a section", content, f"Write {section}: {{key: value}}.")
    refuse_unknown(section, content, [f.name for f in fields(kind)])  # type: ignore[arg-type]  # `kind` is a dataclass
    check_literals(section, kind, content)  # names the nearest choice, which msgspec does not
    msgspec = require("msgspec", extra="bench")
    try:
        instance: T = msgspec.convert(dict(content), kind, strict=False)
    except msgspec.ValidationError as error:
        if isinstance(error.__cause__, InputError):  # of the dataclass itself, which says more
            raise error.__cause__ from None
        reason = str(error).replace("`$", f"`{section}")
        raise InputError(
            "recipe", f"{section} must hold values of the right types", reason, "Correct the value."
        ) from error
    return instance
