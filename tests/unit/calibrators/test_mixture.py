import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedlas.calibrators._fit.minimize import mixture_weights


@given(st.integers(0, 10_000), st.integers(1, 60), st.integers(2, 4))
def test_no_weights_are_better_than_those_that_em_ends_at(seed, samples, parts):
    random = torch.Generator().manual_seed(seed)
    probs = (
        torch.rand(samples, parts, generator=random, dtype=torch.float64) ** (1 + seed % 8) + 1e-12
    )
    counts = torch.randint(1, 4, (samples,), generator=random).double()
    prior = torch.tensor([2.0, *[0.0] * (parts - 1)], dtype=torch.float64) * (seed % 2)

    def value(weights):
        return float(counts @ (probs @ weights).log() + torch.xlogy(prior, weights).sum())

    weights, converged = mixture_weights(probs, counts, prior)
    assert converged
    assert bool((weights >= 0).all())
    assert float(weights.sum()) == pytest.approx(1)
    others = torch.distributions.Dirichlet(torch.ones(parts, dtype=torch.float64)).sample((50,))
    assert max(map(value, [*others, *torch.eye(parts).double()])) <= value(weights) + 0.01
