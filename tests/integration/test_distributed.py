"""Two processes with half a batch each equal one process with the whole."""

import copy
import itertools

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import fedlas
from fedlas.losses import LOSSES, NormConfidenceIndicator

RANKS, STEPS, SAMPLES, C = 2, 3, 12, 4
NAMES = ("ls", "fedlas", "fedlas+")
IGNORED = {0: (), 1: (1, 2, 5)}  # positions of each rank's half


def objective(name):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, C))
    return fedlas.Objective(model, LOSSES.build(name, {}, num_classes=C), head="2")


def batch(step):
    generator = torch.Generator().manual_seed(step)
    return torch.randn(SAMPLES, 6, generator=generator), torch.randint(C, (SAMPLES,), generator=generator)


def part(rank, tensor):
    return tensor.chunk(RANKS)[rank]


def train(module, owner, batches):
    """Loss, gradients and buffers of every step."""
    optimizer = torch.optim.SGD(owner.parameters(), lr=0.5)
    steps = []
    for inputs, target in batches:
        loss, _ = module(inputs, target)
        loss.backward()
        gradients = {key: p.grad.clone() for key, p in owner.named_parameters()}
        steps.append((loss.detach(), gradients, copy.deepcopy(dict(owner.named_buffers()))))
        optimizer.step()
        optimizer.zero_grad()
    return steps


def indicator_steps(share):
    """States of NCI alone over batches of which ranks hold unequal numbers of valid samples, and even none."""
    nci = NormConfidenceIndicator()
    states = []
    for step, valid_of_first in enumerate((6, 4, 1)):
        features = torch.randn(SAMPLES, 5, generator=torch.Generator().manual_seed(step)) + 3
        valid = torch.arange(SAMPLES) < valid_of_first  # from the second rank none is valid
        nci(share(features), valid=share(valid))
        states.append(copy.deepcopy(nci.state_dict()))
    first_batch_of_one_each = NormConfidenceIndicator()
    first_batch_of_one_each(share(torch.tensor([[1.0], [3.0]])))
    states.append(first_batch_of_one_each.state_dict())
    return states


def ignoring(target, positions):
    target = target.clone()
    target[list(positions)] = -100
    return target


def worker(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/init", rank=rank, world_size=RANKS)
    try:
        found = {"indicator": indicator_steps(lambda tensor: part(rank, tensor))}
        for name in NAMES:
            halves = [tuple(part(rank, tensor) for tensor in batch(step)) for step in range(STEPS)]
            whole = objective(name)
            found[name] = train(DistributedDataParallel(whole), whole, halves)
            uneven = [(inputs, ignoring(target, IGNORED[rank])) for inputs, target in halves]
            whole = objective(name)
            found[f"{name} uneven"] = train(DistributedDataParallel(whole), whole, uneven)
        torch.save(found, f"{folder}/{rank}.pt")
    finally:
        dist.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What each of the processes saw; all scenarios share one start-up."""
    if not (dist.is_available() and dist.is_gloo_available()):
        pytest.skip("this PyTorch has no gloo")
    folder = tmp_path_factory.mktemp("ranks")
    mp.spawn(worker, args=(str(folder),), nprocs=RANKS)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(RANKS)]


@pytest.mark.parametrize("name", NAMES)
def test_halves_equal_the_whole(ranks, name):
    """Mean loss, gradients of body and gate, NCI: the same trajectory over all steps."""
    alone = objective(name)
    expected = train(alone, alone, [batch(step) for step in range(STEPS)])
    for step, (loss, gradients, buffers) in enumerate(expected):
        losses = torch.stack([rank[name][step][0] for rank in ranks])
        torch.testing.assert_close(losses.mean(), loss)
        for rank in ranks:
            torch.testing.assert_close(rank[name][step][1], gradients, rtol=1e-4, atol=1e-6)
            torch.testing.assert_close(rank[name][step][2], buffers)
    gate = [key for key in expected[0][1] if key.startswith("criterion.gate")]
    assert len(gate) == (4 if alone.needs else 0)


@pytest.mark.parametrize("name", NAMES)
def test_ranks_stay_alike(ranks, name):
    for kind in (name, f"{name} uneven"):
        for first, second in itertools.pairwise(rank[kind] for rank in ranks):
            for mine, theirs in zip(first, second, strict=True):
                torch.testing.assert_close(mine[1:], theirs[1:], rtol=0, atol=0)


@pytest.mark.parametrize("name", NAMES)
def test_uneven_valid_counts(ranks, name):
    """With ignored positions NCI still sees all ranks' valid samples as one batch.

    The mean does not: each rank divides by its own count and DDP averages the means, here as with
    ``F.cross_entropy``. A sample of a rank with few valid positions weighs more than in one process.
    """
    alone = objective(name)
    inputs, target = batch(0)
    target = torch.cat([ignoring(part(rank, target), IGNORED[rank]) for rank in range(RANKS)])
    ((loss, gradients, buffers),) = train(alone, alone, [(inputs, target)])
    found = [rank[f"{name} uneven"][0] for rank in ranks]
    for rank in found:
        torch.testing.assert_close(rank[2], buffers)
    counts = torch.tensor([float((part(rank, target) != -100).sum()) for rank in range(RANKS)])
    losses = torch.stack([rank[0] for rank in found])
    torch.testing.assert_close((losses * counts).sum() / counts.sum(), loss)
    assert not torch.isclose(losses.mean(), loss)
    assert not torch.allclose(found[0][1]["model.0.weight"], gradients["model.0.weight"])


def test_the_indicator_sums_over_ranks(ranks):
    expected = indicator_steps(lambda tensor: tensor)
    assert [state["num_batches_tracked"].item() for state in expected] == [1, 2, 2, 1]
    for rank in ranks:
        torch.testing.assert_close(rank["indicator"], expected)
