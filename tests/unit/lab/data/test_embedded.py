"""Data sets that need no files: digits and synthetic."""

import pytest
import torch

from fedlas.errors import InputError
from fedlas.lab.data import load_dataset


def test_digits_are_divided_and_scaled():
    source = load_dataset("digits")
    assert (len(source.train), len(source.test)) == (1197, 600)
    assert source.train.images.shape[1:] == (1, 8, 8)
    assert (int(source.train.images.min()), int(source.train.images.max())) == (0, 255)
    share = torch.bincount(source.test.target) / 600 - torch.bincount(source.train.target) / 1197
    assert share.abs().max() < 0.002


def test_digits_test_size_can_be_chosen():
    source = load_dataset("digits", num_test=800)
    assert (len(source.train), len(source.test)) == (997, 800)
    for size in (9, 1788, 0.5):
        with pytest.raises(InputError, match="num_test must be"):
            load_dataset("digits", num_test=size)


def test_digits_parts_hold_each_image_once():
    from sklearn.datasets import load_digits

    source = load_dataset("digits")
    ours = torch.cat([source.train.images, source.test.images]).flatten(1).sum(0)
    theirs = torch.from_numpy(load_digits().data * (255 / 16)).round().sum(0)
    assert torch.equal(ours.double(), theirs)


def test_digits_refuse_a_root():
    with pytest.raises(InputError, match=r"no root, .*got '/data'"):
        load_dataset("digits", "/data")


def test_synthetic_labels_follow_their_probabilities():
    test = load_dataset("synthetic", num_classes=4, num_test=40_000, sharpness=2.0).test
    probs = test.label_probs
    assert torch.allclose(probs.sum(1), torch.ones(len(test)), atol=1e-6)
    assert torch.bincount(test.target) / len(test) == pytest.approx(probs.mean(0).numpy(), abs=0.01)
    # calibrated where it counts: in each tenth of the confidence, accuracy is confidence up to three standard errors
    confidence, predicted = probs.max(1)
    for chunk in confidence.argsort().chunk(10):
        accuracy = (predicted[chunk] == test.target[chunk]).float().mean()
        assert abs(accuracy - confidence[chunk].mean()) < 3 * 0.5 / len(chunk) ** 0.5


def test_synthetic_probabilities_depend_on_pixels_alone():
    """Logits (up to a constant per row) fitted on the training pixels predict those of the test part."""
    source = load_dataset("synthetic", num_classes=3, num_train=200, num_test=50, image_size=4)

    def inputs(part):
        return torch.cat(
            [part.images.flatten(1).double(), torch.ones(len(part), 1, dtype=torch.float64)], dim=1
        )

    def outputs(part):
        logits = part.label_probs.double().log()
        return logits - logits[:, :1]

    weight = torch.linalg.lstsq(inputs(source.train), outputs(source.train)).solution
    assert torch.allclose(inputs(source.test) @ weight, outputs(source.test), atol=1e-2)


def test_synthetic_sharpness():
    flat, sharp = (
        load_dataset("synthetic", sharpness=value).test.label_probs for value in (0.0, 30.0)
    )
    assert torch.allclose(flat, torch.full_like(flat, 0.1))
    assert sharp.amax(1).mean() > 0.95


def test_synthetic_seeds_differ():
    first, second = (
        load_dataset("synthetic", num_train=100, seed=seed).train.images for seed in (0, 1)
    )
    assert not torch.equal(first, second)


@pytest.mark.parametrize(
    "option",
    [
        {"num_classes": 1},
        {"num_train": 9},
        {"num_test": 0},
        {"image_size": 0},
        {"sharpness": -1},
        {"seed": -1},
    ],
)
def test_synthetic_refuses_nonsense(option):
    with pytest.raises(InputError, match=next(iter(option))):
        load_dataset("synthetic", **option)
