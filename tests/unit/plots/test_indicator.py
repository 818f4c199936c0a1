import pytest
import torch

from fedlas.plots import score_bins, score_scatter, strength_histogram


def test_scatter_shows_all_wrong_predictions():
    correct = torch.arange(10_000) % 10 != 0
    axes = score_scatter(torch.randn(10_000), torch.rand(10_000), correct)
    right, wrong = axes.collections
    assert len(wrong.get_offsets()) == 1000
    assert len(right.get_offsets()) == 3000
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ["right (9,000, 1 in 3 shown)", "wrong (1,000)"]


def test_bins_are_the_signed_gap_in_points():
    axes = score_bins([-1.0, 1.0], [0.7, 0.9], [0.8, 0.6], [0.01, 0.02], theme="dark")
    assert [round(bar.get_height(), 6) for bar in axes.patches] == [-10, 30]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["-1.0", "1.0"]


def test_histogram_shares_add_up_to_a_hundred_each():
    alpha_i, correct = 0.1 * torch.rand(500), torch.rand(500) < 0.8
    axes = strength_histogram(alpha_i, correct, alpha=0.05)
    assert len(axes.patches) == 2
    axes = strength_histogram(alpha_i, torch.ones(500, dtype=torch.bool), alpha=0.05)
    assert len(axes.patches) == 1  # nothing wrong, nothing drawn for it


@pytest.mark.parametrize(
    "call", [lambda a, b: score_scatter(a, a, b), lambda a, b: strength_histogram(a, b, alpha=0.1)]
)
def test_refuse_other_shapes(call):
    with pytest.raises(ValueError, match=r"must have one shape \(N,\)"):
        call(torch.rand(4), torch.ones(3, dtype=torch.bool))
