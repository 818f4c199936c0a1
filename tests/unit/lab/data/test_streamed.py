from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from fakes_data import FAKES
from fedlas.errors import InputError
from fedlas.lab.data import ImageFiles, StreamedBatches, View, load_dataset, split
from fedlas.lab.data.shift import Corruption

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Eleven images of random noise, 30 x 20 pixels."""
    folder = tmp_path_factory.mktemp("images")
    random = np.random.default_rng(0)
    names = [f"{row:02d}.png" for row in range(11)]
    for name in names:
        Image.fromarray(random.integers(0, 256, (20, 30, 3), dtype=np.uint8)).save(folder / name)
    return ImageFiles.from_lists(
        folder, names, [row % 3 for row in range(11)], View(resize=16, crop=12)
    )


def batches(files, **options):
    return StreamedBatches(
        files, **{"mean": MEAN, "std": STD, "batch_size": 4, "workers": 0} | options
    )


def collect(loader):
    parts = list(loader)
    return [torch.cat([part[k] for part in parts]) for k in range(3)]


TRAINING = {"augment": True, "flip": True, "shuffle": True, "seed": 3}


def test_evaluation_is_resize_center_crop_and_normalization(files):
    x, target, index = collect(batches(files))
    assert index.tolist() == list(range(11))
    assert torch.equal(target, files.target)
    pixels = torch.stack(
        [torch.from_numpy(np.array(files.open(row))).permute(2, 0, 1) for row in range(11)]
    )
    small = F.interpolate(pixels.float(), size=(16, 24), mode="bilinear", antialias=True)
    expected = (small[:, :, 2:14, 6:18] / 255 - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(
        STD
    ).view(1, 3, 1, 1)
    # Pillow rounds to whole gray levels, twice
    assert (x - expected).abs().max() < 2 / 255 / min(STD)
    assert torch.equal(files.image(4).float().sub(255 * torch.tensor(MEAN).view(3, 1, 1)).div(255).round(decimals=3),
                       (x[4] * torch.tensor(STD).view(3, 1, 1)).round(decimals=3))  # fmt: skip


def test_the_number_of_workers_changes_nothing(files):
    for options in (TRAINING, {}):
        here, elsewhere = batches(files, **options), batches(files, **options, workers=2)
        for epoch in (0, 1):
            here.set_epoch(epoch)
            elsewhere.set_epoch(epoch)
            assert all(
                torch.equal(a, b) for a, b in zip(collect(here), collect(elsewhere), strict=True)
            )


def test_epoch_depends_on_seed_and_number_alone(files):
    loader = batches(files, **TRAINING)
    first = collect(loader)
    loader.set_epoch(1)
    second = collect(loader)
    next(iter(loader))  # looked at and left
    loader.set_epoch(0)
    assert all(torch.equal(a, b) for a, b in zip(first, collect(loader), strict=True))
    assert sorted(second[2].tolist()) == list(range(11)) != second[2].tolist()
    assert first[2].tolist() != second[2].tolist()
    same_image = (first[0][first[2] == 5], second[0][second[2] == 5])
    assert not torch.equal(*same_image)
    other_seed = collect(batches(files, **TRAINING | {"seed": 4}))
    assert other_seed[2].tolist() != first[2].tolist()


def test_no_global_generator_is_touched(files):
    torch.manual_seed(5)
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    first = collect(batches(files, **TRAINING))
    torch.manual_seed(6)
    assert torch.equal(first[0], collect(batches(files, **TRAINING))[0])
    torch.manual_seed(5)
    collect(batches(files, **TRAINING))
    assert torch.equal(torch_state, torch.get_rng_state())
    assert np.array_equal(numpy_state, np.random.get_state()[1])


def test_ranks_share_each_batch(files):
    whole = list(batches(files, **TRAINING))
    parts = [list(batches(files, **TRAINING, rank=rank, world_size=4)) for rank in range(4)]
    assert len({len(part) for part in parts}) == 1
    for step, (x, target, index) in enumerate(whole):
        # the last batch has three images: one rank gets none
        shares = [part[step] for part in parts]
        assert torch.equal(torch.cat([share[0] for share in shares]), x)
        assert torch.equal(torch.cat([share[1] for share in shares]), target)
        assert torch.equal(torch.cat([share[2] for share in shares]), index)


def test_drop_last_and_length(files):
    assert (len(batches(files)), len(batches(files, drop_last=True))) == (3, 2)
    assert [len(index) for _, _, index in batches(files, drop_last=True)] == [4, 4]


@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_image_is_named(files, tmp_path, workers):
    (tmp_path / "bad.png").write_bytes(
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"
    )
    broken = ImageFiles.from_lists(tmp_path, ["bad.png"], [0], files.view)
    with pytest.raises(InputError, match=r"bad\.png .*Git LFS.*git lfs pull"):
        list(batches(broken, workers=workers))


def test_flips_are_half_and_half(files):
    wide = replace(files, view=View(resize=12, crop=12, train_crop="center"))
    plain = collect(batches(wide))[0]
    loader, flipped = batches(wide, augment=True, flip=True), 0
    for epoch in range(10):
        loader.set_epoch(epoch)
        for before, after in zip(plain, collect(loader)[0], strict=True):
            assert torch.equal(after, before) or torch.equal(after, before.flip(2))
            flipped += not torch.equal(after, before)
    assert 29 < flipped < 81  # 110 coins, five standard deviations


def test_corruption_follows_crop_and_is_deterministic(files):
    corrupted = replace(files, corruption=Corruption("contrast", 5))
    first, again = collect(batches(corrupted))[0], collect(batches(corrupted))[0]
    assert torch.equal(first, again)
    assert first.std() < 0.6 * collect(batches(files))[0].std()  # the channels keep their distance
    assert torch.equal(corrupted.image(3), Corruption("contrast", 5)(files.image(3), 3))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"workers": -1}, "workers must be a whole number of at least 0"),
        ({"batch_size": 0}, "batch_size"),
        ({"batch_size": 12, "drop_last": True}, "at least batch_size=12 samples; got 11"),
        ({"rank": 2, "world_size": 2}, "rank must be below world_size 2"),
        ({"mean": (0.5,)}, "one finite number per channel .3."),
        ({"seed": -1}, "seed"),
    ],
)
def test_nonsense_is_refused(files, options, words):
    with pytest.raises(InputError, match=words):
        batches(files, **options)


def test_files_keep_names_labels_and_order(files):
    part = files.take(torch.tensor([7, 2]))
    assert [part.path(row).name for row in range(2)] == ["07.png", "02.png"]
    assert part.target.tolist() == [1, 2]
    assert part.sizes().tolist() == [files.path(row).stat().st_size for row in (7, 2)]
    assert torch.equal(part.image(0), files.image(7))
    assert (len(part), part.shape, part.label_probs) == (2, (3, 12, 12), None)
    with pytest.raises(InputError, match="not empty"):
        files.take(torch.tensor([], dtype=torch.int64))
    gone = ImageFiles.from_lists(files.folder, ["nowhere.png"], [0], files.view)
    with pytest.raises(InputError, match=r"must exist; got .*nowhere\.png"):
        gone.sizes()


def test_splits_of_files_are_disjoint_and_stratified(tmp_path):
    source = load_dataset("cub", str(FAKES["cub"](tmp_path)), resize=24, crop=16)
    splits = split(source, seed=0, val_size=6)
    assert [torch.bincount(part.target).tolist() for part in (splits.train, splits.val)] == [
        [4, 4, 4],
        [2, 2, 2],
    ]
    names = [
        {bytes(name) for name in part.names} for part in (splits.train, splits.val, splits.test)
    ]
    assert sum(map(len, names)) == len(set.union(*names)) == 24
    assert (splits.in_channels, splits.image_size, splits.mean) == (3, 16, source.mean)
    with pytest.raises(InputError, match="no crop_padding"):
        replace(source, crop_padding=2)
    with pytest.raises(InputError, match="must have mean and std"):
        split(replace(source, mean=None, std=None), seed=0, val_size=6)
