import subprocess
import sys

import numpy as np
import pytest
import torch

from fedlas.errors import InputError
from fedlas.lab.data import Images, Source, load_dataset


def part(count=6, classes=3, shape=(1, 4, 4)):
    return Images(torch.zeros(count, *shape, dtype=torch.uint8), torch.arange(count) % classes)


@pytest.mark.parametrize(
    ("images", "target", "words"),
    [
        (
            np.zeros((2, 1, 4, 4), np.uint8),
            torch.zeros(2, dtype=torch.int64),
            "images must be a tensor; got ndarray",
        ),
        (torch.zeros(2, 1, 4, 4, dtype=torch.uint8), [0, 1], "target must be a tensor; got list"),
        (
            torch.zeros(2, 1, 4, 4).double(),
            torch.zeros(2, dtype=torch.int64),
            "images must be uint8",
        ),
        (torch.zeros(2), torch.zeros(2, dtype=torch.int64), "images must be uint8"),
        (torch.full((2, 3), torch.nan), torch.zeros(2, dtype=torch.int64), "must be finite"),
        (
            torch.zeros(2, 4, 4, dtype=torch.uint8),
            torch.zeros(2, dtype=torch.int64),
            "images must be uint8",
        ),
        (
            torch.zeros(0, 1, 4, 4, dtype=torch.uint8),
            torch.zeros(0, dtype=torch.int64),
            "at least one image",
        ),
        (
            torch.zeros(2, 1, 4, 4, dtype=torch.uint8),
            torch.zeros(3, dtype=torch.int64),
            r"target must be int64 \(2,\)",
        ),
        (
            torch.zeros(2, 1, 4, 4, dtype=torch.uint8),
            torch.zeros(2),
            r"target must be int64 \(2,\)",
        ),
    ],
)
def test_images_refuse_other_shapes_and_types(images, target, words):
    with pytest.raises(InputError, match=words):
        Images(images, target)


@pytest.mark.parametrize(
    "probs", [torch.zeros(5, 3), torch.zeros(6), torch.zeros(6, 3, dtype=torch.float64)]
)
def test_images_refuse_other_label_probs(probs):
    with pytest.raises(InputError, match="label_probs must be float32"):
        Images(part().images, part().target, probs)


def test_take_keeps_rows_together():
    whole = Images(
        torch.arange(6, dtype=torch.uint8).view(6, 1, 1, 1),
        torch.arange(6),
        torch.eye(6, dtype=torch.float32),
    )
    some = whole.take(torch.tensor([4, 1]))
    assert (
        some.images.flatten().tolist()
        == some.target.tolist()
        == some.label_probs.argmax(1).tolist()
        == [4, 1]
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"classes": ("a",)}, r"at least two classes; got 1 \(a\)"),
        (
            {"classes": ("a", "b")},
            r"train labels must be in \[0, 2\) for 2 classes; got values from 0 to 2",
        ),
        (
            {"classes": ("a", "b", "c", "d")},
            "every class must have training images; got none for 1 of 4 .* 'd'",
        ),
        ({"test": part(8, 4)}, r"test labels must be in \[0, 3\)"),
        (
            {"test": part(shape=(3, 4, 4))},
            r"the same shape.* square; got train \(1, 4, 4\), test \(3, 4, 4\)",
        ),
        ({"train": part(shape=(1, 4, 5)), "test": part(shape=(1, 4, 5))}, "square"),
        ({"mean": (0.5,)}, "mean and std must both be None, or have 1 finite numbers"),
        (
            {"mean": (0.5, 0.5), "std": (0.5, 0.5)},
            "mean and std must both be None, or have 1 finite numbers",
        ),
        ({"mean": (0.5,), "std": (0.0,)}, "std above 0"),
        ({"mean": (0.5,), "std": (float("nan"),)}, "finite"),
        ({"mean": (float("inf"),), "std": (0.5,)}, "finite"),
        ({"crop_padding": -1}, "crop_padding must be a whole number"),
    ],
)
def test_source_refuses_what_does_not_fit(change, words):
    good = {"train": part(), "test": part(), "classes": ("a", "b", "c")}
    Source("mine", **good)
    with pytest.raises(InputError, match=words):
        Source("mine", **good | change)


def test_source_counts_columns_of_label_probs():
    with pytest.raises(InputError, match="label_probs must have 3 columns"):
        Source(
            "mine", part(), Images(part().images, part().target, torch.zeros(6, 2)), ("a", "b", "c")
        )


def test_unknown_name_names_the_nearest():
    with pytest.raises(InputError, match=r".*'cifar-10'.*'cifar10'"):
        load_dataset("cifar-10")


@pytest.mark.parametrize("option", [{"flip": "no"}, {"crop_padding": 1.5}])
def test_augmentation_options_are_checked_before_anything_is_read(option):
    with pytest.raises(InputError, match=next(iter(option))):
        load_dataset("npz", "/does/not/exist.npz", **option)


def test_augmentation_options_apply_to_every_data_set():
    source = load_dataset("synthetic", num_train=30, flip=True, crop_padding=2)
    assert (source.flip, source.crop_padding) == (True, 2)


@pytest.mark.system
def test_importing_data_and_models_imports_no_optional_package():
    code = (
        "import sys, fedlas.lab.data, fedlas.lab.models; "
        "print([name for name in ('torchvision', 'PIL', 'sklearn', 'scipy') if name in sys.modules])"
    )
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout
        == "[]\n"
    )
