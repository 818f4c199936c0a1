"""Two processes with half a batch each equal one process with the whole."""

import copy
import functools
import itertools

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import fedlas
from fedlas.errors import InputError
from fedlas.losses import LOSSES, NormConfidenceIndicator
from gloo import RANKS, in_processes

pytestmark = pytest.mark.system

STEPS, SAMPLES, C = 3, 12, 4
VARIANTS = {
    "fedlas-ablation, mean": ("fedlas-ablation", {"spread": "mean"}),
    "fedlas-ablation, against": ("fedlas-ablation", {"direction": "against"}),
    "sphor, projected": ("sphor", {"num_features": 8, "projection": 16}),
}
NAMES = (*LOSSES, *VARIANTS)
# samples share a number, and that is the one of all ranks' samples
SUMMED = {"fedlas-ablation, mean"}
IGNORED = {0: (), 1: (1, 2, 5)}  # positions of each rank's half


def objective(name):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, C))
    name, options = VARIANTS.get(name, (name, {}))
    return fedlas.Objective(
        model,
        LOSSES.build(name, options, num_classes=C, num_samples=2 * SAMPLES, num_epochs=100),
        head="3",
    )


def batch(step):
    generator = torch.Generator().manual_seed(step)
    inputs, target = (
        torch.randn(SAMPLES, 1, 2, 3, generator=generator),
        torch.randint(C, (SAMPLES,), generator=generator),
    )
    return inputs, target, torch.randperm(2 * SAMPLES, generator=generator)[:SAMPLES]


@functools.cache
def is_separable(name):
    """Whether each sample's loss is its own: not that of a pair or of a batch, nor of a mixture drawn by chance."""
    alone = objective(name)
    if hasattr(alone.criterion, "mix"):
        return False
    train(alone, alone, [batch(step) for step in range(STEPS)])
    alone.eval()
    alone.criterion.reduction = "none"
    whole = alone(*batch(STEPS)[:2], index=batch(STEPS)[2])[0]
    parts = [tuple(part(rank, tensor) for tensor in batch(STEPS)) for rank in range(RANKS)]
    halves = torch.cat([alone(inputs, target, index=index)[0] for inputs, target, index in parts])
    return torch.allclose(halves, whole, rtol=1e-4, atol=1e-6)


@functools.cache
def takes_ignored(name):
    """Whether the loss takes ignored positions in training; half of one cannot be ignored where samples are mixed."""
    inputs, target, index = batch(0)
    try:
        objective(name)(inputs, ignoring(target, IGNORED[1]), index=index)
    except InputError as error:
        return "ignored" not in str(error)
    return True


def part(rank, tensor):
    return tensor.chunk(RANKS)[rank]


def train(module, owner, batches):
    """Loss, gradients and buffers of every step."""
    optimizer = torch.optim.SGD(owner.parameters(), lr=0.5)
    steps = []
    for inputs, target, index in batches:
        loss, _ = module(inputs, target, index=index)
        loss.backward()
        gradients = {
            key: p.grad.clone() for key, p in owner.named_parameters() if p.grad is not None
        }
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


def worker(rank, folder, names, uneven_names):
    found = {"indicator": indicator_steps(lambda tensor: part(rank, tensor))}
    for name in names:
        halves = [tuple(part(rank, tensor) for tensor in batch(step)) for step in range(STEPS)]
        whole = objective(name)
        found[name] = train(DistributedDataParallel(whole), whole, halves)
        if name not in uneven_names:
            continue
        uneven = [
            (inputs, ignoring(target, IGNORED[rank]), index) for inputs, target, index in halves
        ]
        whole = objective(name)
        found[f"{name} uneven"] = train(DistributedDataParallel(whole), whole, uneven)
    torch.save(found, f"{folder}/{rank}.pt")


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What each of the processes saw; all scenarios share one start-up."""
    folder = tmp_path_factory.mktemp("ranks")
    in_processes(worker, str(folder), NAMES, list(filter(takes_ignored, NAMES)))
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(RANKS)]


def test_losses_of_both_kinds_are_there():
    """What holds for one sample at a time is most of them, FedLAS included; a loss of pairs is none of them."""
    separable = {name for name in NAMES if is_separable(name)}
    assert {"ce", "fedlas", "fedlas+"} <= separable < set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_halves_equal_the_whole(ranks, name):
    """Mean loss, gradients of body and loss, state of the loss: the same trajectory over all steps.

    Where samples share a loss, ranks see other pairs or means than one process does: only the state is the same, as
    long as the parameters are.
    """
    alone, separable = objective(name), is_separable(name) or name in SUMMED
    expected = train(alone, alone, [batch(step) for step in range(STEPS)])
    for step, (loss, gradients, buffers) in enumerate(expected if separable else expected[:1]):
        losses = torch.stack([rank[name][step][0] for rank in ranks])
        for rank in ranks:
            torch.testing.assert_close(rank[name][step][2], buffers)
            if separable:
                torch.testing.assert_close(rank[name][step][1], gradients, rtol=1e-4, atol=1e-6)
        if separable:
            torch.testing.assert_close(losses.mean(), loss)
    learned = {
        f"criterion.{key}" for key, p in alone.criterion.named_parameters() if p.requires_grad
    }
    assert learned <= expected[0][1].keys()


@pytest.mark.parametrize("name", NAMES)
def test_ranks_stay_alike(ranks, name):
    for kind in (name, f"{name} uneven") if takes_ignored(name) else (name,):
        for first, second in itertools.pairwise(rank[kind] for rank in ranks):
            for mine, theirs in zip(first, second, strict=True):
                torch.testing.assert_close(mine[1:], theirs[1:], rtol=0, atol=0)


@pytest.mark.parametrize("name", NAMES)
def test_uneven_valid_counts(ranks, name):
    """With ignored positions the state of a loss still sees all ranks' valid samples as one batch.

    The mean does not: each rank divides by its own count and DDP averages the means, here as with
    ``F.cross_entropy``. A sample of a rank with few valid positions weighs more than in one process.
    """
    if not takes_ignored(name):
        pytest.skip("takes no ignored positions")
    alone = objective(name)
    inputs, target, index = batch(0)
    target = torch.cat([ignoring(part(rank, target), IGNORED[rank]) for rank in range(RANKS)])
    ((loss, gradients, buffers),) = train(alone, alone, [(inputs, target, index)])
    found = [rank[f"{name} uneven"][0] for rank in ranks]
    for rank in found:
        torch.testing.assert_close(rank[2], buffers)
    if not is_separable(name):
        return
    counts = torch.tensor([float((part(rank, target) != -100).sum()) for rank in range(RANKS)])
    losses = torch.stack([rank[0] for rank in found])
    torch.testing.assert_close((losses * counts).sum() / counts.sum(), loss)
    assert not torch.isclose(losses.mean(), loss)
    assert not torch.allclose(found[0][1]["model.1.weight"], gradients["model.1.weight"])


def test_the_indicator_sums_over_ranks(ranks):
    expected = indicator_steps(lambda tensor: tensor)
    assert [state["num_batches_tracked"].item() for state in expected] == [1, 2, 2, 1]
    for rank in ranks:
        torch.testing.assert_close(rank["indicator"], expected)
