import math

import numpy as np
import pytest
import torch

from fedlas.errors import InputError
from fedlas.predictions import Predictions
from fedlas.zoo.uncertainty import average, log_mean_softmax


def made(seed, samples=7, classes=4, target=None, **options):
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(samples, classes, generator=generator)
    target = torch.arange(samples) % classes if target is None else target
    return Predictions(logits, target, **options)


def softmax(logits):
    powers = np.exp(np.asarray(logits, dtype=np.float64))
    return powers / powers.sum(1, keepdims=True)


def test_mean_of_probabilities():
    members = [made(seed) for seed in range(3)]
    expected = sum(softmax(p.tensors().logits) for p in members) / 3
    found = average(*members)
    assert found.tensors().logits.dtype == torch.float32
    np.testing.assert_allclose(found.probs, expected, atol=1e-6)
    np.testing.assert_allclose(found.logits, np.log(expected), atol=1e-5)
    assert torch.equal(found.tensors().target, members[0].tensors().target)


def test_weights_are_made_to_sum_to_one():
    members = [made(seed) for seed in range(3)]
    expected = (softmax(members[0].tensors().logits) + 3 * softmax(members[2].tensors().logits)) / 4
    found = average(*members, weights=[1, 0, 3])
    np.testing.assert_allclose(found.probs, expected, atol=1e-6)


def test_chunks_do_not_show():
    """At most 2^22 numbers of all members together are computed at once: here in two chunks, and in one each."""
    torch.manual_seed(0)
    target = torch.zeros(3000, dtype=torch.long)
    members = [Predictions(torch.randn(3000, 500), target) for _ in range(3)]
    halves = [
        average(*(Predictions(p.tensors().logits[rows], target[rows]) for p in members))
        .tensors()
        .logits
        for rows in (slice(0, 1400), slice(1400, 3000))
    ]
    assert torch.equal(average(*members).tensors().logits, torch.cat(halves))


def test_tiny_probabilities_keep_their_logarithm():
    """Where probabilities underflow, a mean of them would be 0 and its logarithm no number."""
    far = Predictions([[0.0, -2000.0]], [1])
    assert average(far, far).tensors().logits[0, 1] == -2000
    found = average(far, Predictions([[0.0, -2001.0]], [1])).tensors().logits[0, 1].item()
    assert found == pytest.approx(-2000 + math.log((1 + math.exp(-1)) / 2))


def test_one_alone_is_itself():
    only = made(0)
    torch.testing.assert_close(average(only).tensors().probs, only.tensors().probs)


def test_what_is_kept():
    truth = torch.full((7, 4), 0.25)
    found = average(
        made(0, features=torch.ones(7, 2), weights=torch.arange(7)), made(1, label_probs=truth)
    )
    assert found.weights.tolist() == list(range(7))
    assert found.features is None
    assert torch.equal(found.tensors().label_probs, truth)
    assert (
        average(Predictions(np.zeros((1, 2)), [0]), made(1, 1, 2)).tensors().logits.dtype
        == torch.float64
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: average(), "at least one"),
        (lambda: average(made(0), torch.zeros(7, 4)), r"one Predictions is required.*\(7, 4\)"),
        (
            lambda: average(made(0), made(1, samples=6)),
            r"same 7 samples with 4 classes; got \(6, 4\).*as number 2",
        ),
        (lambda: average(made(0), made(1, classes=5)), r"\(7, 5\)"),
        (
            lambda: average(made(0), made(1, target=torch.zeros(7, dtype=torch.int64))),
            "other targets",
        ),
        (lambda: average(made(0), weights=[1.0, 1.0]), "weights must be 1 numbers"),
        (lambda: average(made(0), made(1), weights=[0, 0]), "not all 0"),
        (lambda: average(made(0), made(1), weights=[2, -1]), "weights"),
    ],
)
def test_invalid_members_or_weights_are_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_members_without_labels():
    members = Predictions([[2.0, 0.0]]), Predictions([[0.0, 2.0]])
    mean = average(*members)
    assert not mean.has_target
    assert mean.probs.tolist() == [[0.5, 0.5]]
    with pytest.raises(InputError, match="with other targets"):
        average(members[0], Predictions([[0.0, 2.0]], [0]))


def test_mean_log_probs_over_the_first_axis():
    logits = torch.randn(
        5, 2, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    torch.testing.assert_close(log_mean_softmax(logits).exp(), logits.softmax(-1).mean(0))
    weights = torch.tensor([0.1, 0.2, 0.3, 0.4, 0.0], dtype=torch.float64)
    expected = (weights[:, None, None, None] * logits.softmax(-1)).sum(0)
    torch.testing.assert_close(log_mean_softmax(logits, log_weights=weights.log()).exp(), expected)
