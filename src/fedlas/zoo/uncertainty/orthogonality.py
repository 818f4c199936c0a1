"""Orthogonal ensembles: a penalty on correlated filters within a member and between members.

Source:
    Larrazabal, Martinez, Dolz, Ferrante: Orthogonal Ensemble Networks for Biomedical Image Segmentation, MICCAI 2021,
    section 2. https://arxiv.org/abs/2105.10827
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedlas._core.check import InputError, check_number

__all__ = ["OrthogonalityPenalty"]

_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def layer_filters(model: nn.Module) -> dict[str, Tensor]:
    """Return the filters of each linear and convolutional layer as rows ``(n, inputs * kernel size)``.

    Args:
        model: Any network.

    Returns:
        Rows by the layer's dotted name, in the order of the modules; views of the weights, so gradients flow.

    Raises:
        InputError: If there is no linear or convolutional layer.

    Example:
        >>> filters = layer_filters(nn.Sequential(nn.Conv2d(3, 8, 5), nn.ReLU()))
        >>> {name: tuple(rows.shape) for name, rows in filters.items()}
        {'0': (8, 75)}
    """
    rows = {
        name: layer.weight.flatten(1)
        for name, layer in model.named_modules()
        if isinstance(layer, _LAYERS)
    }
    if not rows:
        raise InputError(
            "the model must have linear or convolutional layers",
            type(model).__name__,
            "Use another method: there are no filters to decorrelate.",
        )
    return rows


def self_orthogonality(rows: Tensor) -> Tensor:
    """Return the sum of squared cosines over all pairs of filters of a layer, ``sum_{i < j} cos(f_i, f_j)^2``.

    Args:
        rows: Filters ``(n, d)``.

    Returns:
        A scalar; 0 if the filters are orthogonal, which takes ``n <= d``. At most ``n (n - 1) / 2``.

    Example:
        >>> self_orthogonality(torch.tensor([[2.0, 0.0], [0.0, 3.0]])).item()
        0.0
    """
    unit = F.normalize(rows, dim=1)
    cosines = (unit @ unit.T).square()
    return (cosines.sum() - cosines.diagonal().sum()) / 2


def inter_orthogonality(rows: Tensor, others: Tensor) -> Tensor:
    """Return the sum of squared cosines between the filters of a layer and the filters of other members.

    Args:
        rows: Filters ``(n, d)``.
        others: Filters of the same layer in other members ``(m, d)``.

    Returns:
        A scalar in ``[0, n m]``.

    Example:
        >>> inter_orthogonality(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 2.0], [3.0, 0.0]])).item()
        1.0
    """
    return (F.normalize(rows, dim=1) @ F.normalize(others, dim=1).T).square().sum()


class OrthogonalityPenalty(nn.Module):
    """Penalty on the correlation of a member's filters with each other and with filters of earlier members.

    ``self_weight * sum_l S_l + inter_weight * (1 / E) sum_l sum_e I_l(e)`` over the layers ``l`` and the ``E`` earlier
    members, with :func:`self_orthogonality` ``S_l`` and :func:`inter_orthogonality` ``I_l(e)``.

    Args:
        earlier: Filters of each earlier member, as :func:`layer_filters` gives them; none for the first.
        self_weight: Weight of the first term, at least 0.
        inter_weight: Weight of the second term, at least 0.

    State:
        The earlier members' filters at length 1, as buffers outside the state dict, since those members' checkpoints
        hold them. Nothing changes.

    Raises:
        InputError: For a weight below 0; or when called on a model with other layers than the earlier members.

    Note:
        Terms are summed over pairs, as in the paper, so they grow with the square of a layer's width; the weights of
        0.1 are those of the published configuration. The paper's networks consist of convolutions; here linear
        layers count too, so that any model can be a member.

    Example:
        >>> model = nn.Linear(2, 1)
        >>> twin = OrthogonalityPenalty([layer_filters(model)], self_weight=1.0, inter_weight=0.5)
        >>> round(twin(model).item(), 6)
        0.5
    """

    def __init__(
        self,
        earlier: Sequence[dict[str, Tensor]] = (),
        *,
        self_weight: float = 0.1,
        inter_weight: float = 0.1,
    ) -> None:
        super().__init__()
        self.self_weight = check_number("self_weight", self_weight, low=0)
        self.inter_weight = check_number("inter_weight", inter_weight, low=0)
        self.num_earlier = len(earlier)
        self.layers = (
            {name: tuple(rows.shape) for name, rows in earlier[0].items()} if earlier else None
        )
        # numbered: a buffer's name may hold no dot
        for index, name in enumerate(self.layers or ()):
            rows = torch.cat([F.normalize(member[name].detach(), dim=1) for member in earlier])
            self.register_buffer(f"earlier{index}", rows, persistent=False)

    def forward(self, model: nn.Module) -> Tensor:
        """Return the penalty for ``model``, a scalar."""
        mine = layer_filters(model)
        if (
            self.layers is not None
            and {name: tuple(rows.shape) for name, rows in mine.items()} != self.layers
        ):
            raise InputError(
                "all members must have the same layers",
                f"{len(mine)} layers that differ from the {len(self.layers)} of the first member",
                "Build every member from the same recipe.",
            )
        penalty = self.self_weight * sum(self_orthogonality(rows) for rows in mine.values())
        if self.num_earlier and self.inter_weight:
            pairs = (
                inter_orthogonality(rows, self.get_buffer(f"earlier{i}"))
                for i, rows in enumerate(mine.values())
            )
            penalty = penalty + self.inter_weight / self.num_earlier * sum(pairs)
        return torch.as_tensor(penalty)
