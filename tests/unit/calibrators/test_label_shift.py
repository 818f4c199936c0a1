"""Known shares, estimated shares, and when the estimate can be trusted."""

import json
from functools import partial

import numpy as np
import pytest
import torch

from fedlas import Predictions
from fedlas.calibrators import CalibrationWarning, Calibrator, LabelShift, label_shift
from fedlas.calibrators._fit.softmax_regression import fit_bias_corrected_temperature
from fedlas.calibrators.fit_notes import fit_with_notes
from fedlas.metrics import nll

CENTERS = torch.tensor([[2.0, 0.0], [0.0, 2.0], [-1.0, -1.0]], dtype=torch.float64)


def gaussians(samples, shares, seed, *, factor=1.0, offset=(0.0, 0.0, 0.0)):
    """Three normal clouds, and what the model that knows them says for equal shares, times ``factor``, plus an offset.

    ``p(x | y)`` is the same for all shares.
    """
    generator = torch.Generator().manual_seed(seed)
    target = torch.multinomial(torch.tensor(shares), samples, replacement=True, generator=generator)
    x = CENTERS[target] + torch.randn(samples, 2, generator=generator, dtype=torch.float64)
    logits = x @ CENTERS.T - 0.5 * CENTERS.square().sum(1)
    return Predictions(factor * logits + torch.tensor(offset), target)


EQUAL, RARE = (1 / 3, 1 / 3, 1 / 3), (0.05, 0.25, 0.7)


@pytest.mark.parametrize("base", ["none", "temperature", "bias-corrected"])
@pytest.mark.parametrize("seed", range(3))
def test_em_recovers_shares_and_bayes_probabilities(base, seed):
    val, test = gaussians(4000, EQUAL, seed), gaussians(4000, RARE, seed + 10)
    adapted = LabelShift(base=base).fit(val).adapt(test.tensors().logits)
    real = torch.bincount(test.tensors().target).double() / 4000
    torch.testing.assert_close(adapted.target_prior, real, atol=0.02, rtol=0)
    bayes = (test.tensors().logits + torch.tensor(RARE).log()).softmax(1)
    assert float((adapted.transform(test).tensors().probs - bayes).abs().mean()) < 0.012
    assert nll(adapted.transform(test)) < nll(test) - 0.05


def test_bad_model_needs_a_calibrating_base():
    """With wrong factor and offsets the estimated shares are wrong, and a temperature cannot repair it."""
    wrong = {"factor": 2.0, "offset": (1.5, 0.0, -1.0)}
    val, test = gaussians(4000, EQUAL, 0, **wrong), gaussians(4000, RARE, 1, **wrong)
    off = {
        base: float(
            (LabelShift(base=base).fit(val).adapt(test).target_prior - torch.tensor(RARE))
            .abs()
            .sum()
            / 2
        )
        for base in ("none", "temperature", "bias-corrected")
    }
    assert off["bias-corrected"] < 0.03 < 0.04 < min(off["none"], off["temperature"])


def test_a_known_prior_is_bayes_rule():
    val, test = gaussians(500, EQUAL, 0), gaussians(50, RARE, 1)
    found = LabelShift(prior=RARE, base="none").fit(val)
    torch.testing.assert_close(found.source_prior, val.tensors().probs.mean(0))
    odds = test.tensors().probs * torch.tensor(RARE) / val.tensors().probs.mean(0)
    torch.testing.assert_close(
        found.transform(test).tensors().probs,
        odds / odds.sum(1, keepdim=True),
        atol=1e-6,
        rtol=1e-6,
    )
    torch.testing.assert_close(found.target_prior, torch.tensor(RARE, dtype=torch.float64))
    assert found.prior == pytest.approx(RARE)


@pytest.mark.parametrize("base", ["none", "temperature", "bias-corrected"])
def test_the_source_itself_keeps_its_shares(base):
    val = gaussians(1000, RARE, 0)
    fitted = LabelShift(base=base).fit(val)
    source = fitted.source_prior.clone()
    torch.testing.assert_close(fitted.adapt(val).target_prior, source, atol=1e-6, rtol=0)


@pytest.mark.parametrize("scale", [1.0, 0.7])
def test_weights_of_the_unlabeled_samples_count_them(scale):
    """A weight of 2 is a repeated sample, one of 0 none; of other weights only the ratios matter."""
    fitted, test = LabelShift().fit(gaussians(1000, EQUAL, 0)), gaussians(600, RARE, 1)
    weights = torch.where(test.tensors().predicted == 0, 3, torch.arange(600) % 2)
    repeated = test.tensors().logits.repeat_interleave(weights, dim=0)
    found = fitted.adapt(Predictions(test.tensors().logits, weights=scale * weights)).target_prior
    torch.testing.assert_close(found, fitted.adapt(repeated).target_prior, atol=1e-4, rtol=0)


@pytest.mark.filterwarnings("ignore::fedlas.errors.CalibrationWarning")
def test_zero_probabilities_are_raised_as_in_fit():
    val = gaussians(1000, RARE, 0, factor=4.0)
    rounded = (val.tensors().probs * 100).round() / 100
    val = Predictions.from_probs(rounded / rounded.sum(1, keepdim=True), val.tensors().target)
    fitted = LabelShift().fit(val)
    source = fitted.source_prior.tolist()
    assert fitted.adapt(val).target_prior.tolist() == pytest.approx(source, abs=1e-6)


def test_bias_correction_is_the_minimum():
    val = gaussians(800, RARE, 0, factor=2.0)
    found = fit_bias_corrected_temperature(
        val.tensors().logits, val.tensors().target, scale=0.7, width=0.7
    )
    assert found.converged
    scale = found.weight[:1].clone().requires_grad_()
    bias = found.bias.clone().requires_grad_()
    loss = torch.nn.functional.cross_entropy(
        scale * val.tensors().logits + bias, val.tensors().target
    )
    for gradient in torch.autograd.grad(loss, [scale, bias]):
        assert gradient.abs().max() < 1e-3  # up to the hold, with the weight of one sample
    assert torch.equal(found.weight, found.weight[:1].expand(3))
    shares = torch.bincount(val.tensors().target).double() / 800
    torch.testing.assert_close(
        found(val.tensors().logits).softmax(1).mean(0), shares, atol=1e-4, rtol=0
    )


def test_em_that_does_not_converge_says_so(monkeypatch):
    monkeypatch.setattr(
        label_shift, "fit_mixture_weights", partial(label_shift.fit_mixture_weights, most_steps=2)
    )
    fitted = LabelShift().fit(gaussians(500, EQUAL, 0))
    with pytest.warns(CalibrationWarning, match="EM did not converge"):
        fitted.adapt(gaussians(500, RARE, 1))
    assert fitted.target_prior[2] > 0.4  # of use, though not exact


def test_vanished_class_keeps_a_tiny_share():
    fitted = LabelShift().fit(gaussians(3000, EQUAL, 0)).adapt(gaussians(2000, (0.5, 0.5, 0.0), 1))
    assert 0 < fitted.target_prior[2] < 0.01
    assert torch.isfinite(fitted.transform(gaussians(9, EQUAL, 2)).tensors().logits).all()


def test_adapting_again_forgets_and_fitting_again_too():
    val, first, second = (
        gaussians(500, EQUAL, 0),
        gaussians(500, RARE, 1),
        gaussians(500, (0.8, 0.1, 0.1), 2),
    )
    fresh = LabelShift().fit(val).adapt(second)
    used = LabelShift().fit(val).adapt(first)
    assert torch.equal(used.adapt(second).target_prior, fresh.target_prior)
    assert torch.equal(used.fit(val).target_prior, used.source_prior)


def test_the_adapted_state_is_saved(tmp_path):
    val, test = gaussians(500, EQUAL, 0), gaussians(500, RARE, 1)
    adapted = LabelShift().fit(val).adapt(test)
    loaded = Calibrator.load(adapted.save(tmp_path / "shift.json"))
    assert torch.equal(loaded.target_prior, adapted.target_prior)
    assert torch.equal(
        loaded.transform(test).tensors().logits, adapted.transform(test).tensors().logits
    )
    assert torch.equal(loaded.adapt(val).target_prior, adapted.adapt(val).target_prior)
    content = json.loads((tmp_path / "shift.json").read_text())
    content["state"]["source"][1] *= -1
    (tmp_path / "bad.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="state of a LabelShift"):
        LabelShift.load(tmp_path / "bad.json")


def test_few_mistakes_leave_the_offsets_out():
    logits = np.eye(3)[np.arange(30) % 3] * 8.0
    with pytest.warns(CalibrationWarning, match="too few to determine"):
        fitted = LabelShift().fit(Predictions(logits, np.arange(30) % 3))
    assert not fitted.transform(Predictions(np.zeros((1, 3)), [0])).tensors().logits.any()


@pytest.mark.parametrize(
    "prior",
    [
        [0.5, 0.6],
        [1.0, 0.0],
        [-0.1, 1.1],
        [],
        0.3,
        "half",
        [[0.5, 0.5]],
        [float("nan"), 1.0],
        [None, 1],
    ],
)
def test_what_is_no_prior(prior):
    with pytest.raises(ValueError, match=r"LabelShift: prior .*class shares"):
        LabelShift(prior=prior)


def test_wrong_use():
    val = gaussians(200, EQUAL, 0)
    with pytest.raises(ValueError, match=r"base .*got 'platt'"):
        LabelShift(base="platt")
    with pytest.raises(ValueError, match=r"LabelShift\.fit: prior .*3 classes.*2 shares"):
        LabelShift(prior=[0.5, 0.5]).fit(val)
    with pytest.raises(ValueError, match=r"LabelShift\.adapt: .*fitted first"):
        LabelShift().adapt(val)
    with pytest.raises(ValueError, match=r"LabelShift\.adapt: prior must be None"):
        LabelShift(prior=RARE).fit(val).adapt(val)
    fitted = LabelShift().fit(val)
    for wrong in (torch.zeros(5, 4), torch.zeros(0, 3), torch.zeros(2, 3, 4)):
        with pytest.raises(ValueError, match=r"LabelShift\.adapt: .*\(N, [3C]\)"):
            fitted.adapt(wrong)
    with pytest.raises(ValueError, match=r"LabelShift\.adapt: .*finite"):
        fitted.adapt(torch.full((3, 3), float("nan")))
    with pytest.raises(ValueError, match=r"LabelShift\.adapt: .*floats of shape"):
        fitted.adapt([[0, 1, 2]])
    for name in ("source_prior", "target_prior"):
        with pytest.raises(ValueError, match=rf"LabelShift.{name}: .* must be fitted first"):
            getattr(LabelShift(), name)


def test_command_line_adapts_to_evaluated_samples():
    val, test = gaussians(500, EQUAL, 0), gaussians(500, RARE, 1)
    adapted, notes = fit_with_notes(LabelShift(), val, unlabeled=test)
    assert torch.equal(adapted.target_prior, LabelShift().fit(val).adapt(test).target_prior)
    assert "without their labels" in notes[0]
    plain, notes = fit_with_notes(LabelShift(), val)
    assert torch.equal(plain.target_prior, plain.source_prior)
    assert notes == ()


@pytest.mark.parametrize("base", ["none", "temperature"])
def test_absent_class_is_named_for_any_base(base):
    given = gaussians(400, [0.5, 0.5, 1e-9], 0)
    with pytest.warns(CalibrationWarning, match="class 2 of 3 without a validation sample"):
        LabelShift(base=base).fit(given)
