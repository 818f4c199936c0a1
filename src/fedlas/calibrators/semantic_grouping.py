"""Semantic-aware grouping: a temperature for each group of samples, with groups learned from the features."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from fedlas._core.check import check_count, check_number
from fedlas._core.streams import stream
from fedlas.calibrators._fit.doubts import joined, unchanged, when
from fedlas.calibrators._fit.folds import canonical_order, equal_rows
from fedlas.calibrators._fit.grouping import GroupedNLL, learn_grouping
from fedlas.calibrators._fit.parameters import fitted, read_numbers
from fedlas.calibrators._fit.rowwise import double_rows
from fedlas.calibrators._fit.temperature_search import nll_temperature
from fedlas.calibrators.base import CALIBRATORS, Calibrator
from fedlas.predictions import Predictions

__all__ = ["SemanticGrouping"]

# Samples that a group needs for a temperature of its own.
_LEAST = 20


class Partitions(nn.Module):
    """The mean over partitions of predictions with the temperature of each sample's group, as log-probabilities."""

    weight: Tensor
    temperature: Tensor
    has_steps = True

    def __init__(self, weight: Tensor, temperature: Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", weight.clone(), persistent=False)
        self.register_buffer("temperature", temperature.clone(), persistent=False)

    def forward(self, rows: Tensor, features: Tensor) -> Tensor:
        """Calibrated logits of logits ``(n, C)`` and features ``(n, D)``."""
        mean = torch.full_like(rows, -torch.inf)
        for weight, temperature in zip(self.weight, self.temperature, strict=True):
            own = temperature[(features @ weight.T).argmax(dim=1)].unsqueeze(1)
            mean = torch.logaddexp(mean, (rows / own).log_softmax(dim=1))
        return mean


@CALIBRATORS.register(
    "semantic-grouping",
    title="Semantic grouping",
    paper="Beyond Probability Partitions: Calibrating Neural Networks with Semantic Aware Grouping",
    year=2023,
    url="https://arxiv.org/abs/2306.04985",
)
class SemanticGrouping(Calibrator):
    """Averages over partitions of the samples by their features, with a temperature for each group; keeps the arg-max.

    ``p = mean_u softmax(z / temperature[u, k_u])`` with the group ``k_u = argmax_k (W_u h)_k`` of the features ``h``.
    ``W_u`` is learned with soft groups from a random start: it maximizes the likelihood of ``sum_k softmax(W_u h)_k
    softmax(z / t_k)`` less ``penalty * mean(W_u^2)``. Then each group gets the temperature of its samples.

    Args:
        num_groups: Number of groups of a partition, at least 1.
        num_partitions: Number of partitions, at least 1.
        penalty: The paper's lambda, at least 0.
        seed: Seed of the random starts and halves.

    Raises:
        InputError: For an option out of range.

    State:
        ``transform`` is deterministic: partitions and temperatures are saved.

    Note:
        Partition and temperatures of one ``u`` are learned on two random halves of the validation samples, drawn anew
        for each. The published code uses two held-out sets. With a single set the groups would collect the samples
        that happen to be wrong, and their temperatures would over-fit: on the synthetic data set with 800 samples and
        256 features the test NLL is then 1.05, against 0.95 with halves.

        Features are divided by their root mean square, so that the penalty means the same for every network. A group of
        fewer than 20 samples, or with too few mistakes for a temperature (see :class:`TemperatureScaling`), takes the
        temperature of all samples. The grouping has no bias, as in the published code. The order of the samples does
        not matter, and equal samples are in the same half.

        Warns (:class:`CalibrationWarning`) as :class:`TemperatureScaling` does, when no group has a temperature of its
        own, and when the fit changes nothing. Costs ``num_partitions`` times about 120 passes over half the samples, in
        float64: tens of seconds to minutes on a core.

    Example:
        >>> import torch
        >>> draw = torch.Generator().manual_seed(0)
        >>> features = torch.randn(4000, 2, generator=draw, dtype=torch.float64)
        >>> logits = torch.randn(4000, 3, generator=draw, dtype=torch.float64)
        >>> right = torch.where(features[:, :1] > 0, 1.0, 0.25) * logits  # four times too sure on the left
        >>> target = torch.multinomial(right.softmax(1), 1, generator=draw).squeeze(1)
        >>> val = Predictions(logits, target, features=features)
        >>> grouped = SemanticGrouping().fit(val).transform(val)
        >>> error = (grouped.probs - right.softmax(1)).abs().mean()
        >>> bool(error < 0.03), round(float((val.probs - right.softmax(1)).abs().mean()), 2)
        (True, 0.07)

    Source:
        Yang, Zhan and Gan 2023 (NeurIPS), "GC + TS"; K = 2, U = 20 and lambda = 0.1 as there.
    """

    keeps_argmax = True
    needs = frozenset({"features"})

    def __init__(self, num_groups: int = 2, num_partitions: int = 20, penalty: float = 0.1, seed: int = 0) -> None:
        owner = self._owner
        self.num_groups = check_count(owner, "num_groups", num_groups)
        self.num_partitions = check_count(owner, "num_partitions", num_partitions)
        self.penalty = check_number(owner, "penalty", penalty, low=0)
        self.seed = check_count(owner, "seed", seed, low=0)
        self._weight: Tensor | None = None
        self._temperature: Tensor | None = None

    @property
    def weight(self) -> Tensor:
        """``W (num_partitions, num_groups, D)`` for the unscaled features, float64.

        Raises:
            InputError: Before ``fit``.
        """
        return fitted("SemanticGrouping.weight", self._weight)

    @property
    def temperature(self) -> Tensor:
        """Temperature of each group, ``(num_partitions, num_groups)``, float64.

        Raises:
            InputError: Before ``fit``.
        """
        return fitted("SemanticGrouping.temperature", self._temperature)

    def _fit(self, val: Predictions) -> str | None:
        # The samples in one order, so that the random halves do not depend on how they were stored.
        features, logits, target = cast(Tensor, val.features).cpu(), val.logits.cpu(), val.target.cpu()
        both = torch.cat([logits.double(), features.double()], dim=1)
        order = canonical_order(both, target)
        features, logits, target, row = features[order], logits[order], target[order], equal_rows(both[order])
        unit = _root_mean_square(features)
        best = nll_temperature(Predictions(logits, target))
        overall = best.value

        # Each partition on one half, its temperatures on the other.
        weights, temperatures = [], []
        for partition in range(self.num_partitions):
            draw = stream(self.seed, partition)
            bound = features.shape[1] ** -0.5
            start = torch.from_numpy(draw.uniform(-bound, bound, (self.num_groups, features.shape[1])))
            first, second = halves(row, draw)
            problem = GroupedNLL(features[first].double() / unit, logits[first], target[first], penalty=self.penalty)
            weight = learn_grouping(problem, start, 1 / overall) / unit
            weights.append(weight)
            temperatures.append(self._temperatures(weight, features[second], logits[second], target[second], overall))
        self._weight, self._temperature = torch.stack(weights), torch.stack(temperatures)
        return joined(
            best.doubt,
            when(
                bool((self._temperature == overall).all()),
                f"no group has {_LEAST} samples and a temperature of its own, so this is temperature scaling. Use a "
                "larger validation set.",
            ),
            unchanged(val, self._transform_predictions(val)),
        )

    def _temperatures(self, weight: Tensor, features: Tensor, logits: Tensor, target: Tensor, overall: float) -> Tensor:
        """Temperature of each group ``(K,)``; ``overall`` for a group that is too small or whose search warns."""
        group = (features.double() @ weight.T).argmax(dim=1)
        temperatures = torch.full((self.num_groups,), overall, dtype=torch.float64)
        for number in range(self.num_groups):
            members = (group == number).nonzero().squeeze(1)
            if len(members) >= _LEAST:
                own = nll_temperature(Predictions(logits[members], target[members]))
                temperatures[number] = own.value if own.doubt is None else overall
        return temperatures

    def _transform_predictions(self, test: Predictions) -> Tensor:
        average = Partitions(self.weight, self.temperature)
        features, result = cast(Tensor, test.features), torch.empty_like(test.logits)
        for part, rows in double_rows(test.logits):
            result[part] = average(rows, features[part].cpu().double()).to(result)
        return result

    def _row_map(self) -> nn.Module:
        return Partitions(self.weight, self.temperature)

    def _state(self) -> dict[str, Any]:
        return {"weight": self.weight.tolist(), "temperature": self.temperature.tolist()}

    def _restore(self, state: dict[str, Any]) -> None:
        shape = (self.num_partitions, self.num_groups)
        weight = read_numbers(state, "weight", *shape, self.num_features)
        temperature = read_numbers(state, "temperature", *shape)
        if not bool((temperature > 0).all()):
            raise ValueError("temperatures must be above 0")
        self._weight, self._temperature = weight, temperature


def halves(row: Tensor, draw: np.random.RandomState) -> tuple[Tensor, Tensor]:
    """Indices of two random halves of the samples ``(N,)``; those with equal numbers in ``row`` are in the same one."""
    drawn = torch.from_numpy(draw.permutation(int(row.max()) + 1))
    place = drawn.argsort()[row]
    order, first = place.argsort(stable=True), int((place < (len(drawn) + 1) // 2).sum())
    return order[:first], order[first:]


def _root_mean_square(features: Tensor) -> float:
    """Root mean square of all features, or 1 if all of them are 0."""
    total = sum(float(rows.square().sum()) for _, rows in double_rows(features))
    return float((total / features.numel()) ** 0.5) or 1.0
