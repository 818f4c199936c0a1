"""The temperature of the loss follows held-out predictions; past predictions are targets under it."""

import math

import pytest
import torch
import torch.nn.functional as F

from fedlas import Predictions
from fedlas.calibrators import TemperatureScaling
from fedlas.errors import InputError
from fedlas.losses import PSKD, Tempered, TemperedPast


def over_confident(sharpness, samples=4000):
    """Predictions whose right temperature is the sharpness."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(samples, 5, generator=generator, dtype=torch.float64)
    target = torch.multinomial(logits.softmax(1), 1, generator=generator).squeeze(1)
    return Predictions(sharpness * logits, target)


def log_temperature_step(predictions, rate=1e-3):
    """The temperature's logarithm that the predictions ask for: one update follows a small share of it."""
    criterion = Tempered(rate=rate)
    criterion.update_from_validation(predictions)
    return -criterion.log_temperature.item() / rate


def class_bias_step(predictions, rate=1e-3):
    """The bias that each class lacks: one update follows a small share of it."""
    criterion = Tempered(num_classes=predictions.num_classes, bias_rate=rate)
    criterion.update_from_validation(predictions)
    return -criterion.bias.double() / rate


@pytest.mark.parametrize("sharpness", [0.9, 1.1])
def test_one_step_is_close_to_the_fitted_temperature(sharpness):
    predictions = over_confident(sharpness)
    fitted = float(TemperatureScaling().fit(predictions).temperature)
    assert log_temperature_step(predictions) == pytest.approx(math.log(fitted), abs=0.02)


def test_equal_logits_ask_for_nothing():
    assert log_temperature_step(Predictions(torch.zeros(3, 2), torch.tensor([0, 1, 1]))) == 0.0


def test_tempered_loss_preserves_gradient_scale():
    criterion = Tempered(base={"name": "ls", "alpha": 0.1}, rate=1.0)
    criterion.update_from_validation(over_confident(1.1))
    temperature = criterion.temperature.item()
    assert 0.85 < temperature < 0.95
    logits, target = (
        torch.randn(6, 5, dtype=torch.float64, requires_grad=True),
        torch.tensor([0, 1, 4, 0, 2, 3]),
    )
    loss = criterion(logits, target)
    assert loss.item() == pytest.approx(
        temperature * F.cross_entropy(logits / temperature, target, label_smoothing=0.1).item()
    )
    (gradient,) = torch.autograd.grad(loss, logits)
    smooth = 0.9 * F.one_hot(target, 5) + 0.02
    torch.testing.assert_close(gradient, ((logits / temperature).softmax(1) - smooth).detach() / 6)


def test_update_is_fraction_of_newton_step_and_bounded():
    criterion = Tempered(rate=0.25)
    predictions = over_confident(1.2)
    criterion.update_from_validation(predictions)
    assert criterion.log_temperature.item() == pytest.approx(
        -0.25 * log_temperature_step(predictions)
    )
    before = criterion.log_temperature.item()
    criterion.update_from_validation(over_confident(30.0))
    assert criterion.log_temperature.item() == pytest.approx(before - 0.2)


def test_tempered_training_calibrates_under_soft_targets():
    """Label smoothing of 0.4 makes a linear model under-confident; at its temperature the logits are not."""
    torch.manual_seed(0)
    inputs = torch.randn(4000, 4)
    target = torch.multinomial((2 * inputs).softmax(1), 1).squeeze(1)
    gaps = {}
    for name, criterion in {
        "plain": Tempered(base={"name": "ls", "alpha": 0.4}, rate=0.0),
        "tempered": Tempered(base={"name": "ls", "alpha": 0.4}),
    }.items():
        model = torch.nn.Linear(4, 4)
        optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
        for _ in range(40):
            for _ in range(10):
                optimizer.zero_grad()
                criterion(model(inputs[:2000]), target[:2000]).backward()
                optimizer.step()
            held_out = Predictions(model(inputs[2000:]).detach(), target[2000:])
            criterion.update_from_validation(held_out)
        gaps[name] = abs(log_temperature_step(held_out))
    assert gaps["plain"] > 0.2
    assert gaps["tempered"] < 0.02


def test_a_base_that_reads_the_head_is_refused():
    with pytest.raises(InputError, match="not need head_weight"):
        Tempered(num_classes=3, base={"name": "vmf"})


def shifted(bias, samples=4000):
    """Predictions whose logits lack the bias."""
    predictions = over_confident(1.0, samples)
    return Predictions(
        predictions.tensors().logits - torch.tensor(bias), predictions.tensors().target
    )


def test_class_bias_step_equals_missing_share():
    found = class_bias_step(shifted([0.2, -0.2, 0.0, 0.0, 0.0], samples=200_000))
    # Each class for itself: by C / (C - 1) too far, as if the others stood still.
    torch.testing.assert_close(
        found[:2], torch.tensor([0.25, -0.25], dtype=torch.float64), atol=0.02, rtol=0
    )
    assert found[2:].abs().max() < 0.02


def test_class_bias_step_doubles_for_two_classes():
    logits = torch.tensor([[0.1, 0.0]], dtype=torch.float64).repeat(20_000, 1)
    target = torch.arange(20_000) % 2
    torch.testing.assert_close(
        class_bias_step(Predictions(logits, target)),
        torch.tensor([-0.1, 0.1], dtype=torch.float64),
        atol=3e-3,
        rtol=0,
    )


def test_a_class_that_is_never_expected_lacks_much():
    never = Predictions(torch.tensor([[800.0, 0.0]]), torch.tensor([1]))
    assert class_bias_step(never)[1] > 100
    assert class_bias_step(
        Predictions(torch.tensor([[800.0, 0.0]]), torch.tensor([0]))
    ).tolist() == [0, 0]


def weighted_and_copied():
    """The same predictions with a weight of 2 for a third of them, and with two copies of that third."""
    some = over_confident(1.3, samples=300)
    twice = torch.arange(300) % 3 == 0
    copied = Predictions(
        *(torch.cat([each, each[twice]]) for each in (some.tensors().logits, some.tensors().target))
    )
    return Predictions(some.tensors().logits, some.tensors().target, weights=1.0 + twice), copied


def test_to_the_temperature_a_weight_is_copies():
    weighted, copied = weighted_and_copied()
    assert log_temperature_step(weighted) == pytest.approx(log_temperature_step(copied))


def test_weighted_samples_shrink_bias_more_than_copies():
    """One observation that counts twice: chance explains more than with two of them."""
    weighted, copied = (class_bias_step(each) for each in weighted_and_copied())
    assert (weighted.abs() <= copied.abs() + 1e-12).all()
    assert (weighted * copied >= 0).all()
    assert weighted.count_nonzero() > 0


def test_what_chance_explains_moves_no_class():
    right = over_confident(1.0)
    parts = zip(right.tensors().logits.split(50), right.tensors().target.split(50), strict=True)
    moved = torch.stack([class_bias_step(Predictions(*part)) for part in parts]) != 0
    assert 0.25 < moved.double().mean() < 0.4  # |z| is above 1 in 32 of 100
    exact = Predictions(torch.zeros(4, 2), torch.tensor([0, 1, 0, 1]))
    assert class_bias_step(exact).tolist() == [0, 0]


def test_bias_corrects_long_tailed_training_to_balanced_classes():
    """The bias becomes the logarithm of the label's shares, as in logit adjustment."""
    generator = torch.Generator().manual_seed(0)
    shares = torch.tensor([0.7, 0.2, 0.1])

    def drawn(weights, samples):
        target = torch.multinomial(weights, samples, replacement=True, generator=generator)
        return F.one_hot(target, 3) + torch.randn(samples, 3, generator=generator), target

    (inputs, target), (others, labels) = drawn(shares, 6000), drawn(torch.ones(3), 6000)
    model, criterion = torch.nn.Linear(3, 3), Tempered(num_classes=3, bias_rate=0.5)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    for _ in range(30):
        for _ in range(10):
            optimizer.zero_grad()
            criterion(model(inputs), target).backward()
            optimizer.step()
        criterion.update_from_validation(Predictions(model(others).detach(), labels))
    torch.testing.assert_close(
        criterion.bias - criterion.bias.mean(),
        (shares.log() - shares.log().mean()),
        atol=0.15,
        rtol=0,
    )
    assert model(others).softmax(1).mean(0).tolist() == pytest.approx([1 / 3] * 3, abs=0.02)


def test_a_bias_needs_the_number_of_classes():
    with pytest.raises(InputError, match=r"num_classes must be set.*bias_rate=0"):
        Tempered(bias_rate=0.5)


def test_past_predictions_are_stored_tempered():
    criterion = TemperedPast(num_samples=4, num_classes=5, num_epochs=4, keep=0.5)
    criterion.update_from_validation(shifted([1.0, 0.0, 0.0, 0.0, -1.0]))
    logits, target, index = torch.randn(4, 5), torch.tensor([0, 1, 2, 3]), torch.arange(4)
    criterion(logits, target, index=index)
    expected = ((logits + criterion.bias) / criterion.temperature).softmax(1)
    torch.testing.assert_close(criterion.base.memory.rows.float(), expected, atol=3e-3, rtol=0)


def test_ps_kd_average_starts_as_mean():
    criterion = PSKD(num_samples=1, num_classes=2, num_epochs=9, keep=0.75)
    said = [0.2, 0.4, 0.9, 0.5, 0.6, 0.1]
    for p in said:
        criterion(
            torch.tensor([[math.log(p / (1 - p)), 0.0]]), torch.tensor([0]), index=torch.tensor([0])
        )
    mean = sum(said[:4]) / 4
    expected = 0.75 * (0.75 * mean + 0.25 * said[4]) + 0.25 * said[5]
    assert criterion.memory.rows[0, 0].item() == pytest.approx(expected, abs=2e-3)
