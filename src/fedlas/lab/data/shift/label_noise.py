"""Label noise: some labels of the training part become wrong, and the clean ones are kept."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from fedlas._core.check import check_choice, check_number
from fedlas._core.streams import Purpose, stream
from fedlas.lab.data.pipeline.splits import Splits

Kind = Literal["symmetric", "asymmetric"]


@dataclass(frozen=True)
class LabelNoise:
    """Amount and kind of label noise.

    Args:
        rate: Share of each class's training images that get a wrong label, in (0, 1).
        kind: ``"symmetric"`` draws any other class, each equally likely. ``"asymmetric"`` takes the class that it is
            mistaken for, if the data set names one (CIFAR-10, CIFAR-100), else the next class.

    Raises:
        InputError: For another kind, or a rate out of range.
    """

    rate: float
    kind: str = "symmetric"  # not Kind: a recipe would refuse a misspelled one before the check can suggest another

    def __post_init__(self) -> None:
        check_choice("data.label_noise", "kind", self.kind, get_args(Kind))
        check_number("data.label_noise", "rate", self.rate, low=0, high=1, low_open=True, high_open=True)


def with_label_noise(splits: Splits, noise: LabelNoise, *, seed: int) -> Splits:
    """The same splits with wrong labels in the training part; validation and test keep theirs.

    The rate holds in every class as exactly as whole numbers allow, so seeds differ in which labels are wrong, not in
    how many.

    Args:
        splits: Splits with clean labels.
        noise: Rate and kind.
        seed: Whole number >= 0.

    Returns:
        Splits whose ``clean_target`` holds the original labels.

    Example:
        >>> from fedlas.lab.data import load_dataset, split
        >>> splits = split(load_dataset("digits"), seed=0, val_size=100)
        >>> noisy = with_label_noise(splits, LabelNoise(0.2), seed=0)
        >>> round(float((noisy.train.target.numpy() != noisy.clean_target).mean()), 2)
        0.2

    Source:
        Patrini et al. 2017, "Making Deep Neural Networks Robust to Label Noise", arXiv 1609.03683, section 5.
    """
    target = splits.train.target.cpu().numpy()
    random = stream(Purpose.LABEL_NOISE, seed)
    wrong = target.copy()
    for label in range(splits.num_classes):
        rows = np.flatnonzero(target == label)
        chosen = random.permutation(rows)[: round(noise.rate * len(rows))]
        if noise.kind == "symmetric":
            # A shift of 1 to C - 1 classes is a uniform draw among the others.
            shift = random.randint(1, splits.num_classes, len(chosen))
            wrong[chosen] = (label + shift) % splits.num_classes
        else:
            wrong[chosen] = _mistaken(splits)[label]
    train = splits.train.with_target(torch.from_numpy(wrong).to(splits.train.target.device))
    return replace(splits, train=train, clean_target=target)


def _mistaken(splits: Splits) -> NDArray[np.int64]:
    """The class that each class is mistaken for; itself if the data set names pairs, but none for this class."""
    number = {name: label for label, name in enumerate(splits.classes)}
    known = {name: other for name, other in splits.mistaken_for if name in number and other in number}
    if not known:
        return (np.arange(splits.num_classes) + 1) % splits.num_classes
    return np.array([number[known.get(name, name)] for name in splits.classes])
