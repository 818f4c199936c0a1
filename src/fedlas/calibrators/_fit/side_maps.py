"""Side information in a fitted mixture: bases of features, offsets, residual regressions, the gate, and their fit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from fedlas.calibrators._fit.minimize import minimize_all
from fedlas.calibrators._fit.state import Numbers, must, zeros

_CHUNK = 2**21
"""Scores of a chunk of rows: 16 MiB."""
_NEAR = 1e-2
"""Nats by which the penalized likelihood of all samples may miss its maximum."""
_FLOOR = 1e-3
"""Least spread ``p (1 - p)`` of a class in the metric of the search."""


Regressions = tuple[Tensor, Tensor, Tensor]
"""Factors ``a (B,)``, weights ``U (B, R, C)`` and offsets ``c (B, C)`` of ``softmax(e^a o + x U + c)``."""


def residual_log_probs(fits: Regressions, inputs: Tensor, offsets: Tensor) -> Tensor:
    """Return log-probabilities ``(n, B, C)`` of inputs ``x (n, R)`` and offsets ``o (n, B, C)``."""
    factor, weight, bias = fits
    product = inputs @ weight.transpose(0, 1).flatten(1)
    scores = product.unflatten(1, bias.shape) + bias
    return (scores + factor.exp().unsqueeze(1) * offsets).log_softmax(dim=2)


@dataclass(frozen=True, eq=False)
class ResidualProblem:
    """The penalized likelihood of regressions that share their inputs: a problem for each ridge, offset and part.

    Each minimizes ``sum_i w_i -log p_i[y_i] + 1/2 sum_rk ridge_r U_rk^2 + bias_ridge/2 |c|^2 + a^2/2``, from 0.

    Attributes:
        inputs: ``x (N, R)``: centered and uncorrelated columns, float64.
        spread: Variance of each column ``(R,)``.
        log_probs: ``(N, C)``.
        factors: ``(F, K, N)``; offset k of part f is ``o = factors[f, k] log_probs``.
        target: ``(N,)``.
        weights: ``w (F, N)``: of the samples of each part.
        ridges: ``(L, R)``.
        bias_ridge: Above 0.
    """

    inputs: Tensor
    spread: Tensor
    log_probs: Tensor
    factors: Tensor
    target: Tensor
    weights: Tensor
    ridges: Tensor
    bias_ridge: float

    def solve(self) -> Regressions:
        """Return the regressions at their minima; problem ``(f K + k) L + l`` is part f, offset k and ridge l."""
        which = self.problems()
        part, offset, ridge = which
        classes = self.log_probs.shape[1]
        rank = self.inputs.shape[1]
        start = zeros(len(part), 1 + classes + rank * classes)
        curvature = self._curvature(part, offset, ridge)
        point = minimize_all(
            lambda left, point: self._evaluate(which[:, left], point), start, curvature, _NEAR
        )
        return self._split(point)

    def problems(self) -> Tensor:
        """Return numbers of part, offset and ridge of each problem ``(3, B)``."""
        count = len(self.weights), self.factors.shape[1], len(self.ridges)
        ranges = [torch.arange(each, device="cpu") for each in count]
        return torch.stack([grid.flatten() for grid in torch.meshgrid(*ranges, indexing="ij")])

    def chunks(self, problems: int) -> Iterator[slice]:
        """Yield slices of the rows of which the scores of all problems fit the cache."""
        rows = max(1, _CHUNK // max(1, problems * self.log_probs.shape[1]))
        for first in range(0, len(self.target), rows):
            yield slice(first, first + rows)

    def _split(self, point: Tensor) -> Regressions:
        classes = self.log_probs.shape[1]
        weight = point[:, 1 + classes :].view(len(point), -1, classes)
        return point[:, 0], weight, point[:, 1 : 1 + classes]

    def _evaluate(self, which: Tensor, point: Tensor) -> tuple[Tensor, Tensor]:
        part, offset, ridge = which
        fits = self._split(point)
        factor, weight, bias = fits

        # The penalties.
        slope_u = self.ridges[ridge].unsqueeze(2) * weight
        slope_c = self.bias_ridge * bias
        slope_a = factor.clone()
        value = (weight * slope_u).sum(dim=(1, 2)) + (bias * slope_c).sum(dim=1) + factor.square()
        value /= 2

        # The likelihood.
        for rows in self.chunks(len(point)):
            inputs = self.inputs[rows]
            offsets = self._offsets(rows, part, offset)
            weights = self.weights[part, rows].T
            target = self.target[rows]
            log_probs = residual_log_probs(fits, inputs, offsets)
            index = target.view(-1, 1, 1).expand(-1, len(point), 1)
            value -= (log_probs.gather(2, index).squeeze(2) * weights).sum(dim=0)
            error = log_probs.exp_().scatter_add_(
                2, index, -torch.ones_like(index, dtype=torch.float64)
            )
            error *= weights.unsqueeze(2)
            product = inputs.T @ error.view(len(error), -1)
            slope_u += product.unflatten(1, bias.shape).transpose(0, 1)
            slope_c += error.sum(dim=0)
            slope_a += factor.exp() * (error * offsets).sum(dim=(0, 2))
        return value, torch.cat([slope_a.unsqueeze(1), slope_c, slope_u.flatten(1)], dim=1)

    def _offsets(self, rows: slice, part: Tensor, offset: Tensor) -> Tensor:
        """Return the offsets of problems ``(n, b, C)``."""
        return self.log_probs[rows].unsqueeze(1) * self.factors[part, offset, rows].T.unsqueeze(2)

    def _curvature(self, part: Tensor, offset: Tensor, ridge: Tensor) -> Tensor:
        """Return a rough diagonal of the Hessian at 0, as if inputs and probabilities were independent."""
        # The parts hardly differ in this: the first one, of all samples, stands for them.
        first = torch.arange(self.factors.shape[1], device="cpu")
        spread_c = zeros(len(first), self.log_probs.shape[1])
        spread_a = zeros(len(first))
        for rows in self.chunks(len(first)):
            offsets = self._offsets(rows, 0 * first, first)
            weights = self.weights[0, rows]
            probs = offsets.softmax(dim=2)
            spread_c += torch.tensordot(weights, probs * (1 - probs), dims=1)
            mean = (probs * offsets).sum(dim=2, keepdim=True)
            spread_a += weights @ (probs * (offsets - mean).square()).sum(dim=2)
        total = self.weights.sum(dim=1)
        share = (total / total[0])[part].unsqueeze(1)
        spread_c = spread_c.clamp(min=_FLOOR * float(total[0]))[offset] * share
        weight = spread_c.unsqueeze(1) * self.spread.unsqueeze(1) + self.ridges[ridge].unsqueeze(2)
        factor = spread_a[offset].unsqueeze(1) * share + 1
        return torch.cat([factor, spread_c + self.bias_ridge, weight.flatten(1)], dim=1)


_CLIP = 8.0
"""Standardized features are clipped here."""
_TOP = 5
"""Largest log-probabilities that the adaptive temperature depends on."""
_LEAST_LOG = -20.0
NORM = 30.0
"""Mean squared norm of the features in every basis, so that one path of ridges suits all."""
_ONE_GROUP = NORM**-0.5
"""An indicator of a group is 1 times this number's inverse in its direction."""


class LinearBasis(Numbers):
    """Standardized, clipped features in uncorrelated directions, the widest first; then indicators of groups.

    Attributes:
        mean: ``(D,)``.
        scale: Unit of each column ``(D,)``.
        rotation: ``(D, R)``.
        center: Mean after the rotation ``(R,)``.
        groups: How many of the directions are indicators of groups, 0 in a row of none ``()``.
    """

    shapes: ClassVar = {"mean": "D", "scale": "D", "rotation": "DR", "center": "R", "groups": ""}

    def __init__(self, **numbers: Tensor) -> None:
        super().__init__(**numbers)
        self.split = len(self.center) - int(self.groups)

    def check(self, classes: int) -> None:
        """Refuse more groups than directions too."""
        super().check(classes)
        must(0 <= self.split <= len(self.center), "groups must be directions")

    def forward(self, features: Tensor) -> Tensor:
        """Return directions ``(n, R)`` of features ``(n, D)``."""
        standard = ((features - self.mean) / self.scale).clamp(-_CLIP, _CLIP)
        return standard @ self.rotation - self.center


class KernelBasis(Numbers):
    """Nystroem features of a Gaussian kernel, in uncorrelated directions.

    Attributes:
        linear: The features that distances are measured in.
        landmarks: ``(L, R)``.
        width: Twice the squared bandwidth ``()``.
        rotation: ``(L, Q)``.
        center: ``(Q,)``.
    """

    shapes: ClassVar = {"landmarks": "LR", "width": "", "rotation": "LQ", "center": "Q"}

    def forward(self, directions: Tensor) -> Tensor:
        """Return kernel features ``(n, Q)`` of directions ``(n, R)``, whatever the group."""
        return gaussian(directions, self.landmarks, self.width) @ self.rotation - self.center


def gaussian(directions: Tensor, landmarks: Tensor, width: Tensor) -> Tensor:
    """Return Gaussian kernels of each direction and landmark."""
    return (-squared_distances(directions, landmarks) / width).exp()


def squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """Return the squared distance of each row of ``x`` to each of ``y``."""
    square = x.square().sum(dim=1, keepdim=True) + y.square().sum(dim=1) - 2 * x @ y.T
    return square.clamp(min=0)


class Offsets(Numbers):
    """Log-probabilities at one temperature, and at a temperature that depends on the sample.

    The second is ``z / T e^(b s)``, where ``s`` are the largest log-probabilities, their entropy and the logarithm of
    the features' norm, standardized and clipped, and the indicators of groups.

    Attributes:
        temperature: ``T ()``.
        mean: Mean of ``s``, ``(S,)``.
        deviation: Standard deviation of ``s``, ``(S,)``.
        coefficients: ``b (S,)``.
    """

    shapes: ClassVar = {"temperature": "", "mean": "S", "deviation": "S", "coefficients": "S"}

    def scaled(self, rows: Tensor) -> Tensor:
        """Return log-probabilities at the one temperature ``(n, C)``."""
        return (rows / self.temperature).log_softmax(dim=1)

    def standard(self, log_probs: Tensor, directions: Tensor, groups: Tensor) -> Tensor:
        """Return ``s (n, S)`` of log-probabilities at the one temperature, directions and indicators."""
        signs = sample_signs(log_probs, directions, groups)
        return ((signs - self.mean) / self.deviation).clamp(-4.0, 4.0)

    def forward(self, rows: Tensor, directions: Tensor, groups: Tensor) -> tuple[Tensor, Tensor]:
        """Return log-probabilities at the one temperature ``(n, C)``, and the factors 1 and ``e^(b s)`` ``(n, 2)``."""
        log_probs = self.scaled(rows)
        factor = (self.standard(log_probs, directions, groups) * self.coefficients).sum(dim=1).exp()
        return log_probs, torch.stack([torch.ones_like(factor), factor], dim=1)


def sample_signs(log_probs: Tensor, directions: Tensor, groups: Tensor) -> Tensor:
    """Return the largest log-probabilities, the entropy, the log of the features' norm, and groups ``(n, S)``."""
    log_p = log_probs.clamp(min=_LEAST_LOG)
    top = log_p.topk(min(_TOP, log_p.shape[1]), dim=1).values
    entropy = -(log_p.exp() * log_p).sum(dim=1, keepdim=True)
    norm = (directions.square().sum(dim=1, keepdim=True) + 1e-12).log() / 2
    return torch.cat([top, entropy, norm, groups * _ONE_GROUP], dim=1)


class Gate(Numbers):
    """How far features resemble those of validation: ``trust`` inside, and falling to 0 with the distance.

    Attributes:
        precision: Inverse variance of each direction ``(R,)``.
        edge: Squared distance from the center of nearly all validation samples ``()``.
        trust: The gate inside ``()``, at most 0.95; the rest bounds a rare large loss.
    """

    shapes: ClassVar = {"precision": "R", "edge": "", "trust": ""}

    def forward(self, directions: Tensor) -> Tensor:
        """Return the gate ``(n, 1)`` of directions ``(n, R)``."""
        distance = (directions.square() * self.precision).sum(dim=1, keepdim=True)
        return (self.edge / distance.clamp(min=1e-12)).clamp(max=1.0).square() * self.trust


_STEEPNESS = 8.0
"""Power of the distance with which the gate falls beyond the ends of a range."""


class Ranges(Numbers):
    """How far a row lies along its farthest column or direction, where nearly all validation samples are within 1.

    The squared distance of :class:`Gate` adds up all directions, and so hides one that has moved among many.

    Attributes:
        columns: Inverse reach of each column from its mean ``(D,)``; 0 where it does not count.
        directions: Inverse reach of each direction ``(R,)``; 0 where it does not count.
    """

    shapes: ClassVar = {"columns": "D", "directions": "R"}

    def check(self, classes: int) -> None:
        """Refuse a reach below 0 too."""
        super().check(classes)
        must((self.columns >= 0).all() and (self.directions >= 0).all(), "a reach is above 0")

    def by_column(self, deviations: Tensor) -> Tensor:
        """Return the distances ``(n, D)`` of deviations from the means ``(n, D)``."""
        return deviations.abs() * self.columns

    def forward(self, deviations: Tensor, directions: Tensor) -> Tensor:
        """Return the largest distance ``(n, 1)`` of deviations from the means ``(n, D)`` and directions ``(n, R)``."""
        distances = [self.by_column(deviations), directions.abs() * self.directions]
        return torch.cat(distances, dim=1).amax(dim=1, keepdim=True)


class ResidualStack(Numbers):
    """Residual regressions of one basis.

    Attributes:
        factor: ``a (K,)``.
        weight: ``U (K, R, C)``.
        bias: ``c (K, C)``.
        offset: Number of the offset of each ``(K,)`` int64.
    """

    shapes: ClassVar = {"factor": "K", "weight": "KRC", "bias": "KC", "offset": "K"}

    def forward(self, inputs: Tensor, log_probs: Tensor, factors: Tensor) -> Tensor:
        """Return log-probabilities ``(n, K, C)`` of inputs ``(n, R)``, log-probabilities ``(n, C)`` and factors."""
        offsets = log_probs.unsqueeze(1) * factors.index_select(1, self.offset).unsqueeze(2)
        return residual_log_probs((self.factor, self.weight, self.bias), inputs, offsets)

    def only(self, chosen: list[int]) -> ResidualStack:
        """Return the stack of these regressions alone."""
        return ResidualStack(**{name: each[chosen] for name, each in self.named_buffers()})


class SideInformation(nn.Module):
    """Log-probabilities of residual regressions on features, and how far the features are to be trusted.

    Attributes:
        linear: Directions of the features.
        kernel: Kernel features of these, or None.
        offsets: The offsets.
        gate: See :class:`Gate`.
        linear_stack: The regressions on the directions, or None.
        kernel_stack: The regressions on the kernel features, or None.
        ranges: See :class:`Ranges`; None in files from before it was there.
    """

    has_steps = True
    parts: ClassVar = {
        "linear": LinearBasis,
        "kernel": KernelBasis,
        "offsets": Offsets,
        "gate": Gate,
        "linear_stack": ResidualStack,
        "kernel_stack": ResidualStack,
        "ranges": Ranges,
    }

    def __init__(
        self,
        linear: LinearBasis,
        offsets: Offsets,
        gate: Gate,
        kernel: KernelBasis | None = None,
        linear_stack: ResidualStack | None = None,
        kernel_stack: ResidualStack | None = None,
        ranges: Ranges | None = None,
    ) -> None:
        super().__init__()
        self.linear = linear
        self.kernel = kernel
        self.offsets = offsets
        self.gate = gate
        self.linear_stack = linear_stack
        self.kernel_stack = kernel_stack
        self.ranges = ranges

    @property
    def counts(self) -> tuple[int, int]:
        """How many regressions there are on directions, and on kernel features."""
        first, second = (
            0 if stack is None else len(stack.factor)
            for stack in (self.linear_stack, self.kernel_stack)
        )
        return first, second

    def forward(self, rows: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return log-probabilities ``(n, K, C)`` of logits and features ``(n, D)``, and the gate ``(n, 1)``."""
        directions = self.linear(features)
        numbers = directions[:, : self.linear.split]
        log_probs, factors = self.offsets(rows, numbers, directions[:, self.linear.split :])
        parts = []
        if self.linear_stack is not None:
            parts.append(self.linear_stack(directions, log_probs, factors))
        if self.kernel_stack is not None and self.kernel is not None:
            parts.append(self.kernel_stack(self.kernel(numbers), log_probs, factors))
        return torch.cat(parts, dim=1), self._trust(features, directions)

    def _trust(self, features: Tensor, directions: Tensor) -> Tensor:
        """Return the gate ``(n, 1)``: by the distance in all directions together, and along the farthest one."""
        gate: Tensor = self.gate(directions)
        if self.ranges is None:
            return gate
        farthest = self.ranges(features - self.linear.mean, directions)
        return gate * farthest.clamp(min=1.0) ** -_STEEPNESS

    def is_beyond(self, features: Tensor) -> Tensor:
        """Return which rows ``(n,)`` of features ``(n, D)`` lie where the gate falls."""
        trust = self._trust(features, self.linear(features))
        return (trust < self.gate.trust * (1 - 1e-9)).squeeze(1)

    def farthest_columns(self, features: Tensor) -> Tensor:
        """Return the number of the column ``(n,)`` in which each row lies farthest out; -1 where none is."""
        if self.ranges is None:
            return torch.full((len(features),), -1, device="cpu")
        distance, column = self.ranges.by_column(features - self.linear.mean).max(dim=1)
        return torch.where(distance > 1, column, -1)

    def only(self, chosen: list[int]) -> SideInformation:
        """Return the module with these regressions alone."""
        first = self.counts[0]
        linear = [number for number in chosen if number < first]
        kernel = [number - first for number in chosen if number >= first]
        return SideInformation(
            self.linear,
            self.offsets,
            self.gate,
            self.kernel if kernel else None,
            self.linear_stack.only(linear) if self.linear_stack is not None and linear else None,
            self.kernel_stack.only(kernel) if self.kernel_stack is not None and kernel else None,
            self.ranges,
        )
