"""Scores against their formulas and independent implementations."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pytorch_ood import detector as oracle
from sklearn.covariance import EmpiricalCovariance
from torch import nn

from fedlas.errors import InputError
from fedlas.predictions import Predictions
from fedlas.zoo.ood import (
    OOD_SCORES,
    Outputs,
    Reference,
    compute_score,
    detection_metrics,
    energy_score,
    entropy_score,
    feature_norm_score,
    gen_score,
    kl_matching_score,
    knn_score,
    mahalanobis_score,
    max_logit_score,
    msp_score,
    negative_aware_norm_score,
    odin_score,
    relative_mahalanobis_score,
    vim_score,
)


def logits(seed=0, samples=50, classes=5, scale=3.0):
    return scale * torch.randn(samples, classes, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def train():
    """Features in five clusters, the last two columns a copy of the first and constant."""
    generator = torch.Generator().manual_seed(1)
    target = torch.arange(300) % 5
    centers = 4 * torch.randn(5, 6, generator=generator)
    features = centers[target] + torch.randn(300, 6, generator=generator)
    features = torch.cat([features, features[:, :1], torch.full((300, 1), 2.0)], dim=1)
    return Predictions(logits(2, 300), target, features=features)


def test_logit_scores_equal_pytorch_ood():
    z = logits().double()
    for ours, theirs in (
        (msp_score(z), 1 + oracle.MaxSoftmax.score(z)),
        (entropy_score(z), oracle.Entropy.score(z)),
        (max_logit_score(z), oracle.MaxLogit.score(z)),
        (energy_score(z, temperature=2.0), oracle.EnergyBased.score(z, t=2.0)),
        (gen_score(z), 5 * oracle.GEN.score(z)),
        (gen_score(z, gamma=0.5, top=2), 2 * oracle.GEN.score(z, gamma=0.5, M=2)),
    ):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)


@given(st.floats(-1e4, 1e4), st.floats(0.01, 100))
def test_shifts_and_scales(shift, scale):
    z = logits(scale=1.0).double()
    for score in (msp_score, entropy_score, gen_score):
        torch.testing.assert_close(score(z + shift), score(z), atol=1e-8, rtol=1e-8)
    assert torch.equal(max_logit_score(z / scale).argsort(), max_logit_score(z).argsort())
    torch.testing.assert_close(energy_score(z * scale, temperature=scale), scale * energy_score(z))


def test_confident_samples_are_told_apart():
    z = torch.tensor(
        [[20.0, 0.0, 0.0], [60.0, 0.0, 0.0], [61.0, 0.0, 0.0], [300.0, 0.0, 0.0], [301.0, 0.0, 0.0]]
    )
    for score in (msp_score, entropy_score, gen_score):
        assert (score(z).diff() < 0).all(), score
        torch.testing.assert_close(score(z), score(z.double()), rtol=1e-6, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_precision_of_the_logits_is_enough(dtype):
    z = logits(samples=400, classes=1000).to(dtype)  # several blocks
    for score in (msp_score, entropy_score, max_logit_score, energy_score, gen_score):
        assert score(z).dtype == torch.float64
        torch.testing.assert_close(score(z), score(z.double()), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("order", [0.5, 1, 2, 3.5, math.inf])
def test_feature_norm(order):
    features = torch.randn(9, 4, dtype=torch.float64)
    expected = -np.array([np.linalg.norm(row, ord=order) for row in features.numpy()])
    np.testing.assert_allclose(feature_norm_score(features, order=order).numpy(), expected)


def test_negative_aware_norm_by_hand():
    # Sums of the active features 8, 0, 0 and 6; there are 2, 0, 0 and 2 of them.
    features = torch.tensor([[3.0, 0, 5, 0], [0, 0, 0, 0], [-1, -2, -3, -4], [-1, 2, 4, 0]])
    assert negative_aware_norm_score(features).tolist() == [-4, 0, 0, -3]
    # Equation 10: the L1 norm over the L0 norm.
    active = torch.randn(50, 9, generator=torch.Generator().manual_seed(0)).relu()
    expected = -torch.linalg.vector_norm(active, ord=1, dim=1) / torch.linalg.vector_norm(
        active, ord=0, dim=1
    )
    torch.testing.assert_close(negative_aware_norm_score(active).float(), expected)


def test_extreme_options():
    features, z = torch.randn(9, 4).double(), logits().double()
    torch.testing.assert_close(feature_norm_score(features, order=1e308), -features.abs().amax(1))
    torch.testing.assert_close(energy_score(z, temperature=1e-308), -z.amax(1))
    assert torch.isfinite(feature_norm_score(features.repeat(1, 1000), order=0.1)).all()
    assert feature_norm_score(torch.zeros(2, 3)).tolist() == [0, 0]


def test_mahalanobis_equals_scikit_learn(train):
    test = torch.cat(
        [train.tensors().features[:20], train.tensors().features[:20] + torch.randn(20, 8)]
    )[:, :6]
    x, y = train.tensors().features[:, :6].double().numpy(), train.target
    means = np.stack([x[y == k].mean(0) for k in range(5)])
    within = EmpiricalCovariance(assume_centered=True).fit(x - means[y])
    expected = np.stack(
        [within.mahalanobis(test.double().numpy() - mean) for mean in means], 1
    ).min(1)
    known = Predictions(
        train.tensors().logits, train.tensors().target, features=train.tensors().features[:, :6]
    )
    np.testing.assert_allclose(
        2 * mahalanobis_score(test, train=known).numpy(), expected, rtol=1e-9
    )
    # A column that says nothing new, and one that never varies, change nothing.
    np.testing.assert_allclose(
        2 * mahalanobis_score(train.tensors().features[:20], train=train).numpy(),
        expected[:20],
        rtol=1e-9,
    )


def test_relative_mahalanobis_subtracts_the_background(train):
    columns = train.tensors().features[:, :6].double()
    known = Predictions(train.tensors().logits, train.tensors().target, features=columns.float())
    centered = columns - columns.mean(0)
    background = (centered @ torch.linalg.inv(centered.T @ centered / 300) * centered).sum(1)
    expected = mahalanobis_score(columns.float(), train=known) - background / 2
    torch.testing.assert_close(relative_mahalanobis_score(columns.float(), train=known), expected)


def test_mahalanobis_does_not_depend_on_units(train):
    units = torch.tensor([1e-4, 1.0, 1e4, 1.0, 1.0, 1.0, 1e-4, 1.0])
    scaled = Predictions(
        train.tensors().logits, train.tensors().target, features=train.tensors().features * units
    )
    for score in (mahalanobis_score, relative_mahalanobis_score):
        one, other = (score(p.tensors().features[:50], train=p) for p in (train, scaled))
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_mahalanobis_matches_pytorch_ood_with_small_ridge(train):
    columns = train.tensors().features[:, :6]
    known, test = (
        Predictions(train.tensors().logits, train.tensors().target, features=columns),
        columns[:50] + 0.5,
    )
    for score, detector in (
        (mahalanobis_score, oracle.Mahalanobis),
        (relative_mahalanobis_score, oracle.RMD),
    ):
        theirs = (
            detector(None)
            .fit_features(columns, train.tensors().target)
            .predict_features(test)
            .double()
        )
        # theirs divides no scatter, and RMD is not halved
        half = 300 if detector is oracle.Mahalanobis else 150
        torch.testing.assert_close(score(test, train=known), half * theirs, rtol=1e-3, atol=1e-3)


def test_mahalanobis_of_compact_classes_ignores_order():
    """In float32 the AUROC of such features moved by 0.04 % with the order of the training samples."""
    generator = torch.Generator().manual_seed(0)
    target, other = torch.arange(1000) % 10, torch.arange(500) % 10
    centers, mixing = (
        3 * torch.randn(10, 64, generator=generator),
        torch.randn(64, 64, generator=generator),
    )
    mixing *= torch.logspace(-4, -6, 64) / 8

    def compact(labels, scale=1.0):
        return centers[labels] + scale * torch.randn(len(labels), 64, generator=generator) @ mixing

    features, tested = compact(target), torch.cat([compact(other), compact(other, 1.1)])
    order = torch.randperm(1000, generator=generator)
    for score in (mahalanobis_score, relative_mahalanobis_score):
        one, again = (
            score(
                tested,
                train=Predictions(torch.zeros(1000, 10), target[rows], features=features[rows]),
            )
            for rows in (torch.arange(1000), order)
        )
        torch.testing.assert_close(one, again, rtol=1e-6, atol=1e-6)


def test_knn_is_the_distance_to_the_kth(train):
    unit = nn.functional.normalize(train.tensors().features.double())
    test = torch.randn(7, 8)
    expected = torch.cdist(nn.functional.normalize(test.double()), unit).sort(1).values
    for k in (1, 50, 300):
        torch.testing.assert_close(
            knn_score(test, train=train, k=k).double(), expected[:, k - 1], atol=1e-5, rtol=1e-4
        )
    with pytest.raises(InputError, match="at most 300"):
        knn_score(test, train=train, k=301)


def test_vim_by_hand(train):
    head = nn.Linear(8, 5)
    found = vim_score(train.tensors().features[:30], train=train, head=head, dimension=3).double()
    with torch.no_grad():
        weight, bias = head.weight.double(), head.bias.double()
        x = train.tensors().features.double() + torch.linalg.pinv(weight) @ bias
        _, vectors = torch.linalg.eigh(x.T @ x)
        rest = (x @ vectors[:, :5]).norm(dim=1)
        z = train.tensors().features.double() @ weight.T + bias
        alpha = z.amax(1).mean() / rest.mean()
        expected = (alpha * rest - z.logsumexp(1))[:30]
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)


def test_kl_matching_by_hand():
    val = Predictions(logits(3, 200), torch.zeros(200, dtype=torch.int64))
    typical = torch.stack(
        [val.tensors().probs[val.tensors().predicted == k].mean(0) for k in range(5)]
    )
    p = logits(4).softmax(1)
    expected = (p[:, None] * (p[:, None].log() - typical.log())).sum(2).amin(1)
    torch.testing.assert_close(
        kl_matching_score(logits(4), val=val).float(), expected, atol=1e-5, rtol=1e-4
    )


def test_odin_by_hand():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(2 * 3 * 3, 4)).eval()
    x, std = torch.randn(5, 2, 3, 3), (0.5, 0.25)
    moved = x.clone().requires_grad_()
    z = model(moved) / 10.0
    nn.functional.cross_entropy(z, z.argmax(1)).backward()
    nearer = x - 0.01 * moved.grad.sign() / torch.tensor(std).view(1, 2, 1, 1)
    expected = -(model(nearer).double() / 10.0).softmax(1).amax(1)
    found = odin_score(model, x, std=std, temperature=10.0, eps=0.01)
    torch.testing.assert_close(found, expected.detach())
    assert not found.requires_grad
    assert (odin_score(model, x, std=std, temperature=10.0, eps=0.0) >= found).all()
    with pytest.raises(InputError, match="std has 1 channel"):
        odin_score(model, x, std=(0.5,))


def test_what_is_far_scores_higher(train):
    near = train.tensors().features[:100]
    far = torch.randn(100, 8, generator=torch.Generator().manual_seed(0)) * 0.3
    for function, options in (
        (feature_norm_score, {}), (mahalanobis_score, {"train": train}), (relative_mahalanobis_score, {"train": train}),
        (knn_score, {"train": train, "k": 5}),
    ):  # fmt: skip
        scores = function(torch.cat([near, far]), **options)
        assert detection_metrics(scores[:100], scores[100:])["auroc"] > 0.8, function


@pytest.mark.parametrize(
    "score", [msp_score, entropy_score, max_logit_score, energy_score, gen_score]
)
def test_logit_scores_refuse(score):
    for bad in (
        torch.zeros(3), torch.zeros(3, 2, dtype=torch.int64), [[1.0]], torch.zeros(3, 2, 2), torch.full((3, 2), 1e31),
        torch.full((3, 2), torch.nan), torch.eye(3).to_sparse(),
    ):  # fmt: skip
        with pytest.raises(InputError, match="logits must be"):
            score(bad)


def test_options_are_checked(train):
    for call in (
        lambda: energy_score(logits(), temperature=0.0),
        lambda: gen_score(logits(), gamma=1.5),
        lambda: gen_score(logits(), top=0),
        lambda: feature_norm_score(logits(), order=0.01),
        lambda: feature_norm_score(torch.zeros(2, 3, 4)),
        lambda: knn_score(train.tensors().features, train=train, k=0),
        lambda: knn_score(train.tensors().features[:, :3], train=train),
        lambda: knn_score(
            train.tensors().features,
            train=Predictions(train.tensors().logits, train.tensors().target),
        ),
        lambda: vim_score(train.tensors().features, train=train, head=nn.Linear(8, 5), dimension=8),
        lambda: vim_score(train.tensors().features, train=train, head=nn.Linear(7, 5)),
        lambda: vim_score(train.tensors().features, train=train, head=nn.Identity()),
        lambda: kl_matching_score(logits(classes=4), val=train),
        lambda: mahalanobis_score(
            torch.zeros(2, 8),
            train=Predictions(train.tensors().logits, train.tensors().target, torch.ones(300, 8)),
        ),
    ):
        with pytest.raises(InputError):
            call()


@pytest.mark.parametrize(
    "features",
    [
        torch.zeros(3), torch.zeros(0, 8), torch.zeros(3, 0), torch.zeros(3, 8, 2), torch.zeros(3, 8).long(),
        torch.full((3, 8), torch.inf), torch.full((3, 8), 1e31), torch.eye(8).to_sparse(), [[0.0] * 8], None,
    ],
)  # fmt: skip
def test_odd_features(train, features):
    head = nn.Linear(8, 5)
    for call in (
        lambda: feature_norm_score(features),
        lambda: mahalanobis_score(features, train=train),
        lambda: relative_mahalanobis_score(features, train=train),
        lambda: knn_score(features, train=train, k=1),
        lambda: vim_score(features, train=train, head=head),
    ):
        with pytest.raises(InputError, match="features must be"):
            call()


def test_references_that_are_no_predictions():
    for call in (
        lambda: knn_score(torch.zeros(3, 8), train=torch.zeros(5, 8)),
        lambda: kl_matching_score(torch.zeros(3, 5), val=torch.zeros(5, 5)),
        lambda: kl_matching_score(torch.zeros(3), val=Predictions(torch.zeros(2, 3), [0, 1])),
        lambda: odin_score(nn.Flatten(), [[0.0]], std=[1.0]),
        lambda: Outputs([[0.0, 1.0]]),
        lambda: Outputs(torch.zeros(1, 2), scores={"odin": [0.0]}),
    ):
        with pytest.raises(InputError):
            call()


def test_compute_score_says_what_is_missing(train):
    outputs = Outputs(logits())
    for name, message in (
        ("feature-norm", "features"), ("knn", "features"), ("kl-matching", "validation predictions"),
        ("odin", "computed from images"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=message):
            compute_score(name, outputs)
    with pytest.raises(InputError, match="Did you mean 'temperature'"):
        compute_score("energy", outputs, options={"temperatur": 2.0})
    with pytest.raises(InputError, match="Did you mean 'energy'"):
        compute_score("enrgy", outputs)


def test_a_temperature_scales_what_scores_are_fitted_on(train):
    scaled = Reference(train, train).divide_logits(2.0)
    torch.testing.assert_close(scaled.val.tensors().logits, train.tensors().logits / 2)
    torch.testing.assert_close(scaled.train.tensors().features, train.tensors().features)
    assert Reference().divide_logits(2.0).val is None


def test_every_score_has_its_own_name_in_tables():
    titles = [entry.metadata["title"] for entry in OOD_SCORES.entries()]
    assert len(set(titles)) == len(titles)
