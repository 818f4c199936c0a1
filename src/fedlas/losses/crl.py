"""CRL, the correctness ranking loss: confidences are ranked by how often each sample was classified correctly.

Source: Moon, Kim, Shin, Hwang 2020, "Confidence-Aware Learning for Deep Neural Networks", ICML, section 3
(arXiv 2007.01458). Written from the paper.
"""

from __future__ import annotations

from typing import ClassVar, Unpack

import torch
import torch.nn.functional as F
from torch import Tensor

from fedlas._core.check import check_count, check_number
from fedlas._core.ranks import sum_across_ranks, world_size
from fedlas.losses._base import (
    LOSSES,
    Batch,
    Loss,
    LossOptions,
    PreciseBuffers,
    check_index,
    paper_metadata,
)


def ranking_penalty(confidence: Tensor, correctness: Tensor, neighbor: Tensor) -> Tensor:
    """Return the ranking penalty per sample i with neighbor j: ``relu(-sign(c_i - c_j) (k_i - k_j) + |c_i - c_j|)``.

    Args:
        confidence: ``k (N,)`` in [0, 1].
        correctness: ``c (N,)`` in [0, 1], how often each sample was right so far; without a gradient.
        neighbor: Position of j in the batch, ``(N,)`` int64.

    Note:
        0 where i and j were right equally often.

    Example:
        >>> ranking_penalty(torch.tensor([0.6, 0.9]), torch.tensor([1.0, 0.5]), torch.tensor([1, 0]))
        tensor([0.8000, 0.8000])
    """
    ahead = correctness - correctness[neighbor]
    return F.relu(ahead.abs() - ahead.sign() * (confidence - confidence[neighbor]))


def next_valid_index(valid: Tensor) -> Tensor:
    """Return, per sample, the index of the next valid sample, ``(N,)`` int64, cyclically.

    Args:
        valid: ``(N,)`` bool. Without a valid sample the positions are arbitrary, but in range.

    Example:
        >>> next_valid_index(torch.tensor([True, False, True, True]))
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
    **paper_metadata("Confidence-Aware Learning for Deep Neural Networks", 2020, "2007.01458"),
    order_invariant=False,
    tune={"alpha": "0.1:10:log"},
)
class CRL(PreciseBuffers, Loss):
    """CRL: ``-log p_y + alpha relu(-sign(c_i - c_j) (k_i - k_j) + |c_i - c_j|)``, j the next sample in the batch.

    ``c_i`` is the share of sample i's visits so far at which its top class was right, ``k_i`` its largest probability.
    The sample of two that was right more often should be more confident, by the same amount.

    Args:
        num_samples: Size of the training set that ``index`` points into.
        alpha: Weight of the ranking penalty, at least 0.
        **options: Those of every :class:`~fedlas.losses.Loss`. An ignored sample is no neighbor, and its history does
            not change. The penalty of a sample is weighted like its cross-entropy.

    Attributes:
        right: Buffer, how often each sample was right ``(num_samples,)`` float32.
        visits: Buffer, how often it was seen ``(num_samples,)`` float32.

    State:
        In training mode with gradients enabled a batch uses the histories, then adds itself to them, in place; never
        in ``eval()`` or under ``torch.no_grad()``. Under DDP all ranks share the histories: each step sums ``8 *
        num_samples`` bytes over the ranks (0.4 MB for CIFAR, 10 MB for ImageNet). Buffers stay float32 through
        ``.half()``.

    Raises:
        InputError: If an argument is out of range; on CPU, if an index is outside ``[0, num_samples)``. The state is
            then unchanged.

    Note:
        The neighbor is the next valid sample, cyclically, so the order of the batch matters. A sample that is seen for
        the first time counts as never right. Published code has another scale for c: the number of times a sample was
        right, between that of the least often right sample and the number of epochs. Dense inputs have one history an
        image: its correctness is the share of its valid positions that are right, its confidence their mean, and each
        of its positions has the image's penalty. The correct class of a soft target is its arg-max.

    Example:
        >>> criterion = CRL(num_samples=2)
        >>> logits, target = torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 0])
        >>> loss = criterion(logits, target, index=torch.tensor([0, 1]))
        >>> criterion.right.tolist(), criterion.visits.tolist()
        ([1.0, 0.0], [1.0, 1.0])
    """

    masked_classes = True
    needs: ClassVar[frozenset[str]] = frozenset({"index"})
    precise: ClassVar[tuple[str, ...]] = ("right", "visits")
    right: Tensor
    visits: Tensor

    def __init__(
        self, *, num_samples: int, alpha: float = 1.0, **options: Unpack[LossOptions]
    ) -> None:
        super().__init__(**options)
        self.num_samples = check_count("num_samples", num_samples)
        self.alpha = check_number("alpha", alpha, low=0)
        self.register_buffer("right", torch.zeros(self.num_samples, dtype=torch.float32))
        self.register_buffer("visits", torch.zeros(self.num_samples, dtype=torch.float32))

    def per_sample(self, batch: Batch) -> Tensor:
        """Return the loss per position, ``(M,)``; in training also update the correctness histories."""
        nll, confidence, correct = batch.nll_and_confidence()
        if batch.index is None:  # in evaluation
            return nll
        index = batch.index.to(self.right.device)
        rows = len(batch.index)
        check_index(index, self.num_samples)
        # One confidence and one history per image, averaged over positions.
        confidence, share = (
            batch.mean_per_sample(part, rows) for part in (confidence, correct.to(confidence.dtype))
        )
        valid = batch.valid_samples(rows)
        correctness = (self.right[index] / self.visits[index].clamp(min=1)).to(confidence.dtype)
        neighbor = (
            torch.arange(rows, device=index.device).roll(-1)
            if valid is None
            else next_valid_index(valid)
        )
        penalty = ranking_penalty(confidence, correctness, neighbor)
        if self.training and torch.is_grad_enabled():
            self._update_history(index, share, valid)
        return nll + self.alpha * batch.apply_class_weights(batch.repeat_per_position(penalty))

    @torch.no_grad()
    def _update_history(self, index: Tensor, share: Tensor, valid: Tensor | None) -> None:
        """Add the correctness of a batch, ``share (N,)`` in [0, 1], to the histories; ignored samples do not count."""
        visit = torch.ones_like(self.right[index]) if valid is None else valid.to(self.right.dtype)
        share = share.to(self.right.dtype) * visit
        if world_size() == 1:
            self.right.index_add_(0, index, share)
            self.visits.index_add_(0, index, visit)
            return
        # Ranks have other samples, so each sums into all histories before they are added.
        added = self.right.new_zeros(2, self.num_samples).index_add_(
            1, index, torch.stack((share, visit))
        )
        right, visits = sum_across_ranks(added).unbind()
        self.right.add_(right)
        self.visits.add_(visits)
