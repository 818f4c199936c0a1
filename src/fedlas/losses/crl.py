"""CRL, the correctness ranking loss: confidences are ranked like how often each sample was right during training.

Source: Moon, Kim, Shin, Hwang 2020, "Confidence-Aware Learning for Deep Neural Networks", ICML, section 3
(arXiv 2007.01458). Written from the paper.
"""

from __future__ import annotations

import math
from typing import ClassVar, Unpack

import torch
import torch.nn.functional as F
from torch import Tensor

from fedlas._core.check import InputError, check_choice, check_count, check_number
from fedlas._core.collective import sum_across_ranks, world_size
from fedlas.losses.base import LOSSES, Batch, Loss, LossOptions
from fedlas.losses.confidence import nll_and_confidence
from fedlas.losses.entropy_penalty import entropy
from fedlas.losses.label_smoothing import smoothed_nll
from fedlas.losses.precise import PreciseBuffers


def ranking_penalty(confidence: Tensor, correctness: Tensor, neighbour: Tensor) -> Tensor:
    """``relu(-sign(c_i - c_j) (k_i - k_j) + |c_i - c_j|)`` of each sample i and its neighbour j, ``(N,)``.

    Args:
        confidence: ``k (N,)`` in [0, 1].
        correctness: ``c (N,)`` in [0, 1], how often each sample was right so far; without a gradient.
        neighbour: Position of j in the batch, ``(N,)`` int64.

    Note:
        0 where i and j were right equally often.

    Example:
        >>> ranking_penalty(torch.tensor([0.6, 0.9]), torch.tensor([1.0, 0.5]), torch.tensor([1, 0]))
        tensor([0.8000, 0.8000])
    """
    ahead = correctness - correctness[neighbour]
    return F.relu(ahead.abs() - ahead.sign() * (confidence - confidence[neighbour]))


def next_valid(valid: Tensor) -> Tensor:
    """Position of the next valid sample after each one, the first following the last; ``(N,)`` int64.

    Args:
        valid: ``(N,)`` bool. Without any valid sample the positions mean nothing, but are in range.

    Example:
        >>> next_valid(torch.tensor([True, False, True, True]))
        tensor([2, 2, 3, 0])
    """
    samples = valid.shape[0]
    position = torch.arange(samples, device=valid.device)
    # Running minimum from the end: the first valid position at or after each one; `samples` where there is none.
    following = torch.where(valid, position, samples).flip(0).cummin(0).values.flip(0)
    after = torch.cat((following[1:], following.new_full((1,), samples)))
    return torch.where(after < samples, after, following[0]).clamp(max=samples - 1)


@LOSSES.register(
    "crl",
    paper="Confidence-Aware Learning for Deep Neural Networks",
    year=2020,
    url="https://arxiv.org/abs/2007.01458",
    order_invariant=False,
    tune={"alpha": "0.1:10:log"},
)
class CRL(PreciseBuffers, Loss):
    """CRL: ``-log p_y + alpha relu(-sign(c_i - c_j) (k_i - k_j) + |c_i - c_j|)``, j the next sample in the batch.

    ``c_i`` is the share of sample i's visits so far at which its top class was right, ``k_i`` its confidence: of two
    samples, the one that was right more often should be the more confident one, by as much.

    Args:
        num_samples: Size of the training set that ``index`` points into.
        alpha: Weight of the ranking penalty, at least 0.
        confidence: ``"max"``, the largest probability; ``"margin"``, the largest minus the second largest; or
            ``"entropy"``, ``1 - H(p) / log C``.
        **options: Those of every :class:`~fedlas.losses.Loss`. An ignored sample is nobody's neighbour, and this is no
            visit to it. The penalty of a sample is weighted like its cross-entropy.

    Attributes:
        right: Buffer, how often each sample was right ``(num_samples,)`` float32.
        visits: Buffer, how often it was seen ``(num_samples,)`` float32.

    State:
        In training mode with gradients enabled a batch uses the histories, then adds itself to them, in place; never
        in ``eval()`` or under ``torch.no_grad()``. Under DDP they are those of all ranks together: each step sums
        ``8 * num_samples`` bytes over the ranks (0.4 MB for CIFAR, 10 MB for ImageNet). Buffers stay float32 through
        ``.half()``.

    Raises:
        InputError: If an argument is out of range; on CPU, if an index is outside ``[0, num_samples)``, before
            anything has changed.

    Note:
        The neighbour is the next valid sample, cyclically, so the order of the batch matters. A sample seen for the
        first time counts as never right. Published code has another scale for c: the number of times a sample was
        right, between that of the least often right sample and the number of epochs. Dense inputs have one history an
        image: its correctness is the share of its valid positions that are right, its confidence their mean, and each
        of its positions carries the image's penalty. Soft targets: right is the class that a target favours.

    Example:
        >>> criterion = CRL(num_samples=2)
        >>> logits, target = torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 0])
        >>> loss = criterion(logits, target, index=torch.tensor([0, 1]))
        >>> criterion.right.tolist(), criterion.visits.tolist()
        ([1.0, 0.0], [1.0, 1.0])
    """

    needs: ClassVar[frozenset[str]] = frozenset({"index"})
    precise: ClassVar[tuple[str, ...]] = ("right", "visits")
    right: Tensor
    visits: Tensor

    def __init__(
        self, num_samples: int, *, alpha: float = 1.0, confidence: str = "max", **options: Unpack[LossOptions]
    ) -> None:
        super().__init__(**options)
        name = type(self).__name__
        self.num_samples = check_count(name, "num_samples", num_samples)
        self.alpha = check_number(name, "alpha", alpha, low=0)
        self.confidence = check_choice(name, "confidence", confidence, ("max", "margin", "entropy"))
        self.register_buffer("right", torch.zeros(self.num_samples, dtype=torch.float32))
        self.register_buffer("visits", torch.zeros(self.num_samples, dtype=torch.float32))

    def per_sample(self, batch: Batch) -> Tensor:
        """Loss of each position ``(M,)``; in training this adds the batch to the histories."""
        index, name = batch.index, type(self).__name__
        if index is None:
            raise TypeError(f"{name}: index must be passed (N,); got None. Pass positions in the training set.")
        self._check_range(index)
        nll, confidence, correct = _nll_confidence_correct(batch, self.confidence)
        confidence, share, valid = _per_image(batch, confidence, correct, index.shape[0])
        correctness = (self.right[index] / self.visits[index].clamp(min=1)).to(confidence.dtype)
        neighbour = torch.arange(index.shape[0], device=index.device).roll(-1) if valid is None else next_valid(valid)
        penalty = ranking_penalty(confidence, correctness, neighbour)
        if self.training and torch.is_grad_enabled():
            self._record(index, share, valid)
        if penalty.shape != nll.shape:
            penalty = penalty.repeat_interleave(nll.shape[0] // penalty.shape[0])
        return nll + self.alpha * batch.weighted(penalty)

    def _check_range(self, index: Tensor) -> None:
        if index.device.type != "cpu" or torch.compiler.is_compiling():
            return  # looking would stall the device, which has an assertion of its own
        low, high = (int(bound) for bound in index.aminmax())
        if low < 0 or high >= self.num_samples:
            raise InputError(
                type(self).__name__,
                f"index must be in [0, {self.num_samples}), the positions in the training set",
                f"values from {low} to {high}",
                "Build the loss with num_samples = the size of the training set.",
            )

    @torch.no_grad()
    def _record(self, index: Tensor, share: Tensor, valid: Tensor | None) -> None:
        """Add a batch to the histories: whether each sample was right ``(N,)``, or what share of it."""
        visit = torch.ones_like(self.right[index]) if valid is None else valid.to(self.right.dtype)
        share = share.to(self.right.dtype) * visit
        if world_size() == 1:
            self.right.index_add_(0, index, share)
            self.visits.index_add_(0, index, visit)
            return
        added = self.right.new_zeros(2, self.num_samples).index_add_(1, index, torch.stack((share, visit)))
        right, visits = sum_across_ranks(added).unbind()
        self.right.add_(right)
        self.visits.add_(visits)


def _nll_confidence_correct(batch: Batch, kind: str) -> tuple[Tensor, Tensor, Tensor]:
    """Cross-entropy with class weights, confidence of a kind, and whether the top class is right, each ``(M,)``."""
    if kind == "max":
        return nll_and_confidence(batch)
    logits, classes = batch.logits, batch.logits.shape[1]
    nll = smoothed_nll(logits, batch.target, 0.0, batch.weight)
    correct = logits.argmax(dim=1) == batch.favoured()
    if classes == 1:
        return nll, torch.ones_like(nll), correct
    if kind == "entropy":
        return nll, 1 - entropy(logits) / math.log(classes), correct
    first, second = F.log_softmax(logits, dim=1).topk(2, dim=1).values.exp().unbind(1)
    return nll, first - second, correct


def _per_image(batch: Batch, confidence: Tensor, correct: Tensor, images: int) -> tuple[Tensor, Tensor, Tensor | None]:
    """Mean confidence and share of right positions of each image, and which images have a valid one (None: all)."""
    share, valid = correct.to(confidence.dtype), batch.valid
    if confidence.shape[0] == images:
        return confidence, share, valid
    confidence, share = confidence.reshape(images, -1), share.reshape(images, -1)
    if valid is None:
        return confidence.mean(dim=1), share.mean(dim=1), None
    inside = valid.reshape(images, -1)
    count = inside.sum(dim=1).clamp(min=1)
    confidence, share = (torch.where(inside, part, 0.0).sum(dim=1) / count for part in (confidence, share))
    return confidence, share, inside.any(dim=1)
