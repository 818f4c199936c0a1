"""Net benefit against dcurves and against its definition."""

import numpy as np
import pytest
import torch

from fedlas import Predictions
from fedlas.binary import net_benefit


def test_dcurves_has_the_same_numbers(predictions):
    """dcurves.dca(DataFrame({"y": y, "m": p}), outcome="y", modelnames=["m"], thresholds=[...]), dcurves 1.1.7."""
    curve = net_benefit(predictions, thresholds=[0.1, 0.3, 0.5, 0.8])
    np.testing.assert_allclose(curve.model, [0.37611111, 0.28178571, 0.1625, -0.14], atol=1e-8)
    np.testing.assert_allclose(
        curve.treat_all, [0.35277778, 0.16785714, -0.165, -1.9125], atol=1e-8
    )


def test_definition_gain_and_errors(draw):
    p = draw(700, factor=1.3)
    probability, outcome = p.tensors().probs[:, 1].numpy(), p.target
    curve = net_benefit(p, thresholds=[0.05, 0.25, 0.6, 0.995])
    for row, limit in enumerate(curve.threshold):
        each = np.where(outcome == 1, 1.0, -limit / (1 - limit))
        acted = each * (probability >= limit)
        better = each if each.mean() > 0 else np.zeros(700)
        for value, low, high, samples in (
            (curve.model, curve.low, curve.high, acted),
            (curve.gain, curve.gain_low, curve.gain_high, acted - better),
        ):
            error = samples.std() / np.sqrt(700)
            assert value[row] == pytest.approx(samples.mean(), abs=1e-12)
            assert high[row] - value[row] == pytest.approx(1.959964 * error, abs=1e-7)
            assert value[row] - low[row] == pytest.approx(1.959964 * error, abs=1e-7)


def test_a_probability_on_the_threshold_is_acted_on(two_class):
    curve = net_benefit(two_class([0.0, 0.0, -1.0], [1, 0, 1]), thresholds=[0.5])
    assert curve.model[0] == 0.0  # one hit and one needless action, of equal weight
    assert len(net_benefit(two_class([0.0, 1.0], [0, 1])).threshold) == 99


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "form",
    [lambda p: p, lambda p: Predictions(p.tensors().logits, p.tensors().target)],
    ids=["probs", "logits"],
)
def test_rounded_probabilities_meet_the_thresholds(dtype, form):
    for step in (1e-2, 1e-3, 1e-4):
        limit = np.arange(1, 100) * step
        p = form(
            Predictions.from_probs(torch.tensor(limit).to(dtype), torch.ones(99, dtype=torch.int64))
        )
        assert (
            net_benefit(p, thresholds=limit).model.tolist() == ((99 - np.arange(99)) / 99).tolist()
        )
    low = Predictions.from_probs(
        torch.tensor([1e-8, 9.9e-9], dtype=torch.float64).to(dtype), [1, 1]
    )
    assert net_benefit(low, thresholds=[1e-8]).model.tolist() == [0.5]


@pytest.mark.parametrize(
    "thresholds", [[], [0.0], [1.0], [0.2, float("nan")], "half", [[0.5]], 0.5]
)
def test_thresholds_out_of_range(predictions, thresholds):
    with pytest.raises(ValueError, match=r"thresholds .*\(0, 1\)"):
        net_benefit(predictions, thresholds=thresholds)
