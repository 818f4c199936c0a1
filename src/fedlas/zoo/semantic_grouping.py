"""Semantic-aware grouping: a temperature per group of samples, with groups learned from the features."""

from __future__ import annotations

from typing import ClassVar, cast

import numpy as np
import torch
from torch import Tensor, nn

from fedlas._core.check import check_count, check_number
from fedlas._core.streams import seeded_generator
from fedlas.calibrators import CALIBRATORS, Calibrator
from fedlas.calibrators._fit.buffers import BufferModule
from fedlas.calibrators._fit.fit_warnings import attach_warnings, warning_if
from fedlas.calibrators._fit.rowwise import iter_float64_rows
from fedlas.calibrators._fit.state import require_valid
from fedlas.calibrators._fit.temperature_search import nll_temperature
from fedlas.predictions import Predictions
from fedlas.resample.clusters import is_clustered, merge_overlapping_groups
from fedlas.resample.folds import canonical_order, factorize_rows

__all__ = ["SemanticGrouping"]

# As in the published code.
_MAX_ITERATIONS = 100


class GroupedNLL:
    """Mean negative log-likelihood of a mixture over groups with one temperature each, plus an L2 penalty.

    ``1/N sum_i -log sum_k g_ik softmax(s_k z_i)[y_i] + penalty * mean(W^2)`` with ``g_i = softmax(W h_i)`` and
    ``s_k = 1 / temperature_k``.

    Args:
        features: ``h (N, D)``, any floats on the CPU; converted to float64 some rows at a time.
        logits: ``z (N, C)`` on the CPU.
        target: ``y (N,)`` on the CPU.
        penalty: At least 0.
    """

    def __init__(self, features: Tensor, logits: Tensor, target: Tensor, *, penalty: float) -> None:
        self._features = features
        self._logits = logits
        self._target = target
        self._penalty = penalty

    @torch.no_grad()
    def evaluate(self, weight: Tensor, log_scale: Tensor) -> tuple[float, Tensor, Tensor]:
        """Return the value, and its gradients with respect to ``W (K, D)`` and ``log s (K,)``."""
        scale = log_scale.exp()
        value = 0.0
        slope = torch.zeros_like(weight)
        slope_s = torch.zeros_like(scale)
        for part, rows in iter_float64_rows(self._logits):
            index = self._target[part].unsqueeze(1)
            label_logit = rows.gather(1, index)
            likelihood = []
            gain = []
            for factor in scale:
                log_probs = (factor * rows).log_softmax(dim=1)
                likelihood.append(log_probs.gather(1, index))
                # The slope along a group's scale is the label's logit less the expected one.
                gain.append(label_logit - (log_probs.exp() * rows).sum(dim=1, keepdim=True))
            features = self._features[part].double()
            groups = (features @ weight.T).log_softmax(dim=1)
            joint = groups + torch.cat(likelihood, dim=1)
            total = joint.logsumexp(dim=1, keepdim=True)
            # As in any mixture, the probability of a group given the label weighs its slope.
            posterior = (joint - total).exp()
            value -= float(total.sum())
            slope += (groups.exp() - posterior).T @ features
            slope_s -= (posterior * torch.cat(gain, dim=1)).sum(dim=0)
        samples = len(self._target)
        penalty = self._penalty * float(weight.square().mean())
        slope = slope / samples + 2 * self._penalty / weight.numel() * weight
        # Scales are optimized as logarithms, so the chain rule multiplies their slope by the scale.
        return value / samples + penalty, slope, slope_s * scale / samples


def learn_grouping(problem: GroupedNLL, start: Tensor, initial_scale: float) -> Tensor:
    """Return ``W (K, D)`` after 100 steps of L-BFGS from ``start``, with all ``s_k`` initially ``initial_scale``."""
    # This need not be a minimum: there are many, and different starts shall lead to different partitions.
    weight = start.clone().requires_grad_()
    log_scale = torch.full((len(start),), initial_scale, dtype=torch.float64).log().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [weight, log_scale], max_iter=_MAX_ITERATIONS, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        value, weight.grad, log_scale.grad = problem.evaluate(weight, log_scale)
        return torch.tensor(value, dtype=torch.float64)

    optimizer.step(closure)
    return weight.detach()


# Samples that a group needs for a temperature of its own.
_MIN_GROUP_SIZE = 20


class Partitions(BufferModule):
    """Average over partitions of predictions with one temperature per group, as log-probabilities."""

    shapes: ClassVar = {"weight": "UKD", "temperature": "UK"}
    has_steps = True

    def forward(self, rows: Tensor, features: Tensor) -> Tensor:
        """Return calibrated log-probabilities for logits ``(n, C)`` and features ``(n, D)``."""
        mean = torch.full_like(rows, -torch.inf)
        for weight, temperature in zip(self.weight, self.temperature, strict=True):
            scale = temperature[(features @ weight.T).argmax(dim=1)].unsqueeze(1)
            mean = torch.logaddexp(mean, (rows / scale).log_softmax(dim=1))
        return mean

    def check(self, classes: int) -> None:
        """Check the stored numbers; the temperatures must be above 0."""
        super().check(classes)
        require_valid((self.temperature > 0).all(), "temperatures must be above 0")


@CALIBRATORS.register(
    "semantic-grouping",
    paper="Beyond Probability Partitions: Calibrating Neural Networks with Semantic Aware Grouping",
    year=2023,
    url="https://arxiv.org/abs/2306.04985",
)
class SemanticGrouping(Calibrator):
    """Temperature scaling per group, averaged over partitions of the samples by features; keeps the arg-max.

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
        not matter; equal samples are in the same half, and so are those of a cluster.

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
        >>> right = right.softmax(1).numpy()
        >>> error = abs(grouped.probs - right).mean()
        >>> bool(error < 0.03), round(float(abs(val.probs - right).mean()), 2)
        (True, 0.07)

    Source:
        Yang, Zhan and Gan 2023 (NeurIPS), "GC + TS"; K = 2, U = 20 and lambda = 0.1 as there.
    """

    keeps_argmax = True
    needs = frozenset({"features"})
    map_type = Partitions
    takes_weights = False
    per_class = False

    def __init__(
        self, num_groups: int = 2, num_partitions: int = 20, penalty: float = 0.1, seed: int = 0
    ) -> None:
        self.num_groups = check_count("num_groups", num_groups)
        self.num_partitions = check_count("num_partitions", num_partitions)
        self.penalty = check_number("penalty", penalty, low=0)
        self.seed = check_count("seed", seed, low=0)

    @property
    def weight(self) -> Tensor:
        """Grouping weights ``W (num_partitions, num_groups, D)`` for unscaled features, float64.

        Raises:
            InputError: Before ``fit``.
        """
        weight: Tensor = self.map.weight
        return weight

    @property
    def temperature(self) -> Tensor:
        """Temperature of each group, ``(num_partitions, num_groups)``, float64.

        Raises:
            InputError: Before ``fit``.
        """
        temperature: Tensor = self.map.temperature
        return temperature

    def fit_map(self, val: Predictions, start: nn.Module | None = None) -> Partitions:
        """Fit the partitions and their temperatures to ``val``."""
        # The samples in one order, so that the random halves do not depend on how they were stored.
        features = cast(Tensor, val.tensors().features).cpu()
        order = canonical_order(val.tensors().logits, val.tensors().target, features)
        features = features[order]
        logits = val.tensors().logits[order]
        target = val.tensors().target[order]
        codes = torch.from_numpy(
            factorize_rows(torch.cat([logits.double(), features.double()], dim=1))
        )
        if is_clustered(val.clusters):
            codes = torch.from_numpy(merge_overlapping_groups(codes.numpy(), val.clusters[order]))
        unit = float(features.double().square().mean().sqrt()) or 1.0  # 1 if all are 0
        best = nll_temperature(Predictions(logits, target))
        overall = best.value

        # Each partition on one half, its temperatures on the other.
        weights = []
        temperatures = []
        for partition in range(self.num_partitions):
            generator = seeded_generator(self.seed, partition)
            bound = features.shape[1] ** -0.5
            first_guess = torch.from_numpy(
                generator.uniform(-bound, bound, (self.num_groups, features.shape[1]))
            )
            first, second = random_halves(codes, generator)
            inputs = features[first].double() / unit
            problem = GroupedNLL(inputs, logits[first], target[first], penalty=self.penalty)
            weight = learn_grouping(problem, first_guess, 1 / overall) / unit
            weights.append(weight)
            others = (features[second], logits[second], target[second])
            temperatures.append(self._group_temperatures(weight, *others, overall))
        row_map = Partitions(weight=torch.stack(weights), temperature=torch.stack(temperatures))
        return attach_warnings(
            row_map,
            best.warning,
            warning_if(
                bool((row_map.temperature == overall).all()),
                f"no group has {_MIN_GROUP_SIZE} samples and a temperature of its own, so this is temperature scaling. "
                "Use a larger validation set.",
            ),
        )

    def _group_temperatures(
        self, weight: Tensor, features: Tensor, logits: Tensor, target: Tensor, overall: float
    ) -> Tensor:
        """Return a temperature per group ``(K,)``; ``overall`` if a group is too small or its fit warns."""
        group = (features.double() @ weight.T).argmax(dim=1)
        temperatures = torch.full((self.num_groups,), overall, dtype=torch.float64)
        for number in range(self.num_groups):
            members = (group == number).nonzero().squeeze(1)
            if len(members) >= _MIN_GROUP_SIZE:
                search = nll_temperature(Predictions(logits[members], target[members]))
                temperatures[number] = search.value if search.warning is None else overall
        return temperatures


def random_halves(row: Tensor, generator: np.random.RandomState) -> tuple[Tensor, Tensor]:
    """Return the indices of two random halves of the samples; equal codes in ``row (N,)`` stay together."""
    shuffled = torch.from_numpy(generator.permutation(int(row.max()) + 1))
    place = shuffled.argsort()[row]
    order = place.argsort(stable=True)
    first = int((place < (len(shuffled) + 1) // 2).sum())
    return order[:first], order[first:]
