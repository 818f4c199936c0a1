import pytest
import torch
from torch import nn

from fedlas.errors import InputError
from fedlas.lab.models import build_model
from fedlas.lab.recipes import load_recipe, plan_runs
from fedlas.lab.runs import build_objective, prepare_data


def build(**options):
    torch.manual_seed(0)
    return build_model("airnet", num_classes=10, in_channels=3, **options)


def test_three_groups_at_the_published_sizes():
    model = build(widths=[64, 256, 256])
    shapes, (first, *_) = [], model.groups
    for group in model.groups:
        group.register_forward_hook(
            lambda _module, _inputs, output: shapes.append(tuple(output.shape[1:]))
        )
    model(torch.randn(2, 3, 32, 32))
    assert shapes == [(64, 15, 15), (256, 7, 7), (256, 3, 3)]
    # 12 directions of a 2 x 2 patch of three colors, and their negatives
    assert first[0].in_channels == 24


def test_convolutions_begin_as_the_identity():
    convolution = build(widths=[24, 24, 24]).groups[0][0]
    maps = torch.randn(1, 24, 5, 5)
    torch.testing.assert_close(convolution(maps), maps)


def test_first_layer_whitens_fitted_images():
    # neighbors are correlated
    model, images = build(), torch.rand(64, 3, 12, 12) @ torch.rand(12, 12)
    images = (images - images.mean()) / images.std()
    model.fit_inputs(images)
    outputs = nn.functional.conv2d(images, model.whitening)[:, :12].transpose(0, 1).flatten(1)
    variances = torch.linalg.eigvalsh(torch.cov(outputs))
    assert variances.min() > 0.5
    assert variances.max() < 1.01
    assert torch.equal(model.whitening[12:], -model.whitening[:12])


def test_run_fits_but_does_not_train_whitening():
    (run,) = plan_runs(
        load_recipe("digits", ["model={name: airnet, widths: [8, 8, 8]}"]), losses=["ce"], seeds=[0]
    )
    splits = prepare_data(run)
    before, fitted = (
        build_objective(run, splits, pretrained=value).model for value in (False, True)
    )
    assert not torch.equal(before.whitening, fitted.whitening)
    assert all(
        torch.equal(a, b) for a, b in zip(before.parameters(), fitted.parameters(), strict=True)
    )
    assert "whitening" not in dict(fitted.named_parameters())


@pytest.mark.parametrize("widths", [64, [64, 64], [64, 64, 0], "big"])
def test_nonsense_widths(widths):
    with pytest.raises(InputError, match="widths"):
        build(widths=widths)


def test_feature_scale_multiplies_logits_without_bias():
    images, models = torch.randn(2, 3, 32, 32), [build(), build(feature_scale=1.0)]
    published, plain = (model.eval()(images) - model.fc.bias for model in models)
    torch.testing.assert_close(plain, 9 * published)
    with pytest.raises(InputError, match="feature_scale"):
        build(feature_scale=0)
