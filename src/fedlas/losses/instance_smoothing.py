"""Instance-based label smoothing: a teacher sets the smoothing strength per sample, or its distribution over classes.

Source: Maher, Kull 2021, "Instance-based Label Smoothing For Better Calibrated Classification Networks" (arXiv
2110.05355). The formulas of its two methods are taken from the authors' published code; the text of the paper was not
available.
"""

from __future__ import annotations

from typing import Literal, Unpack, get_args

from torch import Tensor

from fedlas._core.check import check_choice, check_number
from fedlas.losses._base import LOSSES, LossOptions, paper_metadata
from fedlas.losses.cross_fitted import CrossFitted

_PROB_OFFSET = 1e-5
"""Added to the teacher's probabilities: if all wrong classes have probability 0, they share the mass equally."""

_Form = Literal["classes", "amount"]


@LOSSES.register(
    "instance-smoothing",
    **paper_metadata(
        "Instance-based Label Smoothing For Better Calibrated Classification Networks",
        2021,
        "2110.05355",
    ),
    dense=False,
    note="formulas as in the authors' code; the teachers are those of data.cross_fit",
    tune={"alpha": "0.01:0.2:log", "temperature": "1:16:log"},
)
class InstanceSmoothing(CrossFitted):
    """Label smoothing in which teacher probabilities ``q`` distribute the smoothed mass over classes, or set its size.

    The target of class y is ``1 - a`` and of another class k

    - ``a q_k / (1 - q_y)`` with ``a = alpha`` in the form ``classes``: similar classes get more;
    - ``a / (C - 1)`` with ``a = alpha q_y`` in the form ``amount``: confident samples are smoothed more.

    Args:
        num_classes: Number of classes C, at least 2.
        num_samples: Size of the training set that ``index`` points into.
        alpha: Mass of the wrong classes, in [0, 1]; in the form ``amount`` the most that it can be.
        form: ``"classes"`` or ``"amount"``, the second and the first method of the authors' code.
        temperature: Temperature of the teacher, at least 1.
        **options: Those of every :class:`~fedlas.losses.Loss`. Class weights apply to the target class by class.

    Attributes:
        memory: The probabilities q, which :meth:`set_targets` gives.

    State:
        As in :class:`CrossFitted`.

    Raises:
        InputError: If an argument is out of range; for dense logits; on CPU for an index outside the training set.

    Note:
        The authors' teacher is one network that was trained on the same samples with their labels. In a recipe
        ``data.cross_fit`` trains teachers that have not seen the sample. Any other may be given to :meth:`set_targets`.
        A soft target is a mixture of these targets.

    Example:
        >>> import torch
        >>> criterion = InstanceSmoothing(num_samples=1, num_classes=3, alpha=0.2)
        >>> criterion.set_targets(torch.tensor([[0.5, 0.4, 0.1]]))
        >>> soft, label = torch.tensor([[0.5, 0.4, 0.1]]), torch.tensor([[1.0, 0.0, 0.0]])
        >>> criterion.mix_targets(soft, label, torch.tensor([[0.2]]))
        tensor([[0.8000, 0.1600, 0.0400]])
        >>> criterion(torch.tensor([[2.0, 1.0, 0.0]]), torch.tensor([0]), index=torch.tensor([0]))
        tensor(0.6476)
    """

    def __init__(
        self,
        *,
        num_classes: int,
        num_samples: int,
        alpha: float = 0.1,
        form: _Form = "classes",
        temperature: float = 1.0,
        **options: Unpack[LossOptions],
    ) -> None:
        super().__init__(num_classes=num_classes, num_samples=num_samples, alpha=alpha, **options)
        self.form = check_choice("form", form, get_args(_Form))
        self.temperature = check_number("temperature", temperature, low=1)

    def mix_targets(self, q: Tensor, label: Tensor, strength: Tensor) -> Tensor:
        """Return smoothed targets ``(M, C)`` for labels, teacher probabilities ``q (M, C)``, ``strength (M, 1)``."""
        q = ((q + _PROB_OFFSET).log() / self.temperature).softmax(dim=1)
        # Each class of the label passes mass on to the others: by shares q_k / (1 - q_y), or 1 / (C - 1) each.
        if self.form == "amount":
            moved = label * strength * q
            return label - moved + (moved.sum(dim=1, keepdim=True) - moved) / (q.shape[1] - 1)
        moved = label * strength / (q.sum(dim=1, keepdim=True) - q)
        return label * (1 - strength) + q * (moved.sum(dim=1, keepdim=True) - moved)
