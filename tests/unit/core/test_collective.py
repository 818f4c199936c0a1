"""Without a process group there is one process; with one, see integration/test_distributed.py."""

import torch

from fedlas._core.ranks import sum_across_ranks, world_size


def test_alone():
    value = torch.ones(3, requires_grad=True)
    assert world_size() == 1
    assert sum_across_ranks(value) is value
