import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from fedlas.errors import InputError
from fedlas.lab.data import Batches, Images


def part(count=23, channels=3, height=6, width=6):
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(
        0, 256, (count, channels, height, width), dtype=torch.uint8, generator=generator
    )
    return Images(images, torch.arange(count) % 5)


def raw(images, **options):
    """Batches whose ``x`` is the augmented pixel values themselves, 0..255, exactly (scale 1, shift 0)."""
    channels = images.images.shape[1]
    return Batches(images, mean=(0.0,) * channels, std=(1 / 255,) * channels, **options)


def together(batches):
    return tuple(torch.cat(column) for column in zip(*batches, strict=True))


def one_by_one(images, plan, flip, padding):
    """The slow way: torch.flip, F.pad and slices, one image at a time."""
    height, width = images.images.shape[2:]
    for place, row in enumerate(plan["order"].tolist()):
        image = F.pad(images.images[row], (padding,) * 4)
        top, left = int(plan["top"][place]), int(plan["left"][place])
        image = image[:, top : top + height, left : left + width]
        yield torch.flip(image, (2,)) if flip and plan["mirrored"][place] else image


@given(
    count=st.integers(1, 30),
    channels=st.integers(1, 4),
    height=st.integers(1, 7),
    width=st.integers(1, 7),
    batch_size=st.integers(1, 12),
    flip=st.booleans(),
    padding=st.integers(0, 9),
    shuffle=st.booleans(),
)
def test_pixels_equal_those_of_the_slow_way(
    count, channels, height, width, batch_size, flip, padding, shuffle
):
    images = part(count, channels, height, width)
    options = {
        "batch_size": batch_size,
        "flip": flip,
        "crop_padding": padding,
        "shuffle": shuffle,
        "seed": count,
    }
    batches = raw(images, **options)
    x, target, index = together(batches)
    assert torch.equal(
        x.to(torch.uint8), torch.stack([*one_by_one(images, batches._draw_epoch(), flip, padding)])
    )
    assert torch.equal(target, images.target[index])
    assert sorted(index.tolist()) == list(range(count))


def test_alternating_flips_mirror_every_other_epoch():
    images = Images(
        torch.arange(40 * 4).reshape(40, 1, 2, 2).to(torch.uint8),
        torch.zeros(40, dtype=torch.int64),
    )
    batches, epochs = raw(images, batch_size=16, flip="alternating", shuffle=True), []
    for epoch in range(3):
        batches.set_epoch(epoch)
        x, _, index = together(batches)
        epochs.append(x.to(torch.uint8)[index.argsort()])
    assert torch.equal(epochs[1], epochs[0].flip(3))
    assert torch.equal(epochs[2], epochs[0])
    mirrored = (epochs[0] != images.images).flatten(1).any(1)
    assert 8 < mirrored.sum() < 32


def test_normalization():
    images = part()
    mean, std = (0.1, 0.5, 0.9), (0.2, 0.3, 0.4)
    x, _, _ = together(Batches(images, mean=mean, std=std, batch_size=10))
    expected = (images.images.double() / 255 - torch.tensor(mean).view(1, 3, 1, 1)) / torch.tensor(
        std
    ).view(1, 3, 1, 1)
    assert x.dtype == torch.float32
    assert torch.allclose(x.double(), expected, atol=1e-5)


def test_draws_are_fair():
    """Each of 9 x 9 places and both sides come up as often as the others, independently (chi-squared, 161 cells)."""
    count = 40_000
    images = Images(
        torch.zeros(count, 1, 1, 1, dtype=torch.uint8), torch.zeros(count, dtype=torch.int64)
    )
    plan = raw(images, batch_size=count, flip=True, crop_padding=4)._draw_epoch()
    assert (plan["top"].min(), plan["top"].max(), plan["left"].min(), plan["left"].max()) == (
        0,
        8,
        0,
        8,
    )
    cells = torch.bincount(
        (plan["top"] * 9 + plan["left"]) * 2 + plan["mirrored"], minlength=162
    ).double()
    expected = count / 162
    assert ((cells - expected) ** 2 / expected).sum() < 230  # p < 0.0003; the seed is fixed


def test_epochs_differ_and_come_back():
    batches = raw(part(), batch_size=5, flip=True, crop_padding=2, shuffle=True)
    epochs = []
    for epoch in (0, 1, 0):
        batches.set_epoch(epoch)
        epochs.append(together(batches))
    assert not torch.equal(epochs[0][2], epochs[1][2])
    assert torch.equal(epochs[0][0], epochs[2][0])


def test_augmentation_changes_with_the_epoch_even_without_shuffling():
    batches = raw(part(), batch_size=5, flip=True)
    first, _, index = together(batches)
    batches.set_epoch(1)
    second, _, _ = together(batches)
    assert index.tolist() == list(range(23))
    assert not torch.equal(first, second)


def test_global_generators_neither_matter_nor_change():
    options = {"batch_size": 4, "flip": True, "crop_padding": 2, "shuffle": True, "seed": 5}
    state = torch.get_rng_state()
    first = together(raw(part(), **options))
    assert torch.equal(state, torch.get_rng_state())
    torch.manual_seed(99)
    assert torch.equal(first[0], together(raw(part(), **options))[0])
    torch.set_rng_state(state)


def test_resumed_run_sees_the_same_batches():
    options = {"batch_size": 4, "flip": True, "crop_padding": 2, "shuffle": True}
    undisturbed = raw(part(), **options)
    for epoch in range(3):
        undisturbed.set_epoch(epoch)
        expected = together(undisturbed)
    resumed = raw(part(), **options)
    resumed.set_epoch(2)
    assert torch.equal(together(resumed)[0], expected[0])


def test_set_epoch_leaves_running_iteration_unchanged():
    batches = raw(part(), batch_size=5, shuffle=True)
    expected = together(batches)[2]
    seen = []
    for step, (_, _, index) in enumerate(batches):
        batches.set_epoch(step + 1)
        seen.append(index)
    assert torch.equal(torch.cat(seen), expected)


@pytest.mark.parametrize("world_size", [2, 3, 4])
@pytest.mark.parametrize("batch_size", [4, 7, 8])
def test_ranks_together_are_one_process(world_size, batch_size):
    options = {
        "batch_size": batch_size,
        "flip": True,
        "crop_padding": 2,
        "shuffle": True,
        "seed": 3,
    }
    ranks = [raw(part(), rank=rank, world_size=world_size, **options) for rank in range(world_size)]
    assert {len(rank) for rank in ranks} == {len(raw(part(), **options))}
    for whole, *slices in zip(raw(part(), **options), *ranks, strict=True):
        for column in range(3):
            assert torch.equal(torch.cat([one[column] for one in slices]), whole[column])
        sizes = [len(one[1]) for one in slices]
        assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize(("drop_last", "sizes"), [(False, [10, 10, 3]), (True, [10, 10])])
def test_last_batch(drop_last, sizes):
    batches = raw(part(), batch_size=10, drop_last=drop_last)
    assert len(batches) == len(sizes)
    assert [len(target) for _, target, _ in batches] == sizes


def test_images_are_left_as_they_were():
    images = part()
    before = images.images.clone()
    for x, target, _ in raw(images, batch_size=5, flip=True, crop_padding=1):
        x.zero_()
        target.zero_()
    assert torch.equal(images.images, before)
    assert torch.equal(images.target, torch.arange(23) % 5)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"batch_size": 0}, "batch_size must be a whole number of at least 1"),
        ({"crop_padding": -1}, "crop_padding must be"),
        ({"rank": 2, "world_size": 2}, "rank must be below world_size 2; got 2"),
        ({"batch_size": 3, "world_size": 4}, "at least 4, one sample per process; got 3"),
        ({"batch_size": 24, "drop_last": True}, "at least batch_size=24 samples; got 23"),
        ({"mean": (0.5,)}, "one finite number per channel .3."),
        ({"std": (0.5, 0.5, 0.0)}, "std above 0"),
        ({"std": (0.5, float("nan"), 0.5)}, "finite"),
        ({"mean": (0.5, float("-inf"), 0.5)}, "finite"),
        ({"seed": -1}, "seed must be"),
    ],
)
def test_nonsense_is_a_clear_error(options, words):
    with pytest.raises(InputError, match=words):
        Batches(part(), **{"mean": (0.0,) * 3, "std": (1.0,) * 3, "batch_size": 8} | options)


def test_negative_epoch_changes_nothing():
    batches = raw(part(), batch_size=8)
    batches.set_epoch(3)
    with pytest.raises(InputError, match="epoch must be"):
        batches.set_epoch(-1)
    assert batches.epoch == 3
