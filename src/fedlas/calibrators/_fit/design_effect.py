"""Design effect of clusters: how many samples are worth one independent sample."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fedlas.calibrators._fit.rowwise import iter_float64_rows, sample_weights
from fedlas.resample.clusters import is_clustered

if TYPE_CHECKING:
    from torch import Tensor

    from fedlas.predictions import Predictions


def weigh_by_design_effect(val: Predictions) -> Predictions:
    """Return clustered samples with weights divided by the design effect; samples without clusters unchanged.

    Penalties are of the strength of prior samples, which are independent: four copies of each row in clusters of their
    own give the fit of the rows once.
    """
    import torch

    if not is_clustered(val.clusters):
        return val
    effect = design_effect(val, torch.arange(val.num_samples))
    return val if effect == 1 else val._replace_fields(weights=sample_weights(val) / effect)


def design_effect(val: Predictions, sample_ids: Tensor) -> float:
    """Return the design effect of the clusters on sums of residuals (Kish), at least 1.

    Residuals are labels minus probabilities after temperature scaling.

    Args:
        val: With labels and clusters.
        sample_ids: Sample id of each row ``(N,)``; duplicate rows share an id and count as one sample.
    """
    import torch

    from fedlas.calibrators._fit.temperature_search import nll_temperature

    temperature = nll_temperature(val).value
    residuals = torch.zeros(val.num_samples, val.num_classes, dtype=torch.float64, device="cpu")
    for part, rows in iter_float64_rows(val.tensors().logits):
        residuals[part] = -(rows / temperature).softmax(dim=1)
    residuals[torch.arange(val.num_samples), val.tensors().target] += 1
    residuals *= sample_weights(val).unsqueeze(1)
    within = _sum_of_squared_sums(residuals, sample_ids)
    between = _sum_of_squared_sums(
        residuals, torch.unique(val.tensors().clusters, return_inverse=True)[1]
    )
    return max(1.0, between / within) if within else 1.0


def _sum_of_squared_sums(rows: Tensor, group_codes: Tensor) -> float:
    """Return the sum over groups of the squared norm of the group sum of ``rows (N, C)``."""
    sums = rows.new_zeros(int(group_codes.max()) + 1, rows.shape[1]).index_add_(
        0, group_codes, rows
    )
    return float(sums.square().sum())
