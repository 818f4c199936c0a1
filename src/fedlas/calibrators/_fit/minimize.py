"""Minimizers: Newton's method, limited-memory BFGS, golden section search, and EM for mixture weights.

Newton's steps solve ``H d = -g`` by conjugate gradients, which needs products with the Hessian ``H`` and never the
matrix itself, and are halved until the value falls enough.

Note:
    ``torch.optim.LBFGS`` takes fewer passes to a rough answer, but ignores curvature below an absolute threshold. On a
    mean over samples it therefore slows down before the gradient is small: for matrix scaling of 200 samples and 4
    classes it took 3,366 passes to a gradient of 1e-7, this 56 to 1e-11. A fit that ends at the minimum depends neither
    on its start nor on the order of the samples.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from fedlas.calibrators._fit.buffers import zeros

_MAX_STEPS = 100
_MAX_PRODUCTS = 1000
_MAX_HALVINGS = 60
# Share of the linear prediction by which a step must lower the value (Armijo's rule).
_ARMIJO = 1e-4
_ROUNDING = 1e-15
_SHRINK = (5**0.5 - 1) / 2


class ConvexProblem(Protocol):
    """Convex function of a vector (or a batch of such functions), with its Hessian at the last evaluated point.

    Points have the shape ``(..., P)``, values ``(...)``.
    """

    def evaluate(self, point: Tensor) -> tuple[Tensor, Tensor]:
        """Return the value and gradient at ``point``; later Hessian products refer to this point."""

    def curvature(self, direction: Tensor) -> Tensor:
        """Return the Hessian times ``direction``."""

    def precondition(self, vector: Tensor) -> Tensor:
        """Return an approximate inverse Hessian, symmetric and positive definite, times ``vector``."""


@dataclass(frozen=True, eq=False)
class Minimum:
    """Result of a minimization.

    Attributes:
        point: Last points ``(..., P)``.
        value: Values at these points ``(...)``.
        gradient_norm: Norm of the gradient in the metric of the preconditioner, ``sqrt(g . M g)``. Half of the squared
            norm is about the distance of the value from the minimum, in any units of the parameters.
        converged: Whether the norm is within the tolerance ``(...)``.
    """

    point: Tensor
    value: Tensor
    gradient_norm: Tensor
    converged: Tensor


@torch.no_grad()
def minimize(problem: ConvexProblem, start: Tensor, *, tolerance: float = 1e-8) -> Minimum:
    """Minimize a convex problem, or a batch of problems, by Newton's method with conjugate gradients.

    Args:
        problem: Twice differentiable, with a positive definite Hessian.
        start: Float64 vectors to start from ``(..., P)``.
        tolerance: Gradient norm to reach, in the metric of the preconditioner.

    Returns:
        The last points; deterministic.
    """
    point = start
    value, gradient = problem.evaluate(point)
    preconditioned = problem.precondition(gradient)
    norm = (gradient * preconditioned).sum(dim=-1).sqrt()
    stuck = torch.zeros_like(norm, dtype=torch.bool)
    for _ in range(_MAX_STEPS):
        is_active = ~stuck & (norm > tolerance)
        if not is_active.any():
            break
        direction = _newton_direction(problem, gradient, preconditioned, norm, is_active)
        slope = (gradient * direction).sum(dim=-1)
        size = is_active.double()
        for _ in range(_MAX_HALVINGS):
            new_point = point + size.unsqueeze(-1) * direction
            new_value, new_gradient = problem.evaluate(new_point)
            # Near the minimum the value changes by less than its rounding; the full step is accepted there.
            highest = value + _ARMIJO * size * slope + _ROUNDING * value.abs()
            too_high = is_active & ~(new_value <= highest)
            if not too_high.any():
                break
            size = torch.where(too_high, size / 2, size)
        new_preconditioned = problem.precondition(new_gradient)
        new_norm = (new_gradient * new_preconditioned).sum(dim=-1).sqrt()
        # Rounding prevents any further progress where neither the value nor the gradient falls.
        stuck = stuck | too_high | (is_active & (new_value >= value) & (new_norm >= norm))
        moved = is_active & ~stuck
        moved_column = moved.unsqueeze(-1)
        point = torch.where(moved_column, new_point, point)
        gradient = torch.where(moved_column, new_gradient, gradient)
        preconditioned = torch.where(moved_column, new_preconditioned, preconditioned)
        value = torch.where(moved, new_value, value)
        norm = torch.where(moved, new_norm, norm)
    return Minimum(point, value, norm, norm <= tolerance)


def _newton_direction(
    problem: ConvexProblem, gradient: Tensor, rough: Tensor, norm: Tensor, going: Tensor
) -> Tensor:
    """Return an approximate Newton direction, solving ``H d = -gradient`` by conjugate gradients."""
    # Preconditioned conjugate gradients.
    direction = torch.zeros_like(gradient)
    residual = -gradient
    search = -rough
    size = norm.square()
    # The accuracy of the step grows as the gradient falls, which keeps the convergence faster than linear.
    goal = (norm.sqrt().clamp(max=0.1) * norm).square()
    for _ in range(_MAX_PRODUCTS):
        product = problem.curvature(search)
        step = torch.where(going, size / (search * product).sum(dim=-1), 0.0).unsqueeze(-1)
        direction = direction + step * search
        residual = residual - step * product
        rough = problem.precondition(residual)
        next_size = (residual * rough).sum(dim=-1)
        going = going & (next_size > goal)
        if not going.any():
            break
        search = rough + torch.where(going, next_size / size, 0.0).unsqueeze(-1) * search
        size = next_size
    return direction


def golden_section(
    function: Callable[[float], float], low: float, high: float, tolerance: float
) -> float:
    """Return the minimizer of a unimodal ``function`` in ``[low, high]``, by golden section search.

    Args:
        function: Evaluated once at each point.
        low: Lower end.
        high: Upper end.
        tolerance: Width of the last bracket, of which the middle is returned.
    """
    values: dict[float, float] = {}
    lower = high - _SHRINK * (high - low)
    upper = low + _SHRINK * (high - low)
    while high - low > tolerance:
        for point in (lower, upper):
            if point not in values:
                values[point] = function(point)
        if values[lower] <= values[upper]:
            high = upper
            upper = lower
            lower = high - _SHRINK * (high - low)
        else:
            low = lower
            lower = upper
            upper = low + _SHRINK * (high - low)
    return (low + high) / 2


_MAX_ROUNDS = 60
_MEMORY = 8
_MAX_BATCH_HALVINGS = 20

Evaluate = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Function of problem indices ``(b,)`` and points ``(b, P)`` that returns values ``(b,)`` and gradients ``(b, P)``."""


@torch.no_grad()
def minimize_batch(
    evaluate: Evaluate, start: Tensor, hessian_diagonal: Tensor, tolerance: float
) -> Tensor:
    """Minimize a batch of problems by limited-memory BFGS; return the points ``(B, P)``.

    Args:
        evaluate: Function to minimize; called with the indices of unsolved problems only.
        start: ``(B, P)`` float64.
        hessian_diagonal: A rough diagonal of each Hessian ``(B, P)``, above 0: the metric of the search.
        tolerance: A problem is solved where half the squared gradient in that metric, about its distance from the
            minimum, is at most this.
    """
    result = start.clone()
    active = torch.arange(len(start), device="cpu")
    point = start
    value, gradient = evaluate(active, point)
    stuck = torch.zeros_like(active, dtype=torch.bool)
    history: list[tuple[Tensor, Tensor, Tensor]] = []
    for _ in range(_MAX_ROUNDS):
        # Remove problems that are solved, or where rounding prevents progress.
        is_active = ~stuck & (
            0.5 * (gradient.square() / hessian_diagonal[active]).sum(dim=1) > tolerance
        )
        if not bool(is_active.all()):
            result[active] = point
            active = active[is_active]
            point = point[is_active]
            value = value[is_active]
            gradient = gradient[is_active]
            history = [
                (step[is_active], change[is_active], product[is_active])
                for step, change, product in history
            ]
        if not len(active):
            return result

        # A step along the quasi-Newton direction, halved where the value does not fall enough.
        direction = _lbfgs_direction(gradient, hessian_diagonal[active], history)
        expected = (gradient * direction).sum(dim=1)
        size = torch.ones_like(value)
        new_point = point + direction
        new_value, new_gradient = evaluate(active, new_point)
        for _ in range(_MAX_BATCH_HALVINGS):
            too_high = ~(new_value <= value + _ARMIJO * size * expected)
            if not bool(too_high.any()):
                break
            size[too_high] /= 2
            new_point[too_high] = (
                point[too_high] + size[too_high].unsqueeze(1) * direction[too_high]
            )
            new_value[too_high], new_gradient[too_high] = evaluate(
                active[too_high], new_point[too_high]
            )
        stuck = ~(new_value <= value)
        new_point[stuck], new_value[stuck], new_gradient[stuck] = (
            point[stuck],
            value[stuck],
            gradient[stuck],
        )
        step = new_point - point
        change = new_gradient - gradient
        history = [*history[1 - _MEMORY :], (step, change, (step * change).sum(dim=1))]
        point = new_point
        value = new_value
        gradient = new_gradient
    result[active] = point
    return result


def _lbfgs_direction(
    gradient: Tensor, hessian_diagonal: Tensor, history: list[tuple[Tensor, Tensor, Tensor]]
) -> Tensor:
    """Return the limited-memory BFGS direction, by the two-loop recursion of Nocedal (1980)."""
    direction = -gradient
    factors = []
    for step, change, product in reversed(history):
        # Skip steps without positive curvature.
        factor = torch.where(product > 0, (step * direction).sum(dim=1) / product, 0.0)
        direction = direction - factor.unsqueeze(1) * change
        factors.append(factor)
    direction = direction / hessian_diagonal
    if history:
        step, change, product = history[-1]
        size = product / (change.square() / hessian_diagonal).sum(dim=1)
        direction = direction * torch.where(product > 0, size, 1.0).unsqueeze(1)
    for (step, change, product), factor in zip(history, reversed(factors), strict=True):
        other = torch.where(product > 0, (change * direction).sum(dim=1) / product, 0.0)
        direction = direction + (factor - other).unsqueeze(1) * step
    return direction


_GAP = 0.01
_MAX_NEWTON_PARTS = 32
_MAX_NEWTON_STEPS = 50
_MIN_STEP_SIZE = 1e-3


@torch.no_grad()
def fit_mixture_weights(
    label_probs: Tensor,
    counts: Tensor,
    prior: Tensor | None = None,
    *,
    start: Tensor | None = None,
    most_steps: int = 10_000,
) -> tuple[Tensor, bool]:
    """Return the weights ``w`` that maximize ``sum_i counts_i log sum_k w_k parts_ik + sum_k prior_k log w_k``.

    A step multiplies ``w_k`` by ``d_k = (sum_i counts_i parts_ik / sum_j w_j parts_ij + prior_k / w_k) / n``, where
    ``n`` is the sum of counts and prior. The objective is concave, so its distance from the maximum is at most
    ``n (max_k d_k - 1)``, and the search stops when this bound is 0.01 nats: that is a seventh of a standard error.
    With few parts and no start, Newton's method comes first: EM alone takes thousands of steps if a weight goes to 0.

    Args:
        label_probs: Probability of the label under each part ``(N, K)``, float64, at least 0, and above 0 in one part.
        counts: Weight of each sample ``(N,)``.
        prior: Pseudo-count of each part ``(K,)``; None: 0.
        start: First weights ``(K,)``, above 0; None: equal ones.
        most_steps: Steps after which the search stops anyway.

    Returns:
        Weights ``(K,)``, float64, summing to 1; and whether the bound was reached.
    """
    prior = zeros(label_probs.shape[1]) if prior is None else prior
    weights = torch.full_like(prior, 1 / len(prior)) if start is None else start
    total = float(counts.sum() + prior.sum())
    if start is None and len(prior) <= _MAX_NEWTON_PARTS:
        weights = _newton_mixture_weights(label_probs, counts, prior, weights, total)
    for _ in range(most_steps):
        share = (weights * ((counts / (label_probs @ weights)) @ label_probs) + prior) / total
        growth = float((share / weights.clamp(min=torch.finfo(torch.float64).tiny)).max())
        weights = share / share.sum()
        if (growth - 1) * total <= _GAP:
            return weights, True
    return weights, False


def _newton_mixture_weights(
    label_probs: Tensor, counts: Tensor, prior: Tensor, weights: Tensor, total: float
) -> Tensor:
    """Return weights near the maximum, by Newton's method on a penalized objective without the sum constraint."""
    # A log barrier keeps the weights above 0; it costs a quarter of the tolerated gap.
    barrier = prior + _GAP / 4 / len(prior)

    def loss(weights: Tensor) -> float:
        return total * float(weights.sum()) - float(
            counts @ (label_probs @ weights).log() + barrier @ weights.log()
        )

    value = loss(weights)
    for _ in range(_MAX_NEWTON_STEPS):
        ratio = label_probs / (label_probs @ weights).unsqueeze(1)
        weighted = ratio * counts.unsqueeze(1)
        slope = total - weighted.sum(dim=0) - barrier / weights
        step = torch.linalg.solve(weighted.T @ ratio + (barrier / weights**2).diag(), slope)
        size = min(1.0, 0.9 / max(float((step / weights).max()), 0.9))
        while (lower := loss(weights - size * step)) > value and size > _MIN_STEP_SIZE:
            size /= 2
        if not value - lower > _GAP / 100:
            break
        weights = weights - size * step
        value = lower
    return weights / weights.sum()
