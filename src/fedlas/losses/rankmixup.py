"""RankMixup: penalties that rank confidence by mixing: raw samples above mixed ones, weakly mixed above strongly mixed.

Source: Noh et al. 2023, "RankMixup: Ranking-Based Mixup Training for Network Calibration", ICCV, section 3
(arXiv 2308.11990), and what its published code (cvlab-yonsei/RankMixup) does where the paper is silent. Written from
these; no code is copied.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import ClassVar, Unpack

import torch
import torch.nn.functional as F
from torch import Tensor

from fedlas._core.check import check_count, check_number
from fedlas.losses._base import (
    LOSSES,
    Batch,
    Loss,
    LossOptions,
    Mixed,
)
from fedlas.losses.mixup import check_mixable, draw_mixing_partners, draw_mixing_share


def margin_ranking_penalty(logits: Tensor, mixed: Tensor, share: Tensor, margin: float) -> Tensor:
    """Return the margin ranking penalty ``mean_k relu(max z(mixed_k) - max z + margin)`` per position, ``(M,)``.

    Args:
        logits: Logits of the raw samples, ``(M, C)``.
        mixed: Logits of K mixed versions of each, ``(M, K, C)``.
        share: Share of the main class in each mixed version, ``(M, K)``; 1 where both samples are of one class.
        margin: By how much a raw sample's largest logit should exceed that of a mixed one, at least 0.
    """
    tops = mixed.amax(dim=2)
    # The mean counts the masked ones too, as in published code: a batch with few mixtures has a small penalty.
    return (F.relu(tops - logits.amax(dim=1, keepdim=True) + margin) * (share < 1)).mean(dim=1)


def ndcg_penalty(logits: Tensor, mixed: Tensor, share: Tensor) -> Tensor:
    """Return the NDCG ranking penalty ``1 - min(DCG / IDCG, IDCG / DCG)`` per position, ``(M,)`` in [0, 1).

    ``DCG = conf_0 + sum_j conf_j / log2(j + 2)`` over ``j = 1, ..., K``, the mixed versions in the order of falling
    shares. IDCG is the same sum of the shares, with 1 for the raw sample. So confidences are pulled toward the shares
    from either side; a version out of order is one whose confidence differs from its share.

    Args:
        logits: Logits of the raw samples, ``(M, C)``.
        mixed: Logits of K mixed versions of each, ``(M, K, C)``.
        share: Share of the main class in each mixed version, ``(M, K)``.

    Example:
        >>> ndcg_penalty(torch.zeros(1, 2), torch.zeros(1, 1, 2), torch.tensor([[1.0]]))
        tensor([0.5000])
    """
    share, order = share.sort(dim=1, descending=True, stable=True)
    confidence = torch.cat((logits[:, None], mixed), dim=1).softmax(dim=2).amax(dim=2)
    # A constant: built in Python, it costs no graph and follows dtype and device of the shares.
    discount = share.new_tensor([1 / math.log2(j + 3) for j in range(share.shape[1])])
    dcg = confidence[:, 0] + confidence[:, 1:].gather(1, order) @ discount
    ideal = 1 + share @ discount
    # Both quotients are above 0, since the raw sample alone has a confidence of at least 1 / C.
    return 1 - torch.minimum(dcg / ideal, ideal / dcg)


class _RankMixup(Loss):
    """Base class of RankMixup: cross-entropy on raw samples plus a ranking penalty on mixed versions."""

    needs: ClassVar[frozenset[str]] = frozenset({"mixed", "mixed_share"})
    masked_classes = True

    def __init__(
        self,
        *,
        alpha: float = 0.1,
        mix_alpha: float = 2.0,
        num_mixed: int = 3,
        **options: Unpack[LossOptions],
    ) -> None:
        super().__init__(**options)
        self.alpha = check_number("alpha", alpha, low=0)
        self.mix_alpha = check_number("mix_alpha", mix_alpha, low=0, low_open=True)
        self.num_mixed = check_count("num_mixed", num_mixed)

    @abstractmethod
    def penalty(self, logits: Tensor, mixed: Tensor, share: Tensor) -> Tensor:
        """Return the ranking penalty per position, ``(M,)``."""

    def mix(self, inputs: Tensor, target: Tensor) -> Mixed:
        """Return the unchanged batch with mixed versions ``s x_i + (1 - s) x_j`` and their main-class shares.

        Args:
            inputs: ``(N, ...)``, floating.
            target: Class indices ``(N,)`` or ``(N, d1, ...)``, or soft targets, as the loss takes them; returned
                unchanged.

        Returns:
            ``num_mixed`` views with ``s`` from Beta(mix_alpha, mix_alpha), and their shares: ``max(s, 1 - s)``, or 1
            where both samples are of one class.

        Raises:
            InputError: If the inputs are not floating, or there is not one for each target.
        """
        check_mixable(inputs, target)
        favored = target.argmax(dim=1) if target.is_floating_point() else target
        views = []
        shares = []
        for _ in range(self.num_mixed):
            share = draw_mixing_share(self.mix_alpha)
            partner = draw_mixing_partners(len(inputs), inputs.device)
            views.append(share * inputs + (1 - share) * inputs[partner])
            one_class = favored == favored[partner.to(favored.device)]
            shares.append(torch.where(one_class, 1.0, float(torch.maximum(share, 1 - share))))
        return Mixed(
            inputs=inputs, target=target, views=tuple(views), shares=torch.stack(shares, dim=1)
        )

    def per_sample(self, batch: Batch) -> Tensor:
        """Return the loss per position, ``(M,)``; without mixed versions (in ``eval()``) only the cross-entropy."""
        values = batch.cross_entropy()
        if batch.mixed is None or batch.mixed_share is None:
            return values
        return values + self.alpha * batch.apply_class_weights(
            self.penalty(batch.logits, batch.mixed, batch.mixed_share)
        )


_ABOUT = {"paper": "RankMixup", "year": 2023, "url": "https://arxiv.org/abs/2308.11990"}


@LOSSES.register(
    "rankmixup-mrl",
    **_ABOUT,
    tune={"alpha": "0.01:1:log", "margin": "0:5", "mix_alpha": "0.2:5:log"},
)
class RankMixupMRL(_RankMixup):
    """RankMixup with the margin ranking loss: ``-log p_y + alpha mean_k relu(max z(mixed_k) - max z + margin)``.

    Args:
        alpha: Weight of the penalty, at least 0.
        margin: By how much a raw sample's largest logit should exceed that of a mixed one, at least 0; published: 2 on
            CIFAR-10, 1 on Tiny-ImageNet.
        mix_alpha: Parameter of the Beta distribution of the shares, above 0; published: 2 on CIFAR-10, 1 on
            Tiny-ImageNet.
        num_mixed: Number of mixed versions of each sample; each costs one more forward pass.
        **options: Those of every :class:`~fedlas.losses.Loss`. The penalty of a sample is weighted like its
            cross-entropy.

    Raises:
        InputError: If an argument is out of range.

    State:
        :meth:`mix` draws from PyTorch's global CPU generator. :class:`~fedlas.Objective` calls it in training, runs the
        model on the mixed versions too, and passes their logits as ``mixed (N, K, C)`` and their shares as
        ``mixed_share (N, K)``; in ``eval()`` the loss is cross-entropy. Batch normalization sees each version as a
        separate batch.

    Note:
        A mixture of a sample with itself, or with another one of its class, has the share 1 and no penalty, as in
        published code. The class of a soft target is its arg-max. The mean is over all K versions, also
        those without a penalty.

    Example:
        >>> criterion = RankMixupMRL(margin=1.0)
        >>> raw, mixed = torch.tensor([[2.0, 0.0]]), torch.tensor([[[1.5, 0.0]]])
        >>> criterion(raw, torch.tensor([0]), mixed=mixed, mixed_share=torch.tensor([[0.8]]))
        tensor(0.1769)
    """

    def __init__(
        self,
        *,
        alpha: float = 0.1,
        margin: float = 2.0,
        mix_alpha: float = 2.0,
        num_mixed: int = 1,
        **options: Unpack[LossOptions],
    ) -> None:
        super().__init__(alpha=alpha, mix_alpha=mix_alpha, num_mixed=num_mixed, **options)
        self.margin = check_number("margin", margin, low=0)

    def penalty(self, logits: Tensor, mixed: Tensor, share: Tensor) -> Tensor:
        """Return the margin ranking penalty per position, ``(M,)``."""
        return margin_ranking_penalty(logits, mixed, share, self.margin)


@LOSSES.register("rankmixup-ndcg", **_ABOUT, tune={"alpha": "0.01:1:log", "mix_alpha": "0.2:5:log"})
class RankMixupNDCG(_RankMixup):
    """RankMixup with the M-NDCG ranking penalty: ``-log p_y + alpha (1 - min(DCG / IDCG, IDCG / DCG))``.

    See :func:`ndcg_penalty` for the measure: DCG sums the confidences in the order of the mixing shares, IDCG the
    shares themselves.

    Args:
        alpha: Weight of the penalty, at least 0.
        mix_alpha: Parameter of the Beta distribution of the shares, above 0; published: 2 on CIFAR-10, 1 on
            Tiny-ImageNet.
        num_mixed: Number of mixed versions of each sample; each costs one more forward pass.
        **options: Those of every :class:`~fedlas.losses.Loss`. The penalty of a sample is weighted like its
            cross-entropy.

    Raises:
        InputError: If an argument is out of range.

    State:
        As :class:`RankMixupMRL`.

    Example:
        >>> criterion = RankMixupNDCG()
        >>> raw, mixed = torch.tensor([[2.0, 0.0]]), torch.tensor([[[1.5, 0.0], [1.0, 0.0]]])
        >>> criterion(raw, torch.tensor([0]), mixed=mixed, mixed_share=torch.tensor([[0.8, 0.7]]))
        tensor(0.1319)
    """

    def penalty(self, logits: Tensor, mixed: Tensor, share: Tensor) -> Tensor:
        """Return the NDCG ranking penalty per position, ``(M,)``."""
        return ndcg_penalty(logits, mixed, share)
