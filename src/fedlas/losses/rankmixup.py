"""RankMixup: mixed samples should have less confidence than raw ones, and less the more they are mixed.

Source: Noh et al. 2023, "RankMixup: Ranking-Based Mixup Training for Network Calibration", ICCV, section 3
(arXiv 2308.11990). Written from the paper.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import ClassVar, Unpack

import torch
import torch.nn.functional as F
from torch import Tensor

from fedlas._core.check import InputError, check_count, check_number, describe
from fedlas.losses._base import LOSSES, Batch, Loss, LossOptions, Mixed, draw_partners, draw_share, row_max

__all__ = ["RankMixupMRL", "RankMixupNDCG"]


def ranking_penalty(logits: Tensor, mixed: Tensor, margin: float) -> Tensor:
    """MRL: ``mean_k relu(max z(mixed_k) - max z + margin)`` of each row, ``(M,)``.

    Args:
        logits: Of the raw samples, ``(M, C)``.
        mixed: Of K mixed versions of each, ``(M, K, C)``.
        margin: By how much a raw sample's largest logit should exceed that of a mixed one, at least 0.
    """
    tops = row_max(mixed.flatten(0, 1)).reshape(mixed.shape[:2])
    return F.relu(tops - row_max(logits) + margin).mean(dim=1)


def ndcg_penalty(logits: Tensor, mixed: Tensor) -> Tensor:
    """M-NDCG: ``1 - DCG / IDCG`` of the confidences of a raw sample and its mixed versions, ``(M,)``, in ``[0, 1)``.

    ``DCG = sum_j conf_j / log2(j + 1)`` over ``j = 1, ..., K + 1`` in the order in which confidence should fall; IDCG
    is the same sum over the sorted confidences, so the penalty is 0 if and only if they are in order.

    Args:
        logits: Of the raw samples, ``(M, C)``.
        mixed: Of K mixed versions of each, the least mixed first, ``(M, K, C)``.
    """
    confidence = torch.cat((logits[:, None], mixed), dim=1).softmax(dim=2).amax(dim=2)
    discount = confidence.new_tensor([1 / math.log2(j + 2) for j in range(confidence.shape[1])])
    ideal, _ = confidence.sort(dim=1, descending=True)
    return 1 - (confidence @ discount) / (ideal @ discount)


class _RankMixup(Loss):
    """Base of both forms: cross-entropy on raw samples, and a penalty on the ranking of their mixed versions."""

    needs: ClassVar[frozenset[str]] = frozenset({"mixed"})

    def __init__(self, *, alpha: float, mix_alpha: float, num_mixed: int, **options: Unpack[LossOptions]) -> None:
        super().__init__(**options)
        name = type(self).__name__
        self.alpha = check_number(name, "alpha", alpha, low=0)
        self.mix_alpha = check_number(name, "mix_alpha", mix_alpha, low=0, low_open=True)
        self.num_mixed = check_count(name, "num_mixed", num_mixed)

    @abstractmethod
    def penalty(self, logits: Tensor, mixed: Tensor) -> Tensor:
        """Penalty of each position ``(M,)``."""

    def mix(self, inputs: Tensor, target: Tensor) -> Mixed:
        """The unchanged batch, and mixed versions of it.

        Args:
            inputs: ``(N, ...)``, floating.
            target: Returned unchanged.

        Returns:
            ``num_mixed`` views, the least mixed first: each sample keeps the larger share, between 1/2 and 1.

        Raises:
            InputError: If the inputs are not floating.
        """
        if not isinstance(inputs, Tensor) or not inputs.is_floating_point():
            raise InputError(
                f"{type(self).__name__}.mix",
                "inputs must be a floating tensor",
                describe(inputs),
                "Integers such as token ids cannot be mixed.",
            )
        # Each sample keeps the larger share, so the maximum of a share and its complement; the least mixed come first.
        drawn = torch.stack([draw_share(self.mix_alpha) for _ in range(self.num_mixed)])
        shares, _ = torch.maximum(drawn, 1 - drawn).sort(descending=True)
        views = []
        for share in shares:
            partner = draw_partners(len(inputs), inputs.device)
            views.append(share * inputs + (1 - share) * inputs[partner])
        return Mixed(inputs=inputs, target=target, views=tuple(views))

    def per_sample(self, batch: Batch) -> Tensor:
        """Loss of each position ``(M,)``; cross-entropy alone without mixed versions (in ``eval()``)."""
        values = batch.cross_entropy()
        if batch.mixed is None:
            return values
        return values + self.alpha * batch.weighted(self.penalty(batch.logits, batch.mixed))


_ABOUT = {"paper": "RankMixup", "year": 2023, "url": "https://arxiv.org/abs/2308.11990"}


@LOSSES.register("rankmixup-mrl", **_ABOUT, tune={"alpha": "0.01:1:log", "margin": "0:5", "mix_alpha": "0.2:5:log"})
class RankMixupMRL(_RankMixup):
    """RankMixup with its margin ranking loss: ``-log p_y + alpha mean_k relu(max z(mixed_k) - max z + margin)``.

    Args:
        alpha: Weight of the penalty, at least 0.
        margin: By how much a raw sample's largest logit should exceed that of a mixed one, at least 0.
        mix_alpha: Parameter of the Beta distribution of the shares, above 0.
        num_mixed: Number of mixed versions of each sample; each costs one more forward pass.
        **options: Those of every :class:`~fedlas.losses.Loss`. The penalty of a sample is weighted like its
            cross-entropy.

    Raises:
        InputError: If an argument is out of range.

    State:
        :meth:`mix` draws from PyTorch's global CPU generator. :class:`~fedlas.Objective` calls it in training, runs the
        model on the mixed versions too, and passes their logits as ``mixed (N, K, C)``; in ``eval()`` the loss is
        cross-entropy. Batch normalization sees each version as a separate batch.

    Note:
        Each sample keeps the larger share of its mixture, so that its class is the main one of the mixed version.

    Example:
        >>> criterion = RankMixupMRL(margin=1.0)
        >>> raw, mixed = torch.tensor([[2.0, 0.0]]), torch.tensor([[[1.5, 0.0]]])
        >>> criterion(raw, torch.tensor([0]), mixed=mixed)
        tensor(0.1769)
    """

    def __init__(
        self,
        *,
        alpha: float = 0.1,
        margin: float = 2.0,
        mix_alpha: float = 1.0,
        num_mixed: int = 1,
        **options: Unpack[LossOptions],
    ) -> None:
        super().__init__(alpha=alpha, mix_alpha=mix_alpha, num_mixed=num_mixed, **options)
        self.margin = check_number("RankMixupMRL", "margin", margin, low=0)

    def penalty(self, logits: Tensor, mixed: Tensor) -> Tensor:
        """Margin ranking penalty of each position ``(M,)``."""
        return ranking_penalty(logits, mixed, self.margin)


@LOSSES.register("rankmixup-ndcg", **_ABOUT, tune={"alpha": "0.01:1:log", "mix_alpha": "0.2:5:log"})
class RankMixupNDCG(_RankMixup):
    """RankMixup with its ranking measure M-NDCG: ``-log p_y + alpha (1 - DCG / IDCG)``.

    See :func:`ndcg_penalty` for the measure.

    Args:
        alpha: Weight of the penalty, at least 0.
        mix_alpha: Parameter of the Beta distribution of the shares, above 0.
        num_mixed: Number of mixed versions of each sample; each costs one more forward pass.
        **options: Those of every :class:`~fedlas.losses.Loss`. The penalty of a sample is weighted like its
            cross-entropy.

    Raises:
        InputError: If an argument is out of range.

    State:
        As :class:`RankMixupMRL`.

    Note:
        The paper ranks confidences by a normalized discounted cumulative gain whose ideal order is that of the shares.
        Here the gain at a position is the confidence itself; no published number confirms this form.

    Example:
        >>> criterion = RankMixupNDCG()
        >>> raw, mixed = torch.tensor([[2.0, 0.0]]), torch.tensor([[[1.5, 0.0], [1.0, 0.0]]])
        >>> criterion(raw, torch.tensor([0]), mixed=mixed)  # in order: cross-entropy alone
        tensor(0.1269)
    """

    def __init__(
        self, *, alpha: float = 0.1, mix_alpha: float = 1.0, num_mixed: int = 3, **options: Unpack[LossOptions]
    ) -> None:
        super().__init__(alpha=alpha, mix_alpha=mix_alpha, num_mixed=num_mixed, **options)

    def penalty(self, logits: Tensor, mixed: Tensor) -> Tensor:
        """Distance of each position's ranking from the right one, ``(M,)``."""
        return ndcg_penalty(logits, mixed)
