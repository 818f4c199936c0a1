import pytest
import torch

from fedlas import Predictions
from fedlas.calibrators._affine import temperature_scale
from fedlas.calibrators.temperature import nll_temperature


@pytest.mark.parametrize("factor", [1e-6, 1.0, 1e6])
def test_it_is_one_over_the_temperature_whatever_the_size_of_the_logits(generated, factor):
    val = generated()
    scaled = Predictions(val.logits * factor, val.target)
    assert temperature_scale(scaled) * factor == pytest.approx(1 / nll_temperature(val), rel=1e-8)


def test_an_offset_does_not_matter(generated):
    val = generated()
    assert temperature_scale(Predictions(val.logits + 100, val.target)) == pytest.approx(
        temperature_scale(val), rel=1e-8
    )


@pytest.mark.parametrize("sign", [1, -1])
def test_where_the_temperature_has_no_bound_the_spread_stands_for_it(sign):
    target = torch.arange(4).repeat(5)
    logits = 100.0 * sign * torch.nn.functional.one_hot(target, 4)
    spread = float((logits - logits.mean(1, keepdim=True)).square().mean().sqrt())
    assert temperature_scale(Predictions(logits, target)) == pytest.approx(1 / spread)


def test_equal_logits():
    assert temperature_scale(Predictions(torch.full((3, 2), 7.0), [0, 1, 1])) == 1.0
