"""Loss forward + backward as a ratio to ``F.cross_entropy``: medians, interleaved in one process.

Run with ``python benchmarks/losses.py [--threads N] [--features D] [--rounds N] [--apart] [--compile]`` on an otherwise
idle machine. ``--apart`` gives each loss a loop of its own instead of taking turns, so caches and allocator stay warm.
"composed" is FedLAS written straight down from its formulas, one torch call after the other, as published code does.
"""

import argparse
import statistics
import time

import torch
import torch.nn.functional as F

from fedlas.losses import ACLS, FedLAS, FedLASPlus, LabelSmoothing, MbLS


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


def contestants(samples, classes, width, frozen, compiled):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(samples, classes, generator=generator, requires_grad=True)
    target = torch.randint(classes, (samples,), generator=generator)
    features = torch.randn(samples, width, generator=generator).relu()
    smoothing, mbls, acls = LabelSmoothing(), MbLS(), ACLS()
    fedlas, plus, composed = FedLAS(classes), FedLASPlus(classes), Composed(classes)
    if frozen:
        for module in (fedlas.gate, plus.gate, composed):
            module.requires_grad_(False)
    calls = {
        "F.cross_entropy": lambda: F.cross_entropy(logits, target),
        "F.cross_entropy, smoothing": lambda: F.cross_entropy(logits, target, label_smoothing=0.05),
        "ls": lambda: smoothing(logits, target),
        "mbls": lambda: mbls(logits, target),
        "acls": lambda: acls(logits, target),
        "fedlas": lambda: fedlas(logits, target, features=features),
        "fedlas+": lambda: plus(logits, target, features=features),
        "fedlas composed": lambda: composed(logits, target, features),
    }
    if compiled:
        torch._dynamo.reset()
        fast = torch.compile(fedlas, fullgraph=True)
        calls["fedlas compiled"] = lambda: fast(logits, target, features=features)
    leaves = [logits, *fedlas.parameters(), *plus.parameters(), *composed.parameters()]
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
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--features", type=int, default=512, help="width D of the features")
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--apart", action="store_true", help="a loop for each loss, instead of taking turns")
    parser.add_argument("--compile", action="store_true", help="also FedLAS compiled (needs a C++ compiler)")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print(f"torch {torch.__version__}, {args.threads} threads, features {args.features} wide; ratio to F.cross_entropy")
    for samples, classes, frozen in (
        (128, 10, False),
        (128, 100, False),
        (256, 1000, False),
        (1024, 1000, False),
        (1024, 1000, True),
    ):
        base, found = ratios(
            *contestants(samples, classes, args.features, frozen, args.compile), args.rounds, args.apart
        )
        gate = "gate frozen" if frozen else "gate trained"
        print(f"\n({samples}, {classes}), {gate}; F.cross_entropy {base * 1e6:.0f} us")
        for name, ratio in found.items():
            print(f"  {name:28} {ratio:5.1f} x")


if __name__ == "__main__":
    main()
