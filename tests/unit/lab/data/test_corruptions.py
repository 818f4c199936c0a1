from itertools import pairwise

import numpy as np
import pytest
import torch

from fedlas.errors import InputError
from fedlas.lab.data import Images
from fedlas.lab.data.shift import CORRUPTIONS, SEVERITIES, Corruption, corrupt_part
from fedlas.lab.data.shift.corruptions import (
    clipped_zoom,
    convolve,
    disk_kernel,
    motion_kernel,
    plasma_fractal,
)

PAPER = {  # Hendrycks and Dietterich 2019, section 3
    "gaussian-noise", "shot-noise", "impulse-noise", "defocus-blur", "glass-blur", "motion-blur", "zoom-blur", "snow",
    "frost", "fog", "brightness", "contrast", "elastic-transform", "pixelate", "jpeg-compression",
}  # fmt: skip


def scene(size=32, channels=3):
    """A smooth picture with an edge, so that blur, noise and displacement all change it."""
    rows, columns = np.mgrid[0:size, 0:size] / size
    layers = [0.2 + 0.5 * columns, 0.8 - 0.5 * rows, 0.3 + 0.3 * (rows > columns)][:channels]
    return torch.from_numpy((255 * np.stack(layers)).astype(np.uint8))


@pytest.fixture(params=list(CORRUPTIONS))
def name(request):
    return request.param


def test_they_are_the_fifteen_of_the_paper():
    assert set(CORRUPTIONS) == PAPER
    assert all(
        len(entry.metadata[key]) == 5
        for entry in CORRUPTIONS.entries()
        for key in ("small", "large")
    )
    assert all(entry.summary.endswith(".") for entry in CORRUPTIONS.entries())


@pytest.mark.parametrize("channels", [1, 3])
def test_corruption_keeps_shape_and_leaves_argument_unchanged(name, channels):
    image = scene(channels=channels)
    before = image.clone()
    for severity in SEVERITIES:
        changed = Corruption(name, severity)(image, 0)
        assert (changed.shape, changed.dtype) == (image.shape, torch.uint8)
        assert changed.is_contiguous()
        # A blur of a third of a pixel does nothing to a gray level.
        assert not torch.equal(changed, image) or (name == "defocus-blur" and severity < 3)
    assert torch.equal(image, before)


def test_index_and_seed_determine_random_numbers(name):
    state = torch.get_rng_state(), np.random.get_state()[1].copy()
    first, again = (Corruption(name, 3)(scene(), 4) for _ in range(2))
    assert torch.equal(first, again)
    drawn = [Corruption(name, 3)(scene(), 5), Corruption(name, 3, seed=1)(scene(), 4)]
    fixed = {"defocus-blur", "zoom-blur", "brightness", "contrast", "pixelate", "jpeg-compression"}
    assert [torch.equal(first, other) for other in drawn] == [name in fixed] * 2
    assert torch.equal(state[0], torch.get_rng_state())
    assert np.array_equal(state[1], np.random.get_state()[1])


# The published strengths of the three others change several things at once.
@pytest.mark.parametrize("name", sorted(PAPER - {"glass-blur", "elastic-transform", "frost"}))
def test_more_severe_is_further_from_the_image(name):
    image = scene().float()
    distance = [
        sum(
            float((Corruption(name, severity)(scene(), row).float() - image).abs().mean())
            for row in range(8)
        )
        for severity in SEVERITIES
    ]
    assert all(later > 0.97 * earlier for earlier, later in pairwise(distance))
    assert distance[4] > distance[0]


def test_large_images_get_the_strengths_of_imagenet():
    small, large = (
        torch.full((3, 96, 96), 128, dtype=torch.uint8),
        torch.full((3, 97, 97), 128, dtype=torch.uint8),
    )
    found = [int(Corruption("brightness", 5)(image, 0)[0, 0, 0]) for image in (small, large)]
    assert found == [round(128 + 0.3 * 255), 255]


def test_noise_has_the_published_strength():
    image = torch.full((3, 96, 96), 128, dtype=torch.uint8)
    gaussian = Corruption("gaussian-noise", 1)(image, 0).float() / 255
    assert float(gaussian.std()) == pytest.approx(0.04, rel=0.03)
    shot = Corruption("shot-noise", 5)(image, 0).float() / 255
    assert float(shot.std()) == pytest.approx((128 / 255 / 50) ** 0.5, rel=0.03)
    assert float(shot.mean()) == pytest.approx(128 / 255, rel=0.01)
    impulse = Corruption("impulse-noise", 5)(image, 0)
    assert float((impulse == 0).float().mean()) == pytest.approx(0.035, rel=0.15)
    assert float((impulse == 255).float().mean()) == pytest.approx(0.035, rel=0.15)
    assert (
        int((impulse == 128).sum() + (impulse == 0).sum() + (impulse == 255).sum())
        == impulse.numel()
    )


def test_brightness_keeps_hue_and_saturation():
    image = torch.tensor([100, 50, 25], dtype=torch.uint8).view(3, 1, 1).expand(3, 8, 8)
    lighter = Corruption("brightness", 3)(image.contiguous(), 0)[:, 0, 0].double()
    assert float(lighter[0]) == pytest.approx(100 + 0.15 * 255, abs=0.5)
    assert (lighter / lighter[0]).tolist() == pytest.approx([1, 0.5, 0.25], abs=0.01)
    black = Corruption("brightness", 3)(torch.zeros(3, 8, 8, dtype=torch.uint8), 0)
    assert set(black.flatten().tolist()) == {round(0.15 * 255)}


def test_contrast_keeps_the_mean():
    image = scene()
    flat = Corruption("contrast", 4)(image, 0).double()
    assert flat.mean((1, 2)).tolist() == pytest.approx(
        image.double().mean((1, 2)).tolist(), abs=0.5
    )
    assert float(flat[0].std() / image[0].double().std()) == pytest.approx(0.3, abs=0.02)


def test_glass_only_moves_pixels_when_it_hardly_blurs():
    """At severity 1 the blur's sigma is a twentieth of a pixel: what remains is a permutation."""
    values = torch.randperm(1024, generator=torch.Generator().manual_seed(0)) % 256
    image = values.to(torch.uint8).view(1, 32, 32)
    moved = Corruption("glass-blur", 1)(image, 0)
    assert torch.equal(moved.flatten().sort().values, image.flatten().sort().values)
    assert 0.3 < float((moved != image).float().mean()) < 1


def test_pixelate_makes_blocks():
    image = torch.randint(
        0, 256, (1, 200, 200), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    blocks = Corruption("pixelate", 5)(image, 0).view(50, 4, 50, 4)
    assert (blocks == blocks[:, :1, :, :1]).all()


def test_kernels_keep_brightness_and_convolve_as_defined():
    for kernel in (disk_kernel(3, 0.1), disk_kernel(0.3, 0.4), motion_kernel(6, 2, 30.0)):
        assert kernel.sum() == pytest.approx(1)
        assert kernel.min() >= 0
    assert (
        disk_kernel(3, 0.1)[disk_kernel(3, 0.1) > 1e-9].size == 29
    )  # lattice points in a circle of radius 3
    random = np.random.default_rng(0)
    image, kernel = random.random((7, 9, 2)), random.random((3, 5))
    padded = np.pad(image, ((1, 1), (2, 2), (0, 0)), mode="symmetric")
    expected = sum(
        kernel[2 - row, 4 - column] * padded[row : row + 7, column : column + 9]
        for row in range(3)
        for column in range(5)
    )
    assert convolve(image, kernel) == pytest.approx(expected)


def test_a_streak_points_where_it_should():
    right, down = motion_kernel(4, 3, 0.0), motion_kernel(4, 3, 90.0)
    assert right[9, 9:18] == pytest.approx(right[9, 9:18].clip(min=1e-6))
    assert right[:9].sum() + right[10:].sum() + right[9, :9].sum() == pytest.approx(0)
    assert down == pytest.approx(right.T, abs=1e-12)


def test_zoom_keeps_the_center_and_enlarges():
    image = np.zeros((21, 21, 1))
    image[9:12, 9:12] = 1
    larger = clipped_zoom(image, 3.0)
    assert larger[10, 10, 0] == 1
    assert larger.sum() == pytest.approx(81, rel=0.35)
    assert np.allclose(larger, larger[::-1, ::-1])


def test_plasma_fractal_range_and_smoothness():
    rough, smooth = (plasma_fractal(64, decay, np.random.RandomState(0)) for decay in (1.2, 4.0))
    for field in (rough, smooth):
        assert (field.min(), field.max()) == (0, 1)
    assert np.abs(np.diff(smooth)).mean() < 0.5 * np.abs(np.diff(rough)).mean()
    assert plasma_fractal(40, 2.0, np.random.RandomState(0)).shape == (40, 40)


def test_a_part_is_corrupted_row_by_row():
    part = Images(torch.stack([scene(), scene()]), torch.tensor([0, 1]), torch.full((2, 2), 0.5))
    changed = corrupt_part(part, Corruption("gaussian-noise", 5))
    assert torch.equal(changed.images[1], Corruption("gaussian-noise", 5)(scene(), 1))
    assert not torch.equal(changed.images[0], changed.images[1])
    assert torch.equal(changed.target, part.target)
    assert changed.label_probs is None


def test_corruptions_never_change():
    """Published numbers depend on them."""
    sums = [
        int(Corruption(name, 3)(scene(), 7).sum())
        for name in ("gaussian-noise", "impulse-noise", "contrast")
    ]
    assert sums == [375362, 379147, 375856]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("foog", 1), "Did you mean 'fog'"),
        (("fog", 6), "severity must be 1 to 5; got 6"),
        (("fog", 0), "severity must be a whole number"),
        (("fog", 1, -1), "seed"),
    ],
)
def test_nonsense_is_refused(options, words):
    with pytest.raises(InputError, match=words):
        Corruption(*options)


@pytest.mark.parametrize(
    "image",
    [
        torch.zeros(2, 3, 8, 8, dtype=torch.uint8),
        torch.zeros(3, 8, 8),
        torch.zeros(2, 8, 8, dtype=torch.uint8),
    ],
)
def test_only_single_images_of_bytes(image):
    with pytest.raises(InputError, match="an image must be uint8"):
        Corruption("fog", 1)(image, 0)
