"""Plans for regressions on features: the largest one that a fit can afford."""

from __future__ import annotations

from dataclasses import dataclass, replace

RIDGES = (0.3, 3.0, 30.0, 300.0)
"""Ridge penalties of the regressions, for features of the same mean squared norm."""
LANDMARKS = 150
"""Number of landmark samples of the kernel."""


@dataclass(frozen=True)
class Plan:
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

    def cost(self, rows: int, classes: int, columns: int, parts: int) -> float:
        """Return the approximate number of operations per pass over the samples."""
        rank = min(self.rank, columns)
        problems = parts * len(self.ridges) * len(self.offsets)
        linear = problems * (1 + self.plain) * (rank + _SOFTMAX)
        return (
            min(rows, self.rows)
            * classes
            * (linear + self.kernel * problems * (LANDMARKS + _SOFTMAX))
        )


_SOFTMAX = 100
"""Cost of one softmax element, in multiplications."""
_AFFORDABLE = 2e9
_AFFORDABLE_A_LOGIT = 150.0
_PLANS = (
    Plan(),
    Plan(offsets=(1,)),
    Plan(offsets=(1,), rank=256),
    Plan(offsets=(1,), rank=256, kernel=False),
    Plan(offsets=(1,), rank=128, kernel=False, ridges=RIDGES[1:]),
    Plan(offsets=(1,), rank=128, kernel=False, ridges=RIDGES[1:], plain=False),
    Plan(offsets=(1,), rank=64, kernel=False, ridges=RIDGES[2:], plain=False),
)


def affordable(rows: int, classes: int, columns: int, parts: int) -> Plan:
    """Return the largest plan that takes seconds, or half a minute if the logits take a gigabyte."""
    most = max(_AFFORDABLE, _AFFORDABLE_A_LOGIT * rows * classes)
    for plan in _PLANS:
        if plan.cost(rows, classes, columns, parts) <= most:
            return plan
    last = _PLANS[-1]
    share = most / last.cost(rows, classes, columns, parts)
    return replace(last, rows=max(1, int(rows * share)))
