"""Limited-memory BFGS for many small smooth problems at once."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

_MOST_STEPS = 60
_MEMORY = 8
_MOST_HALVINGS = 20
# Share of the linear prediction by which a step must lower the value (Armijo's rule).
_ENOUGH = 1e-4

Evaluate = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Values ``(b,)`` and gradients ``(b, P)`` of the problems with these numbers ``(b,)`` at these points ``(b, P)``."""


@torch.no_grad()
def minimize_all(evaluate: Evaluate, start: Tensor, curvature: Tensor, tolerance: float) -> Tensor:
    """Return the minimum of each problem ``(B, P)``, of those that are solved already no further pass is taken.

    Args:
        evaluate: Called with the problems that are not solved yet.
        start: ``(B, P)`` float64.
        curvature: A rough diagonal of each Hessian ``(B, P)``, above 0: the metric of the search.
        tolerance: A problem is solved where half the squared gradient in that metric, about its distance from the
            minimum, is at most this.
    """
    result = start.clone()
    left = torch.arange(len(start), device="cpu")
    point = start
    value, slope = evaluate(left, point)
    stuck = torch.zeros_like(left, dtype=torch.bool)
    past: list[tuple[Tensor, Tensor, Tensor]] = []
    for _ in range(_MOST_STEPS):
        # Problems that are solved, or where rounding prevents progress, leave.
        going = ~stuck & (0.5 * (slope.square() / curvature[left]).sum(dim=1) > tolerance)
        if not bool(going.all()):
            result[left] = point
            left = left[going]
            point = point[going]
            value = value[going]
            slope = slope[going]
            past = [(step[going], change[going], product[going]) for step, change, product in past]
        if not len(left):
            return result

        # A step along the quasi-Newton direction, halved where the value does not fall enough.
        direction = _direction(slope, curvature[left], past)
        expected = (slope * direction).sum(dim=1)
        size = torch.ones_like(value)
        new_point = point + direction
        new_value, new_slope = evaluate(left, new_point)
        for _ in range(_MOST_HALVINGS):
            high = ~(new_value <= value + _ENOUGH * size * expected)
            if not bool(high.any()):
                break
            size[high] /= 2
            new_point[high] = point[high] + size[high].unsqueeze(1) * direction[high]
            new_value[high], new_slope[high] = evaluate(left[high], new_point[high])
        stuck = ~(new_value <= value)
        new_point[stuck], new_value[stuck], new_slope[stuck] = (
            point[stuck],
            value[stuck],
            slope[stuck],
        )
        step = new_point - point
        change = new_slope - slope
        past = [*past[1 - _MEMORY :], (step, change, (step * change).sum(dim=1))]
        point = new_point
        value = new_value
        slope = new_slope
    result[left] = point
    return result


def _direction(
    slope: Tensor, curvature: Tensor, past: list[tuple[Tensor, Tensor, Tensor]]
) -> Tensor:
    """Return minus the inverse Hessian times the gradient, by the two loops of Nocedal 1980."""
    direction = -slope
    factors = []
    for step, change, product in reversed(past):
        # A step without curvature says nothing.
        factor = torch.where(product > 0, (step * direction).sum(dim=1) / product, 0.0)
        direction = direction - factor.unsqueeze(1) * change
        factors.append(factor)
    direction = direction / curvature
    if past:
        step, change, product = past[-1]
        size = product / (change.square() / curvature).sum(dim=1)
        direction = direction * torch.where(product > 0, size, 1.0).unsqueeze(1)
    for (step, change, product), factor in zip(past, reversed(factors), strict=True):
        other = torch.where(product > 0, (change * direction).sum(dim=1) / product, 0.0)
        direction = direction + (factor - other).unsqueeze(1) * step
    return direction
