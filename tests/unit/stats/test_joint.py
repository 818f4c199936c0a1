"""The joint p-value of Westfall and Young: exact size, copies cost nothing, and what is no test is left out."""

import numpy as np
import pytest

from fedlas.stats import joint_p_value
from fedlas.stats.joint import NullReplicates


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


def test_it_is_between_the_smallest_p_value_and_bonferroni_s():
    random = np.random.default_rng(2)
    common = random.standard_normal((999, 1))
    replicates = 0.9 * common + 0.4 * random.standard_normal((999, 6))
    null = NullReplicates()
    for k in range(6):
        null.add(str(k), 2.0, replicates[:, k])
    least = min(null.p_values().values())
    assert least <= null.joint_p() <= 6 * least
    assert null.joint_p() < 4 * least
    assert null.least_p == 0.001


def test_a_statistic_that_nothing_moves_is_left_out():
    null = NullReplicates()
    null.add("constant", 1.0, np.zeros(99))
    null.add("infinite", np.inf, np.arange(99.0))
    assert null.p_values() == {}
    assert null.joint_p() is None


@pytest.mark.parametrize("shape", [(0, 2), (5, 3), (5,)])
def test_shapes_that_do_not_fit(shape):
    with pytest.raises(ValueError, match=r"joint_p_value: observed must be \(K,\)"):
        joint_p_value(np.zeros(2), np.zeros(shape))
