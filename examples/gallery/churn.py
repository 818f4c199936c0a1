"""
Which customers will leave?
===========================

Three percent do. The forest was fitted with classes of equal weight, so its probabilities are several times too high.
A calibration fitted on 5,000 labeled customers makes them match what happens.
"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.ensemble import RandomForestClassifier

import fedlas
from fedlas.plots import positive_reliability_diagram

random = np.random.default_rng(0)
x = random.normal(size=(20_000, 8))
chance = 1 / (1 + np.exp(5 - 1.2 * x[:, 0] - x[:, 1] * x[:, 2] - 0.8 * (x[:, 3] > 1)))
leaves = (random.random(20_000) < chance).astype(int)
model = RandomForestClassifier(class_weight="balanced", min_samples_leaf=20, random_state=0)
model.fit(x[:5000], leaves[:5000])


def table(rows):
    """Return the scores of customers as a program would log them."""
    p_no, p_yes = model.predict_proba(x[rows]).T
    return pd.DataFrame({"p_no": p_no, "p_yes": p_yes, "leaves": leaves[rows]})


# %%
# Fit on labeled rows, apply to any others; two columns are added.

calibration = fedlas.calibrate(table(slice(5000, 10_000)), probs="p_*", target="leaves")
after = calibration.apply(table(slice(10_000, 20_000)))

# %%
# Each point holds a tenth of the customers.

_, axes = plt.subplots(1, 2, figsize=(9, 5.5), layout="constrained")
for ax, prefix, title in zip(axes, ["", "calibrated_"], ["before", "after"], strict=True):
    scores = fedlas.Predictions.from_frame(after, probs=prefix + "p_*", target="leaves")
    positive_reliability_diagram(scores, ax=ax, title=title)
    print(f"{title}: {fedlas.report(scores).verdict[0]}")
plt.show()
