"""Auto as a calibrator with fit(probs, labels) and predict_proba(probs), as benchmarks such as CalArena take one.

python examples/custom_calibrators.py
"""

import numpy as np

import fedlas
from fedlas import Predictions
from fedlas.calibrators import AutoCalibration


class Auto:
    """The mixture of fedlas; ``probs (N, C)`` and ``labels (N,)`` are arrays."""

    def fit(self, probs, labels):
        """Fit on held-out predictions."""
        self.calibrator = AutoCalibration().fit(Predictions.from_probs(np.asarray(probs), np.asarray(labels)))
        return self

    def predict_proba(self, probs):
        """Calibrated probabilities ``(N, C)``."""
        return self.calibrator.transform(Predictions.from_probs(np.asarray(probs), None)).probs


if __name__ == "__main__":
    random = np.random.default_rng(0)
    true = random.dirichlet([1, 1, 1], 4000)
    labels = np.array([random.choice(3, p=row) for row in true])
    sure = true**3 / (true**3).sum(axis=1, keepdims=True)
    after = Auto().fit(sure[:2000], labels[:2000]).predict_proba(sure[2000:])
    for when, probs in (("before", sure[2000:]), ("after", after)):
        found = fedlas.evaluate(Predictions.from_probs(probs, labels[2000:]))
        print(f"{when}: accuracy {found['accuracy']:.4f}  ECE {found['ece']:.4f}")
