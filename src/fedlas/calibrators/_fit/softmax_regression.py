"""Penalized softmax regression ``softmax(W x + b)``, the fit of all affine calibrators."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fedlas.calibrators._fit.buffers import ones, zeros
from fedlas.calibrators._fit.rowwise import column_chunks, column_moments
from fedlas.calibrators._fit.state import require_valid

RIDGE = 0.01
"""Ridge of every parameter, divided by the number of samples: see :class:`SoftmaxRegression`."""

FREEDOM = 10.0
"""Default prior standard deviation of the diagonal, in units of the width."""

INTERCEPT_FREEDOM = 3.0
"""Prior standard deviation of the intercepts in nats, relative to that of the diagonal in widths."""

FREEDOMS = (0.03, 0.1, 0.3, 1.0, 3.0)
"""Prior standard deviations of the diagonal that cross-validation tries, see ``SoftmaxRegression``."""

# Most classes for which a diagonal problem computes the full Hessian.
_MAX_DENSE_CLASSES = 64


class AffineMap(nn.Module):
    """Affine map ``x -> W x + b`` in float64.

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
        """Return ``W x + b`` for each row of ``inputs (n, C)``."""
        scores = inputs * self.weight if self.weight.ndim == 1 else inputs @ self.weight.T
        return scores + self.bias

    def check(self, classes: int) -> None:
        """Raise ValueError for wrong shapes."""
        shapes = ((classes,), (classes, classes))
        fits = self.weight.shape in shapes and self.bias.shape == shapes[0]
        require_valid(fits, f"weight and bias must have the shapes of {classes} classes")


class DiagonalMap(AffineMap):
    """Affine map with a diagonal weight, ``x -> w x + b``."""

    def check(self, classes: int) -> None:
        """Raise ValueError for wrong shapes, or a weight that is not a diagonal."""
        super().check(classes)
        require_valid(self.weight.ndim == 1, "weight must be a diagonal")


@dataclass(frozen=True)
class Penalties:
    """ODIR: ``off_diagonal / (C (C - 1)) * sum_{i != j} W_ij^2 + intercept / C * sum_j b_j^2``, its lambda and mu.

    ``freedom`` is the prior standard deviation of the diagonal around temperature scaling, see
    :class:`SoftmaxRegression`.
    """

    off_diagonal: float | Tensor = 0.0
    intercept: float | Tensor = 0.0
    freedom: float = FREEDOM


NO_PENALTIES = Penalties()


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
        inputs: ``x (N, C)``; or ``(F, N, C)``, several regressions at once, each with its own inputs and weights.
        target: ``(N,)``.
        weights: ``(N,)`` or ``(F, N)`` float64; None: 1 each. A weight of 2 counts as a repeated sample.
        penalties: ODIR, and the freedom of the hold; none and the usual freedom by default. For several
            regressions, numbers are tensors ``(F,)``.
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
        penalties: Penalties = NO_PENALTIES,
        *,
        diagonal: bool,
        scale: float,
        width: float | None = None,
        diagonal_penalty: float | Tensor | None = None,
    ) -> None:
        inputs = inputs.cpu()
        self._target = target.cpu()
        self._weights = ones(inputs.shape[:-1]) if weights is None else weights
        self._samples = self._weights.sum(dim=-1)[..., None, None]
        mean, deviation = column_moments(inputs, self._weights)
        # A point is W and c: two rows, or W with c as its last column.
        self._diagonal = diagonal
        self._axis = -2 if diagonal else -1
        one = torch.ones_like(mean)
        self._to_bias = torch.stack([-mean, one], -2) if diagonal else _append_one(-mean)
        self._spread = RIDGE * (deviation.square().unsqueeze(-2))
        eye = one if diagonal else torch.eye(inputs.shape[-1], dtype=torch.float64, device="cpu")
        self._eye = eye.unsqueeze(-2) if diagonal else eye
        anchor = torch.stack([one, mean], -2) if diagonal else _append_column(eye, mean)
        self.start = (scale * anchor).flatten(-2)
        self._shape = anchor.shape[-2:]
        column = mean.unsqueeze(-1)
        self._columns = column_chunks(inputs, lambda columns: columns.sub_(column))
        self._small = diagonal and inputs.shape[-1] <= _MAX_DENSE_CLASSES
        self._width = scale if width is None else width
        self._diagonal_penalty = diagonal_penalty
        self._probs: list[Tensor] = []
        self._point = torch.empty(0, device="cpu")  # until the first evaluation
        self._solution: tuple[AffineMap | None, Tensor] = None, self._point
        self.set_penalties(penalties)

    def set_penalties(self, penalties: Penalties) -> None:
        """Set the penalties."""
        classes = self._shape[-2] if self._axis == -1 else self._shape[-1]
        samples = self._samples
        ridge = RIDGE + 1 / (INTERCEPT_FREEDOM * penalties.freedom) ** 2
        deviations = penalties.freedom * self._width
        # Divide twice: the square may overflow.
        diagonal_ridge = 1 / deviations / deviations / samples
        if self._diagonal_penalty is not None:
            ridge = RIDGE
            diagonal_ridge = _to_matrix_shape(2 * self._diagonal_penalty)
        off_diagonal = _to_matrix_shape(
            2 * penalties.off_diagonal / max(1, classes * (classes - 1))
        )
        on_weight = self._spread / samples + torch.where(
            self._eye == 1, diagonal_ridge, off_diagonal
        )
        on_intercept = (ridge / samples).expand_as(on_weight[..., :1, :])
        self._penalty = (
            torch.cat([on_weight, on_intercept], -2)
            if self._diagonal
            else _append_column(on_weight, on_intercept.squeeze(-2))
        )
        self._intercept = _to_matrix_shape(2 * penalties.intercept / classes)

    def to_map(self, point: Tensor, *, converged: bool) -> AffineMap:
        """Return the affine map at a point; a batch of regressions gives batched weight and bias."""
        both = point.unflatten(-1, self._shape)
        weight = both[..., 0, :] if self._diagonal else both[..., :-1]
        return AffineMap(weight, (both * self._to_bias).sum(dim=self._axis), converged)

    def to_point(self, fitted: AffineMap) -> Tensor:
        """Return the point of an affine map; a single map is repeated for a batch of regressions."""
        mean = -self._to_bias[..., 0, :] if self._diagonal else -self._to_bias[..., 0, :-1]
        if self._diagonal:
            centered = fitted.bias + fitted.weight * mean
            return torch.cat([fitted.weight.expand_as(centered), centered], -1)
        centered = fitted.bias + (fitted.weight @ mean.unsqueeze(-1)).squeeze(-1)
        weight = fitted.weight.expand(*centered.shape, centered.shape[-1])
        return _append_column(weight, centered).flatten(-2)

    def solve(self, start: AffineMap | None = None, *, tolerance: float = 1e-8) -> AffineMap:
        """Return the fitted map.

        Args:
            start: Start of the search; a nearby solution saves time and does not change the result.
            tolerance: Tolerance of the gradient, see :func:`~fedlas.calibrators._fit.minimize.minimize`.
        """
        from fedlas.calibrators._fit.minimize import minimize

        first = self.start if start is None else self.to_point(start)
        # the sums over samples are cached for the last solution
        if start is not None and start is self._solution[0]:
            first = self._solution[1]
        minimum = minimize(self, first, tolerance=tolerance)
        affine = self.to_map(minimum.point, converged=bool(minimum.converged.all()))
        self._solution = affine, minimum.point
        return affine

    def evaluate(self, point: Tensor) -> tuple[Tensor, Tensor]:
        """Return the value and gradient at ``point``; sums over samples are cached for the last point."""
        if not torch.equal(point, self._point):
            self._point = point
            self._sums = self._data_sums(point.unflatten(-1, self._shape))
        value, slope, hessian_diagonal, cross = self._sums
        samples = self._samples
        diagonal = (
            hessian_diagonal / samples + self._penalty + self._intercept * self._to_bias.square()
        )
        self.diagonal = diagonal.flatten(-2)
        if self._diagonal and not self._small:
            factor, offset = diagonal.unbind(-2)
            shift = self._intercept.squeeze(-1) * self._to_bias.prod(dim=-2)
            cross = cross / samples.squeeze(-1) + shift
            self._block = factor, offset, cross, factor * offset - cross.square()
        if self._small:
            both = self._to_bias.diag_embed().movedim(-3, -2).flatten(-2)
            ridge = self._penalty.flatten(-2).diag_embed()
            self._curvature = self._hessian / samples + ridge + self._intercept * both.mT @ both
            self._factor = torch.linalg.cholesky(self._curvature)
        difference = (point - self.start).unflatten(-1, self._shape)
        bias = (difference * self._to_bias).sum(dim=self._axis, keepdim=True)
        pull = self._penalty * difference + self._intercept * bias * self._to_bias
        value = value / samples[..., 0, 0] + (difference * pull).sum(dim=(-2, -1)) / 2
        return value, (slope / samples + pull).flatten(-2)

    def _data_sums(self, both: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return sums over samples: value, gradient, Hessian diagonal, and its factor-offset entries."""
        value = zeros(both.shape[:-2])
        slope = torch.zeros_like(both)
        hessian_diagonal = torch.zeros_like(both)
        cross = zeros(())
        hessian = zeros(())
        self._probs.clear()
        for part, columns in self._columns:
            log_probs = self._scores(both, columns).log_softmax(dim=-2)
            index = self._target[part].expand(*columns.shape[:-2], 1, -1)
            weights = self._weights[..., None, part]
            value -= (log_probs.gather(-2, index) * weights).sum(dim=(-2, -1))
            probs = log_probs.exp_()
            self._probs.append(probs)
            error = probs.scatter_add(-2, index, probs.new_full(index.shape, -1.0)).mul_(weights)
            slope += self._product(error, columns)
            if self._small:
                hessian = hessian + _diagonal_hessian(probs, columns, weights)
            else:
                spread = (probs * (1 - probs)).mul_(weights)
                hessian_diagonal += self._product(spread, columns, square=True)
                cross = cross + (spread * columns).sum(dim=-1) if self._diagonal else cross
        if self._small:
            self._hessian = hessian
            hessian_diagonal = hessian.diagonal(dim1=-2, dim2=-1).unflatten(-1, self._shape)
        return value, slope, hessian_diagonal, cross

    def _scores(self, both: Tensor, columns: Tensor) -> Tensor:
        """Return scores ``W x + c`` for columns ``x (..., C, n)``, as a new array."""
        if self._diagonal:
            return (both[..., 0, :, None] * columns).add_(both[..., 1, :, None])
        return (both[..., :-1] @ columns).add_(both[..., -1:])

    def _product(self, error: Tensor, columns: Tensor, *, square: bool = False) -> Tensor:
        """Return ``sum error x^T`` (its diagonal if ``W`` is diagonal) and ``sum error``; ``square``: of ``x^2``."""
        total = error.sum(dim=-1)
        columns = columns.square() if square else columns
        if self._diagonal:
            return torch.stack([(error * columns).sum(dim=-1), total], -2)
        return torch.cat([error @ columns.mT, total.unsqueeze(-1)], -1)

    def curvature(self, direction: Tensor) -> Tensor:
        """Return the Hessian times ``direction``."""
        if self._small:
            return (self._curvature @ direction.unsqueeze(-1)).squeeze(-1)
        both = direction.unflatten(-1, self._shape)
        product = torch.zeros_like(both)
        for (part, columns), probs in zip(self._columns, self._probs, strict=True):
            change = self._scores(both, columns)
            # These two lines multiply by diag(p) - p p^T without the (C, C) matrix of each sample.
            change -= (probs * change).sum(dim=-2, keepdim=True)
            change *= probs
            change *= self._weights[..., None, part]
            product += self._product(change, columns)
        # The mean enters the penalties through b = c - W m.
        bias = (both * self._to_bias).sum(dim=self._axis, keepdim=True)
        pull = self._penalty * both + self._intercept * bias * self._to_bias
        return (product / self._samples + pull).flatten(-2)

    def precondition(self, vector: Tensor) -> Tensor:
        """Return the approximate inverse Hessian times ``vector``; exact for small diagonal problems."""
        if self._small:
            return torch.cholesky_solve(vector.unsqueeze(-1), self._factor).squeeze(-1)
        if self._diagonal:
            factor, offset, cross, determinant = self._block
            first, second = vector.unflatten(-1, self._shape).unbind(-2)
            both = (offset * first - cross * second, factor * second - cross * first)
            return (torch.stack(both, -2) / determinant.unsqueeze(-2)).flatten(-2)
        return vector / self.diagonal


def _to_matrix_shape(value: float | Tensor) -> Tensor:
    """Return a number, or one per regression, as a tensor ``(1, 1)`` or ``(F, 1, 1)``."""
    return torch.as_tensor(value, dtype=torch.float64, device="cpu")[..., None, None]


def _append_one(vector: Tensor) -> Tensor:
    """Return the vector ``(..., C)`` with a one appended, as ``(..., 1, C + 1)``."""
    return torch.nn.functional.pad(vector, (0, 1), value=1.0).unsqueeze(-2)


def _append_column(matrix: Tensor, vector: Tensor) -> Tensor:
    """Return the matrix ``(..., C, C)`` with the vector ``(..., C)`` appended as its last column."""
    matrix = matrix.expand(*vector.shape, vector.shape[-1])
    return torch.cat([matrix, vector.unsqueeze(-1)], -1)


def _diagonal_hessian(probs: Tensor, columns: Tensor, weights: Tensor) -> Tensor:
    """Return the Hessian ``(..., 2C, 2C)`` of the negative log-likelihood in diagonal weights and intercepts."""
    scaled = probs * columns
    moments = torch.cat([scaled, probs], dim=-2)
    square, product, bias_block = (
        (each * weights).sum(dim=-1).diag_embed() for each in (scaled * columns, scaled, probs)
    )
    block_diagonal = torch.cat(
        [torch.cat([square, product], dim=-1), torch.cat([product, bias_block], dim=-1)], dim=-2
    )
    return block_diagonal - (moments * weights) @ moments.mT


def fit_bias_corrected_temperature(
    logits: Tensor,
    target: Tensor,
    weights: Tensor | None = None,
    *,
    scale: float,
    width: float,
    prior: float = 0.0,
    warm_start: AffineMap | None = None,
) -> AffineMap:
    """Fit the map ``z -> a z + b`` with a scalar ``a`` and offsets ``b (C,)``, by maximum likelihood.

    At the minimum the mean probability of each class is its share of the labels, up to the weak hold of
    :class:`SoftmaxRegression`.

    Args:
        logits: ``(N, C)``.
        target: ``(N,)``.
        weights: ``(N,)``; None: 1 each.
        scale: Factor of temperature scaling, where the search starts.
        width: As in :class:`SoftmaxRegression`.
        prior: Penalty ``prior / N`` of each squared offset, in nats. If not 0, the squared difference of the factor
            from ``scale``, in units of the width, has a penalty of ``1 / N``.
        warm_start: A map of this form as a warm start; the tolerance is then looser.
    """
    from fedlas.calibrators._fit.minimize import minimize

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
    problem = _SharedFactorProblem(regression, logits.shape[1])
    first = regression.start if warm_start is None else regression.to_point(warm_start)
    start = torch.cat([first[:1], first[logits.shape[1] :]])
    minimum = minimize(problem, start, tolerance=1e-8 if warm_start is None else 1e-3)
    return regression.to_map(problem.expand(minimum.point), converged=bool(minimum.converged))


class _SharedFactorProblem:
    """Diagonal softmax regression restricted to one common factor, as a ``ConvexProblem``."""

    def __init__(self, regression: SoftmaxRegression, classes: int) -> None:
        self._regression = regression
        self._classes = classes
        # Index of each of the ``C + C`` parameters among the ``1 + C`` reduced ones.
        self._indices = torch.arange(1 - classes, 1 + classes, device="cpu").clamp(min=0)

    def expand(self, point: Tensor) -> Tensor:
        """Return the full point ``(C + C,)`` for a reduced point ``(1 + C,)``."""
        return point[self._indices]

    def _reduce_point(self, vector: Tensor) -> Tensor:
        """Return the reduced vector ``(1 + C,)`` of a full vector: entries of the factors are summed."""
        return torch.cat([vector[: self._classes].sum().unsqueeze(0), vector[self._classes :]])

    def evaluate(self, point: Tensor) -> tuple[Tensor, Tensor]:
        """Return the value and gradient at ``point``."""
        value, gradient = self._regression.evaluate(point[self._indices])
        self._diagonal = self._reduce_point(self._regression.diagonal)
        return value, self._reduce_point(gradient)

    def curvature(self, direction: Tensor) -> Tensor:
        """Return the Hessian times ``direction``."""
        return self._reduce_point(self._regression.curvature(direction[self._indices]))

    def precondition(self, vector: Tensor) -> Tensor:
        """Return ``vector`` divided by the summed Hessian diagonal."""
        return vector / self._diagonal
