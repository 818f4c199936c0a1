"""`auto` with side information, simulated: ``python benchmarks/side_cases.py groups``, ``warning`` or ``drift``.

``groups``: 19 groups in the validation samples, as one-hot columns, and one that they lack. For each kind of difference
(offsets, factors, both, none) the test NLL relative to ``auto`` without groups, over eight draws.

``warning``: how often the fit warns that features are too good: honest sets, sets that the model was trained on, and
sets with the label among the features; small networks and forests.

``drift``: a column moves and the labels do not follow: NLL relative to ``auto`` without features, with the gate on the
distance over all directions alone, and with the one on each column and direction too.
"""

import sys
import warnings

import torch
from torch import nn

from fedlas import Predictions
from fedlas.calibrators import AutoCalibration
from fedlas.metrics import nll

GROUPS = 20
CLASSES = 3


def grouped(samples, seed, kind, world, *, missing=False):
    """Predictions of samples in groups whose offsets (``o``), factors (``f``), both or neither differ."""
    effects = torch.Generator().manual_seed(1000 + world)
    offsets = torch.randn(GROUPS, CLASSES, generator=effects, dtype=torch.float64)
    factors = (0.6 * torch.randn(GROUPS, generator=effects, dtype=torch.float64)).exp()
    random = torch.Generator().manual_seed(seed)
    shares = 0.8 ** torch.arange(GROUPS).double()
    group = torch.multinomial(shares, samples, replacement=True, generator=random)
    group = torch.full_like(group, GROUPS - 1) if missing else group
    logits = 2 * torch.randn(samples, CLASSES, generator=random, dtype=torch.float64)
    right = logits + offsets[group] if "o" in kind else logits
    right = right * factors[group].unsqueeze(1) if "f" in kind else right
    target = torch.multinomial(right.softmax(1), 1, generator=random)[:, 0]
    flags = nn.functional.one_hot(group, GROUPS)[:, :-1].double()
    rows = torch.ones_like(group, dtype=torch.bool) if missing else group < GROUPS - 1
    return Predictions(2 * logits[rows], target[rows], features=flags[rows])


def groups():
    for kind in ("o", "f", "of", "-"):
        for samples in (200, 800):
            changes = {"known": [], "missing": []}
            for world in range(8):
                val = grouped(samples, world, kind, world)
                fits = [AutoCalibration(features=use).fit(val) for use in (True, False)]
                for name in changes:
                    test = grouped(4000, 100 + world, kind, world, missing=name == "missing")
                    ours, theirs = (nll(fit.transform(test)) for fit in fits)
                    changes[name].append(100 * (ours / theirs - 1))
            means = ", ".join(
                f"{name} {sum(each) / 8:+.1f} % (worst {max(each):+.1f})"
                for name, each in changes.items()
            )
            print(f"{kind:<5}{samples:>5} samples: {means}", flush=True)


def warns(logits, target, features):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        AutoCalibration().fit(Predictions(logits, target, features=features))
    return any("by more than half" in str(each.message) for each in caught)


def warning(sets=80):
    counts = {"honest": [], "trained on": [], "label in features": []}
    for seed in range(sets):
        torch.manual_seed(seed)
        classes = (2, 3, 5, 10)[seed % 4]
        width = (5, 10, 20)[seed % 3]
        noise = (0.5, 1.5, 4.0)[seed // 3 % 3]
        inputs = torch.randn((100, 300, 1000)[seed // 4 % 3] + (50, 200, 500)[seed // 2 % 3], width)
        scores = (inputs @ torch.randn(width, classes)) + (inputs**2 - 1) @ torch.randn(
            width, classes
        ) / 2
        target = torch.multinomial((scores / noise).softmax(1), 1)[:, 0]
        train = slice((100, 300, 1000)[seed // 4 % 3])
        val = slice(train.stop, None)
        body = nn.Sequential(nn.Linear(width, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU())
        net = nn.Sequential(body, nn.Linear(32, classes))
        optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
        for _ in range(60):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(inputs[train]), target[train]).backward()
            optimizer.step()
        with torch.no_grad():
            for name, part in (("honest", val), ("trained on", train)):
                for features in (body(inputs[part]), inputs[part]):
                    counts[name].append(warns(net(inputs[part]), target[part], features))
            leaked = torch.cat([inputs[val], target[val].unsqueeze(1)], dim=1)
            counts["label in features"].append(warns(net(inputs[val]), target[val], leaked))
    for name, each in counts.items():
        print(f"{name}: {sum(each)} of {len(each)} fits warn")


def sensors(samples, columns, kind, seed):
    """Two classes whose log-odds depend on the first of normal or heavy-tailed columns, or on a difference."""
    random = torch.Generator().manual_seed(seed)
    features = torch.randn(samples, columns, generator=random, dtype=torch.float64)
    logits = 2 * torch.randn(samples, 2, generator=random, dtype=torch.float64)
    logits -= logits.mean(dim=1, keepdim=True)
    effect = 1.5 * features[:, 1 if kind == "pair" else 0]
    if kind == "pair":
        features[:, 1] = features[:, 0] + 0.3 * features[:, 1]
    if kind == "heavy":
        features[:, 1:] = features[:, 1:] ** 3
    probability = (logits[:, 1] - logits[:, 0] + effect).sigmoid()
    target = torch.bernoulli(probability, generator=random).long()
    return Predictions(1.5 * logits, target, features=features)


def drift():
    for kind in ("heavy", "normal", "pair"):
        for columns in (5, 20, 100):
            for samples in (500, 2000):
                val, test = sensors(samples, columns, kind, 1), sensors(2000, columns, kind, 2)
                ours = AutoCalibration().fit(val)
                alone = nll(AutoCalibration(features=False).fit(val).transform(test))
                ranges = ours.map.side.ranges
                lines = []
                for shift in (0, 2, 4, 8):
                    moved = test.features.copy()
                    moved[:, 0] += shift * val.features[:, 0].std()
                    live = Predictions(test.logits, test.target, features=moved)
                    both = []
                    for gate in (None, ranges):
                        ours.map.side.ranges = gate
                        loss = nll(ours.transform(live))
                        both.append(f"{100 * (loss / alone - 1):+.1f}")
                    lines.append(f"{shift} sd {both[0]} -> {both[1]} %")
                print(
                    f"{kind} {columns} columns, {samples} samples: {', '.join(lines)}", flush=True
                )


if __name__ == "__main__":
    {"groups": groups, "warning": warning, "drift": drift}[sys.argv[1]]()
