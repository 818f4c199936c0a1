"""Processes of one group, which meet in a file: no port is taken."""

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

RANKS = 2


def in_processes(worker, folder, *args):
    """Call ``worker(rank, folder, *args)`` in each process of a group; without gloo the test is skipped."""
    if not (dist.is_available() and dist.is_gloo_available()):
        pytest.skip("this PyTorch has no gloo")
    mp.spawn(_join, args=(worker, folder, args), nprocs=RANKS)


def _join(rank, worker, folder, args):
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/init", rank=rank, world_size=RANKS
    )
    try:
        worker(rank, folder, *args)
    finally:
        dist.destroy_process_group()
