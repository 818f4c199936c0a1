"""CRL by hand: histories over several batches, neighbors past ignored samples, one history an image."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fedlas.errors import InputError
from fedlas.losses import CRL


def batch(seed, samples=9, classes=4, of=20):
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(samples, classes, generator=generator)
    target = torch.randint(classes, (samples,), generator=generator)
    return logits, target, torch.randperm(of, generator=generator)[:samples]


def by_hand(logits, target, index, right, visits, *, alpha=1.0, ignored=()):
    """Loss of each sample; moves the histories."""
    probs = F.softmax(logits.double(), dim=1).numpy()
    valid = [i for i in range(len(target)) if i not in ignored]
    values = [0.0] * len(target)
    correctness = {i: right[index[i]] / max(visits[index[i]], 1) for i in valid}
    for place, i in enumerate(valid):
        j = valid[(place + 1) % len(valid)]
        k_i, k_j = probs[i].max(), probs[j].max()
        sign = np.sign(correctness[i] - correctness[j])
        penalty = max(0.0, -sign * (k_i - k_j) + abs(correctness[i] - correctness[j]))
        values[i] = -math.log(probs[i][target[i]]) + alpha * penalty
    for i in valid:
        right[index[i]] += float(probs[i].argmax() == target[i])
        visits[index[i]] += 1
    return values


@pytest.mark.parametrize("ignored", [(), (0, 4, 5, 8), (3, 4, 5, 6), (1, 7)])
def test_several_batches_by_hand(ignored):
    criterion = CRL(num_samples=20, alpha=0.7, reduction="none")
    right, visits = np.zeros(20), np.zeros(20)
    penalised = False
    for seed in range(6):
        logits, target, index = batch(seed)
        expected = by_hand(
            logits, target.tolist(), index, right, visits, alpha=0.7, ignored=ignored
        )
        masked = target.clone()
        masked[list(ignored)] = -100
        logits.requires_grad_()
        values = criterion(logits, masked, index=index)
        values.sum().backward()
        np.testing.assert_allclose(values.detach(), expected, rtol=1e-4, atol=1e-6)
        np.testing.assert_array_equal(criterion.right, right)
        np.testing.assert_array_equal(criterion.visits, visits)
        plain = F.cross_entropy(logits.detach(), masked, reduction="none")
        penalised |= bool((values.detach() - plain > 0.01).any())
    assert penalised


def ranked(confidence, correctness):
    """The penalties of two samples of a binary classifier, and their logits."""
    criterion = CRL(num_samples=2, reduction="none")
    criterion.right.copy_(10 * torch.tensor(correctness))
    criterion.visits.fill_(10)
    logits = torch.stack((torch.tensor(confidence).logit(), torch.zeros(2)), dim=1).requires_grad_()
    target = torch.tensor([0, 0])
    value = criterion(logits, target, index=torch.tensor([0, 1]))
    return value - F.cross_entropy(logits, target, reduction="none"), logits


def test_the_penalty_ranks_confidence_like_correctness():
    penalty, logits = ranked([0.6, 0.9], [1.0, 0.2])
    assert penalty.tolist() == pytest.approx([1.1, 1.1])  # 0.3 in the wrong order, and 0.8 apart
    penalty.sum().backward()
    # descent raises the one that was right more often; the slope of a confidence is 2 p (1 - p)
    assert logits.grad[:, 0].tolist() == pytest.approx([-2 * 0.24, 2 * 0.09])
    assert ranked([0.95, 0.54], [1.0, 0.6])[0].tolist() == pytest.approx([0.0, 0.0], abs=1e-6)


def test_equally_often_right_costs_nothing():
    assert ranked([0.6, 0.9], [0.5, 0.5])[0].tolist() == pytest.approx([0.0, 0.0], abs=1e-6)


def test_history_is_used_before_it_moves():
    criterion, twin = CRL(num_samples=2), CRL(num_samples=2)
    logits, target, index = (
        torch.tensor([[2.0, 0.0], [1.0, 0.0]]),
        torch.tensor([0, 1]),
        torch.tensor([0, 1]),
    )
    assert criterion(logits, target, index=index).item() == pytest.approx(
        F.cross_entropy(logits, target).item()
    )
    second = criterion(logits, target, index=index)
    assert second > F.cross_entropy(logits, target)  # now sample 0 was right once, sample 1 never
    twin.load_state_dict({"right": torch.tensor([1.0, 0.0]), "visits": torch.tensor([1.0, 1.0])})
    torch.testing.assert_close(twin(logits, target, index=index), second)


def test_fully_ignored_batch_is_zero_when_compiled():
    criterion = CRL(num_samples=20).eval()
    logits, target, index = batch(0)
    gradient = torch.func.grad(lambda z: criterion(z, torch.full_like(target, -100), index=index))
    assert gradient(logits).count_nonzero() == 0


def test_dense_has_one_history_an_image():
    criterion = CRL(num_samples=4, reduction="none")
    criterion.right.copy_(torch.tensor([3.0, 0.0, 1.0, 0.0]))
    criterion.visits.copy_(torch.tensor([4.0, 2.0, 2.0, 0.0]))
    before = (criterion.right / criterion.visits.clamp(min=1)).tolist()
    generator = torch.Generator().manual_seed(1)
    logits = 2 * torch.randn(3, 5, 2, 2, generator=generator)
    target = torch.randint(5, (3, 2, 2), generator=generator)
    target[0] = logits[0].argmax(0)  # all right except the one that does not count
    target[0, 1, 1] = -100
    target[1] = -100  # an image without a valid position is no neighbor
    index = torch.tensor([2, 0, 1])
    values = criterion(logits, target, index=index)
    probs = logits.softmax(1).amax(1)
    confidence = {0: probs[0].flatten()[:3].mean().item(), 2: probs[2].mean().item()}
    gap = before[2] - before[1]
    expected = max(0.0, -(confidence[0] - confidence[2]) + gap)
    plain = F.cross_entropy(logits, target, reduction="none")
    for image, each in ((0, expected), (2, expected)):
        valid = target[image] != -100
        torch.testing.assert_close(
            (values - plain)[image][valid], torch.full((int(valid.sum()),), each)
        )
    assert (values[1] == 0).all()
    share = (logits[2].argmax(0) == target[2]).float().mean().item()
    assert criterion.right.tolist() == pytest.approx([3.0, share, 2.0, 0.0])
    assert criterion.visits.tolist() == [4.0, 3.0, 3.0, 0.0]


@pytest.mark.parametrize("bad", [[0, 1, 20], [-1, 0, 1]])
def test_index_out_of_range_changes_nothing(bad):
    criterion = CRL(num_samples=20)
    logits, target, _ = batch(0, samples=3)
    with pytest.raises(InputError, match=r"CRL: index .*\[0, 20\).*num_samples"):
        criterion(logits, target, index=torch.tensor(bad))
    assert criterion.visits.sum() == 0


def test_class_weights_weigh_the_penalty():
    weight = torch.tensor([0.5, 1.0, 2.0, 4.0])
    logits, target, index = batch(3)
    plain, weighted = (
        CRL(num_samples=20, reduction="none"),
        CRL(num_samples=20, reduction="none", weight=weight),
    )
    for criterion in (plain, weighted):
        criterion.right.copy_(torch.arange(20) % 3)
        criterion.visits.fill_(2.0)
    torch.testing.assert_close(
        weighted(logits, target, index=index), plain(logits, target, index=index) * weight[target]
    )


def test_a_sample_twice_in_a_batch_counts_twice():
    criterion = CRL(num_samples=3)
    logits = torch.tensor([[2.0, 0.0], [2.0, 0.0]])
    criterion(logits, torch.tensor([0, 0]), index=torch.tensor([1, 1]))
    assert criterion.right.tolist() == [0.0, 2.0, 0.0]


def test_histories_stay_float32_through_half():
    criterion = CRL(num_samples=2).bfloat16()
    criterion.visits.fill_(1000.0)
    criterion(torch.tensor([[2.0, 0.0]]), torch.tensor([0]), index=torch.tensor([1]))
    assert criterion.visits.tolist() == [1000.0, 1001.0]


def test_one_class_is_always_certain():
    value = CRL(num_samples=2)(torch.randn(2, 1), torch.tensor([0, 0]), index=torch.tensor([0, 1]))
    assert value.item() == 0.0


@pytest.mark.parametrize("options", [{"alpha": -1.0}, {"num_samples": 0}])
def test_invalid_crl_arguments_raise(options):
    with pytest.raises(InputError, match=f"CRL: {next(iter(options))}"):
        CRL(**{"num_samples": 3} | options)


def test_an_index_may_stay_on_the_cpu():
    criterion = CRL(num_samples=4).to("meta")
    logits, target = (
        torch.empty(2, 3, device="meta"),
        torch.empty(2, dtype=torch.int64, device="meta"),
    )
    criterion(logits, target, index=torch.tensor([0, 1]))
