"""Modules of a fitted mixture with features: feature bases, offsets, residual regressions and the gate."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from fedlas.calibrators._fit.buffers import BufferModule
from fedlas.calibrators._fit.residuals import Inputs, residual_log_probs
from fedlas.calibrators._fit.state import require_valid

_MAX_STANDARDIZED = 8.0
"""Standardized features are clipped here."""
_NUM_TOP = 5
"""Largest log-probabilities that the adaptive temperature depends on."""
_MIN_LOG_PROB = -20.0
MEAN_SQUARED_NORM = 30.0
"""Mean squared norm of the features in every basis, so that one path of ridges suits all."""
INDICATOR_VALUE = MEAN_SQUARED_NORM**0.5
"""Value of a group indicator in place of 1."""


class LinearBasis(BufferModule):
    """Standardized, clipped features projected on principal directions, followed by group indicators.

    Attributes:
        mean: ``(D,)``.
        scale: Unit of each column ``(D,)``.
        rotation: ``(D, R)``.
        center: Mean after the rotation ``(R,)``.
        groups: Number of directions that are group indicators ``()``.
    """

    shapes: ClassVar = {"mean": "D", "scale": "D", "rotation": "DR", "center": "R", "groups": ""}

    def __init__(self, **numbers: Tensor) -> None:
        super().__init__(**numbers)
        self.split = len(self.center) - int(self.groups)

    def check(self, classes: int) -> None:
        """Raise ValueError for wrong shapes, or more groups than directions."""
        super().check(classes)
        require_valid(
            0 <= self.split <= len(self.center),
            "groups must be between 0 and the number of directions",
        )

    def forward(self, features: Tensor) -> Tensor:
        """Return the directions ``(n, R)`` of features ``(n, D)``."""
        standard = ((features - self.mean) / self.scale).clamp(
            -_MAX_STANDARDIZED, _MAX_STANDARDIZED
        )
        return standard @ self.rotation - self.center


class Codes(BufferModule):
    """Encoder of categorical feature columns; values outside the known codes count as unknown.

    Attributes:
        levels: Number of values of each categorical column ``(D,)`` int64; 0 for numeric columns.
        coefficients: Contribution of each value to the log factor of the sample-dependent temperature ``(S,)``.
    """

    shapes: ClassVar = {"levels": "D", "coefficients": "S"}

    def __init__(self, **numbers: Tensor) -> None:
        super().__init__(**numbers)
        # Known when a layer is exported, where a mask would depend on data.
        columns = (self.levels.flatten() > 0).nonzero().flatten()
        sizes = self.levels.flatten()[columns]
        for name, value in (
            ("columns", columns),
            ("sizes", sizes),
            ("starts", sizes.cumsum(0) - sizes),
        ):
            self.register_buffer(name, value, persistent=False)

    def check(self, classes: int) -> None:
        """Raise ValueError for wrong shapes, or coefficients that do not match the levels."""
        super().check(classes)
        fits = bool((self.levels >= 0).all()) and int(self.levels.sum()) == len(self.coefficients)
        require_valid(
            self.levels.dtype == torch.int64 and fits,
            "levels must sum to the number of coefficients",
        )

    def forward(self, features: Tensor) -> Tensor:
        """Return the one-hot index of each category's value ``(n, G)``; the last index stands for unknown values."""
        values = features.index_select(1, self.columns)
        is_known = (values >= 0) & (values < self.sizes)
        places = values.clamp(min=0).long() + self.starts
        return torch.where(is_known, places, len(self.coefficients))

    def factor(self, places: Tensor) -> Tensor:
        """Return the sum of the coefficients of each row, a log factor of the temperature ``(n,)``."""
        return pad(self.coefficients, (0, 1))[places].sum(dim=1)


class KernelBasis(BufferModule):
    """Nystroem features of a Gaussian kernel, projected on principal directions.

    Attributes:
        linear: The features that distances are measured in.
        landmarks: ``(L, R)``.
        width: Twice the squared bandwidth ``()``.
        rotation: ``(L, Q)``.
        center: ``(Q,)``.
    """

    shapes: ClassVar = {"landmarks": "LR", "width": "", "rotation": "LQ", "center": "Q"}

    def forward(self, directions: Tensor) -> Tensor:
        """Return kernel features ``(n, Q)`` of directions ``(n, R)``."""
        return gaussian_kernel(directions, self.landmarks, self.width) @ self.rotation - self.center


def gaussian_kernel(directions: Tensor, landmarks: Tensor, width: Tensor) -> Tensor:
    """Return the Gaussian kernel between each direction and each landmark."""
    return (-squared_distances(directions, landmarks) / width).exp()


def squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """Return the squared Euclidean distance between each row of ``x`` and each row of ``y``."""
    square = x.square().sum(dim=1, keepdim=True) + y.square().sum(dim=1) - 2 * x @ y.T
    return square.clamp(min=0)


class Offsets(BufferModule):
    """Log-probabilities at a fixed temperature, and a factor for a sample-dependent temperature.

    With the factor, logits become ``z / T e^(b s)``; the statistics ``s`` are the largest log-probabilities, the
    entropy and the log feature norm, standardized and clipped, and the group indicators.

    Attributes:
        temperature: ``T ()``.
        mean: Mean of ``s``, ``(S,)``.
        deviation: Standard deviation of ``s``, ``(S,)``.
        coefficients: ``b (S,)``.
    """

    shapes: ClassVar = {"temperature": "", "mean": "S", "deviation": "S", "coefficients": "S"}

    def scale_log_probs(self, rows: Tensor) -> Tensor:
        """Return log-probabilities at the fixed temperature ``(n, C)``."""
        return (rows / self.temperature).log_softmax(dim=1)

    def standardized_statistics(
        self, log_probs: Tensor, directions: Tensor, groups: Tensor
    ) -> Tensor:
        """Return standardized sample statistics ``(n, S)`` of log-probabilities, directions and group indicators."""
        signs = sample_statistics(log_probs, directions, groups)
        return ((signs - self.mean) / self.deviation).clamp(-4.0, 4.0)

    def forward(
        self,
        rows: Tensor,
        directions: Tensor,
        groups: Tensor,
        category_log_factor: Tensor | float = 0.0,
    ) -> tuple[Tensor, Tensor]:
        """Return log-probabilities at the fixed temperature ``(n, C)``, and the factors 1 and ``e^(b s)`` ``(n, 2)``.

        Args:
            rows: Logits ``(n, C)``.
            directions: Features along the directions ``(n, R)``.
            groups: Indicators of groups ``(n, G)``.
            category_log_factor: Contribution of categories to ``b s`` ``(n,)``.
        """
        log_probs = self.scale_log_probs(rows)
        statistics = self.standardized_statistics(log_probs, directions, groups)
        factor = ((statistics * self.coefficients).sum(dim=1) + category_log_factor).exp()
        return log_probs, torch.stack([torch.ones_like(factor), factor], dim=1)


def sample_statistics(log_probs: Tensor, directions: Tensor, groups: Tensor) -> Tensor:
    """Return sample statistics ``(n, S)``: largest log-probabilities, entropy, log feature norm, group indicators."""
    log_p = log_probs.clamp(min=_MIN_LOG_PROB)
    top = log_p.topk(min(_NUM_TOP, log_p.shape[1]), dim=1).values
    entropy = -(log_p.exp() * log_p).sum(dim=1, keepdim=True)
    norm = (directions.square().sum(dim=1, keepdim=True) + 1e-12).log() / 2
    return torch.cat([top, entropy, norm, groups / INDICATOR_VALUE], dim=1)


class Gate(BufferModule):
    """Trust in the regressions by distance: ``trust`` near the validation features, falling to 0 far away.

    Attributes:
        precision: Inverse variance of each direction ``(R,)``.
        edge: Squared distance from the center of nearly all validation samples ``()``.
        trust: The gate inside ``()``, at most 0.95; the rest bounds a rare large loss.
    """

    shapes: ClassVar = {"precision": "R", "edge": "", "trust": ""}

    def forward(self, directions: Tensor) -> Tensor:
        """Return the gate ``(n, 1)`` for directions ``(n, R)``."""
        distance = (directions.square() * self.precision).sum(dim=1, keepdim=True)
        return (self.edge / distance.clamp(min=1e-12)).clamp(max=1.0).square() * self.trust


class Unseen(BufferModule):
    """Trust in the regressions for rows with category values that the fit did not see.

    Attributes:
        trust: A factor of the gate for each category ``(G,)``, 0 to 1.
    """

    shapes: ClassVar = {"trust": "G"}

    def check(self, classes: int) -> None:
        """Raise ValueError for wrong shapes, or a trust outside 0 to 1."""
        super().check(classes)
        require_valid(((self.trust >= 0) & (self.trust <= 1)).all(), "trust must be in [0, 1]")

    def forward(self, is_unseen: Tensor) -> Tensor:
        """Return the trust factor ``(n, 1)``, for a mask of the unseen values of each category ``(n, G)``."""
        return torch.where(is_unseen, self.trust, 1.0).prod(dim=1, keepdim=True)


_GATE_POWER = 8.0
"""Power of the distance with which the gate falls beyond the ends of a range."""


class Ranges(BufferModule):
    """Ranges of columns and directions; distances are scaled so that nearly all validation samples are within 1.

    The distance of :class:`Gate` sums over all directions, and so hides a shift in a single one.

    Attributes:
        columns: Inverse range of each column around its mean ``(D,)``; 0: the column is ignored.
        directions: Inverse range of each direction ``(R,)``; 0: the direction is ignored.
    """

    shapes: ClassVar = {"columns": "D", "directions": "R"}

    def check(self, classes: int) -> None:
        """Raise ValueError for wrong shapes, or a negative inverse range."""
        super().check(classes)
        require_valid(
            (self.columns >= 0).all() and (self.directions >= 0).all(),
            "inverse ranges must be at least 0",
        )

    def column_distances(self, deviations: Tensor) -> Tensor:
        """Return the scaled distances ``(n, D)`` of deviations from the column means ``(n, D)``."""
        return deviations.abs() * self.columns

    def forward(self, deviations: Tensor, directions: Tensor) -> Tensor:
        """Return the largest scaled distance ``(n, 1)``, for column deviations ``(n, D)`` and directions ``(n, R)``."""
        distances = [self.column_distances(deviations), directions.abs() * self.directions]
        return torch.cat(distances, dim=1).amax(dim=1, keepdim=True)


class ResidualStack(BufferModule):
    """Fitted residual regressions on one basis.

    Attributes:
        factor: ``a (K,)``.
        weight: ``U (K, R, C)``.
        bias: ``c (K, C)``.
        offset: Index of the offset of each regression ``(K,)`` int64.
    """

    shapes: ClassVar = {"factor": "K", "weight": "KRC", "bias": "KC", "offset": "K"}

    def forward(self, inputs: Inputs, log_probs: Tensor, factors: Tensor) -> Tensor:
        """Return log-probabilities ``(n, K, C)``, for inputs ``(n, R)``, log-probabilities ``(n, C)`` and factors."""
        offsets = log_probs.unsqueeze(1) * factors.index_select(1, self.offset).unsqueeze(2)
        return residual_log_probs((self.factor, self.weight, self.bias), inputs, offsets)

    def select(self, chosen: list[int]) -> ResidualStack:
        """Return the stack with only the regressions of the given indices."""
        return ResidualStack(**{name: each[chosen] for name, each in self.named_buffers()})


class SideInformation(nn.Module):
    """Residual regressions on features, with a gate for features unlike those of validation.

    Attributes:
        linear: Directions of the features.
        kernel: Kernel features of these, or None.
        offsets: The offsets.
        gate: See :class:`Gate`.
        linear_stack: The regressions on the directions, or None.
        kernel_stack: The regressions on the kernel features, or None.
        ranges: See :class:`Ranges`; None in older files.
        codes: See :class:`Codes`; None without categorical columns.
        unseen: See :class:`Unseen`; None without categorical columns, and in older files.
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
        "codes": Codes,
        "unseen": Unseen,
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
        codes: Codes | None = None,
        unseen: Unseen | None = None,
    ) -> None:
        super().__init__()
        self.linear = linear
        self.kernel = kernel
        self.offsets = offsets
        self.gate = gate
        self.linear_stack = linear_stack
        self.kernel_stack = kernel_stack
        self.ranges = ranges
        self.codes = codes
        self.unseen = unseen

    @property
    def counts(self) -> tuple[int, int]:
        """Number of regressions on directions, and number on kernel features."""
        first, second = (
            0 if stack is None else len(stack.factor)
            for stack in (self.linear_stack, self.kernel_stack)
        )
        return first, second

    def forward(self, rows: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return log-probabilities ``(n, K, C)`` and the gate ``(n, 1)``, for logits and features ``(n, D)``."""
        directions = self.linear(features)
        numbers = directions[:, : self.linear.split]
        inputs = Inputs(directions)
        category_log_factor: Tensor | float = 0.0
        gate = self._gate_values(features, directions)
        if self.codes is not None:
            codes = self.codes(features)
            category_log_factor = self.codes.factor(codes)
            size = len(self.codes.coefficients)
            inputs = Inputs(directions, codes, size, INDICATOR_VALUE)
            gate = gate if self.unseen is None else gate * self.unseen(codes == size)
        log_probs, factors = self.offsets(
            rows, numbers, directions[:, self.linear.split :], category_log_factor
        )
        parts = []
        if self.linear_stack is not None:
            parts.append(self.linear_stack(inputs, log_probs, factors))
        if self.kernel_stack is not None and self.kernel is not None:
            parts.append(self.kernel_stack(Inputs(self.kernel(numbers)), log_probs, factors))
        return torch.cat(parts, dim=1), gate

    def _gate_values(self, features: Tensor, directions: Tensor) -> Tensor:
        """Return the gate ``(n, 1)``, by the distance over all directions and by the farthest single one."""
        gate: Tensor = self.gate(directions)
        if self.ranges is None:
            return gate
        farthest = self.ranges(features - self.linear.mean, directions)
        return gate * farthest.clamp(min=1.0) ** -_GATE_POWER

    def is_out_of_range(self, features: Tensor) -> Tensor:
        """Return a mask ``(n,)`` of the rows of features ``(n, D)`` where the gate is below its maximum."""
        trust = self._gate_values(features, self.linear(features))
        return (trust < self.gate.trust * (1 - 1e-9)).squeeze(1)

    def is_column_out_of_range(self, features: Tensor) -> Tensor:
        """Return a mask ``(n, D)`` of values outside the range of their column; all False without ranges."""
        if self.ranges is None:
            return torch.zeros_like(features, dtype=torch.bool)
        return self.ranges.column_distances(features - self.linear.mean) > 1

    def select(self, chosen: list[int]) -> SideInformation:
        """Return the module with only the regressions of the given indices."""
        first = self.counts[0]
        linear = [number for number in chosen if number < first]
        kernel = [number - first for number in chosen if number >= first]
        return SideInformation(
            self.linear,
            self.offsets,
            self.gate,
            self.kernel if kernel else None,
            self.linear_stack.select(linear) if self.linear_stack is not None and linear else None,
            self.kernel_stack.select(kernel) if self.kernel_stack is not None and kernel else None,
            self.ranges,
            self.codes,
            self.unseen,
        )
