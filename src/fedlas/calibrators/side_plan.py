"""Plans for regressions on features: the largest one that a fit can afford."""

from __future__ import annotations

from dataclasses import dataclass, replace

RIDGES = (0.3, 3.0, 30.0, 300.0)
"""Ridge penalties of the regressions, for features of the same mean squared norm."""
LANDMARKS = 150
"""Number of landmark samples of the kernel."""


@dataclass(frozen=True)
class RegressionPlan:
    """Size of the regressions on features, and of the sample they are fitted to.

    Attributes:
        ridges: See :data:`RIDGES`.
        plain: Whether there are ridges for unwhitened features, in addition to whitened ones.
        kernel: Whether there are regressions on kernel features.
        offsets: Indices of the offsets, see :class:`Offsets`.
        rank: Most directions of the features.
        rows: Most rows.
    """

    ridges: tuple[float, ...] = RIDGES
    plain: bool = True
    kernel: bool = True
    offsets: tuple[int, ...] = (0, 1)
    rank: int = 512
    rows: int = 2**62

    def estimate_cost(self, rows: int, classes: int, features: int, fits: int) -> float:
        """Return the approximate number of operations per pass over the samples."""
        rank = min(self.rank, features)
        problems = fits * len(self.ridges) * len(self.offsets)
        linear = problems * (1 + self.plain) * (rank + _SOFTMAX_COST)
        return (
            min(rows, self.rows)
            * classes
            * (linear + self.kernel * problems * (LANDMARKS + _SOFTMAX_COST))
        )


_SOFTMAX_COST = 100
"""Cost of one softmax element, in multiplications."""
_MAX_COST = 2e9
_MAX_COST_PER_LOGIT = 150.0
_PLANS = (
    RegressionPlan(),
    RegressionPlan(offsets=(1,)),
    RegressionPlan(offsets=(1,), rank=256),
    RegressionPlan(offsets=(1,), rank=256, kernel=False),
    RegressionPlan(offsets=(1,), rank=128, kernel=False, ridges=RIDGES[1:]),
    RegressionPlan(offsets=(1,), rank=128, kernel=False, ridges=RIDGES[1:], plain=False),
    RegressionPlan(offsets=(1,), rank=64, kernel=False, ridges=RIDGES[2:], plain=False),
)


def choose_plan(rows: int, classes: int, features: int, fits: int) -> RegressionPlan:
    """Return the largest plan that takes seconds, or half a minute if the logits take a gigabyte."""
    max_cost = max(_MAX_COST, _MAX_COST_PER_LOGIT * rows * classes)
    for plan in _PLANS:
        if plan.estimate_cost(rows, classes, features, fits) <= max_cost:
            return plan
    last = _PLANS[-1]
    share = max_cost / last.estimate_cost(rows, classes, features, fits)
    return replace(last, rows=max(1, int(rows * share)))
