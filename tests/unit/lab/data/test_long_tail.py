import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedlas.errors import InputError
from fedlas.lab.data import Images, Source, split
from fedlas.lab.data.shift import make_long_tailed


def splits_of(counts, val_size):
    target = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    images = torch.arange(len(target)).view(-1, 1, 1, 1).to(torch.uint8)
    part = Images(images, target)
    return split(
        Source("mine", part, part, tuple("abcdefghij"[: len(counts)])), seed=0, val_size=val_size
    )


def test_the_profile_of_the_paper():
    """500 images a class and factor 100, as CIFAR-100-LT: 500 in the first class, 5 in the last."""
    splits = make_long_tailed(splits_of([510] * 10, 100), 100, seed=0)
    expected = [int(500 * 0.01 ** (label / 9) + 1e-9) for label in range(10)]
    assert torch.bincount(splits.train.target).tolist() == expected
    assert (expected[0], expected[-1]) == (500, 5)


@given(st.lists(st.integers(3, 40), min_size=2, max_size=6), st.floats(1, 1000), st.integers(0, 99))
def test_long_tail_keeps_every_training_class(counts, factor, seed):
    whole = splits_of(counts, len(counts))
    tail = make_long_tailed(whole, factor, seed=seed)
    assert set(tail.indices["train"]) <= set(whole.indices["train"])
    assert (np.diff(tail.indices["train"]) > 0).all()
    assert torch.equal(
        tail.train.images[:, 0, 0, 0], torch.from_numpy(tail.indices["train"]).to(torch.uint8)
    )
    assert tail.train.target.unique().tolist() == list(range(len(counts)))
    for part in ("val", "test"):
        assert np.array_equal(tail.indices[part], whole.indices[part])
    if factor == 1:
        assert len(tail.train) == len(whole.train)


def test_factor_one_keeps_everything_and_seeds_differ():
    whole = splits_of([30, 30], 6)
    assert np.array_equal(
        make_long_tailed(whole, 1, seed=0).indices["train"], whole.indices["train"]
    )
    first, again, other = (
        make_long_tailed(whole, 5, seed=seed).indices["train"] for seed in (0, 0, 1)
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("factor", [0.5, 0, float("nan"), "100"])
def test_nonsense_is_refused(factor):
    with pytest.raises(InputError, match="long_tail"):
        make_long_tailed(splits_of([5, 5], 2), factor, seed=0)
