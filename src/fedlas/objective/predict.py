"""Prediction with a model over a data set, on clean inputs or under increasing noise."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal, TypedDict, Unpack, overload

import numpy as np
import torch
from torch import Tensor, nn

from fedlas._core.check import InputError, check_count, describe, warn_user
from fedlas._core.kinds import check_argument_types
from fedlas._core.streams import derive_seed
from fedlas.features.readers import ComputedFeatures, NoFeatures, Reader
from fedlas.objective.call import read_batch
from fedlas.objective.head_search import HeadSearch
from fedlas.objective.network import to_network
from fedlas.objective.runner import MAX_LOGITS, Runner, collect_multi_label, collect_predictions
from fedlas.predictions import MultiLabel, Predictions


class PredictOptions(TypedDict, total=False):
    """Keyword arguments of :func:`predict`."""

    device: str | torch.device | None
    features: bool | Callable[..., Tensor]
    head: str | nn.Module | None
    observe: Callable[[Tensor, Tensor], None] | None
    label: int | str | None
    weights: int | str | None
    clusters: int | str | None
    time: int | str | None
    ignore_index: int | None
    max_rows: int | None


@overload
def predict(
    model: object,
    loader: Iterable[Any],
    *,
    multi_label: Literal[True],
    **options: Unpack[PredictOptions],
) -> MultiLabel: ...


@overload
def predict(
    model: object,
    loader: Iterable[Any],
    *,
    multi_label: Literal[False] | None = None,
    **options: Unpack[PredictOptions],
) -> Predictions: ...


@check_argument_types
def predict(
    model: object,
    loader: Iterable[Any],
    *,
    device: str | torch.device | None = None,
    features: bool | Callable[..., Tensor] = False,
    head: str | nn.Module | None = None,
    observe: Callable[[Tensor, Tensor], None] | None = None,
    label: int | str | None = None,
    weights: int | str | None = None,
    clusters: int | str | None = None,
    time: int | str | None = None,
    ignore_index: int | None = -100,
    max_rows: int | None = None,
    multi_label: bool | None = None,
) -> Predictions | MultiLabel:
    """Run a model on every batch of a loader and return its predictions.

    Args:
        model: Classifier to logits ``(N, C)`` or, of each position, ``(N, C, d1, ...)``; to one logit of the second of
            two classes ``(N, 1)`` or ``(N,)``; or an :class:`~fedlas.Objective` around one. The module inside of
            ``DistributedDataParallel``, ``DataParallel`` or ``torch.compile`` is called. A list of models is an
            ensemble: the mean of their probabilities. An ``.onnx`` file or a session of onnxruntime is run by it.
        loader: Yields ``(inputs, target)``, where further elements are ignored; or a mapping such as a Hugging Face
            batch, with the labels under ``labels``, ``label`` or ``target`` and the arguments of ``forward`` under the
            other keys; or inputs alone, a tensor, ``(inputs,)`` or a mapping, which gives predictions without target.
            Several inputs are one tuple, ``((a, b), target)``.
        device: Device of the inputs; None is that of the model's parameters.
        features: True keeps the input of the classifier head too: of the module whose output is the logits. A function
            is called with the arguments of ``forward`` and returns features ``(N, D)``.
        head: The head, if features are needed and it cannot be found.
        observe: Called after each batch with its logits ``(B, C)`` and features ``(B, D)``, on the model's device; it
            serves measurements that should not keep the features of a whole data set.
        label: Key or position of the labels, if they are elsewhere; all other elements are then inputs: 2 for
            ``(a, b, target)``.
        weights: Key or position of the weight of each sample in a batch.
        clusters: Key or position of the cluster of each sample (its patient, its user), numbers or names. Positions of
            dense outputs belong to the cluster of their sample; without ``clusters``, each sample is one.
        time: Key or position of the time of each sample, a number: fits that hold samples out judge none by later ones.
        ignore_index: Label of rows that are left out; None: all count.
        multi_label: Whether a sample may have several labels, each with a sigmoid: logits ``(N, L)``, labels 0, 1 or
            ``ignore_index (N, L)``, which every batch must hold. The result is then a :class:`~fedlas.MultiLabel`.
            None: if the labels of the first batch are rows of 0 and 1 that do not all sum to 1.
        max_rows: Most rows to keep, a random sample of them; None keeps all, of dense outputs at most 2^28 logits.

    Returns:
        Float32 predictions on the CPU, in the order of the loader.

    Raises:
        InputError: If the model is not a module, takes other inputs or returns no logits, a batch or its labels cannot
            be read, the loader is empty, or logits are not finite.

    State:
        The model runs in ``eval()`` under ``torch.no_grad``; each submodule's mode is then restored, also after
        an error.

    Example:
        >>> model = nn.Linear(4, 3)
        >>> predict(model, [(torch.zeros(2, 4), torch.tensor([0, 1]))]).num_samples
        2
        >>> predict(model, [torch.zeros(2, 4)])
        Predictions(2 samples, 3 classes, without target)
    """
    network = to_network(model)
    is_function = not isinstance(features, bool)
    reader: Reader | HeadSearch = NoFeatures()
    if is_function:
        reader = ComputedFeatures(_require_function(features))
    elif features or observe is not None:
        reader = HeadSearch(head, required=True)
    keys = {"weights": weights, "clusters": clusters, "time": time}
    runner = Runner(
        network,
        loader,
        device=device,
        reader=reader,
        ignore_index=ignore_index,
        label=label,
        others={name: key for name, key in keys.items() if key is not None},
        observe=observe,
        keep_features=bool(features),
        labeled=bool(multi_label),
        multi_label=multi_label,
    )
    if max_rows is not None:
        check_count("max_rows", max_rows)
    max_logits = MAX_LOGITS if max_rows is None else None
    try:
        if runner.is_multi_label():
            return collect_multi_label(runner)
        predictions, total = collect_predictions(
            runner, max_logits=max_logits, max_rows=max_rows, dense_only=True
        )
    finally:
        reader.remove()
    if max_rows is None and predictions.num_samples < total:
        warn_user(
            f"predict: kept a random sample of {predictions.num_samples:,} of {total:,} positions, since all of them "
            "need more than 1 GiB. Pass max_rows to choose the sample size."
        )
    return predictions.with_logits(predictions.tensors().logits.float())


def _require_function(features: object) -> Callable[..., Any]:
    """Return ``features`` if it is a function; else raise InputError."""
    if callable(features):
        return features
    raise InputError(
        "features must be True, False or a function",
        describe(features),
        "Pass True for the input of the head, or a function of the model's inputs.",
    )


MAX_NOISE = 32.0
"""Largest noise, in standard deviations of the inputs; after clipping, almost no signal is left."""

# An accuracy is close enough if it differs by at most this share of the distance between two levels, or by half a
# sample; at the last level, if it exceeds chance by at most its standard error.
_TOLERANCE = 0.1
_MAX_HALVINGS = 12


@check_argument_types
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
    """Return predictions for ``levels`` copies of the data with increasing Gaussian noise.

    The first copy is clean. The noise of the other copies is chosen so that the accuracies fall in equal steps to
    chance.

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
        >>> [round(float(level.mean()), 2) for level in union.correct.reshape(4, 2000)]
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
    channels = _ChannelStatistics(loader)
    clean = predict(
        model, loader, device=device, features=features, head=head if features else None
    )
    accuracies = {0.0: float(clean.tensors().correct.double().mean())}

    def predict_with_noise(noise: float, *, keep: bool) -> Predictions:
        batches = _iter_noisy_batches(loader, noise, seed, channels)
        return predict(model, batches, device=device, features=keep, head=head if keep else None)

    def accuracy(noise: float) -> float:
        if noise not in accuracies:
            accuracies[noise] = float(
                predict_with_noise(noise, keep=False).tensors().correct.double().mean()
            )
        return accuracies[noise]

    floor = max(1 / clean.num_classes, accuracy(MAX_NOISE))
    step = (accuracies[0.0] - floor) / (levels - 1)
    # One standard error is allowed, because no finite sample is right exactly as often as chance.
    chance_bound = floor + math.sqrt(floor * (1 - floor) / clean.num_samples)
    if step * clean.num_samples < 1 or accuracies[0.0] <= chance_bound:
        raise InputError(
            f"noise must lower the accuracy by a sample at each of {levels} levels, and by more than a standard error",
            f"accuracy {accuracies[0.0]:.1%} without noise and {floor:.1%} at the highest noise",
            "Use a model that is better than chance, more validation samples or fewer levels.",
        )

    # The noise of each level, then the predictions with it.
    # Accuracies change by whole samples, so a goal can only be met up to half a sample.
    tolerance = max(_TOLERANCE * step, 0.5 / clean.num_samples)
    parts = []
    for level in range(levels):
        if level == 0:
            noise = 0.0
        elif level < levels - 1:
            noise = _find_noise(
                accuracies[0.0] - level * step, accuracy, accuracies, tolerance=tolerance
            )
        else:
            noise = _find_chance_noise(chance_bound, accuracy)
        parts.append(predict_with_noise(noise, keep=features) if level else clean)
        if on_level is not None:
            on_level(level, noise, accuracies[noise])
    return Predictions(
        torch.cat([part.tensors().logits for part in parts]),
        torch.cat([part.tensors().target for part in parts]),
        features=np.concatenate([part.features for part in parts if part.features is not None])
        if features
        else None,
    )


def _find_noise(
    goal: float, accuracy: Callable[[float], float], tried: dict[float, float], *, tolerance: float
) -> float:
    """Return a noise level with an accuracy near ``goal``, by bisection; trials are stored in ``tried``."""
    # The bracket contains the first fall of the accuracy below the goal, so the curve need not be exactly monotone.
    ordered = sorted(tried)
    high = next((noise for noise in ordered if tried[noise] < goal), ordered[-1])
    low = max((noise for noise in ordered if noise < high), default=0.0)
    for _ in range(_MAX_HALVINGS):
        close_enough = [noise for noise in sorted(tried) if abs(tried[noise] - goal) <= tolerance]
        if close_enough:
            return close_enough[0]
        # Halve the bracket on a log scale; 0 needs a special case.
        middle = math.sqrt(low * high) if low > 0 else high / 8
        if accuracy(middle) >= goal:
            low = middle
        else:
            high = middle
    return min(sorted(tried), key=lambda noise: abs(tried[noise] - goal))


def _find_chance_noise(at_chance: float, accuracy: Callable[[float], float]) -> float:
    """Return the smallest of 32, 16, 8, ... at which the accuracy is still at chance."""
    noise = MAX_NOISE
    while accuracy(noise / 2) <= at_chance:
        noise /= 2
    return noise


class _ChannelStatistics:
    """Standard deviation and range of each input channel, in a shape that broadcasts with a batch."""

    def __init__(self, loader: Iterable[Any]) -> None:
        count = 0
        parts = []
        for batch in loader:
            inputs, _ = read_batch(batch)
            if not isinstance(inputs, Tensor) or not inputs.is_floating_point() or inputs.ndim < 2:
                raise InputError(
                    "inputs must be float tensors (n, channels, ...), to add noise to",
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
            raise InputError(
                "the loader must yield at least one batch",
                "none",
                "Pass a loader that is not empty.",
            )
        total, square, low, high = (torch.stack(list(part)) for part in zip(*parts, strict=True))
        mean = total.sum(dim=0) / count
        deviation = (square.sum(dim=0) / count - mean.square()).clamp(min=0).sqrt()
        self.deviation, self.low, self.high = (
            x.view(shape) for x in (deviation, low.amin(dim=0), high.amax(dim=0))
        )


def _iter_noisy_batches(
    loader: Iterable[Any], noise: float, seed: int, channels: _ChannelStatistics
) -> Iterator[tuple[Tensor, Any]]:
    """Yield the batches with Gaussian noise on the inputs; the noise depends on the seed alone."""
    for number, batch in enumerate(loader):
        inputs, target = read_batch(batch)
        if noise:
            generator = torch.Generator().manual_seed(derive_seed(seed, f"drift/{number}"))
            draws = torch.randn(inputs.shape, generator=generator, dtype=torch.float32).to(inputs)
            inputs = inputs + noise * channels.deviation.to(inputs) * draws
            inputs = inputs.clamp(channels.low.to(inputs), channels.high.to(inputs))
        yield inputs, target
