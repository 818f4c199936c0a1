"""Tables by class and group that stream: those of the whole, within 1e-12, whatever the parts."""

import numpy as np
import pytest
import torch

from fedlas import Predictions
from fedlas.metrics import (
    StreamingClasses,
    StreamingGroups,
    calibration_by_class,
    calibration_by_group,
)
from gloo import RANKS, in_processes

C = 5
SITES = ["north", "south", "east", "empty"]


def data(samples=700, seed=0):
    generator = torch.Generator("cpu").manual_seed(seed)
    logits = 2 * torch.randn(samples, C, generator=generator, device="cpu")
    target = torch.multinomial((logits / 2).softmax(1), 1, generator=generator).squeeze(1)
    return (
        logits,
        target,
        [
            SITES[i]
            for i in torch.randint(3, (samples,), generator=generator, device="cpu").tolist()
        ],
    )


def classes(rows, *, num_bins=15):
    logits, target, _ = data()
    streaming = StreamingClasses(C, num_bins=num_bins)
    streaming.update(logits[rows], target[rows])
    return streaming


def groups(rows, *, num_bins=15):
    logits, target, sites = data()
    streaming = StreamingGroups(SITES, num_bins=num_bins)
    streaming.update(logits[rows], target[rows], groups=[sites[i] for i in rows.tolist()])
    return streaming


def expected(num_bins=15):
    logits, target, sites = data()
    p = Predictions(logits, target)
    by_group = calibration_by_group(p, sites, num_bins=num_bins)
    in_order = {site: by_group[site] for site in SITES if site in by_group}
    return {classes: calibration_by_class(p, num_bins=num_bins), groups: in_order}


def close(table):
    """Compare with a table whose sums were added up in another order."""
    return {name: pytest.approx(vars(row), rel=1e-12, abs=1e-15) for name, row in table.items()}


def plain(table):
    return {name: vars(row) for name, row in table.items()}


@pytest.mark.parametrize("kind", [classes, groups])
@pytest.mark.parametrize("num_bins", [1, 4, 15])
def test_every_split_and_order_gives_the_whole(kind, num_bins):
    wanted = expected(num_bins)[kind]
    for seed, sizes in enumerate(([700], [1, 699], [50] * 14)):
        torch.manual_seed(seed)
        parts = [kind(rows, num_bins=num_bins) for rows in torch.randperm(700).split(sizes)]
        for part in parts[1:]:
            parts[0].merge(part)
        assert plain(parts[0].compute()) == close(wanted)
        assert list(parts[0].compute()) == list(wanted)
        assert parts[0].num_samples == 700


@pytest.mark.parametrize("kind", [classes, groups])
def test_state_round_trips_resets_and_has_constant_size(kind, tmp_path):
    streaming, other = kind(torch.arange(700)), kind(torch.arange(3))
    torch.save(streaming.state_dict(), tmp_path / "state.pt")
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert other.compute() == streaming.compute()
    assert plain(other.compute()) == close(expected()[kind])
    assert {k: v.shape for k, v in kind(torch.arange(1)).state_dict().items()} == {
        k: v.shape for k, v in streaming.state_dict().items()
    }
    streaming.reset()
    with pytest.raises(ValueError, match="sample must have been added; got none"):
        streaming.compute()


def test_groups_may_be_tensors_numbers_or_mixed_orders():
    logits, target, _ = data()
    number = torch.arange(700) % 4
    streaming = StreamingGroups(range(3, -1, -1))
    streaming.update(logits, target, groups=number)
    assert list(streaming.compute()) == [3, 2, 1, 0]
    assert streaming.compute() == calibration_by_group(Predictions(logits, target), number)


@pytest.mark.parametrize(
    "names",
    [
        [1, "a"],
        [None, "a"],
        [("x", 1), ("x", 2)],
        [True, False],
        np.array(["b", "a"]),
        torch.arange(2),
        [1.5, 2],
    ],
    ids=["mixed", "none", "tuples", "bools", "numpy", "tensor", "floats"],
)
def test_names_may_be_whatever_hashes(names):
    logits, target, _ = data(40)
    streaming = StreamingGroups(names)
    streaming.update(logits, target, groups=[streaming.groups[i % 2] for i in range(40)])
    number = np.arange(40) % 2
    wanted = calibration_by_group(Predictions(logits, target), number)
    assert list(streaming.compute().values()) == list(wanted.values())
    assert list(streaming.compute()) == streaming.groups
    if not isinstance(names, list):
        streaming.update(logits, target, groups=names[number])
        assert [row.num_samples for row in streaming.compute().values()] == [40, 40]


def test_a_state_of_other_groups_is_refused():
    logits, target, _ = data(6)
    north = StreamingGroups(["north", "south"])
    north.update(logits, target, groups=["north"] * 6)
    for other in (StreamingGroups(["south", "north"]), StreamingGroups(list("abc"), num_bins=10)):
        with pytest.raises(ValueError, match=r"StreamingGroups\.load_state_dict: the state"):
            other.load_state_dict(north.state_dict())
        with pytest.raises(ValueError, match="at least one sample must have been added"):
            other.compute()


@pytest.mark.parametrize("kind", [classes, groups])
def test_another_default_device_changes_nothing(kind):
    with torch.device("meta"):
        assert kind(torch.arange(700, device="cpu")).compute() == expected()[kind]


def test_incompatible_input_raises_and_changes_nothing():
    logits, target, _ = data()
    streaming = groups(torch.arange(700))
    before = streaming.compute()
    with pytest.raises(ValueError, match=r"groups .*among .*got 'west'"):
        streaming.update(logits[:1], target[:1], groups=["west"])
    with pytest.raises(ValueError, match=r"groups .*\(2,\), one"):
        streaming.update(logits[:2], target[:2], groups=["north"])
    with pytest.raises(ValueError, match="target must be in"):
        streaming.update(logits[:1], torch.tensor([C]), groups=["north"])
    with pytest.raises(ValueError, match=r"StreamingGroups\.merge: .*must have the same class"):
        streaming.merge(StreamingGroups(SITES[:2]))
    with pytest.raises(ValueError, match=r"StreamingClasses\.merge: .*must have the same class"):
        classes(torch.arange(5)).merge(streaming)
    assert streaming.compute() == before
    with pytest.raises(ValueError, match=r"StreamingClasses\.update: logits must be \(N, 5\); got"):
        classes(torch.arange(5)).update(logits[:, :3], target % 3)
    with pytest.raises(ValueError, match="every group must be hashable"):
        StreamingGroups([["a"], ["b"]])
    with pytest.raises(ValueError, match="every group must be hashable"):
        streaming.update(logits[:1], target[:1], groups=[["north"]])
    for names in ([], ["a", "a"]):
        with pytest.raises(ValueError, match=r"StreamingGroups: groups .*unique names"):
            StreamingGroups(names)
    with pytest.raises(ValueError, match=r"num_bins .*whole number"):
        StreamingGroups(SITES, num_bins=0)
    with pytest.raises(ValueError, match=r"num_classes .*whole number"):
        StreamingClasses(0)


@pytest.mark.parametrize("kind", [classes, groups])
def test_failed_batch_changes_no_sums(monkeypatch, kind):
    logits, target, site = data()
    streaming = kind(torch.arange(50))
    before = streaming.state_dict()
    extra = {"groups": site[:40]} if kind is groups else {}
    name, seen = "add" if kind is groups else "update", []
    whole = getattr(streaming._by_group if kind is groups else streaming._statistic, name)

    def fails(*rows):
        whole(*rows)
        seen.append(rows)
        if len(seen) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(
        streaming._by_group if kind is groups else streaming._statistic, name, fails
    )
    monkeypatch.setattr("fedlas.metrics.scan.CHUNK_ROWS", 20)
    with pytest.raises(KeyboardInterrupt):
        streaming.update(logits[:40], target[:40], **extra)
    torch.testing.assert_close(streaming.state_dict(), before, rtol=0, atol=0)


def worker(rank, folder):
    rows = torch.arange(0, 100) if rank == 0 else torch.arange(100, 700)
    found = [kind(rows).sum_across_ranks().compute() for kind in (classes, groups)]
    torch.save([plain(table) for table in found], f"{folder}/{rank}.pt")


@pytest.mark.system
def test_ranks_add_up_to_one_process(tmp_path):
    in_processes(worker, str(tmp_path))
    wanted = [close(expected()[kind]) for kind in (classes, groups)]
    for rank in range(RANKS):
        assert torch.load(tmp_path / f"{rank}.pt", weights_only=True) == wanted
