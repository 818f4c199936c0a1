"""Predictions on validation data with increasing noise, on which a calibrator for domain drift is fitted."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from fedlas._core.check import InputError, check_count, check_kinds, describe
from fedlas._core.streams import derive
from fedlas.objective.call import read_batch
from fedlas.objective.predict import predict
from fedlas.predictions import Predictions

MOST_NOISE = 32.0
"""Largest standard deviation of the noise, in units of that of the inputs; after clipping little of them is left."""

# An accuracy is close enough if it differs by at most this share of the distance between two levels, or by half a
# sample; at the last level, if it exceeds chance by at most its standard error.
_CLOSE = 0.1
_MOST_HALVINGS = 12


@check_kinds
def drifted_predictions(
    model: nn.Module,
    loader: Iterable[Any],
    *,
    levels: int = 10,
    seed: int = 0,
    device: str | torch.device | None = None,
    features: bool = False,
    head: str | nn.Module | None = None,
    on_level: Callable[[int, float, float], None] | None = None,
) -> Predictions:
    """Predict the union of ``levels`` copies of the data, each with more Gaussian noise than the one before.

    The first copy is clean. The noise of the others is chosen so that their accuracies fall in equal steps to chance.

    Args:
        model: Classifier or :class:`~fedlas.Objective`, as for :func:`~fedlas.predict`.
        loader: Yields ``(inputs, target, ...)`` with floating inputs ``(n, channels, ...)``, as the model expects them.
            It is iterated dozens of times: use a list or a ``DataLoader`` without shuffling, not a generator.
        levels: Number of copies, at least 2.
        seed: Seed of the noise.
        device: Device of the inputs; None is that of the model's parameters.
        features: Keep the input of the classifier head too.
        head: The head, if ``features`` and it cannot be found.
        on_level: Called with number (from 0), noise and accuracy of each finished level, to show progress.

    Returns:
        ``levels * N`` predictions, level after level, each in the order of the loader.

    Raises:
        InputError: If the loader cannot be iterated twice or its inputs are not floating tensors, noise does not lower
            the accuracy, or as :func:`~fedlas.predict`.

    Note:
        Noise is measured in standard deviations of each channel. A noisy input is clipped to the range of the clean
        inputs of that channel, as in a camera: without bounds, the logits of ReLU networks grow with the noise, and
        those rows alone would determine the fit. (The paper's published code clips ImageNet to the range of pixels, and
        does not clip CIFAR-10.)

        Chance is an accuracy of ``1 / C``, or the accuracy at a noise of 32 standard deviations if that is higher: a
        model that predicts one class for all noisy inputs is right as often as that class occurs. Every level has the
        same noise, times its standard deviation. An accuracy may differ by a tenth of a step, and by more where it
        jumps. The paper searches with Nelder-Mead, this function by bisection.

    Example:
        >>> images, target = torch.eye(4).repeat(500, 1), torch.arange(4).repeat(500)
        >>> model = nn.Linear(4, 4)
        >>> _ = model.weight.data.copy_(torch.eye(4)), model.bias.data.zero_()
        >>> union = drifted_predictions(model, [(images, target)], levels=4)
        >>> [round(float(level.float().mean()), 2) for level in union.correct.split(2000)]
        [1.0, 0.76, 0.53, 0.27]

    Source:
        Tomani et al. 2021 (CVPR), section on perturbing the validation set, https://arxiv.org/abs/2012.10988.
    """
    check_count("levels", levels, low=2)
    check_count("seed", seed, low=0)
    if isinstance(loader, Iterator):
        raise InputError(
            "the loader must be iterable more than once",
            describe(loader),
            "Pass a DataLoader, or a list of batches.",
        )
    # The accuracies at both ends: without noise, and by chance.
    channels = _Channels(loader)
    clean = predict(
        model, loader, device=device, features=features, head=head if features else None
    )
    accuracies = {0.0: float(clean.correct.double().mean())}

    def under(noise: float, *, keep: bool) -> Predictions:
        batches = _noisy(loader, noise, seed, channels)
        return predict(model, batches, device=device, features=keep, head=head if keep else None)

    def accuracy(noise: float) -> float:
        if noise not in accuracies:
            accuracies[noise] = float(under(noise, keep=False).correct.double().mean())
        return accuracies[noise]

    floor = max(1 / clean.num_classes, accuracy(MOST_NOISE))
    step = (accuracies[0.0] - floor) / (levels - 1)
    # One standard error is allowed, because no finite sample is right exactly as often as chance.
    at_chance = floor + math.sqrt(floor * (1 - floor) / clean.num_samples)
    if step * clean.num_samples < 1 or accuracies[0.0] <= at_chance:
        raise InputError(
            f"noise must lower the accuracy, by more than its standard error and a sample at each of {levels} levels",
            f"{accuracies[0.0]:.1%} without noise and {floor:.1%} with much",
            "Use a model that is better than chance, more validation samples or fewer levels.",
        )

    # The noise of each level, then the predictions with it.
    # Accuracies move by whole samples, so no goal can be met more closely than by half of one.
    close = max(_CLOSE * step, 0.5 / clean.num_samples)
    parts = []
    for level in range(levels):
        if level == 0:
            noise = 0.0
        elif level < levels - 1:
            noise = _noise_for(accuracies[0.0] - level * step, accuracy, accuracies, close=close)
        else:
            noise = _least_noise(at_chance, accuracy)
        parts.append(under(noise, keep=features) if level else clean)
        if on_level is not None:
            on_level(level, noise, accuracies[noise])
    return Predictions(
        torch.cat([part.logits for part in parts]),
        torch.cat([part.target for part in parts]),
        features=torch.cat([part.features for part in parts if part.features is not None])
        if features
        else None,
    )


def _noise_for(
    goal: float, accuracy: Callable[[float], float], accuracies: dict[float, float], *, close: float
) -> float:
    """Return a noise with an accuracy near ``goal``, by bisection; ``accuracy`` adds every trial to ``known``.

    The bracket contains the first fall of the accuracy below the goal, so the curve need not be exactly monotone.
    """
    ordered = sorted(accuracies)
    high = next((noise for noise in ordered if accuracies[noise] < goal), ordered[-1])
    low = max((noise for noise in ordered if noise < high), default=0.0)
    for _ in range(_MOST_HALVINGS):
        near = [noise for noise in sorted(accuracies) if abs(accuracies[noise] - goal) <= close]
        if near:
            return near[0]
        # Noise matters by its ratio, so the bracket is halved on a logarithmic scale, which 0 has no place on.
        middle = math.sqrt(low * high) if low > 0 else high / 8
        if accuracy(middle) >= goal:
            low = middle
        else:
            high = middle
    return min(sorted(accuracies), key=lambda noise: abs(accuracies[noise] - goal))


def _least_noise(at_chance: float, accuracy: Callable[[float], float]) -> float:
    """Return the least of 32, 16, 8, ... down to which the accuracy is ``at_chance`` or below."""
    noise = MOST_NOISE
    while accuracy(noise / 2) <= at_chance:
        noise /= 2
    return noise


class _Channels:
    """Standard deviation and range of each channel of a loader's inputs, in a shape that broadcasts with a batch."""

    def __init__(self, loader: Iterable[Any]) -> None:
        count = 0
        parts = []
        for batch in loader:
            inputs, _ = read_batch(batch)
            if not isinstance(inputs, Tensor) or not inputs.is_floating_point() or inputs.ndim < 2:
                raise InputError(
                    "inputs must be floating tensors (n, channels, ...), to which noise can be added",
                    describe(inputs),
                    "Pass batches of normalized images.",
                )
            # One pass over the loader needs sums of squares, whose differences would cancel in float32.
            rows = inputs.detach().cpu().double().transpose(0, 1).flatten(1)
            count += rows.shape[1]
            parts.append(
                (rows.sum(dim=1), rows.square().sum(dim=1), rows.amin(dim=1), rows.amax(dim=1))
            )
            shape = (1, -1, *(1 for _ in inputs.shape[2:]))
        if not parts:
            raise InputError("the loader must yield at least one batch", "none", "Check the data.")
        total, square, low, high = (torch.stack(list(part)) for part in zip(*parts, strict=True))
        mean = total.sum(dim=0) / count
        deviation = (square.sum(dim=0) / count - mean.square()).clamp(min=0).sqrt()
        self.deviation, self.low, self.high = (
            x.view(shape) for x in (deviation, low.amin(dim=0), high.amax(dim=0))
        )


def _noisy(
    loader: Iterable[Any], noise: float, seed: int, channels: _Channels
) -> Iterator[tuple[Tensor, Any]]:
    """Yield the batches of a loader with Gaussian noise on their inputs; a seed always gives the same noise."""
    for number, batch in enumerate(loader):
        inputs, target = read_batch(batch)
        if noise:
            generator = torch.Generator().manual_seed(derive(seed, f"drift/{number}"))
            draws = torch.randn(inputs.shape, generator=generator, dtype=torch.float32).to(inputs)
            inputs = inputs + noise * channels.deviation.to(inputs) * draws
            inputs = inputs.clamp(channels.low.to(inputs), channels.high.to(inputs))
        yield inputs, target
