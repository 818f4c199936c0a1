import numpy as np
import pytest
import torch
from PIL import Image

from fedlas.errors import InputError
from fedlas.lab.data import View


def ramp(width=40, height=20):
    """Gray levels that say where a pixel was: red its column, green its row."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, :, 0], pixels[:, :, 1] = np.arange(width), np.arange(height)[:, None]
    return Image.fromarray(pixels)


def drawn(view, seed, *, flip=False):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return view.build_transform(augment=True, flip=flip)(ramp())


def test_testing_cuts_the_center():
    pixels = View(resize=20, crop=10).build_transform(augment=False, flip=True)(ramp())
    assert pixels.dtype == torch.uint8
    assert pixels[0, 0].tolist() == list(range(15, 25))
    assert pixels[1, :, 0].tolist() == list(range(5, 15))


def test_random_crops_are_anywhere_and_keep_the_scale():
    corners = set()
    for seed in range(60):
        pixels = drawn(View(resize=20, crop=18, train_crop="random"), seed)
        left, top = int(pixels[0, 0, 0]), int(pixels[1, 0, 0])
        assert pixels[0, 0].tolist() == list(range(left, left + 18))
        corners.add((left, top))
    assert {top for _, top in corners} == {0, 1, 2}
    assert max(left for left, _ in corners) == 22
    assert min(left for left, _ in corners) == 0


def test_random_resized_crop_keeps_min_area():
    for seed in range(30):
        pixels = drawn(View(resize=20, crop=16, min_area=0.5), seed).float()
        seen = (pixels[0].max() - pixels[0].min() + 2) * (pixels[1].max() - pixels[1].min() + 2)
        assert seen > 0.5 * 800 * 0.9


def test_squashing_keeps_everything():
    pixels = View(resize=20, crop=20, squash=True).build_transform(augment=False, flip=False)(
        ramp()
    )
    assert int(pixels[0].max()) >= 37
    assert int(pixels[0].min()) <= 2


def test_training_center_crop_matches_testing_except_flip():
    view = View(resize=20, crop=10, train_crop="center")
    plain = view.build_transform(augment=False, flip=False)(ramp())
    assert {torch.equal(drawn(view, seed, flip=True), plain) for seed in range(10)} == {True, False}
    assert torch.equal(drawn(view, 0), plain)


def test_the_banner_is_cut_off_first():
    picture = np.full((60, 40, 3), 200, np.uint8)
    picture[-20:] = 0
    view = View(resize=16, crop=16, squash=True, cut_bottom=20)
    assert (view.build_transform(augment=False, flip=False)(Image.fromarray(picture)) == 200).all()
    tiny = Image.fromarray(picture[:5])
    assert view.build_transform(augment=False, flip=False)(tiny).shape == (3, 16, 16)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"crop": 0}, "crop must be a whole number"),
        ({"resize": 100}, "resize must be at least crop=224; got 100"),
        ({"train_crop": "rand"}, "Did you mean 'random'"),
        ({"interpolation": "nearest"}, "interpolation must be one of bilinear, bicubic"),
        ({"min_area": 1.5}, r"finite number in \(0, 1\]; got float 1.5"),
        ({"min_area": 0}, "min_area"),
        ({"cut_bottom": -1}, "cut_bottom"),
    ],
)
def test_nonsense_is_refused(options, words):
    with pytest.raises(InputError, match=words):
        View(**options)
