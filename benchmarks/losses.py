"""Loss forward + backward as a ratio to ``F.cross_entropy``: medians, interleaved in one process.

Run with ``python benchmarks/losses.py [--losses NAME ...|all] [--threads N] [--features D] [--rounds N] [--apart]
[--compile]`` on an otherwise idle machine. ``all`` times every registered loss at (256, 1000). ``--apart`` gives each
loss a loop of its own instead of taking turns, so caches and allocator stay warm.
"composed" is FedLAS written straight down from its formulas, one torch call after the other, as published code does.
"""

import argparse
import statistics
import time

import torch
import torch.nn.functional as F

from fedlas.losses import LOSSES


class Composed(torch.nn.Module):
    """FedLAS without any thought of speed."""

    def __init__(self, num_classes):
        super().__init__()
        self.hidden = torch.nn.Linear(num_classes, num_classes // 2)
        self.out = torch.nn.Linear(num_classes // 2, 2)
        self.mean, self.std = torch.tensor(20.0), torch.tensor(100.0)

    def forward(self, logits, target, features):
        norms = torch.norm(features.detach(), p=1, dim=1)
        self.mean = 0.95 * norms.mean() + 0.05 * self.mean
        self.std = 0.95 * norms.std() + 0.05 * self.std
        scores = (norms - self.mean) / (self.std + 1e-3)
        two = F.softmax(self.out(F.leaky_relu(self.hidden(logits.detach()))), dim=1)
        u = two[:, 1] - two[:, 0]
        psi = (torch.sign(u) - u).detach() + u
        alpha = 2 * 0.05 * torch.sigmoid(4 * psi * scores)
        log_probs = F.log_softmax(logits, dim=1)
        smooth = torch.full_like(log_probs, 1 / logits.shape[1])
        hard = F.one_hot(target, logits.shape[1])
        soft = (1 - alpha)[:, None] * hard + alpha[:, None] * smooth
        return -(soft * log_probs).sum(dim=1).mean()


def contestants(names, samples, classes, width, frozen, compiled):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(samples, classes, generator=generator, requires_grad=True)
    target = torch.randint(classes, (samples,), generator=generator)
    given = {
        "features": torch.randn(samples, width, generator=generator).relu(),
        "index": torch.arange(samples),
        "mixed": torch.randn(samples, 1, classes, generator=generator),
        "mixed_share": torch.rand(samples, 1, generator=generator),
        "head_weight": torch.randn(classes, width, generator=generator) / width**0.5,  # rows of length about 1
    }
    criteria = {name: LOSSES.build(name, {}, num_classes=classes, num_samples=samples) for name in names}
    composed = Composed(classes)
    if frozen:
        for criterion in (*criteria.values(), composed):
            criterion.requires_grad_(False)
    calls = {
        "F.cross_entropy": lambda: F.cross_entropy(logits, target),
        "F.cross_entropy, smoothing": lambda: F.cross_entropy(logits, target, label_smoothing=0.05),
        "fedlas composed": lambda: composed(logits, target, given["features"]),
    }
    for name, criterion in criteria.items():
        needed = {key: value for key, value in given.items() if key in criterion.needs}
        calls[name] = lambda criterion=criterion, needed=needed: criterion(logits, target, **needed)
    if compiled:
        torch._dynamo.reset()
        fast = torch.compile(criteria["fedlas"], fullgraph=True)
        calls["fedlas compiled"] = lambda: fast(logits, target, features=given["features"])
    leaves = [logits, *composed.parameters(), *(p for criterion in criteria.values() for p in criterion.parameters())]
    return calls, leaves


def ratios(calls, leaves, rounds, apart):
    times = {name: [] for name in calls}
    turns = [(turn, name) for turn in range(rounds + 10) for name in calls]
    if apart:
        turns.sort(key=lambda pair: list(calls).index(pair[1]))
    for turn, name in turns:
        for leaf in leaves:
            leaf.grad = None
        start = time.perf_counter()
        calls[name]().backward()
        if turn >= 10:
            times[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(values) for name, values in times.items()}
    base = medians["F.cross_entropy"]
    return base, {name: value / base for name, value in medians.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--losses", nargs="+", default=["ls", "mbls", "acls", "fedlas", "fedlas+"])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--features", type=int, default=512, help="width D of the features")
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--apart", action="store_true", help="a loop for each loss, instead of taking turns")
    parser.add_argument("--compile", action="store_true", help="also FedLAS compiled (needs a C++ compiler)")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print(f"torch {torch.__version__}, {args.threads} threads, features {args.features} wide; ratio to F.cross_entropy")
    sizes = [(128, 10, False), (128, 100, False), (256, 1000, False), (1024, 1000, False), (1024, 1000, True)]
    if args.losses == ["all"]:
        args.losses, sizes = list(LOSSES), [(256, 1000, False)]
    for samples, classes, frozen in sizes:
        calls, leaves = contestants(args.losses, samples, classes, args.features, frozen, args.compile)
        base, found = ratios(calls, leaves, args.rounds, args.apart)
        gate = "gate frozen" if frozen else "gate trained"
        print(f"\n({samples}, {classes}), {gate}; F.cross_entropy {base * 1e6:.0f} us")
        for name, ratio in found.items():
            pairwise = name in LOSSES and LOSSES[name].metadata.get("pairwise")
            print(f"  {name:28} {ratio:5.1f} x{'  (pairwise)' if pairwise else ''}")


if __name__ == "__main__":
    main()
