"""The fitted maps of side information: bases of features, offsets, residual regressions, and the gate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self, cast

import torch
from torch import Tensor, nn

from fedlas.calibrators._fit.residual import Regressions

_CLIP = 8.0
"""Standardized features are clipped here."""
_TOP = 5
"""Largest log-probabilities that the adaptive temperature depends on."""
_LEAST_LOG = -20.0


def _buffers(module: nn.Module, **tensors: Tensor) -> None:
    for name, tensor in tensors.items():
        module.register_buffer(name, tensor, persistent=False)


class LinearBasis(nn.Module):
    """Standardized, clipped features in uncorrelated directions, the widest first.

    Attributes:
        mean: ``(D,)``.
        scale: Unit of each column ``(D,)``.
        rotation: ``(D, R)``.
        center: Mean after the rotation ``(R,)``.
    """

    mean: Tensor
    scale: Tensor
    rotation: Tensor
    center: Tensor

    def __init__(self, mean: Tensor, scale: Tensor, rotation: Tensor, center: Tensor) -> None:
        super().__init__()
        _buffers(self, mean=mean, scale=scale, rotation=rotation, center=center)

    def forward(self, features: Tensor) -> Tensor:
        """Return directions ``(n, R)`` of features ``(n, D)``."""
        standard = ((features - self.mean) / self.scale).clamp(-_CLIP, _CLIP)
        return standard @ self.rotation - self.center


class KernelBasis(nn.Module):
    """Nystroem features of a Gaussian kernel, in uncorrelated directions.

    Attributes:
        linear: The features that distances are measured in.
        landmarks: ``(L, R)``.
        width: Twice the squared bandwidth ``()``.
        rotation: ``(L, Q)``.
        center: ``(Q,)``.
    """

    landmarks: Tensor
    width: Tensor
    rotation: Tensor
    center: Tensor

    def __init__(self, landmarks: Tensor, width: Tensor, rotation: Tensor, center: Tensor) -> None:
        super().__init__()
        _buffers(self, landmarks=landmarks, width=width, rotation=rotation, center=center)

    def forward(self, directions: Tensor) -> Tensor:
        """Return kernel features ``(n, Q)`` of directions ``(n, R)``."""
        return gaussian(directions, self.landmarks, self.width) @ self.rotation - self.center


def gaussian(directions: Tensor, landmarks: Tensor, width: Tensor) -> Tensor:
    """Return Gaussian kernels of each direction and landmark."""
    return (-squared_distances(directions, landmarks) / width).exp()


def squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """Return the squared distance of each row of ``x`` to each of ``y``."""
    square = x.square().sum(dim=1, keepdim=True) + y.square().sum(dim=1) - 2 * x @ y.T
    return square.clamp(min=0)


class Offsets(nn.Module):
    """Log-probabilities at one temperature, and at a temperature that depends on the sample.

    The second is ``z / T e^(b s)``, where ``s`` are the largest log-probabilities, their entropy and the logarithm of
    the features' norm, standardized and clipped.

    Attributes:
        temperature: ``T ()``.
        mean: Of ``s (S,)``.
        deviation: Of ``s (S,)``.
        coefficients: ``b (S,)``.
    """

    temperature: Tensor
    mean: Tensor
    deviation: Tensor
    coefficients: Tensor

    def __init__(
        self, temperature: Tensor, mean: Tensor, deviation: Tensor, coefficients: Tensor
    ) -> None:
        super().__init__()
        _buffers(
            self, temperature=temperature, mean=mean, deviation=deviation, coefficients=coefficients
        )

    def scaled(self, rows: Tensor) -> Tensor:
        """Return log-probabilities at the one temperature ``(n, C)``."""
        return (rows / self.temperature).log_softmax(dim=1)

    def standard(self, log_probs: Tensor, directions: Tensor) -> Tensor:
        """Return ``s (n, S)`` of log-probabilities at the one temperature and of features' directions."""
        return ((sample_signs(log_probs, directions) - self.mean) / self.deviation).clamp(-4.0, 4.0)

    def forward(self, rows: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        """Return log-probabilities at the one temperature ``(n, C)``, and the factors 1 and ``e^(b s)`` ``(n, 2)``."""
        log_probs = self.scaled(rows)
        factor = (self.standard(log_probs, directions) * self.coefficients).sum(dim=1).exp()
        return log_probs, torch.stack([torch.ones_like(factor), factor], dim=1)


def sample_signs(log_probs: Tensor, directions: Tensor) -> Tensor:
    """Return the largest log-probabilities, the entropy and the log of the features' norm ``(n, S)``."""
    held = log_probs.clamp(min=_LEAST_LOG)
    top = held.topk(min(_TOP, held.shape[1]), dim=1).values
    entropy = -(held.exp() * held).sum(dim=1, keepdim=True)
    norm = (directions.square().sum(dim=1, keepdim=True) + 1e-12).log() / 2
    return torch.cat([top, entropy, norm], dim=1)


class Gate(nn.Module):
    """How far features resemble those of validation: ``trust`` inside, and falling to 0 with the distance.

    Attributes:
        precision: Inverse variance of each direction ``(R,)``.
        edge: Squared distance from the center of nearly all validation samples ``()``.
        trust: The gate inside ``()``, at most 0.95; the rest bounds a rare large loss.
    """

    precision: Tensor
    edge: Tensor
    trust: Tensor

    def __init__(self, precision: Tensor, edge: Tensor, trust: Tensor) -> None:
        super().__init__()
        _buffers(self, precision=precision, edge=edge, trust=trust)

    def forward(self, directions: Tensor) -> Tensor:
        """Return the gate ``(n, 1)`` of directions ``(n, R)``."""
        distance = (directions.square() * self.precision).sum(dim=1, keepdim=True)
        return (self.edge / distance.clamp(min=1e-12)).clamp(max=1.0).square() * self.trust


class ResidualStack(nn.Module):
    """Residual regressions of one basis.

    Attributes:
        factor: ``a (K,)``.
        weight: ``U (K, R, C)``.
        bias: ``c (K, C)``.
        offset: Number of the offset of each ``(K,)`` int64.
    """

    factor: Tensor
    weight: Tensor
    bias: Tensor
    offset: Tensor

    def __init__(self, factor: Tensor, weight: Tensor, bias: Tensor, offset: Tensor) -> None:
        super().__init__()
        _buffers(self, factor=factor, weight=weight, bias=bias, offset=offset)

    def forward(self, inputs: Tensor, log_probs: Tensor, factors: Tensor) -> Tensor:
        """Return log-probabilities ``(n, K, C)`` of inputs ``(n, R)``, log-probabilities ``(n, C)`` and factors."""
        offsets = log_probs.unsqueeze(1) * factors.index_select(1, self.offset).unsqueeze(2)
        return (
            Regressions(self.factor, self.weight, self.bias)
            .scores(inputs, offsets)
            .log_softmax(dim=2)
        )

    def only(self, chosen: list[int]) -> ResidualStack:
        """Return the stack of these regressions alone."""
        return ResidualStack(
            self.factor[chosen], self.weight[chosen], self.bias[chosen], self.offset[chosen]
        )


class SideInformation(nn.Module):
    """Log-probabilities of residual regressions on features, and how far the features are to be trusted.

    Attributes:
        names: Of the regressions.
        linear: Directions of the features.
        kernel: Kernel features of these, or None.
        offsets: The offsets.
        gate: See :class:`Gate`.
        stacks: The regressions on the directions (``"linear"``) and on the kernel features (``"kernel"``).
    """

    has_steps = True

    def __init__(
        self,
        names: tuple[str, ...],
        linear: LinearBasis,
        kernel: KernelBasis | None,
        offsets: Offsets,
        gate: Gate,
        stacks: Mapping[str, ResidualStack],
    ) -> None:
        super().__init__()
        self.names = names
        self.linear = linear
        self.kernel = kernel
        self.offsets = offsets
        self.gate = gate
        self.stacks = nn.ModuleDict(stacks)

    def forward(self, rows: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return log-probabilities ``(n, K, C)`` of logits and features ``(n, D)``, and the gate ``(n, 1)``."""
        directions = self.linear(features)
        log_probs, factors = self.offsets(rows, directions)
        inputs = {"linear": directions}
        if self.kernel is not None:
            inputs["kernel"] = self.kernel(directions)
        parts = [stack(inputs[name], log_probs, factors) for name, stack in self.stacks.items()]
        return torch.cat(parts, dim=1), self.gate(directions)

    def plain(self) -> dict[str, Any]:
        """Return the numbers for a file."""
        numbers = {name: buffer.tolist() for name, buffer in self.named_buffers()}
        return {"names": list(self.names), "numbers": numbers}

    @classmethod
    def from_plain(cls, state: dict[str, Any], classes: int, columns: int) -> Self:
        """Return what :meth:`plain` describes; ``KeyError``, ``TypeError`` or ``ValueError`` if it is not that."""
        numbers: dict[str, dict[str, Tensor]] = {}
        for name, value in state["numbers"].items():
            tensor = torch.tensor(value, dtype=torch.float64, device="cpu")
            if not bool(tensor.isfinite().all()):
                raise ValueError(f"{name} must be finite")
            part, _, field = name.rpartition(".")
            numbers.setdefault(part, {})[field] = tensor.long() if field == "offset" else tensor
        kernel = KernelBasis(**numbers["kernel"]) if "kernel" in numbers else None
        stacks = {
            name: ResidualStack(**numbers[f"stacks.{name}"])
            for name in ("linear", "kernel")
            if f"stacks.{name}" in numbers
        }
        linear = LinearBasis(**numbers["linear"])
        offsets = Offsets(**numbers["offsets"])
        side = cls(tuple(state["names"]), linear, kernel, offsets, Gate(**numbers["gate"]), stacks)
        log_probs, gate = side(torch.zeros(2, classes).double(), torch.zeros(2, columns).double())
        if log_probs.shape != (2, len(side.names), classes) or gate.shape != (2, 1):
            raise ValueError("names and numbers must belong together")
        return side

    def only(self, chosen: list[int]) -> SideInformation:
        """Return the module with these regressions alone."""
        stacks: dict[str, ResidualStack] = {}
        first = 0
        for name, stack in cast("dict[str, ResidualStack]", self.stacks).items():
            last = first + len(stack.factor)
            part = [number - first for number in chosen if first <= number < last]
            if part:
                stacks[name] = stack.only(part)
            first = last
        names = tuple(self.names[number] for number in chosen)
        kernel = self.kernel if "kernel" in stacks else None
        return SideInformation(names, self.linear, kernel, self.offsets, self.gate, stacks)
