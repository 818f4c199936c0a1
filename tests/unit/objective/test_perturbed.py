import math

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from fedlas import Objective, Predictions
from fedlas.calibrators import DriftTemperature, TemperatureScaling
from fedlas.errors import InputError
from fedlas.metrics import ece, nll
from fedlas.objective import drifted_predictions, predict
from fedlas.objective.predict import MAX_NOISE, _ChannelStatistics, _find_noise, _iter_noisy_batches


def data(samples=1500, seed=0, classes=5):
    """Images of two channels, one of them faint, whose class a linear model can tell."""
    random = torch.Generator().manual_seed(seed)
    images = torch.randn(samples, 2, 3, 3, generator=random)
    images[:, 1] *= 0.1
    weight = torch.randn(classes, 18, generator=torch.Generator().manual_seed(9))
    return images, (images.flatten(1) @ weight.T).argmax(1), weight


def linear(weight, scale=3.0):
    model = nn.Sequential(nn.Flatten(), nn.Linear(18, len(weight), bias=False))
    model[1].weight.data.copy_(scale * weight)
    return model


@pytest.fixture(scope="module")
def world():
    images, target, weight = data()
    loader = [(images[i : i + 500], target[i : i + 500]) for i in range(0, 1500, 500)]
    return linear(weight), loader


@pytest.mark.parametrize("levels", [2, 5, 10])
def test_accuracies_fall_to_chance_in_equal_steps(world, levels):
    model, loader = world
    union = drifted_predictions(model, loader, levels=levels)
    assert union.num_samples == levels * 1500
    accuracies = [float(part.double().mean()) for part in union.tensors().correct.split(1500)]
    assert accuracies[0] == 1.0
    step = (1 - accuracies[-1]) / (levels - 1)
    for level, accuracy in enumerate(accuracies[:-1]):
        assert accuracy == pytest.approx(1 - level * step, abs=0.15 * step + 0.02)
    assert accuracies[-1] == pytest.approx(0.2, abs=0.035)
    assert torch.equal(
        union.tensors().target, torch.cat([target for _, target in loader]).repeat(levels)
    )


def test_the_clean_level_is_what_predict_says(world):
    model, loader = world
    union = drifted_predictions(model, loader, levels=3)
    assert torch.equal(union.tensors().logits[:1500], predict(model, loader).tensors().logits)


def test_each_level_is_the_model_on_noisy_inputs(world):
    model, loader = world
    levels = []
    union = drifted_predictions(
        model, loader, levels=4, seed=3, on_level=lambda *level: levels.append(level)
    )
    assert [number for number, *_ in levels] == [0, 1, 2, 3]
    noises = [noise for _, noise, _ in levels]
    assert noises == sorted(noises)
    assert noises[0] == 0
    channels = _ChannelStatistics(loader)
    for (_, noise, accuracy), logits, correct in zip(
        levels, union.tensors().logits.split(1500), union.tensors().correct.split(1500), strict=True
    ):
        expected = torch.cat([model(x) for x, _ in _iter_noisy_batches(loader, noise, 3, channels)])
        torch.testing.assert_close(logits, expected.detach())
        assert float(correct.double().mean()) == accuracy


def test_noise_is_scaled_and_clipped_per_channel(world):
    _, loader = world
    channels = _ChannelStatistics(loader)
    clean = torch.cat([x for x, _ in loader])
    noisy = torch.cat([x for x, _ in _iter_noisy_batches(loader, 0.5, 0, channels)])
    for channel, size in enumerate((1.0, 0.1)):
        torch.testing.assert_close(
            channels.deviation[0, channel].item(), clean[:, channel].std(correction=0).item()
        )
        assert (noisy - clean)[:, channel].std().item() == pytest.approx(0.5 * size, rel=0.05)
        wild = torch.cat([x for x, _ in _iter_noisy_batches(loader, 100.0, 0, channels)])[
            :, channel
        ]
        assert (wild.min(), wild.max()) == (clean[:, channel].min(), clean[:, channel].max())


def test_deterministic_and_the_seed_matters(world):
    model, loader = world
    state = torch.get_rng_state()
    first, again, other = (
        drifted_predictions(model, loader, levels=3, seed=seed) for seed in (0, 0, 1)
    )
    assert torch.equal(first.tensors().logits, again.tensors().logits)
    assert not torch.equal(first.tensors().logits[1500:], other.tensors().logits[1500:])
    assert torch.equal(first.tensors().logits[:1500], other.tensors().logits[:1500])
    assert torch.equal(torch.get_rng_state(), state)


def test_batches_get_different_noise(world):
    _, loader = world
    same = [loader[0], loader[0]]
    first, second = (x for x, _ in _iter_noisy_batches(same, 1.0, 0, _ChannelStatistics(same)))
    assert not torch.equal(first, second)


def test_features_a_data_loader_and_an_objective(world):
    model, loader = world
    images, target = (torch.cat(part) for part in zip(*loader, strict=True))
    batches = DataLoader(TensorDataset(images, target), batch_size=500)
    union = drifted_predictions(
        Objective(model, nn.CrossEntropyLoss()), batches, levels=3, features=True
    )
    assert union.features.shape == (4500, 18)
    torch.testing.assert_close(model[1](union.tensors().features).detach(), union.tensors().logits)
    assert torch.equal(
        union.tensors().logits, drifted_predictions(model, loader, levels=3).tensors().logits
    )
    assert drifted_predictions(model, loader, levels=2).features is None


def test_it_makes_temperature_scaling_right_under_drift():
    """On other drifted data than the fit; one label in ten is wrong, so that clean data have an optimum."""

    def loader(seed):
        images, target, _ = data(seed=seed)
        return [(images, torch.where(torch.arange(1500) % 10 == 0, (target + 1) % 5, target))]

    model = linear(data()[2])
    drift = DriftTemperature().fit(drifted_predictions(model, loader(1)))
    clean = TemperatureScaling().fit(predict(model, loader(1)))
    test = drifted_predictions(model, loader(2), seed=5)
    noisiest = Predictions(test.tensors().logits[-6000:], test.tensors().target[-6000:])
    by_drift, by_clean = (calibrator.transform(test) for calibrator in (drift, clean))
    assert nll(by_drift) < 0.8 * nll(by_clean)
    errors = [ece(calibrator.transform(noisiest)) for calibrator in (drift, clean)]
    assert errors[0] < 0.7 * errors[1]


def test_a_model_that_says_one_class_under_noise():
    """Chance is what noise leaves, where that is more than 1 / C."""
    images, target, weight = data()
    model = linear(weight)
    model[1].weight.data[0] *= 3
    most = torch.where(torch.arange(1500) % 2 == 0, 0, target)
    union = drifted_predictions(model, [(images, most)], levels=4)
    accuracies = [float(part.double().mean()) for part in union.tensors().correct.split(1500)]
    assert accuracies == sorted(accuracies, reverse=True)
    assert accuracies[-1] > 0.25


@pytest.mark.parametrize("levels", [2, 10])
def test_a_model_no_better_than_chance(levels):
    images, _, weight = data(samples=300)
    target = torch.arange(300) % 5
    with pytest.raises(
        InputError, match=rf"lower the accuracy .* {levels} levels, .*; got .*% without"
    ):
        drifted_predictions(linear(0 * weight), [(images, target)], levels=levels)


def test_insignificant_accuracy_raises():
    """Or the search for the noise that leaves chance would never end."""
    images, target, weight = data(samples=30)
    lucky = torch.where(
        torch.arange(30) < 8, target, (target + 1) % 5
    )  # 8 of 30, where chance has 6 and an error of 2.2
    with pytest.raises(InputError, match=r"lower the accuracy.*standard error"):
        drifted_predictions(linear(weight), [(images, lucky)], levels=2)


def test_what_it_refuses(world):
    model, loader = world
    with pytest.raises(InputError, match=r"loader .*iterable more than once"):
        drifted_predictions(model, iter(loader))
    with pytest.raises(InputError, match=r"loader .*iterable more than once"):
        drifted_predictions(model, (batch for batch in loader))
    with pytest.raises(InputError, match=r"inputs .*float .*\(n, channels, ...\)"):
        drifted_predictions(model, [(torch.zeros(2, 2, dtype=torch.uint8), torch.zeros(2))])
    with pytest.raises(InputError, match="at least one batch"):
        drifted_predictions(model, [])
    with pytest.raises(InputError, match=r"levels .*whole number .*at least 2"):
        drifted_predictions(model, loader, levels=1)
    with pytest.raises(InputError, match=r"seed .*whole number"):
        drifted_predictions(model, loader, seed=-1)
    with pytest.raises(InputError, match=r"nn\.Module"):
        drifted_predictions(lambda x: x, loader)


@pytest.mark.parametrize("goal", [0.9, 0.5, 0.25])
def test_the_search(goal):
    calls = []

    def accuracy(noise):
        if noise not in known:
            calls.append(noise)
            known[noise] = 0.1 + 0.9 * math.exp(-noise)
        return known[noise]

    known = {0.0: 1.0, MAX_NOISE: 0.1 + 0.9 * math.exp(-MAX_NOISE)}
    noise = _find_noise(goal, accuracy, known, tolerance=0.005)
    assert known[noise] == pytest.approx(goal, abs=0.005)
    assert len(calls) <= 12


def test_noise_search_with_nonmonotone_accuracy():
    known = {0.0: 1.0, 32.0: 0.1}
    jump = _find_noise(
        0.5, lambda n: known.setdefault(n, 0.9 if n < 1.3 else 0.2), known, tolerance=0.01
    )
    assert known[jump] in (0.9, 0.2)
    known = {0.0: 1.0, 2.0: 0.3, 4.0: 0.6, 32.0: 0.1}
    noise = _find_noise(0.5, lambda n: known.setdefault(n, 1 - 0.35 * n), known, tolerance=0.02)
    assert 1 < noise < 2
    assert known[noise] == pytest.approx(0.5, abs=0.02)
