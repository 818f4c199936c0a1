import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fakes_data import FAKES
from fedlas.errors import InputError
from fedlas.lab.data import Images, Source, load_dataset, split
from fedlas.lab.data.shift import LabelNoise, add_label_noise


def splits_of(counts, val_size, **options):
    target = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    part = Images(torch.zeros(len(target), 1, 2, 2, dtype=torch.uint8), target)
    names = tuple("abcdefghij"[: len(counts)])
    return split(Source("mine", part, part, names, **options), seed=0, val_size=val_size)


@given(
    st.lists(st.integers(2, 40), min_size=2, max_size=6),
    st.floats(0.01, 0.99),
    st.sampled_from(["symmetric", "asymmetric"]),
    st.integers(0, 2**32),
)
def test_exact_noise_rate_per_training_class(counts, rate, kind, seed):
    clean = splits_of(counts, len(counts))
    noisy = add_label_noise(clean, LabelNoise(rate, kind), seed=seed)
    assert np.array_equal(noisy.clean_target, clean.train.target.numpy())
    target = noisy.train.target.numpy()
    for label in range(len(counts)):
        own = noisy.clean_target == label
        assert (target[own] != label).sum() == round(rate * own.sum())
        if kind == "asymmetric":
            assert set(target[own]) <= {label, (label + 1) % len(counts)}
    assert target.min() >= 0
    assert target.max() < len(counts)
    for part in ("val", "test"):
        assert torch.equal(getattr(noisy, part).target, getattr(clean, part).target)
        assert np.array_equal(noisy.indices[part], clean.indices[part])


def test_symmetric_noise_is_uniform_over_the_other_classes():
    noisy = add_label_noise(splits_of([3002] + [2] * 3, 2), LabelNoise(0.9), seed=0)
    wrong = noisy.train.target[torch.from_numpy(noisy.clean_target) == 0].bincount()[1:]
    assert wrong.sum() == pytest.approx(2700, abs=3)
    assert wrong.float().std() < 70  # a binomial of 900 has a deviation of 25


def test_pure_function_of_the_seed():
    clean = splits_of([20, 20], 4)
    first, again, other = (
        add_label_noise(clean, LabelNoise(0.5), seed=seed).train.target for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_asymmetric_noise_uses_pairs_of_data_set(tmp_path):
    splits = split(load_dataset("cifar10", str(FAKES["cifar10"](tmp_path))), seed=0, val_size=20)
    noisy = add_label_noise(splits, LabelNoise(0.5, "asymmetric"), seed=0)
    found = {
        (splits.classes[a], splits.classes[b])
        for a, b in zip(noisy.clean_target, noisy.train.target.tolist(), strict=True)
        if a != b
    }
    assert found == {  # Patrini et al. 2017, section 5
        ("truck", "automobile"), ("bird", "airplane"), ("deer", "horse"), ("cat", "dog"), ("dog", "cat"),
    }  # fmt: skip


def test_cifar100_is_mistaken_within_its_superclasses(tmp_path):
    pairs = load_dataset("cifar100", str(FAKES["cifar100"](tmp_path))).mistaken_for
    follows = dict(pairs)
    assert len(pairs) == len(follows) == len(set(follows.values())) == 100
    for name in follows:
        seen = [name]
        while (following := follows[seen[-1]]) != name:
            seen.append(following)
        assert len(seen) == 5
    assert follows["rose"] == "sunflower"


def test_the_record_is_saved(tmp_path):
    noisy = add_label_noise(splits_of([20, 20], 4), LabelNoise(0.25), seed=0)
    with np.load(noisy.save_indices(tmp_path / "splits.npz")) as saved:
        assert sorted(saved) == ["test", "train", "train_clean_target", "train_target", "val"]
        assert (saved["train_target"] != saved["train_clean_target"]).mean() == pytest.approx(
            0.25, abs=0.03
        )
        assert len(saved["train_target"]) == len(saved["train"])


def test_true_probabilities_go_with_the_labels():
    splits = split(load_dataset("synthetic", num_train=100, num_test=10), seed=0, val_size=20)
    noisy = add_label_noise(splits, LabelNoise(0.2), seed=0)
    assert noisy.train.label_probs is None
    assert noisy.val.label_probs is not None


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"rate": 1}, r"rate must be a finite number in \(0, 1\); got int 1"),
        ({"rate": 0}, "rate must be a finite number"),
        ({"rate": 0.2, "kind": "symetric"}, "Did you mean 'symmetric'"),
    ],
)
def test_nonsense_is_refused(options, words):
    with pytest.raises(InputError, match=words):
        LabelNoise(**options)
