from dataclasses import replace

import numpy as np
import pytest
import torch

from fedlas import Predictions
from fedlas.calibrators import CalibrationWarning, TemperatureScaling
from fedlas.errors import InputError
from fedlas.metrics import nll
from fedlas.zoo import SemanticGrouping


def draw(samples=3000, seed=0, factors=(1.0, 4.0), dim=3, dtype=torch.float64):
    """Too sure by one factor where the first feature is above 0, by the other elsewhere."""
    random = torch.Generator().manual_seed(seed)
    features = torch.randn(samples, dim, generator=random, dtype=torch.float64)
    logits = 1.5 * torch.randn(samples, 5, generator=random, dtype=torch.float64)
    target = torch.multinomial(logits.softmax(1), 1, generator=random).squeeze(1)
    factor = torch.where(features[:, :1] > 0, *factors)
    return Predictions(
        (factor * logits).to(dtype),
        target,
        features=features.to(dtype),
        label_probs=logits.softmax(1),
    )


def test_temperatures_follow_what_the_features_say():
    val, test = draw(), draw(seed=1)
    grouped, plain = SemanticGrouping().fit(val), TemperatureScaling().fit(val)
    error = {
        type(c).__name__: float(
            (c.transform(test).tensors().probs - test.tensors().label_probs).abs().mean()
        )
        for c in (grouped, plain)
    }
    assert error["SemanticGrouping"] < 0.4 * error["TemperatureScaling"]
    low, high = grouped.temperature.aminmax(dim=1)
    assert low.median() == pytest.approx(1, rel=0.15)
    assert high.median() == pytest.approx(4, rel=0.15)


def test_without_groups_in_the_data_it_costs_little():
    val, test = draw(factors=(2.0, 2.0)), draw(seed=1, factors=(2.0, 2.0), samples=20_000)
    grouped, plain = (
        nll(c.fit(val).transform(test)) for c in (SemanticGrouping(), TemperatureScaling())
    )
    assert grouped < plain + 2e-3


def test_temperatures_are_fitted_to_other_samples():
    """With as many features as samples, groups that fit their own labels perfectly are easily found."""
    val, test = (
        draw(samples=400, dim=200, factors=(2.0, 2.0)),
        draw(seed=1, dim=200, factors=(2.0, 2.0), samples=5000),
    )
    grouped, plain = (
        nll(c.fit(val).transform(test)) for c in (SemanticGrouping(), TemperatureScaling())
    )
    assert grouped < plain + 0.02


def test_the_mean_over_partitions_by_hand():
    val, test = draw(samples=500), draw(samples=50, seed=1)
    calibrator = SemanticGrouping(num_groups=3, num_partitions=4).fit(val)
    assert calibrator.weight.shape == (4, 3, 3)
    expected = torch.zeros(50, 5, dtype=torch.float64)
    for row in range(50):
        for weight, temperature in zip(calibrator.weight, calibrator.temperature, strict=True):
            group = int((weight @ test.tensors().features[row]).argmax())
            expected[row] += (test.tensors().logits[row] / temperature[group]).softmax(0) / 4
    torch.testing.assert_close(calibrator.transform(test).tensors().probs, expected)


def test_one_group_is_temperature_scaling_of_halves():
    val = draw(factors=(2.0, 2.0))
    calibrator = SemanticGrouping(num_groups=1, num_partitions=3).fit(val)
    known = TemperatureScaling().fit(val).temperature
    assert calibrator.temperature.flatten().tolist() == pytest.approx([known] * 3, rel=0.1)
    halves = [
        np.random.RandomState(np.random.MT19937(np.random.SeedSequence((0, u)))) for u in range(3)
    ]
    assert len({float(half.uniform()) for half in halves}) == 3
    assert len(set(calibrator.temperature.flatten().tolist())) == 3


def test_seed_determines_fit_without_global_generators():
    val = draw(samples=400)
    state = torch.get_rng_state()
    np_state = np.random.get_state()[1].copy()
    first, again, other = (SemanticGrouping(seed=seed).fit(val) for seed in (0, 0, 1))
    assert torch.equal(first.weight, again.weight)
    assert not torch.equal(first.weight, other.weight)
    assert torch.equal(torch.get_rng_state(), state)
    assert (np.random.get_state()[1] == np_state).all()


@pytest.mark.parametrize("unit", [1e-4, 1e4])
def test_the_unit_of_the_features_does_not_matter(unit):
    val, test = draw(), draw(seed=1)
    grouped = SemanticGrouping().fit(
        Predictions(
            val.tensors().logits, val.tensors().target, features=unit * val.tensors().features
        )
    )
    after = grouped.transform(
        Predictions(
            test.tensors().logits, test.tensors().target, features=unit * test.tensors().features
        )
    )
    same = SemanticGrouping().fit(val).transform(test)  # but for the halves, which are drawn anew
    assert (after.tensors().probs - same.tensors().probs).abs().mean() < 0.01
    assert grouped.temperature.amax(dim=1).median() == pytest.approx(4, rel=0.15)


@pytest.mark.parametrize("order", range(3))
def test_the_order_of_the_samples_does_not_matter(order):
    val = draw(samples=300)
    shuffle = torch.randperm(300, generator=torch.Generator().manual_seed(order))
    other = Predictions(
        val.tensors().logits[shuffle],
        val.tensors().target[shuffle],
        features=val.tensors().features[shuffle],
    )
    assert torch.equal(
        SemanticGrouping().fit(val).temperature, SemanticGrouping().fit(other).temperature
    )


def test_the_predicted_class_stays_in_single_precision_too():
    val, test = draw(dtype=torch.float32), draw(seed=1, dtype=torch.float32, samples=20_000)
    assert torch.equal(
        SemanticGrouping().fit(val).transform(test).tensors().predicted, test.tensors().predicted
    )


def test_too_few_samples_for_groups_of_their_own():
    val = draw(samples=30)
    with pytest.warns(
        CalibrationWarning, match="no group has 20 samples and a temperature of its own"
    ):
        calibrator = SemanticGrouping().fit(val)
    known = TemperatureScaling().fit(val).temperature
    assert (calibrator.temperature == known).all()
    torch.testing.assert_close(
        calibrator.transform(val).tensors().probs, (val.tensors().logits / known).softmax(1)
    )


def test_small_or_bounded_groups_use_overall_temperature():
    val = draw(samples=600)
    weight = torch.tensor([[9.0, 0, 0], [0, 0, 0], [0, 9.0, 0]], dtype=torch.float64)
    group = (val.tensors().features @ weight.T).argmax(1)
    target = torch.where(group == 0, val.tensors().predicted, val.tensors().target)
    keep = torch.cat([(group != 1).nonzero(), (group == 1).nonzero()[:19]]).squeeze(1)
    own = (
        TemperatureScaling()
        .fit(Predictions(val.tensors().logits[group == 2], target[group == 2]))
        .temperature
    )
    found = SemanticGrouping(num_groups=3)._group_temperatures(
        weight, val.tensors().features[keep], val.tensors().logits[keep], target[keep], 7.0
    )
    assert found.tolist() == [7.0, 7.0, pytest.approx(own)]


def test_without_a_mistake():
    val = draw(samples=300)
    with pytest.warns(
        CalibrationWarning, match=r"0 of 300 validation samples are mistakes, .* held at"
    ):
        SemanticGrouping().fit(
            Predictions(
                val.tensors().logits, val.tensors().predicted, features=val.tensors().features
            )
        )


@pytest.mark.parametrize("factor", [2.0**-100, 2.0**10, 2.0**90])
def test_logits_of_any_size(factor):
    val = draw(samples=1000)
    scaled = replace(val, logits=val.tensors().logits * factor)
    grouped, plain = (
        nll(c.fit(scaled).transform(scaled)) for c in (SemanticGrouping(), TemperatureScaling())
    )
    assert grouped < plain - 0.01


def test_features_that_are_all_zero():
    val = draw(samples=300)
    flat = Predictions(val.tensors().logits, val.tensors().target, features=torch.zeros(300, 3))
    assert torch.isfinite(SemanticGrouping().fit(flat).transform(flat).tensors().logits).all()


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"num_groups": 0}, "num_groups must be a whole number of at least 1"),
        ({"num_partitions": 1.5}, "num_partitions must be a whole number"),
        ({"penalty": -1}, r"penalty must be a finite number in \[0, inf\)"),
        ({"seed": -1}, "seed must be a whole number of at least 0"),
    ],
)
def test_wrong_arguments(kwargs, message):
    with pytest.raises(InputError, match=message):
        SemanticGrouping(**kwargs)


def test_a_file_with_impossible_temperatures_is_refused(tmp_path):
    path = SemanticGrouping(num_partitions=1).fit(draw(samples=300)).save(tmp_path / "c.json")
    text = path.read_text()
    start = text.index('"temperature"')
    path.write_text(text[:start] + text[start:].replace("1.", "-1.", 1))
    with pytest.raises(InputError, match="must hold the state of a SemanticGrouping"):
        SemanticGrouping.load(path)
