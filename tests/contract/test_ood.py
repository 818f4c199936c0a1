"""What every registered OOD score must do; a new one needs no line here."""

import importlib.util
import inspect
from dataclasses import replace

import pytest
import torch
from torch import nn

from fedlas.errors import InputError
from fedlas.predictions import Predictions
from fedlas.zoo.ood import (
    OOD_SCORES,
    Outputs,
    Reference,
    compute_score,
    score_options,
)
from fedlas.zoo.ood.base import INPUTS, depends_on_temperature, required_inputs

SAMPLES, CLASSES, WIDTH = 40, 4, 6


@pytest.fixture(params=OOD_SCORES.entries(), ids=lambda entry: entry.name)
def entry(request):
    for package in request.param.metadata.get("packages", ()):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"needs {package}")
    return request.param


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, images):
        return self.head(images.flatten(1))


@pytest.fixture(scope="module")
def setting():
    """A model whose features are its six pixels, and its predictions on three parts."""
    torch.manual_seed(0)
    model = Model().eval()

    def said(samples, scale=1.0):
        images = scale * torch.randn(samples, 1, 2, 3)
        with torch.no_grad():
            logits = model(images)
        return images, Predictions(
            logits, torch.arange(samples) % CLASSES, features=images.flatten(1)
        )

    images, test = said(SAMPLES)
    (_, val), (_, train) = said(60), said(80)
    return model, images, test, Reference(val, train, model.head)


def score(entry, setting, rows=slice(None), scale=1.0):
    model, images, test, reference = setting
    outputs = Outputs(test.tensors().logits[rows] / scale, test.tensors().features[rows])
    if "model" in required_inputs(entry):
        value = entry.value(model=model, inputs=images[rows], std=(1.0,))
        outputs = replace(outputs, scores={entry.name: value})
    return compute_score(entry.name, outputs, reference=reference.divide_logits(scale))


def test_metadata(entry):
    assert entry.summary.endswith(".")
    assert entry.name == entry.name.lower()
    assert entry.value.__name__.endswith("_score")
    for name in ("title", "paper", "url"):
        assert isinstance(entry.metadata.get(name), str), name
    assert entry.metadata["url"].startswith("https://")
    assert isinstance(entry.metadata["year"], int)
    assert required_inputs(entry)


def test_parameters_are_needs_or_options(entry):
    for name, parameter in inspect.signature(entry.value).parameters.items():
        if name in INPUTS:
            assert parameter.default is inspect.Parameter.empty, name
        else:
            assert parameter.kind is inspect.Parameter.KEYWORD_ONLY, name
            assert score_options(entry)[name] is parameter.default


def test_one_finite_number_a_sample(entry, setting):
    found = score(entry, setting)
    assert found.shape == (SAMPLES,)
    assert found.dtype == torch.float64
    assert torch.isfinite(found).all()
    assert found.unique().numel() > SAMPLES // 2
    assert torch.equal(found, score(entry, setting))


def test_predictions_without_labels_are_scored_alike(entry, setting):
    _, _, test, reference = setting
    if "model" in required_inputs(entry):
        with pytest.raises(InputError, match="is computed from images"):
            compute_score(entry.name, test.without_target(), reference=reference)
    else:
        found = compute_score(entry.name, test.without_target(), reference=reference)
        assert torch.equal(found, score(entry, setting))


def test_samples_do_not_see_each_other(entry, setting):
    """What else is scored in the same call does not matter, so test sets can be scored together."""
    found = score(entry, setting)
    order = torch.randperm(SAMPLES, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(score(entry, setting, order), found[order], atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(score(entry, setting, slice(3, 9)), found[3:9], atol=1e-6, rtol=1e-5)


def test_a_temperature_changes_those_that_look_at_logits(entry, setting):
    changed = not torch.allclose(score(entry, setting), score(entry, setting, scale=3.0), rtol=1e-4)
    assert changed == depends_on_temperature(entry)


def test_its_arguments_stay_as_they_are(entry, setting):
    _, images, test, reference = setting
    before = [
        value.clone()
        for value in (
            images,
            test.tensors().logits,
            test.tensors().features,
            reference.train.tensors().features,
        )
    ]
    score(entry, setting)
    for old, new in zip(
        before,
        (
            images,
            test.tensors().logits,
            test.tensors().features,
            reference.train.tensors().features,
        ),
        strict=True,
    ):
        assert torch.equal(old, new)
    assert all(weight.grad is None for weight in setting[0].parameters())


def test_an_unknown_option_is_refused(entry, setting):
    if "model" in required_inputs(entry):
        pytest.skip("its options are the model's business")
    _, _, test, reference = setting
    with pytest.raises(InputError, match="options must be parameters of"):
        compute_score(
            entry.name, Outputs.from_predictions(test), reference=reference, options={"nonsense": 1}
        )


def test_extreme_logits_give_finite_scores(entry, setting):
    if "model" in required_inputs(entry) or not depends_on_temperature(entry):
        pytest.skip("does not look at logits")
    reference = setting[-1]
    extreme = Outputs(torch.tensor([[1e4, -1e4, 0.0, 0.0], [0.0] * 4, [1e-4] * 4, [-1e4] * 4]))
    assert torch.isfinite(compute_score(entry.name, extreme, reference=reference)).all()
