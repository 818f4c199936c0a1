"""Test NLL of calibrators that were fitted on few or imbalanced samples: the tables in their docstrings.

    python benchmarks/calibrators.py [--draws 100]

The logits are those of Bayes' rule for normal scores, so the given predictions, times a known factor, are right.
"""

from __future__ import annotations

import argparse
import math
import warnings

import torch
from torch.nn.functional import cross_entropy

from fedlas import Predictions
from fedlas.calibrators import DirichletCalibration, MatrixScaling, TemperatureScaling, VectorScaling
from fedlas.calibrators._fit.golden_section import golden_section
from fedlas.metrics import accuracy, negative_log_likelihood

SIZES = (20, 50, 100, 300, 1000)
IMBALANCED = ([49, 1], [97, 3], [190, 10], [40, 20, 13, 9, 6, 4, 3, 2, 2, 1], [10] * 10)


def drawn(target: torch.Tensor, distance: float, factor: float, seed: int) -> Predictions:
    """Predictions for these labels, calibrated before logits are multiplied by ``factor``."""
    random = torch.Generator().manual_seed(seed)
    share = torch.bincount(target).double() / len(target)
    scores = torch.randn(len(target), len(share), generator=random, dtype=torch.float64)
    scores[torch.arange(len(target)), target] += distance
    return Predictions(factor * (distance * scores + share.log()), target)


def few(samples: int, seed: int) -> Predictions:
    """A model of ten classes, calibrated, with 96 % accuracy."""
    random = torch.Generator().manual_seed(seed)
    target = torch.cat([torch.arange(10), torch.randint(10, (samples - 10,), generator=random)])
    scores = torch.randn(samples, 10, generator=random, dtype=torch.float64)
    scores[torch.arange(samples), target] += 3.58
    return Predictions(3.58 * scores, target)


def lowest(val: Predictions) -> float:
    """The temperature from 0.01 to 100 with the lowest NLL."""
    return math.exp(
        golden_section(
            lambda t: float(cross_entropy(val.logits / math.exp(t), val.target)), math.log(0.01), math.log(100), 1e-6
        )
    )


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=100)
    draws = parser.parse_args().draws
    warnings.simplefilter("ignore")

    test = few(20_000, 99_999)
    print(f"few samples: accuracy {accuracy(test):.3f}, test NLL {negative_log_likelihood(test):.3f}; mean (worst)")
    for name, fit in (("held", lambda val: TemperatureScaling().fit(val).temperature), ("minimum", lowest)):
        cells = []
        for samples in SIZES:
            temperatures = [fit(few(samples, seed)) for seed in range(draws)]
            losses = torch.tensor([float(cross_entropy(test.logits / t, test.target)) for t in temperatures])
            cells.append(f"{samples}: {losses.mean():.3f} ({losses.max():.3f})")
        print(f"{name:8}", "  ".join(cells), flush=True)

    print("\nimbalanced: NLL above that of temperature scaling, mean (worst)")
    for counts in IMBALANCED:
        labels, cells = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts)), []
        for kind in (VectorScaling, MatrixScaling, DirichletCalibration):
            gaps = []
            for seed in range(max(1, draws // 10)):
                val = drawn(labels, 1.3, 1.5, seed)
                test = drawn(labels.repeat(max(1, 4000 // len(labels))), 1.3, 1.5, 1000 + seed)
                ours, plain = (
                    negative_log_likelihood(c.fit(val).transform(test)) for c in (kind(), TemperatureScaling())
                )
                gaps.append(ours - plain)
            cells.append(f"{kind.__name__} {sum(gaps) / len(gaps):+.3f} ({max(gaps):+.3f})")
        print(counts, "  ".join(cells), flush=True)


if __name__ == "__main__":
    main()
