"""The joint p-value of Westfall and Young: exact size, copies cost nothing, and what is no test is left out."""

import numpy as np
import pytest
import torch

from fedlas import Predictions
from fedlas.stats import estimates, joint_p_value


def test_copies_of_one_test_have_its_p_value():
    random = np.random.default_rng(0)
    replicates = random.standard_normal((199, 1))
    for observed in (-1.0, 0.5, 2.0, 5.0):
        alone = joint_p_value(np.array([observed]), replicates)
        assert joint_p_value(np.full(9, observed), replicates.repeat(9, axis=1)) == alone
        assert alone == (1 + (replicates >= observed).sum()) / 200


def test_the_size_is_exact():
    """Among 200 exchangeable rows each is observed once: at most one in twenty has a p-value of up to 0.05."""
    random = np.random.default_rng(1)
    rows = random.standard_normal((200, 5)) @ random.standard_normal((5, 5))
    p = [joint_p_value(rows[k], np.delete(rows, k, axis=0)) for k in range(200)]
    assert 0.04 <= np.mean(np.array(p) <= 0.05) <= 0.05


def test_joint_p_is_between_smallest_and_bonferroni():
    random = np.random.default_rng(2)
    common = random.standard_normal((999, 1))
    replicates = 0.9 * common + 0.4 * random.standard_normal((999, 6))
    least = (1 + (replicates >= 2.0).sum(axis=0).min()) / 1000
    joint = joint_p_value(np.full(6, 2.0), replicates)
    assert least <= joint < 4 * least


def test_a_statistic_that_nothing_moves_is_left_out():
    sure = Predictions(1e6 * torch.eye(3)[torch.arange(60) % 3], torch.arange(60) % 3)
    table = estimates(sure, replicates=39)
    assert table.joint_p is None
    assert table["ece"].p is None or table["ece"].p == 1.0


@pytest.mark.parametrize("shape", [(0, 2), (5, 3), (5,)])
def test_shapes_that_do_not_fit(shape):
    with pytest.raises(ValueError, match=r"joint_p_value: observed must have shape \(K,\)"):
        joint_p_value(np.zeros(2), np.zeros(shape))
