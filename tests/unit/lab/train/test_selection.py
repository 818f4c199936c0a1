import pytest
import torch

from fedlas import Predictions
from fedlas.errors import InputError
from fedlas.lab.train import check_selection_metric, refined_nll, selection_score
from fedlas.metrics import nll


@pytest.mark.parametrize(
    ("metric", "better", "worse"),
    [
        ("accuracy", 0.5, 0.4),
        ("nll", 0.4, 0.5),
        ("confidence_gap", 0.01, -0.2),
        ("refined_nll", 0.4, 0.5),
    ],
)
def test_merit_is_higher_for_better_values(metric, better, worse):
    assert selection_score(metric, better) > selection_score(metric, worse)
    assert selection_score(metric, better) >= selection_score(metric, better)


def test_refined_nll_ignores_errors_temperature_repairs():
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(2000, 5, generator=generator)
    target = torch.multinomial(logits.softmax(1), 1, generator=generator).squeeze(1)
    plain = [nll(Predictions(scale * logits, target)) for scale in (1.0, 4.0)]
    refined = [refined_nll(Predictions(scale * logits, target)) for scale in (1.0, 4.0)]
    assert plain[1] > plain[0] + 0.5
    assert refined[0] == pytest.approx(refined[1], rel=1e-5)
    assert refined[0] <= plain[0]


def test_what_can_select():
    assert check_selection_metric("refined_nll") == "refined_nll"
    with pytest.raises(InputError, match="Did you mean 'refined_nll'"):
        check_selection_metric("refined_nl")
