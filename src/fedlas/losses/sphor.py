"""SpHOR, first stage: features aligned with orthogonal class embeddings on a sphere, with Mixup and label smoothing.

Source: Bahavan, Seneviratne, Halgamuge 2026, "SpHOR: A Representation Learning Perspective on Open-set Recognition for
Identifying Unknown Classes in Deep Neural Networks", CVPR Findings (arXiv 2503.08049). The full text was not available:
the formulas come from public summaries, the rest from its published code (nadarasarbahavan/SpHOR). No code is
copied.
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal, Unpack, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedlas._core.check import InputError, check_choice, check_count, check_number
from fedlas.losses._base import (
    LOSSES,
    Batch,
    Loss,
    LossOptions,
    Mixed,
    cross_entropy,
    paper_metadata,
)
from fedlas.losses.label_smoothing import smoothed_nll
from fedlas.losses.logit_norm import normalize_logits
from fedlas.losses.mixup import mix_batch

Embeddings = Literal["learned", "fixed"]


def orthonormal_rows(count: int, size: int, *, device: torch.device | None = None) -> Tensor:
    """Return ``count`` orthonormal vectors ``(count, size)``: cosines of increasing frequency.

    Args:
        count: How many, at most ``size``.
        size: Their length.
        device: Where to make them.

    Example:
        >>> rows = orthonormal_rows(3, 8)
        >>> torch.allclose(rows @ rows.T, torch.eye(3), atol=1e-6)
        True
    """
    # The constant vector comes last: features after a ReLU are close to it whatever their class.
    frequency = torch.arange(1, count + 1, device=device) % size
    # Whole numbers of a turn are taken off exactly, since cosines of large arguments lose digits.
    turns = frequency[:, None] * (2 * torch.arange(size, device=device) + 1) % (4 * size)
    scale = torch.where(frequency > 0, math.sqrt(2 / size), math.sqrt(1 / size))
    return scale[:, None] * torch.cos(turns * (math.pi / (2 * size)))


def orthogonality_penalty(embeddings: Tensor, temperature: float) -> Tensor:
    """Return ``log mean_(i != j) exp((m_i . m_j)^2 / temperature)`` of unit rows ``m (C, p)``; 0 if orthogonal.

    Args:
        embeddings: ``(C, p)``; lengths do not matter. One alone is orthogonal.
        temperature: Above 0.

    Example:
        >>> orthogonality_penalty(torch.tensor([[1.0, 0.0], [2.0, 0.0]]), 0.5).item()
        2.0
    """
    if len(embeddings) < 2:
        return embeddings.new_zeros(())
    rows = F.normalize(embeddings, dim=1)
    same = torch.eye(len(rows), dtype=torch.bool, device=rows.device)
    squares = ((rows @ rows.T).square() / temperature).masked_fill(same, -torch.inf)
    return squares.flatten().logsumexp(0) - math.log(len(rows) * (len(rows) - 1))


@LOSSES.register(
    "sphor",
    **paper_metadata(
        "SpHOR: A Representation Learning Perspective on Open-set Recognition", 2026, "2503.08049"
    ),
    note="the first of two stages; its code settles what the paper leaves open",
    tune={"temperature": "0.02:0.5:log", "smoothing": "0:0.4", "mix_alpha": "0.1:2:log"},
)
class SpHOR(Loss):
    """SpHOR: cross-entropy of ``cos(z, m_k) / temperature``, with projected features z and class embeddings m_k.

    The classes are a mixture of von Mises-Fisher distributions with one concentration, ``1 / temperature``, around
    embeddings that :func:`~fedlas.losses.sphor.orthogonality_penalty` keeps orthogonal. The batch is mixed and its
    targets smoothed: ``s_k = (1 - smoothing) t_k + smoothing / (C - 1) (1 - t_k)``. The second stage puts a new linear
    head on the frozen features: ``fedlas runs uncertainty linear-head RUN``.

    Args:
        num_classes: Number of classes C.
        num_features: Length D of the head's input. None, if it is not known: then there is no projection, z is the
            features, and their ``D >= C`` dimensions have fixed embeddings.
        projection: Length of z, at least C; published: 1024.
        temperature: Above 0; published: 0.07.
        smoothing: Share of a target that goes to the other classes, at most ``1 - 1 / C``; published: 0 on small
            images, 0.2 on FGVC-Aircraft.
        mix_alpha: Parameter of Mixup's Beta distribution; 0 mixes nothing. Published: 1, all shares alike.
        embeddings: ``"learned"``, from orthonormal ones on, or ``"fixed"``: orthonormal ones throughout.
        ortho: Weight of the penalty on learned embeddings.
        probe: Weight of the cross-entropy that trains the model's own head; published: 0.05. Its gradient does not
            reach the features.
        **options: Those of every :class:`~fedlas.losses.Loss`. Ignored samples cannot be mixed.

    Attributes:
        projector: Linear layer from D to ``projection``, or None.
        vectors: The embeddings ``(C, projection)``: a parameter, a buffer, or None without a projection.

    Raises:
        InputError: If an argument is out of range, the features have another length than ``num_features``, or there are
            fewer dimensions than classes.

    State:
        Draws from PyTorch's global CPU generator: the projection's weights once, in each batch share and partners of
        Mixup. Projection and learned embeddings are trained.

    Note:
        The paper learns its embeddings under the penalty; ``"fixed"`` ones, which have the penalty 0, are an addition.
        The paper trains on mixed samples; its code adds the loss of the raw ones in a second pass, which is left out
        here. The code starts embeddings from random normal numbers and takes 0.05 times the penalty, summed over the
        classes. Paper: weight 1, one mean over all pairs; this is the default. The code's cross-entropy of the head,
        which the paper does not have, is kept because validation needs logits; it is of the mixed samples.

        The head must be linear: the features' share in its logits is what keeps its gradient from them.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> features, head = torch.rand(4, 8), torch.nn.Linear(8, 3)
        >>> criterion = SpHOR(num_classes=3, num_features=8, projection=16)
        >>> loss = criterion(head(features), torch.tensor([0, 1, 2, 0]), features=features, head_weight=head.weight)
        >>> criterion.vectors.shape
        torch.Size([3, 16])
    """

    needs: ClassVar[frozenset[str]] = frozenset({"features", "head_weight"})
    masked_classes = True
    num_classes: int
    vectors: Tensor | None

    def __init__(
        self,
        *,
        num_classes: int,
        num_features: int | None = None,
        projection: int = 1024,
        temperature: float = 0.07,
        smoothing: float = 0.1,
        mix_alpha: float = 1.0,
        embeddings: Embeddings = "learned",
        ortho: float = 1.0,
        probe: float = 0.05,
        **options: Unpack[LossOptions],
    ) -> None:
        super().__init__(**options)
        self.num_classes = check_count("num_classes", num_classes)
        self.num_features = (
            None if num_features is None else check_count("num_features", num_features)
        )
        self.temperature = check_number("temperature", temperature, low=0, low_open=True)
        self.smoothing = check_number(
            "smoothing", smoothing, low=0, high=1 - 1 / max(self.num_classes, 2)
        )
        self.mix_alpha = check_number("mix_alpha", mix_alpha, low=0)
        self.embeddings: Embeddings = check_choice("embeddings", embeddings, get_args(Embeddings))
        self.ortho = check_number("ortho", ortho, low=0)
        self.probe = check_number("probe", probe, low=0)
        self.projection = check_count("projection", projection)
        self.projector = (
            None if self.num_features is None else nn.Linear(self.num_features, self.projection)
        )
        vectors = None if self.projector is None else self._orthonormal_embeddings(self.projection)
        if vectors is not None and embeddings == "learned":
            self.vectors = nn.Parameter(vectors)
        else:
            self.register_buffer("vectors", vectors)

    def mix(self, inputs: Tensor, target: Tensor) -> Mixed:
        """Return the batch with each sample mixed with another sample, as in :meth:`Mixup.mix`.

        Args:
            inputs: ``(N, ...)``, floating.
            target: Class indices or soft targets, as the loss takes them.

        Returns:
            Inputs of the same shape, and soft targets, not smoothed; both as they came if ``mix_alpha`` is 0.

        Raises:
            InputError: If the inputs are not floating, or on CPU a target is out of range or ignored.
        """
        if self.mix_alpha == 0:
            return Mixed(inputs, target)
        return mix_batch(inputs, target, num_classes=self.num_classes, alpha=self.mix_alpha)

    def per_sample(self, batch: Batch) -> Tensor:
        """Return the loss per position, ``(M,)``; the orthogonality penalty is added to each position."""
        features, head_weight = batch.features_and_head_weight()
        # In the closed form the smoothing spreads over all classes, the target's own among them: C / (C - 1) as much.
        spread = min(self.smoothing * self.num_classes / max(self.num_classes - 1, 1), 1.0)
        vectors = self._class_embeddings(features)
        # A row of zeros has no direction: its cosines are 0 and its gradient is 0.
        cosines = normalize_logits(self._project_features(features), temperature=self.temperature)
        values = smoothed_nll(cosines @ F.normalize(vectors, dim=1).T, batch.target, spread)
        if isinstance(self.vectors, nn.Parameter):
            values = values + self.ortho * orthogonality_penalty(vectors, self.temperature)
        # Subtracting W h, which has the value 0 here, takes its gradient off the features and leaves it in W.
        still = batch.logits - (features - features.detach()) @ head_weight.detach().T
        return batch.apply_class_weights(values + self.probe * cross_entropy(still, batch.target))

    def _project_features(self, features: Tensor) -> Tensor:
        if self.projector is None:
            return features
        if features.shape[1] != self.num_features:
            raise InputError(
                f"features must have {self.num_features} columns (num_features of the loss)",
                f"shape {tuple(features.shape)}",
                "Set num_features to the input size of the classifier head.",
            )
        return F.linear(
            features,
            self.projector.weight.to(features.dtype),
            self.projector.bias.to(features.dtype),
        )

    def _class_embeddings(self, features: Tensor) -> Tensor:
        if self.vectors is not None:
            return self.vectors.to(features.dtype)
        return self._orthonormal_embeddings(features.shape[1], features.device).to(features.dtype)

    def _orthonormal_embeddings(self, size: int, device: torch.device | None = None) -> Tensor:
        if size < self.num_classes:
            raise InputError(
                f"the embedding size must be at least the number of classes, {self.num_classes}",
                size,
                "Increase projection, or use a model with larger features.",
            )
        return orthonormal_rows(self.num_classes, size, device=device)
