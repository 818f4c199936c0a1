"""The regression of all affine calibrators: ``softmax(W x + b)`` with quadratic penalties."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fedlas.calibrators._fit.newton import minimize
from fedlas.calibrators._fit.rowwise import Columns, column_moments
from fedlas.calibrators._fit.state import must

HOLD = 0.01
"""Weight of the hold on every parameter, divided by the number of samples: see :class:`SoftmaxRegression`."""

FREEDOM = 10.0
"""Standard deviation that the hold allows the diagonal by default, in units of the width."""

INTERCEPTS = 3.0
"""Standard deviation that it allows the intercepts, in nats, where it allows the diagonal 1."""

FREEDOMS = (0.03, 0.1, 0.3, 1.0, 3.0)
"""Freedoms of the hold that cross-validation tries, see ``SoftmaxRegression``; fits without it have more."""

# Most classes for which a diagonal problem sums the Hessian itself.
_SMALL = 64


class AffineMap(nn.Module):
    """``x -> W x + b`` in float64.

    Attributes:
        weight: ``W (C, C)``, or its diagonal ``(C,)`` if all else is 0.
        bias: ``b (C,)``.
        converged: Whether the gradient vanished where the fit ended.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, weight: Tensor, bias: Tensor, converged: bool = True) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)
        self.converged = converged

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the map of each row of ``inputs (n, C)``."""
        scores = inputs * self.weight if self.weight.ndim == 1 else inputs @ self.weight.T
        return scores + self.bias

    def check(self, classes: int) -> None:
        """Refuse numbers of other shapes."""
        shapes = ((classes,), (classes, classes))
        fits = self.weight.shape in shapes and self.bias.shape == shapes[0]
        must(fits, f"weight and bias must be those of {classes} classes")


class DiagonalMap(AffineMap):
    """``x -> w x + b``, a factor for each class."""

    def check(self, classes: int) -> None:
        """Refuse a matrix too."""
        super().check(classes)
        must(self.weight.ndim == 1, "weight must be a diagonal")


def apply_weight(weight: Tensor, columns: Tensor) -> Tensor:
    """Return ``W x`` of each column ``x`` of ``(C, n)``, or of one ``x (C,)``; ``W`` is a matrix or its diagonal."""
    return (
        weight @ columns
        if weight.ndim == 2
        else weight.reshape(-1, *[1] * (columns.ndim - 1)) * columns
    )


@dataclass(frozen=True)
class Penalties:
    """ODIR: ``off_diagonal / (C (C - 1)) * sum_{i != j} W_ij^2 + intercept / C * sum_j b_j^2``, its lambda and mu.

    ``freedom`` is how far the diagonal may differ from temperature scaling, see :class:`SoftmaxRegression`.
    """

    off_diagonal: float = 0.0
    intercept: float = 0.0
    freedom: float = FREEDOM


PRIOR_ONLY = Penalties()


class SoftmaxRegression:
    """Mean negative log-likelihood of ``softmax(W x + b)`` plus quadratic penalties, a :class:`ConvexProblem`.

    ``1/N sum_i -log softmax(W x_i + b)[y_i] + ODIR + hold``, where ODIR are the first two of :class:`Penalties`.

    The hold pulls the map toward the input times ``scale``. It has the weight of a single observation, so it does not
    affect parameters that the data determine. Without it there is no minimum where the labels can be separated, or
    where a class has no sample. ``m_j`` and ``s_j`` are mean and standard deviation of column ``j`` of ``x``, and ``c =
    b + W m`` is the intercept at the mean. The hold has two parts:

    - ``0.005/N (sum_ij s_j^2 (W_ij - scale [i = j])^2 + sum_i (c_i - scale m_i)^2)`` expects a parameter to move a
      score by about ten nats at most for each standard deviation of its input.
    - ``1/(2N) sum_j ((W_jj - scale) / (freedom width))^2 + 1/(2N) sum_i ((c_i - scale m_i) / (3 freedom))^2`` expects
      the diagonal to differ from ``scale`` by ``freedom`` widths, and intercepts by three times as many nats. The
      standard deviation of a log-probability that is mostly near 0 is small and says nothing about its tail, so the
      first part alone would allow factors that are far off.

    Args:
        inputs: ``x (N, C)``.
        target: ``(N,)``.
        weights: ``(N,)`` float64; None: 1 each. A weight of 2 counts as a repeated sample.
        penalties: ODIR, and the freedom of the hold; none and the usual freedom by default.
        diagonal: Whether ``W`` is diagonal.
        scale: The hold and the start take ``W`` as ``scale`` times the identity.
        width: See above; None: ``scale``.
        diagonal_penalty: Penalty of ``(W_jj - scale)^2`` in place of the second part of the hold; None: that part.

    Note:
        The unknowns are ``W`` and ``c``, not ``b``, so that a large offset of ``x`` costs no precision. An array of
        the size of the inputs is kept in addition, the float64 probabilities; of at most 64 MiB also the centered
        inputs.
    """

    def __init__(
        self,
        inputs: Tensor,
        target: Tensor,
        weights: Tensor | None = None,
        penalties: Penalties = PRIOR_ONLY,
        *,
        diagonal: bool,
        scale: float,
        width: float | None = None,
        diagonal_penalty: float | None = None,
    ) -> None:
        self._inputs = inputs.cpu()
        self._target = target.cpu()
        self._weights = (
            torch.ones(len(inputs), dtype=torch.float64, device="cpu")
            if weights is None
            else weights
        )
        self._probs: list[Tensor] = []
        self._small = diagonal and inputs.shape[1] <= _SMALL
        mean, self._deviation = column_moments(self._inputs, lambda rows: rows, self._weights)
        self._samples = float(self._weights.sum())
        self._mean = mean
        self._columns = Columns(self._inputs, lambda columns: columns.sub_(mean.unsqueeze(1)))
        ones = torch.ones_like(mean)
        self._anchor = scale * (ones if diagonal else torch.diag(ones))
        self._width = scale if width is None else width
        self._diagonal_penalty = diagonal_penalty
        self._point = torch.empty(0, device="cpu")  # until the first evaluation
        self._solution: tuple[AffineMap | None, Tensor] = None, self._point
        self.penalize(penalties)

    def penalize(self, penalties: Penalties) -> None:
        """Change the penalties."""
        classes = len(self._mean)
        self._intercept = 2 * penalties.intercept / classes
        self._hold = (HOLD + 1 / (INTERCEPTS * penalties.freedom) ** 2) / self._samples
        deviations = penalties.freedom * self._width
        close = 1 / deviations / deviations / self._samples  # not its square, which may overflow
        if self._diagonal_penalty is not None:
            self._hold, close = HOLD / self._samples, 2 * self._diagonal_penalty
        self._weight_penalty = HOLD / self._samples * self._deviation.square() + close
        if self._anchor.ndim == 2:
            off_diagonal = 2 * penalties.off_diagonal / max(1, classes * (classes - 1))
            eye = torch.diag(torch.ones_like(self._mean))
            self._weight_penalty = self._weight_penalty + (off_diagonal - close) * (1 - eye)

    @property
    def start(self) -> Tensor:
        """The point of the map ``x -> scale x``."""
        return torch.cat([self._anchor.flatten(), apply_weight(self._anchor, self._mean)])

    def to_map(self, point: Tensor, *, converged: bool) -> AffineMap:
        """Return the map at a point."""
        weight, centered = self._split(point)
        return AffineMap(weight, centered - apply_weight(weight, self._mean), converged)

    def to_point(self, fitted: AffineMap) -> Tensor:
        """Return the point of a map."""
        return torch.cat(
            [fitted.weight.flatten(), fitted.bias + apply_weight(fitted.weight, self._mean)]
        )

    def solve(self, start: AffineMap | None = None, *, tolerance: float = 1e-8) -> AffineMap:
        """Return the map at the minimum.

        Args:
            start: Start of the search; a nearby solution saves time and does not change the result.
            tolerance: Tolerance of the gradient, see :func:`~fedlas.calibrators._fit.newton.minimize`.
        """
        first = self.start if start is None else self.to_point(start)
        # there the sums over the samples are known
        if start is not None and start is self._solution[0]:
            first = self._solution[1]
        minimum = minimize(self, first, tolerance=tolerance)
        self._solution = self.to_map(minimum.point, converged=minimum.converged), minimum.point
        return self._solution[0]

    def evaluate(self, point: Tensor) -> tuple[float, Tensor]:
        """Return the value and gradient; where it was evaluated last, other penalties take no pass over the samples."""
        if not torch.equal(point, self._point):
            self._point, self._sums = point, self._summed(point)
        value, slope, slope_c, curve, curve_c = self._sums
        weight, centered = self._split(point)
        if self._small:
            bias_of = torch.cat([-self._mean.diag(), torch.ones_like(centered).diag()], dim=1)
            ridge = torch.cat([self._weight_penalty, torch.full_like(centered, self._hold)])
            self._curvature = (
                self._hessian / self._samples + ridge.diag() + self._intercept * bias_of.T @ bias_of
            )
            self._factor = torch.linalg.cholesky(self._curvature)
        one = torch.ones_like(curve_c)
        self.diagonal = self._with_penalties(
            curve, curve_c, one, one, self._mean.square(), one, sign=1.0
        )
        away = weight - self._anchor
        away_c = centered - apply_weight(self._anchor, self._mean)
        bias = centered - apply_weight(weight, self._mean)
        value = value / self._samples + 0.5 * float(
            (self._weight_penalty * away.square()).sum()
            + self._hold * away_c.square().sum()
            + self._intercept * bias.square().sum()
        )
        return value, self._with_penalties(
            slope, slope_c, away, away_c, self._mean, bias, sign=-1.0
        )

    def _summed(self, point: Tensor) -> tuple[float, Tensor, Tensor, Tensor, Tensor]:
        """Return sums over the samples: value, gradient, and diagonal of the Hessian as the preconditioner."""
        weight, centered = self._split(point)
        value = 0.0
        slope = torch.zeros_like(weight)
        curve = torch.zeros_like(weight)
        slope_c = torch.zeros_like(centered)
        curve_c = torch.zeros_like(centered)
        self._probs.clear()
        self._hessian = torch.zeros(
            2 * len(self._mean) if self._small else 0, dtype=torch.float64, device="cpu"
        ).diag()
        for part, columns in self._columns:
            log_probs = apply_weight(weight, columns).add_(centered.unsqueeze(1)).log_softmax(dim=0)
            index = self._target[part].unsqueeze(0)
            weights = self._weights[part]
            value -= float(log_probs.gather(0, index).squeeze(0) @ weights)
            probs = log_probs.exp_()
            self._probs.append(probs)
            error = probs.scatter_add(0, index, probs.new_full(index.shape, -1.0)).mul_(weights)
            slope += _outer(error, columns, weight)
            slope_c += error.sum(dim=1)
            if self._small:
                self._hessian += _diagonal_hessian(probs, columns, weights)
            else:
                spread = (probs * (1 - probs)).mul_(weights)
                curve += _outer(spread, columns.square(), weight)
                curve_c += spread.sum(dim=1)
        if self._small:
            curve, curve_c = self._hessian.diagonal().chunk(2)
        return value, slope, slope_c, curve, curve_c

    def curvature(self, direction: Tensor) -> Tensor:
        """Return the Hessian times ``direction``."""
        if self._small:
            return self._curvature @ direction
        weight, centered = self._split(direction)
        product = torch.zeros_like(weight)
        product_c = torch.zeros_like(centered)
        for (part, columns), probs in zip(self._columns, self._probs, strict=True):
            change = apply_weight(weight, columns).add_(centered.unsqueeze(1))
            # These two lines multiply by diag(p) - p p^T without the (C, C) matrix of each sample.
            change -= (probs * change).sum(dim=0)
            change *= probs
            change *= self._weights[part]
            product += _outer(change, columns, weight)
            product_c += change.sum(dim=1)
        bias = centered - apply_weight(weight, self._mean)
        return self._with_penalties(
            product, product_c, weight, centered, self._mean, bias, sign=-1.0
        )

    def precondition(self, vector: Tensor) -> Tensor:
        """Return ``vector`` divided by the diagonal of the Hessian, or by the Hessian itself if it is small."""
        if self._small:
            return torch.cholesky_solve(vector.unsqueeze(1), self._factor).squeeze(1)
        return vector / self.diagonal

    def _split(self, point: Tensor) -> tuple[Tensor, Tensor]:
        weights = self._anchor.numel()
        return point[:weights].view_as(self._anchor), point[weights:]

    def _with_penalties(
        self,
        weight: Tensor,
        centered: Tensor,
        away: Tensor,
        away_c: Tensor,
        mean: Tensor,
        bias: Tensor,
        *,
        sign: float,
    ) -> Tensor:
        """Return sums over samples as means, plus the penalties; the mean enters through ``b = c - W m``."""
        weight = weight / self._samples + self._weight_penalty * away
        centered = centered / self._samples + self._hold * away_c
        if self._intercept:
            weight = weight + sign * self._intercept * _outer(
                bias.unsqueeze(1), mean.unsqueeze(1), weight
            )
            centered = centered + self._intercept * bias
        return torch.cat([weight.flatten(), centered])


def _diagonal_hessian(probs: Tensor, columns: Tensor, weights: Tensor) -> Tensor:
    """Return the Hessian ``(2C, 2C)`` of the negative log-likelihood in a diagonal weight and in the intercepts."""
    moments = torch.cat([probs * columns, probs])
    square, product, plain = (
        (each @ weights).diag() for each in (moments[: len(probs)] * columns, *moments.chunk(2))
    )
    alone = torch.cat([torch.cat([square, product]), torch.cat([product, plain])], dim=1)
    return alone - (moments * weights) @ moments.T


def _outer(x: Tensor, y: Tensor, like: Tensor) -> Tensor:
    """Return ``sum_n x[:, n] y[:, n]^T``, or its diagonal if ``like`` is one."""
    return (x * y).sum(dim=1) if like.ndim == 1 else x @ y.T


def bias_corrected_temperature(
    logits: Tensor,
    target: Tensor,
    weights: Tensor | None = None,
    *,
    scale: float,
    width: float,
    prior: float = 0.0,
) -> AffineMap:
    """Return the map ``z -> a z + b`` with the lowest negative log-likelihood, ``a`` a number and ``b (C,)``.

    At the minimum the mean probability of each class is its share of the labels, up to the weak hold of
    :class:`SoftmaxRegression`.

    Args:
        logits: ``(N, C)``.
        target: ``(N,)``.
        weights: ``(N,)``; None: 1 each.
        scale: Factor of temperature scaling, where the search starts.
        width: As in :class:`SoftmaxRegression`.
        prior: Penalty ``prior / N`` of the square of each offset, in nats. Unless 0, there is one of ``1 / N`` of
            the square of the factor's difference from ``scale``, in units of the width, too.
    """
    samples = len(target) if weights is None else float(weights.sum())
    regression = SoftmaxRegression(
        logits,
        target,
        weights,
        Penalties(intercept=prior * logits.shape[1] / samples),
        diagonal=True,
        scale=scale,
        width=width,
        diagonal_penalty=1 / (samples * logits.shape[1]) / width / width if prior else None,
    )
    problem = _OneFactor(regression, logits.shape[1])
    start = torch.cat([regression.start[:1], regression.start[logits.shape[1] :]])
    minimum = minimize(problem, start)
    return regression.to_map(problem.expand(minimum.point), converged=minimum.converged)


class _OneFactor:
    """A regression with a factor for each class, on the points where all factors are equal; a ``ConvexProblem``."""

    def __init__(self, regression: SoftmaxRegression, classes: int) -> None:
        self._regression = regression
        self._classes = classes

    def expand(self, point: Tensor) -> Tensor:
        """Map ``(1 + C,)`` to ``(C + C,)``."""
        return torch.cat([point[:1].expand(self._classes), point[1:]])

    def _summed(self, vector: Tensor) -> Tensor:
        """Return the transpose of :meth:`expand`."""
        return torch.cat([vector[: self._classes].sum().unsqueeze(0), vector[self._classes :]])

    def evaluate(self, point: Tensor) -> tuple[float, Tensor]:
        """Return the value and gradient."""
        value, gradient = self._regression.evaluate(self.expand(point))
        return value, self._summed(gradient)

    def curvature(self, direction: Tensor) -> Tensor:
        """Return the Hessian times ``direction``."""
        return self._summed(self._regression.curvature(self.expand(direction)))

    def precondition(self, vector: Tensor) -> Tensor:
        """Return ``vector`` divided by sums of the diagonal of the Hessian."""
        return vector / self._summed(self._regression.diagonal)
